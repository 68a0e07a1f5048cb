"""This file draws tubes into the voxels of a window with partial volume, before any blur.

Its words: *coverage* is the share of a voxel inside the tubes; r is the distance to a tube's axis over its radius (in
an ellipse, over the radius in that direction). Voxels larger than `FINE_MM` are cut into *fine* ones. All pairs of a
tube's pieces and the fine voxels near them are measured at once, by products of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from medseg.features.student.vessels.painting_trees import Section, Tube

FINE_MM = 0.6
"""Largest edge of a fine voxel: the diameter of a thin vessel."""
HOLLOW_CORE = 0.45
"""Width of the signal loss on the axis, over the radius."""


def draw_tubes(
    tubes: Sequence[Tube], shape: Sequence[int], spacing: Sequence[float]
) -> tuple[Float[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """Draw tubes, all of whose pieces reach into the window; where they overlap the brightest counts.

    Returns:
        The brightness that they add to each voxel, and the voxels inside: more than half covered, or on the axis of a
        tube that is thinner than the voxel is long.
    """
    sub = np.maximum(1, np.ceil(np.asarray(spacing) / FINE_MM - 1e-6)).astype(int)
    fine_mm = np.asarray(spacing) / sub
    soft_mm = float(fine_mm.mean())
    reach = max(_reach_mm(tube, soft_mm) for tube in tubes)
    # A piece may lie as far outside as it reaches, and reach as far again: no pair needs a test whether it is inside.
    margin = 2 * (np.ceil(reach / fine_mm).astype(int) + 1)
    padded = np.asarray(shape) * sub + 2 * margin
    nearest = np.full(int(padded.prod()), np.inf, np.float32)
    brightness, coverage = np.zeros_like(nearest), np.zeros_like(nearest)
    for tube in tubes:
        at, squared = _near_axis(tube, fine_mm, soft_mm, margin, padded)
        np.minimum.at(nearest, at, squared)
        won = nearest[at] == squared
        touched, r = at[won], np.sqrt(squared[won])
        nearest[at] = np.inf
        filled, signal = _across(tube.section, r, float(tube.radii_mm.mean()), soft_mm)
        coverage[touched] = np.maximum(coverage[touched], filled)
        brightness[touched] = np.maximum(brightness[touched], tube.brightness * signal)
    share, added = _window_means((coverage, brightness), padded, margin, shape, sub)
    inside = share > 0.5
    for tube in tubes:
        inside[_axis_voxels(tube, shape, spacing)] = True
    return added, inside


def _reach_mm(tube: Tube, soft_mm: float) -> float:
    """How far from the middle of a piece it can touch a voxel."""
    return float(tube.radii_mm.max() * np.sqrt(tube.section.flatness) + tube.half_mm + soft_mm)


def _near_axis(
    tube: Tube, fine_mm: np.ndarray, soft_mm: float, margin: np.ndarray, padded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flat fine voxels near each piece, and r^2 there; a voxel comes once for every piece that it is near to."""
    reach = _reach_mm(tube, soft_mm) + float(np.linalg.norm(fine_mm)) / 2
    offsets = _ball_offsets(reach, fine_mm)
    offsets_mm = (offsets * fine_mm).astype(np.float32)
    base = np.rint(tube.points_mm / fine_mm - 0.5).astype(int)
    rest_mm = ((base + 0.5) * fine_mm - tube.points_mm).astype(np.float32)
    tangents = tube.tangents.astype(np.float32)
    radii = tube.radii_mm.astype(np.float32)[:, None]

    squared = rest_mm @ (2 * offsets_mm.T)
    squared += (rest_mm**2).sum(1)[:, None]
    squared += (offsets_mm**2).sum(1)
    along = tangents @ offsets_mm.T
    along += (rest_mm * tangents).sum(1)[:, None]
    on_piece = np.clip(along, -tube.half_mm, tube.half_mm)
    squared -= on_piece * (2 * along - on_piece)
    flatness = tube.section.flatness
    if flatness > 1:
        across = tube.section.across - (tangents @ tube.section.across)[:, None] * tangents
        across = (across / np.maximum(np.linalg.norm(across, axis=1), 1e-3)[:, None]).astype(np.float32)
        squared += (flatness**2 - 1) * (across @ offsets_mm.T + (rest_mm * across).sum(1)[:, None]) ** 2
        squared /= flatness
    squared /= radii**2
    near = squared < ((radii + soft_mm / 2) / radii) ** 2
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    at = ((base + margin) @ strides)[:, None] + offsets @ strides
    return at[near], np.maximum(squared[near], 0)


def _ball_offsets(radius_mm: float, fine_mm: np.ndarray) -> np.ndarray:
    """Offsets in fine voxels within a distance."""
    half = np.ceil(radius_mm / fine_mm).astype(int)
    axes = [np.arange(-n, n + 1) for n in half]
    x, y, z = (axis * h for axis, h in zip(axes, fine_mm, strict=True))
    near = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= radius_mm**2
    return np.argwhere(near) - half


def _across(section: Section, r: np.ndarray, radius_mm: float, soft_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and signal at r, with a wall that is one fine voxel soft."""
    filled = np.clip(0.5 - (r - 1) * (radius_mm / soft_mm), 0, 1)
    inner = np.minimum(r, 1)
    signal = 1 - section.laminar * inner**section.power
    if section.hollow:
        signal -= section.hollow * np.exp(-((inner / HOLLOW_CORE) ** 2))
    return filled, filled * signal * _true_over_soft_area(radius_mm, soft_mm)


def _true_over_soft_area(radius_mm: float, soft_mm: float) -> float:
    """A disc's area over that of its soft-walled copy, which is too bright where it is thinner than a voxel."""
    half = soft_mm / 2
    if radius_mm >= half:
        soft_area = radius_mm**2 + soft_mm**2 / 12
    else:
        soft_area = (0.5 + radius_mm / soft_mm) * (radius_mm + half) ** 2 / 3
    return min(1.0, radius_mm**2 / soft_area)


def _window_means(
    values: Sequence[np.ndarray], padded: np.ndarray, margin: np.ndarray, shape: Sequence[int], sub: np.ndarray
) -> list[np.ndarray]:
    """Means of fine arrays over each voxel of the window; the first array is nowhere 0 where another is not."""
    filled = np.flatnonzero(values[0])
    voxel = [(at - m) // s for at, m, s in zip(np.unravel_index(filled, padded), margin, sub, strict=True)]
    inside = np.all([(v >= 0) & (v < length) for v, length in zip(voxel, shape, strict=True)], axis=0)
    at = np.ravel_multi_index([v[inside] for v in voxel], shape)
    volume = int(np.prod(shape))
    sums = (np.bincount(at, array[filled[inside]], volume) for array in values)
    return [(total / sub.prod()).astype(np.float32).reshape(shape) for total in sums]


def _axis_voxels(tube: Tube, shape: Sequence[int], spacing: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Voxels that hold the axis of a tube where it is thinner than they are long."""
    thin = 2 * tube.radii_mm < max(spacing)
    steps = np.linspace(-tube.half_mm, tube.half_mm, 4)[:, None, None]
    points = (tube.points_mm[thin] + steps * tube.tangents[thin]).reshape(-1, 3)
    voxels = np.floor(points / np.asarray(spacing)).astype(int)
    return tuple(voxels[np.all((voxels >= 0) & (voxels < np.asarray(shape)), axis=1)].T)
