"""This file says what a probe is: a label-free prior and a small head on frozen features, whose answers are multiplied.

    odds(class : background) = prior odds ^ weight  x  odds by the head

A head that was taught nothing says that all classes are equally likely, and leaves the prior as it is. There are two
kinds: `linear`, a 1 x 1 convolution, on any features (stored as `medseg.stego.model.LinearModel`), and `volume`, two
3 x 3 x 3 convolutions on features of volumes and the prior. `probe.json` beside the head holds the rest, the *card*.
*Log-odds* are of each class against background, a channel a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.prepare.vesselness import scratch_array

HeadName = Literal["linear", "volume"]

PRIOR_LIMIT = 4.0
"""Log-odds at which a prior is cut: a probability of .98, so that labels can still say otherwise."""
MASK_SIDE = 1.0
"""Least log-odds that a prior has on the side of the label-free mask: .73 inside, .27 outside."""
LEAST_PROBABILITY = 1e-7
"""Below which a probability has no logarithm in float32 arithmetic."""
_FORMAT = "medseg-probe/1"
_CARD = "probe.json"


@dataclass(frozen=True)
class ProbeCard:
    """What belongs to a head.

    Attributes:
        head: its kind.
        prior_weight: power to which the prior's odds are taken, 0 or more.
        prior: section `reconstruct` of the config by which the prior is made.
        taught: SHA-256 of the labelled scans by case.
        loss: by which it was taught.
        seconds: that teaching took.
    """

    head: HeadName
    prior_weight: float
    prior: Mapping[str, Any]
    taught: Mapping[str, str]
    loss: str
    seconds: float

    def write(self, folder: Path) -> None:
        """Write it beside the head."""
        write_json(folder / _CARD, {"format": _FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> ProbeCard:
        """Read the card of a probe.

        Raises:
            MedsegError: there is none, or it is damaged.
        """
        keys = tuple(cls.__dataclass_fields__)
        content = read_record(folder / _CARD, "format", *keys, advice="teach the probe again")
        if content["format"] != _FORMAT or content["head"] not in ("linear", "volume"):
            raise MedsegError(f"{folder / _CARD} must be a {_FORMAT} file, got another; teach the probe again")
        return cls(**{key: content[key] for key in keys})


def log_odds(shares: Float[np.ndarray, "c i j k"]) -> Float[np.ndarray, "c i j k"]:
    """Log-odds of probabilities of classes; background has what they lack to 1."""
    found = scratch_array(shares.shape)
    for n in range(shares.shape[1]):
        plane = np.asarray(shares[:, n], dtype=np.float32)
        background = np.log(np.maximum(1 - plane.sum(0), LEAST_PROBABILITY))
        found[:, n] = np.log(np.maximum(plane, LEAST_PROBABILITY)) - background
    return found


def mask_prior(
    odds: Float[np.ndarray, "c i j k"], mask: Bool[np.ndarray, "c i j k"] | None
) -> Float[np.ndarray, "c i j k"]:
    """Log-odds cut to what labels can outweigh, and brought to the side on which the label-free mask has each voxel.

    Args:
        odds: changed in place.
        mask: of each class, after refinement; None where the probability is all there is.
    """
    np.clip(odds, -PRIOR_LIMIT, PRIOR_LIMIT, out=odds)
    if mask is not None:
        for values, inside in zip(odds, mask, strict=True):
            values[inside] = np.maximum(values[inside], MASK_SIDE)
            values[~inside] = np.minimum(values[~inside], -MASK_SIDE)
    return odds


def joined(
    prior: Float[np.ndarray, "c i j k"], head: Float[np.ndarray, "c i j k"], prior_weight: float
) -> Float[np.ndarray, "c i j k"]:
    """Probability of each class by prior and head, from their log-odds; what `head` holds is overwritten."""
    for n in range(prior.shape[1]):
        logits = prior_weight * prior[:, n] + head[:, n]
        highest = np.maximum(logits.max(0), 0)
        shares = np.exp(logits - highest)
        head[:, n] = shares / (shares.sum(0) + np.exp(-highest))
    return head
