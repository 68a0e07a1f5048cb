"""This file draws bright things that are no vessels: strands and sheets of fat, walls of sinuses, rims of bone, lumps.

The rule's negatives hold few of them, and a network that has only seen tubes takes any bright edge for one. Their
surfaces are bent; borders are one voxel soft, before any blur. Lengths are in mm from the corner of the window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medseg.features.student.vessels.fields import smooth_field

SHEETS_MAX = 2
"""Most of them in a window."""
BRIGHTNESS = (0.3, 1.4)
"""Brightness over the scan's C, log-uniform: that of painted vessels, so that it tells nothing."""
THICKNESS_MM = (0.6, 4.0)
"""Thickness of sheets, log-uniform."""
WIDTH_MM = (6.0, 60.0)
"""Full widths of a sheet along its two directions, log-uniform; at least `WIDTH_THICKNESSES` x thickness."""
WIDTH_THICKNESSES = 6.0
"""Least width of a sheet over its thickness: a narrower strand is a tube to any reader."""
LUMP_MM = (1.5, 8.0)
"""Semi-axes of lumps, log-uniform."""
LUMP_ASPECT = 1.8
"""Longest over shortest semi-axis of a lump: a longer one would be a piece of a vessel."""
SLAB_SHARE, LUMP_SHARE = 0.25, 0.25
"""Shares of slabs (all beyond a surface, as fat beside the brain) and of lumps; the rest are sheets."""
BEND_MM, BEND_LENGTH_MM = (0.0, 2.0), (10.0, 60.0)
"""sd and wavelengths of the waves by which surfaces leave their plane."""
LUMP_BEND = 0.15
"""The same sd over a lump's shortest semi-axis."""


def draw_sheets(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], *, contrast_scale: float
) -> Float[np.ndarray, "i j k"]:
    """Draw one or two such things; return the brightness that they add."""
    added = np.zeros(shape, np.float32)
    for _ in range(rng.integers(1, SHEETS_MAX + 1)):
        brightness = contrast_scale * np.exp(rng.uniform(*np.log(BRIGHTNESS)))
        np.maximum(added, _draw_share(rng, shape, spacing) * np.float32(brightness), out=added)
    return added


def _draw_share(rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """About the share of each voxel that one thing fills."""
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    centre = rng.uniform(0, 1, 3) * np.asarray(shape) * spacing
    steps = [
        ((np.arange(length) + 0.5) * h - c).astype(np.float32)
        for length, h, c in zip(shape, spacing, centre, strict=True)
    ]
    away, first, second = (_coordinate(steps, axis) for axis in axes)
    voxel_mm = float(np.abs(axes[0]) @ np.asarray(spacing))  # extent of a voxel across the surface
    kind = rng.uniform()
    if kind < LUMP_SHARE:
        shortest = np.exp(rng.uniform(*np.log((LUMP_MM[0], LUMP_MM[1] / LUMP_ASPECT))))
        semi = shortest * rng.uniform(1, LUMP_ASPECT, 2)
        r = np.sqrt((away / shortest) ** 2 + (first / semi[0]) ** 2 + (second / semi[1]) ** 2)
        bend = smooth_field(rng, shape, spacing, (2 * shortest, 8 * shortest))
        return _filled((r - 1 + LUMP_BEND * bend) * shortest, float(np.mean(spacing)))
    away = away + np.float32(rng.uniform(*BEND_MM)) * smooth_field(rng, shape, spacing, BEND_LENGTH_MM)
    if kind < LUMP_SHARE + SLAB_SHARE:
        return _filled(away, voxel_mm)
    thickness = np.exp(rng.uniform(*np.log(THICKNESS_MM)))
    widths = np.exp(rng.uniform(np.log(WIDTH_MM[0]), np.log(WIDTH_MM[1]), size=2))
    widths = np.maximum(widths, WIDTH_THICKNESSES * thickness)
    beyond = np.sqrt((2 / widths[0] * first) ** 2 + (2 / widths[1] * second) ** 2) - 1
    within = _filled(beyond * widths.min() / 2, float(np.mean(spacing)))
    # A sheet thinner than a voxel fills no more of it than its thickness.
    return within * np.minimum(_filled(np.abs(away) - thickness / 2, voxel_mm), np.float32(thickness / voxel_mm))


def _filled(outside_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Share of a voxel within a surface, by the distance from its centre to the surface, negative inside."""
    return np.clip(np.float32(0.5) - outside_mm / np.float32(voxel_mm), 0, 1).astype(np.float32, copy=False)


def _coordinate(steps: Sequence[np.ndarray], axis: np.ndarray) -> np.ndarray:
    """Position along an axis of every voxel."""
    i, j, k = (weight * step for weight, step in zip(axis, steps, strict=True))
    return i[:, None, None] + (j[:, None] + k)
