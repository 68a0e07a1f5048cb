"""This file computes a fixed, weight-free bank of 3-D features at voxel resolution, ready for cosine similarity.

Its words: a *channel* is one measurement of a voxel, in physical units that mean the same in every volume; *lifting*
spreads a channel over soft bins, so that the cosine of two voxels falls with the difference of their values. Without it
cosine would compare directions only, and the signal of a vessel is magnitude.

All lengths are in mm. Nothing is normalised by the box or by the volume's maximum, and each box reads its own halo, so
any tiling gives the features of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from medseg.files import hash_content

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Lift:
    """Soft bins of one channel.

    Attributes:
        centres: of the bins, ascending and evenly spaced, in the channel's unit; values beyond the ends count as the end.
        weight: share of the channel in the squared norm of a feature.
    """

    centres: tuple[float, ...]
    weight: float


def even(first: float, last: float, bins: int, weight: float) -> Lift:
    """Evenly spaced bins."""
    return Lift(tuple(np.linspace(first, last, bins).tolist()), weight)


@dataclass(frozen=True)
class Surroundings:
    """What the channels are computed from: maps of a box with its halo.

    Attributes:
        image: j in tissue medians.
        salience: q of the flux rule.
        tubularity: oriented flux over contrast.
        contrast_scale: C, the contrast of the volume's large vessels, in tissue medians.
        spacing: voxel size in mm.
    """

    image: Float[np.ndarray, "i j k"]
    salience: Float[np.ndarray, "i j k"]
    tubularity: Float[np.ndarray, "i j k"]
    contrast_scale: float
    spacing: tuple[float, float, float]

    def smoothed(self, values: Float[np.ndarray, "i j k"], sigma_mm: float) -> Float[np.ndarray, "i j k"]:
        """Gaussian with the support of the halo."""
        return gaussian_filter(values, [sigma_mm / h for h in self.spacing], truncate=TRUNCATE)

    def compressed(self, salience: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
        """asinh(q / .15): linear below the core's threshold, logarithmic in bright vessels."""
        return np.arcsinh(salience / SALIENCE_KNEE)


TRUNCATE = 3.0
"""sd at which Gaussians are cut."""
SALIENCE_KNEE = 0.15
"""q at which salience turns from linear to logarithmic: half of where vessels begin."""
LARGEST_SIGMA_MM = 2.5
"""Widest Gaussian: the largest vessel radius, and what the halo is made for."""

CHANNELS: Mapping[str, Callable[[Surroundings], Float[np.ndarray, "i j k"]]] = {
    "brightness": lambda s: np.log(s.image + 0.2),
    "smooth_brightness": lambda s: np.log(s.smoothed(s.image, 0.7) + 0.2),
    "enhancement": lambda s: 2 * np.minimum((s.image - 1) / s.contrast_scale, 2),
    "smooth_enhancement": lambda s: 2 * np.minimum((s.smoothed(s.image, 0.5) - 1) / s.contrast_scale, 2),
    "local_contrast": lambda s: (s.smoothed(s.image, 0.4) - s.smoothed(np.minimum(s.image, 1.5), 2.5)) / s.contrast_scale,
    "fine_contrast": lambda s: (s.smoothed(s.image, 0.3) - s.smoothed(s.image, 1.2)) / s.contrast_scale,
    "salience": lambda s: s.compressed(s.salience),
    "smooth_salience": lambda s: s.compressed(s.smoothed(s.salience, 0.5)),
    "tubularity": lambda s: s.tubularity,
    "smooth_tubularity": lambda s: s.smoothed(s.tubularity * s.salience, 1.0) / (s.smoothed(s.salience, 1.0) + 0.02),
}
LIFT: Mapping[str, Lift] = {
    "brightness": even(-1.2, 1.8, 7, 0.5),
    "enhancement": even(-0.4, 2.0, 7, 0.5),
    "local_contrast": even(0, 0.8, 7, 0.5),
    "salience": even(0, 2.5, 8, 1.5),
    "smooth_salience": even(0, 2.5, 8, 1.0),
    "smooth_tubularity": even(0, 0.5, 6, 0.5),
}
CONSTANT_WEIGHT = 0.0


class FilterBank:
    """The bank as a volume backbone.

    Args:
        lift: bins and weights of the channels to use, by their names in `CHANNELS`.
        constant: weight of a constant channel, which raises every cosine.
    """

    name = "filter_bank"

    def __init__(self, lift: Mapping[str, Lift] = LIFT, constant: float = CONSTANT_WEIGHT) -> None:
        self.lift = dict(lift)
        self.constant = constant
        self.dim = sum(len(bins.centres) for bins in self.lift.values()) + (constant > 0)
        self.fingerprint = hash_content([self.name, 1, {k: asdict(v) for k, v in self.lift.items()}, constant])

    def features_of_box(self, sample: Mapping[str, Any], box: Box) -> Float[Tensor, "d i j k"]:
        """Lifted features of one box of a prepared sample; every vector has norm 1."""
        shape = sample["image"].shape[1:]
        ranges = [range(*part.indices(length)) for part, length in zip(box, shape, strict=True)]
        surroundings, inner = _surroundings(sample, ranges)
        features = np.empty((self.dim, *(len(part) for part in ranges)), np.float32)
        total = sum(bins.weight for bins in self.lift.values()) + self.constant
        start = 0
        for channel, bins in self.lift.items():
            stop = start + len(bins.centres)
            lift(CHANNELS[channel](surroundings)[inner], bins, total, out=features[start:stop])
            start = stop
        features[start:] = np.sqrt(self.constant / total)
        return torch.from_numpy(features)


def _surroundings(sample: Mapping[str, Any], ranges: Sequence[range]) -> tuple[Surroundings, Box]:
    """The maps of a box with its halo, and where the box lies in them."""
    affine = np.asarray(sample["image"].affine, dtype=np.float64)
    spacing = tuple(float(h) for h in np.linalg.norm(affine[:3, :3], axis=0))
    outer, inner = [], []
    for part, length, h in zip(ranges, sample["image"].shape[1:], spacing, strict=True):
        halo = int(TRUNCATE * LARGEST_SIGMA_MM / h + 0.5)
        first = max(0, part.start - halo)
        outer.append(slice(first, min(length, part.stop + halo)))
        inner.append(slice(part.start - first, part.stop - first))
    maps = (np.asarray(sample[key][(0, *outer)], dtype=np.float32) for key in ("image", "salience", "tubularity"))
    contrast_scale = max(float(sample["facts"]["contrast_scale"]), 1e-3)
    return Surroundings(*maps, contrast_scale, spacing), (inner[0], inner[1], inner[2])


def lift(values: Float[np.ndarray, "i j k"], bins: Lift, total: float, *, out: np.ndarray) -> None:
    """Write Gaussian bins of one channel; their squares sum to weight / total in every voxel."""
    centres = np.asarray(bins.centres, np.float32)
    step = centres[1] - centres[0]
    place = np.clip(values, centres[0], centres[-1]).astype(np.float32)
    for n, centre in enumerate(centres):
        np.exp(-0.5 * ((place - centre) / step) ** 2, out=out[n])
    out *= np.sqrt(bins.weight / total) / np.sqrt((out * out).sum(0))
