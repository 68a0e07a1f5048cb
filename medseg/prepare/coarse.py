"""This file does morphology on coarse grids: heads and bodies are found on blocks of about 2 mm.

Its words: *coarse* arrays are block means; *depth* is the distance (mm) to the nearest voxel outside. The end faces of
a volume are no border: a slab cuts the head open above and below. `spacing` is the voxel size in mm along i, j, k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch.nn import functional

Spacing = Sequence[float]
Coarse = np.ndarray

COARSE_MM = 2.0
"""Voxel size for morphology: half the thinnest layer that counts, the 4 mm or so of fluid and bone around the brain."""


def coarsening(spacing: Spacing) -> tuple[list[int], list[float]]:
    """Voxels per coarse block along each axis, and the coarse spacing."""
    factors = [max(1, round(COARSE_MM / size)) for size in spacing]
    return factors, [size * factor for size, factor in zip(spacing, factors, strict=True)]


def block_means(image: np.ndarray, factors: Sequence[int]) -> Coarse:
    """Block means; a last block that is not full is filled up with its edge."""
    if any(length % factor for length, factor in zip(image.shape, factors, strict=True)):
        image = np.pad(
            image, [(0, -length % factor) for length, factor in zip(image.shape, factors, strict=True)], "edge"
        )
    blocks = [part for length, factor in zip(image.shape, factors, strict=True) for part in (length // factor, factor)]
    return image.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)


def spread_blocks(coarse: Coarse, factors: Sequence[int], shape: Sequence[int]) -> Float[np.ndarray, "i j k"]:
    """Inverse of `block_means` up to smoothness: linear interpolation between block centres."""
    full = [length * factor for length, factor in zip(coarse.shape, factors, strict=True)]
    values = torch.from_numpy(np.ascontiguousarray(coarse))[None, None]
    values = functional.interpolate(values, full, mode="trilinear", align_corners=False)
    return values[0, 0, : shape[0], : shape[1], : shape[2]].numpy()


def depth_in(mask: Coarse, spacing: Spacing) -> Coarse:
    """Distance (mm) to the nearest voxel outside; the faces of the volume are no border."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return ndimage.distance_transform_edt(mask, sampling=spacing).astype(np.float32)


def dilated(mask: Coarse, radius_mm: float, spacing: Spacing) -> Coarse:
    """The mask and what lies within a distance of it."""
    return depth_in(~mask, spacing) <= radius_mm


def closed(mask: Coarse, radius_mm: float, spacing: Spacing) -> Coarse:
    """Close gaps up to twice the radius, as if the end slices went on beyond the volume."""
    margins = [int(np.ceil(radius_mm / size)) for size in spacing]
    padded = np.pad(mask, [(margin, margin) for margin in margins], "edge")
    inside = depth_in(dilated(padded, radius_mm, spacing), spacing) > radius_mm
    return inside[tuple(slice(margin, -margin) for margin in margins)]


def opened(mask: Coarse, radius_mm: float, spacing: Spacing) -> Coarse:
    """What of the mask a ball of the radius reaches from within; thinner parts are gone."""
    return dilated(depth_in(mask, spacing) > radius_mm, radius_mm, spacing)


def largest_piece(mask: Coarse) -> Coarse:
    """The largest piece of the mask."""
    pieces, count = ndimage.label(mask)
    return pieces == 1 + np.argmax(np.bincount(pieces.reshape(-1))[1:]) if count else mask


def large_pieces(mask: Coarse, share: float) -> Coarse:
    """The pieces of at least a share of the largest one's size."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    return (sizes >= max(share * sizes.max(), 1))[pieces] if count else mask


def filled_slices(mask: Coarse) -> Coarse:
    """Fill the holes of every axial slice; a head that is cut above and below has none in 3-D."""
    return np.stack([ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2)
