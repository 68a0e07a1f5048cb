"""This file writes and reads the training checkpoint: weights, optimiser, step, and what was measured before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.errors import MedsegError
from medseg.files import replacing
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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it."""
    with replacing(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """Read the checkpoint of the run `key`; None where there is none yet.

    Raises:
        MedsegError: the file is broken, holds anything but tensors and plain values, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise MedsegError(
            f"{path} must be a checkpoint of this program, got {str(error).splitlines()[0]}; remove it"
        ) from error
    if not isinstance(state, dict) or state.get("key") != key:
        raise MedsegError(
            f"{path} must be a checkpoint of the same settings, seed, backbone and patches, got another one's; "
            "choose another run folder or remove it"
        )
    return state
