"""This file draws tubes into a volume with partial volume: each voxel knows which part of it a tube fills.

Words: *coverage* is the share of a voxel inside the tubes, *flow* the same weighted with the speed profile across the
tube. Positions are in mm with voxel (0, 0, 0) centred at `origin_mm` and the grid along the axes of the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from medseg.phantoms.trees import Branch

_SUBSAMPLES, _MANY_SUBSAMPLES = 3, 5
"""Samples along one side of a voxel, and of a side over `_LONG_MM`; odd, so that one is the centre of the voxel."""
_LONG_MM = 1.2
"""Where three samples a side would lie further apart than the radius of a thin artery."""
_PIECE_POINTS = 16
_PIECE_OVERLAP = 3
_FAR_MM = 1e3


def draw_tubes(
    branches: Iterable[Branch],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    origin_mm: Float[np.ndarray, " 3"],
    *,
    laminar: float = 0.0,
    power: float = 2.0,
    strengths: Sequence[float] | None = None,
) -> tuple[Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """Draw the branches, each voxel sampled at 27 places or more with a soft edge between them.

    Args:
        branches: the tubes.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        origin_mm: where the centre of voxel (0, 0, 0) lies.
        laminar: by how much the profile falls from the axis (1) to the wall (1 - laminar).
        power: of the distance from the axis that the profile falls with; 2 is laminar flow, more is blunter.
        strengths: by which the flow of each branch is multiplied; None for 1.

    Returns:
        Coverage in 0-1, flow in 0-1, and the voxels whose centre is inside a tube or that are filled by more than half.
    """
    coverage = np.zeros(shape, np.float32)
    flow = np.zeros(shape, np.float32)
    inside = np.zeros(shape, bool)
    samples = np.array([_MANY_SUBSAMPLES if size > _LONG_MM else _SUBSAMPLES for size in spacing])
    fine = np.asarray(spacing) / samples
    softness = float(fine.mean())
    branches = tuple(branches)
    for points, radii, strength in _pieces(branches, strengths or [1.0] * len(branches)):
        reach = radii.max() + softness
        low = np.maximum(np.floor((points.min(0) - reach - origin_mm) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((points.max(0) + reach - origin_mm) / spacing).astype(int) + 1, shape)
        if np.any(low >= high):
            continue
        corner = origin_mm + low * np.asarray(spacing) - fine * (samples // 2)
        signed = _signed_distance(points, radii, (high - low) * samples, fine, corner, reach)
        filled = np.clip(0.5 - signed / softness, 0, 1)
        across = np.clip(1 + signed / radii.mean(), 0, 1)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        share = _block_mean(filled, samples)
        middle = signed[tuple(slice(n // 2, None, n) for n in samples)]
        coverage[box] = np.maximum(coverage[box], share)
        flow[box] = np.maximum(flow[box], strength * _block_mean(filled * (1 - laminar * across**power), samples))
        inside[box] |= (middle < 0) | (share > 0.5)
    return coverage, flow, inside


def _pieces(branches: Sequence[Branch], strengths: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Short pieces of branches; they overlap, so that a cut leaves no dent in the tube."""
    for branch, strength in zip(branches, strengths, strict=True):
        for start in range(0, len(branch.points_mm) - 1, _PIECE_POINTS):
            part = slice(max(start - _PIECE_OVERLAP, 0), start + _PIECE_POINTS + _PIECE_OVERLAP)
            yield branch.points_mm[part], branch.radii_mm[part], strength


def _signed_distance(
    points: np.ndarray, radii: np.ndarray, shape: np.ndarray, spacing: np.ndarray, corner: np.ndarray, reach: float
) -> Float[np.ndarray, "i j k"]:
    """Distance to the wall of a chain of round cones in mm, negative inside, `_FAR_MM` where none is near."""
    signed = np.full(tuple(shape), _FAR_MM, np.float32)
    for start, end, radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        low = np.maximum(np.floor((np.minimum(start, end) - reach - corner) / spacing).astype(int), 0)
        high = np.minimum(np.ceil((np.maximum(start, end) + reach - corner) / spacing).astype(int) + 1, shape)
        if np.any(low >= high):
            continue
        x, y, z = np.ix_(
            *(np.arange(a, b) * h + c - s for a, b, h, c, s in zip(low, high, spacing, corner, start, strict=True))
        )
        axis = end - start
        length_squared = float(axis @ axis)
        projection = x * axis[0] + y * axis[1] + z * axis[2]
        along = np.clip(projection / length_squared, 0, 1)
        squared = x * x + y * y + z * z - 2 * along * projection + along * along * length_squared
        wall = np.sqrt(np.maximum(squared, 0)) - (radius + along * (end_radius - radius))
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        signed[box] = np.minimum(signed[box], wall)
    return signed


def _block_mean(values: Float[np.ndarray, "a b c"], samples: Integer[np.ndarray, " 3"]) -> Float[np.ndarray, "i j k"]:
    """Mean over the sub-samples of each voxel."""
    a, b, c = samples
    i, j, k = np.asarray(values.shape) // samples
    return values.reshape(i, a, j, b, k, c).mean((1, 3, 5))
