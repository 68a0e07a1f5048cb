"""This file computes a fixed, weight-free bank of 3-D features at voxel resolution, ready for cosine similarity.

Its words: a *channel* is one measurement of a voxel, in physical units that mean the same in every volume; *lifting*
spreads a channel over soft bins, so that the cosine of two voxels falls with the difference of their values. Without it
cosine would compare directions only, and the signal of a vessel is magnitude: k-means and STEGO then fail.

All lengths are in mm. Nothing is normalised by the box or by the volume's maximum, and each box reads its own halo, so
any tiling gives the features of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from medseg.files import hash_content

Box = tuple[slice, slice, slice]
Volume = Float[np.ndarray, "i j k"]

TRUNCATE = 3.0
"""sd at which Gaussians are cut; it makes the halo finite."""
LARGEST_SIGMA_MM = 2.5
"""Widest Gaussian of the bank, the radius of the largest vessels; the halo is made for it."""
SALIENCE_KNEE = 0.15
"""q at which salience turns from linear to logarithmic: half of where vessels begin, so that bins are fine there."""
TISSUE_CLIP = 1.5
"""Tissue medians at which the surroundings are cut, so that a vessel hardly lifts its own background."""
LOG_OFFSET = 0.2
"""Tissue medians added before the logarithm: the noise of air, below which differences mean nothing."""
LEAST_SALIENCE = 0.02
"""q added where tubularity is averaged by salience: far from anything salient the average goes to 0."""


@dataclass(frozen=True)
class Surroundings:
    """The maps of a box with its halo, which channels are computed from.

    Attributes:
        image: j in tissue medians.
        salience: q of the flux rule.
        tubularity: oriented flux over contrast.
        contrast_scale: C, the contrast of the volume's large vessels, in tissue medians.
        spacing: voxel size in mm.
    """

    image: Volume
    salience: Volume
    tubularity: Volume
    contrast_scale: float
    spacing: tuple[float, float, float]

    def smoothed(self, values: Volume, sigma_mm: float) -> Volume:
        """Gaussian within the halo; beyond the volume it is mirrored."""
        return gaussian_filter(values, [sigma_mm / h for h in self.spacing], truncate=TRUNCATE)


def _brightness(s: Surroundings) -> Volume:
    return np.log(np.maximum(s.image, 0) + LOG_OFFSET)


def _enhancement(s: Surroundings) -> Volume:
    return (s.image - 1) / s.contrast_scale


def _coarse_contrast(s: Surroundings) -> Volume:
    surroundings = s.smoothed(np.minimum(s.image, TISSUE_CLIP), LARGEST_SIGMA_MM)
    return (s.smoothed(s.image, 0.4) - surroundings) / s.contrast_scale


def _fine_contrast(s: Surroundings) -> Volume:
    return (s.smoothed(s.image, 0.3) - s.smoothed(s.image, 1.2)) / s.contrast_scale


def _salience(s: Surroundings) -> Volume:
    return np.arcsinh(s.salience / SALIENCE_KNEE)


def _smooth_salience(s: Surroundings) -> Volume:
    return np.arcsinh(s.smoothed(s.salience, 0.5) / SALIENCE_KNEE)


def _tubularity(s: Surroundings) -> Volume:
    return s.smoothed(s.tubularity * s.salience, 1.0) / (s.smoothed(s.salience, 1.0) + LEAST_SALIENCE)


@dataclass(frozen=True)
class Channel:
    """One measurement and its soft bins.

    Attributes:
        measure: from the surroundings to the channel's value.
        first: centre of the first bin, in the channel's unit; values below it count as this.
        last: centre of the last bin; values above it count as this.
        bins: how many, evenly spaced.
    """

    measure: Callable[[Surroundings], Volume]
    first: float
    last: float
    bins: int


CHANNELS: Mapping[str, Channel] = {
    "brightness": Channel(_brightness, -1.2, 1.8, 7),  # log of tissue medians: air to bright vessel
    "enhancement": Channel(_enhancement, -0.2, 1.0, 7),  # rise over tissue, shares of C
    "coarse_contrast": Channel(_coarse_contrast, 0.0, 0.8, 7),  # .4 against 2.5 mm, shares of C
    "fine_contrast": Channel(_fine_contrast, -0.1, 0.5, 6),  # .3 against 1.2 mm, shares of C
    "salience": Channel(_salience, 0.0, 2.5, 8),  # asinh(q / .15): q from 0 to .9
    "smooth_salience": Channel(_smooth_salience, 0.0, 2.5, 8),
    "tubularity": Channel(_tubularity, 0.0, 0.5, 6),  # averaged by salience over 1 mm
}


class FilterBank:
    """The bank as a volume backbone: every feature has norm 1, every channel the same share of it.

    Two voxels that agree in all channels have cosine 1; each channel in which they are more than three bins apart takes
    its whole share away. No constant channel is needed: the bins of a channel have the same norm in every voxel.

    Args:
        channels: what to measure.
    """

    name = "filter_bank"

    def __init__(self, channels: Mapping[str, Channel] = CHANNELS) -> None:
        self.channels = dict(channels)
        self.dim = sum(channel.bins for channel in self.channels.values())
        settings = {name: (channel.first, channel.last, channel.bins) for name, channel in self.channels.items()}
        self.fingerprint = hash_content([self.name, _VERSION, settings])

    def features_of_box(self, sample: Mapping[str, Any], box: Box) -> Float[Tensor, "d i j k"]:
        """Features of one box of a prepared sample.

        Args:
            sample: `image`, `salience`, `tubularity` as `1 i j k`, the image with its affine, and
                `facts["contrast_scale"]`.
            box: slices along i, j, k.
        """
        surroundings, inner = _surroundings(sample, box)
        shape = [part.stop - part.start for part in inner]
        features = np.empty((self.dim, *shape), np.float32)
        start = 0
        for channel in self.channels.values():
            bins = features[start : start + channel.bins]
            _lift(channel.measure(surroundings)[inner], channel, out=bins)
            bins /= np.sqrt(len(self.channels))
            start += channel.bins
        return torch.from_numpy(features)


_VERSION = 1  # to be raised with every change of the measurements, so that stored features are computed anew


def _surroundings(sample: Mapping[str, Any], box: Box) -> tuple[Surroundings, Box]:
    """The maps of a box with its halo, and where the box lies in them."""
    affine = np.asarray(sample["image"].affine, dtype=np.float64)
    spacing = [float(h) for h in np.linalg.norm(affine[:3, :3], axis=0)]
    outer, inner = [], []
    for part, length, h in zip(box, sample["image"].shape[1:], spacing, strict=True):
        first, last, _ = part.indices(length)
        halo = int(TRUNCATE * LARGEST_SIGMA_MM / h + 0.5)
        start = max(0, first - halo)
        outer.append(slice(start, min(length, last + halo)))
        inner.append(slice(first - start, max(first, last) - start))
    image, salience, tubularity = (
        np.asarray(sample[key][(0, *outer)], dtype=np.float32) for key in ("image", "salience", "tubularity")
    )
    contrast_scale = max(float(sample["facts"]["contrast_scale"]), 1e-3)  # it is 0 in a constant volume
    surroundings = Surroundings(image, salience, tubularity, contrast_scale, (spacing[0], spacing[1], spacing[2]))
    return surroundings, (inner[0], inner[1], inner[2])


def _lift(values: Volume, channel: Channel, *, out: Float[np.ndarray, "d i j k"]) -> None:
    """Write Gaussian bins, as wide as they lie apart, scaled to norm 1 in every voxel."""
    centres = np.linspace(channel.first, channel.last, channel.bins)
    place = (np.clip(values, channel.first, channel.last) - channel.first) / (centres[1] - centres[0])
    for n in range(channel.bins):
        np.exp(-0.5 * (place - n) ** 2, out=out[n])
    out /= np.sqrt(np.square(out).sum(0))
