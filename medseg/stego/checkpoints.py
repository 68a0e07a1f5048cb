"""This file says what of a STEGO training goes into its checkpoints, and what a training may begin with.

*Weights* are the state dictionaries `head`, `probes` and `decoder` (None without a reconstruction loss); `last.pt` also
holds the optimiser's and can be gone on from, the `step_NNNNNN.pt` beside it are kept for choosing among them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights
from medseg.stego.settings import StegoSettings
from medseg.stego.step import Parts

_log = logging.getLogger(__name__)


def what_changes_a_step(settings: StegoSettings) -> dict[str, Any]:
    """Everything that changes a step: a longer training, other reports or another clustering may go on from it."""
    free = {"steps", "epochs", "checkpoint_every", "log_every", "picture_every", "keep_every", "workers", "cluster_fit"}
    free |= {"cluster_alpha", "code_metric", "feature_metric", "kmeans_starts", "fit_points", "fit_salient_share"}
    if settings.projection != "pyramid":
        free.add("granularity")
    return {name: value for name, value in dataclasses.asdict(settings).items() if name not in free}


def weights(parts: Parts) -> dict[str, Any]:
    """What a training has learnt so far."""
    decoder = None if parts.decoder is None else parts.decoder.state_dict()
    return {"head": parts.head.state_dict(), "probes": parts.probes.state_dict(), "decoder": decoder}


def restore(parts: Parts, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights back."""
    parts.head.load_state_dict(state["head"])
    parts.probes.load_state_dict(state["probes"])
    if parts.decoder is not None:
        parts.decoder.load_state_dict(state["decoder"])
    optimiser.load_state_dict(state["optimiser"])


def begin_with(parts: Parts, initial: Mapping[str, Any]) -> None:
    """Put given weights in the place of the drawn ones, before the first step.

    Head and prototypes must fit. The linear probe is taken where it has as many classes as the labels, the decoder
    where one was given: neither changes a mask.

    Raises:
        MedsegError: head or prototypes do not fit the settings.
    """
    _fill(parts.head, initial["head"], "stego.code_dim, stego.projection and features.backbone")
    probes, own = dict(initial["probes"]), parts.probes.state_dict()
    if any(name in own and not _fits(own[name], probes.get(name)) for name in ("linear.weight", "linear.bias")):
        _log.info("the linear probe begins anew: stego.start has none for as many classes as the labels")
        probes |= {name: value for name, value in own.items() if name.startswith("linear.")}
    _fill(
        parts.probes, {name: probes[name] for name in own if name in probes}, "stego.clusters and stego.extra_clusters"
    )
    if parts.decoder is not None:
        if initial.get("decoder") is None:
            _log.info("the decoder begins anew: stego.start has none")
        else:
            _fill(parts.decoder, initial["decoder"], "stego.code_dim and features.backbone")


def hash_initial(initial: Mapping[str, Any]) -> str:
    """Hash of the weights that a training begins with."""
    return hash_weights({f"{part}.{name}": value for part in initial for name, value in (initial[part] or {}).items()})


def _fill(module: nn.Module, given: Mapping[str, Tensor], keys: str) -> None:
    own = module.state_dict()
    for name in [*own, *given]:
        if not (name in own and _fits(own[name], given.get(name))):
            there, wanted = (str(list(d[name].shape)) if name in d else "none" for d in (given, own))
            raise MedsegError(
                f"weights of stego.start must fit this run, got {name} {there} where {wanted} is needed; "
                f"set {keys} as they were there"
            )
    module.load_state_dict(dict(given))


def _fits(own: Tensor, given: Tensor | None) -> bool:
    return given is not None and own.shape == given.shape
