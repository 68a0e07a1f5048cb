"""This file makes what the student learns from: windows cut from volumes, painted into, and shown through a view.

A *window* is a cube of voxels. Where it sticks out of a small volume the image is continued by its faces and nothing is
known. Every random number comes from one generator, so an item of a batch is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from medseg.features.student.vessels.network import network_inputs
from medseg.features.student.vessels.painting import paint
from medseg.features.student.vessels.views import draw_view, show, turn
from medseg.features.student.vessels.volumes import StudentVolume
from medseg.features.teachers.vessels import UNKNOWN

Corner = tuple[int, int, int]


class Windows(NamedTuple):
    """A batch of windows.

    Attributes:
        inputs: what the network is shown.
        labels: 0, 1 or 2 (unknown).
        weight: of each voxel in the loss; 0 where the label is unknown.
    """

    inputs: Float32[Tensor, "b 2 i j k"]
    labels: UInt8[Tensor, "b i j k"]
    weight: Float32[Tensor, "b i j k"]


def draw_windows(
    volumes: Sequence[StudentVolume],
    seeds: Sequence[Sequence[int]],
    *,
    window: int,
    centred: float,
    painted: float,
) -> Windows:
    """Draw one window for each seed.

    Args:
        volumes: each is as likely as any other.
        seeds: of the items.
        window: side in voxels.
        centred: share of windows around a positive; the others lie anywhere in the region.
        painted: share of windows with painted vessels.
    """
    items = [_draw(np.random.default_rng(list(seed)), volumes, window, centred, painted) for seed in seeds]
    return Windows(*(torch.stack(parts) for parts in zip(*items, strict=True)))


def draw_corner(rng: np.random.Generator, volume: StudentVolume, window: int, centred: float) -> Corner:
    """The first voxel of a window; it lies inside the volume as far as the volume is large enough.

    The middle is up to a quarter of a window from the voxel that it was drawn for.
    """
    around = volume.positives if rng.random() < centred and len(volume.positives) else volume.uniform_points
    middle = np.unravel_index(around[rng.integers(len(around))], volume.shape)
    jitter = rng.integers(-window // 4, window // 4 + 1, size=3)
    corner = [
        int(np.clip(m + d - window // 2, 0, length - window)) if length >= window else (length - window) // 2
        for m, d, length in zip(middle, jitter, volume.shape, strict=True)
    ]
    return corner[0], corner[1], corner[2]


def cut_window(
    volume: StudentVolume, corner: Corner, window: int
) -> tuple[Float32[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Image and labels of a window, whose corner may lie outside the volume."""
    inside, padding = [], []
    for first, length in zip(corner, volume.shape, strict=True):
        start, stop = max(first, 0), min(first + window, length)
        inside.append(slice(start, stop))
        padding.append((start - first, first + window - stop))
    image = volume.image[tuple(inside)].astype(np.float32)
    labels = np.array(volume.labels[tuple(inside)])
    return np.pad(image, padding, mode="edge"), np.pad(labels, padding, constant_values=UNKNOWN)


def _draw(
    rng: np.random.Generator, volumes: Sequence[StudentVolume], window: int, centred: float, painted: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels and weight of one item."""
    volume = volumes[int(rng.integers(len(volumes)))]
    image, labels = cut_window(volume, draw_corner(rng, volume, window, centred), window)
    weight = np.ones(image.shape, np.float32)
    if rng.random() < painted:
        drawn = paint(
            rng, image, labels, volume.spacing, contrast_scale=volume.contrast_scale, noise_sd=volume.noise_sd
        )
        image, labels, weight = drawn.image, drawn.labels, drawn.weight
    view = draw_view(rng, volume.spacing)
    weight = np.where(labels == UNKNOWN, np.float32(0), weight)
    image, labels, weight = (turn(view, array) for array in (show(view, image, rng), labels, weight))
    shown = network_inputs(torch.from_numpy(image), volume.contrast_scale * view.contrast_scale_factor)
    return shown, torch.from_numpy(labels), torch.from_numpy(weight)
