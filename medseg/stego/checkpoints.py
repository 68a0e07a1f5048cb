"""This file says what of a STEGO training goes into its checkpoint, and which settings a checkpoint is bound to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from medseg.stego.settings import StegoSettings
from medseg.stego.step import Parts


def what_changes_a_step(settings: StegoSettings) -> dict[str, Any]:
    """Everything that changes a step: a longer training, other reports or another clustering may go on from it."""
    free = {"steps", "epochs", "checkpoint_every", "log_every", "picture_every", "workers", "cluster_fit"}
    free |= {"cluster_alpha", "code_metric", "feature_metric", "kmeans_starts", "fit_points", "fit_salient_share"}
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in free}


def weights(parts: Parts, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The part of a checkpoint that training changes."""
    decoder = None if parts.decoder is None else parts.decoder.state_dict()
    return {
        "head": parts.head.state_dict(),
        "probes": parts.probes.state_dict(),
        "decoder": decoder,
        "optimiser": optimiser.state_dict(),
    }


def restore(parts: Parts, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights back."""
    parts.head.load_state_dict(state["head"])
    parts.probes.load_state_dict(state["probes"])
    if parts.decoder is not None:
        parts.decoder.load_state_dict(state["decoder"])
    optimiser.load_state_dict(state["optimiser"])
