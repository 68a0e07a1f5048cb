"""This file paints what lies around the arteries: brain, fluid, skull, fat; and smooth random fields.

Brightness is in units of the brain's: 1 is tissue, 0 is air. Positions are in mm as in `trees`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from medseg.phantoms.trees import Branch, Envelope
from medseg.phantoms.veins import lay_scalp_arteries, lay_sinuses

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
FLUID, BONE, MUSCLE = 0.38, 0.12, 0.62
_SKULL_MM, _SCALP_MM, _DURA_MM = 6.0, 6.0, 1.5
# Centre, semi-axes (mm, the right side) and brightness as a share of fat's; those on the midline come once.
_FAT_PADS = (
    ((30, 48, -18), (16, 20, 14), 1.0),  # orbit
    ((0, -6, -30), (9, 6, 13), 0.85),  # marrow of the clivus
    ((20, -14, -28), (8, 5, 4), 0.9),  # petrous apex
    ((30, 15, -22), (12, 4, 4), 0.8),  # sphenoid wing
    ((46, 20, -22), (6, 15, 16), 1.0),  # temporal fossa
    ((22, 4, -40), (9, 14, 7), 1.0),  # below the skull base
)
_EYE = ((31, 57, -18), (11.5, 11.5, 11.5), 0.4)
_USUAL_SEMI_AXES_MM = (66.0, 82.0)
_FALX_MM = 0.8
"""Half thickness of the sheet of fat in the falx."""


@dataclass(frozen=True)
class Head:
    """`tissue` without vessels, the filled `brain`, and the tubes that are bright but no brain arteries."""

    tissue: Float[np.ndarray, "i j k"]
    brain: Bool[np.ndarray, "i j k"]
    veins: tuple[Branch, ...]
    scalp_arteries: tuple[Branch, ...]


def smooth_field(
    rng: np.random.Generator, shape: Shape, spacing: Spacing, length_mm: float
) -> Float[np.ndarray, "i j k"]:
    """A Gaussian random field of mean 0 and variance 1 everywhere that varies over about `length_mm`."""
    weights = []
    for voxels, size in zip(shape, spacing, strict=True):
        knots = np.arange(-2 * length_mm, voxels * size + 2 * length_mm, length_mm)
        rows = np.exp(-0.5 * ((np.arange(voxels)[:, None] * size - knots[None]) / (0.8 * length_mm)) ** 2)
        weights.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    values = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    # The longest contraction last keeps the intermediate arrays small.
    values = np.tensordot(weights[0], values, (1, 0))
    values = np.tensordot(values, weights[1], (1, 1))
    return np.ascontiguousarray(np.tensordot(values, weights[2], (1, 1)))


def paint_head(
    rng: np.random.Generator,
    envelope: Envelope,
    shape: Shape,
    spacing: Spacing,
    origin_mm: Float[np.ndarray, " 3"],
    *,
    fat: float,
    fat_pads: bool = False,
    texture_sd: float = 0.03,
    texture_mm: tuple[float, float] = (7.0, 2.5),
) -> Head:
    """Paint a head around the arterial circle, cut to the grid.

    Args:
        rng: the source of every random choice.
        envelope: the brain; the skull lies around it, the skull base below it.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        origin_mm: where the centre of voxel (0, 0, 0) lies.
        fat: brightness of fat.
        fat_pads: paint orbits, bone marrow and fossae of fat, and a sheet of fat in the falx.
        texture_sd: how much brain tissue varies.
        texture_mm: over which lengths: a coarse and a fine one.
    """
    x, y, z = (
        (np.arange(n) * h + o).astype(np.float32).reshape([-1 if axis == position else 1 for position in range(3)])
        for axis, (n, h, o) in enumerate(zip(shape, spacing, origin_mm, strict=True))
    )
    cm, am = envelope.centre_mm, envelope.semi_axes_mm
    relative = np.sqrt(((x - cm[0]) / am[0]) ** 2 + ((y - cm[1]) / am[1]) ** 2 + ((z - cm[2]) / am[2]) ** 2)
    rough = smooth_field(rng, shape, spacing, 14.0)
    outside_mm = (relative - 1) * float(am.min()) + 1.0 * rough
    base_mm = -9 - 11 / (1 + np.exp((y + 2) / 5)) - 9 / (1 + np.exp((y + 30) / 6)) - 2.5 * np.tanh(np.abs(x) / 12 - 1)
    below_mm = base_mm - z + 1.2 * rough
    out_of_brain_mm = np.maximum(outside_mm, below_mm)
    brain = out_of_brain_mm < 0

    tissue = (
        1
        + texture_sd * smooth_field(rng, shape, spacing, texture_mm[0])
        + 0.7 * texture_sd * smooth_field(rng, shape, spacing, texture_mm[1])
    )
    tissue += (FLUID - tissue) * _fluid_share(rng, shape, spacing, (x, y, z), out_of_brain_mm)

    patches = smooth_field(rng, shape, spacing, 6.0)
    strands = smooth_field(rng, shape, spacing, 5.0)
    deep = np.where(patches < -0.5, BONE, MUSCLE + 0.08 * rough)
    deep = np.where((np.abs(strands) < 0.18) & (patches > -0.2), fat + 0.1 * rough, deep)
    deep = np.where((patches < -1.1) & (y > 10), 0.02, deep)
    skull = np.where(patches > 1.5, 0.5 * fat, BONE)
    scalp_mm = outside_mm - _DURA_MM - _SKULL_MM
    scalp = np.where((scalp_mm > 1.2) & (scalp_mm < _SCALP_MM - 1), fat + 0.08 * patches, MUSCLE)
    shell = np.where(scalp_mm < 0, skull, np.where(scalp_mm < _SCALP_MM, scalp, 0.0))
    other = np.where(outside_mm < _DURA_MM, deep, np.where(scalp_mm < 0, np.where(below_mm > 3, deep, shell), shell))
    other = np.where(out_of_brain_mm < _DURA_MM, 0.25, other)
    if fat_pads:
        # Pads lie along a skull of the usual size, as the arteries do; a smaller head brings them closer.
        narrow, short = (float(am[axis]) / size for axis, size in enumerate(_USUAL_SEMI_AXES_MM))
        skull_xyz = (x / narrow, cm[1] + (y - cm[1]) / short, z)
        padded, tissue = _with_fat_pads(skull_xyz, other, tissue, fat, 0.12 * rough)
        other = np.where(scalp_mm < _SCALP_MM, padded, other)
    tissue = np.where(brain, tissue, other).astype(np.float32)
    scalp_out_mm = _DURA_MM + _SKULL_MM + _SCALP_MM / 2
    return Head(tissue, brain, lay_sinuses(rng, envelope), lay_scalp_arteries(rng, envelope, scalp_out_mm))


def _with_fat_pads(
    xyz: Sequence[np.ndarray], other: np.ndarray, tissue: np.ndarray, fat: float, rough: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What lies outside the brain with pads of fat and eyes in it, and the brain with a sheet of fat in its falx."""
    x, y, z = xyz
    for (cx, cy, cz), axes, share in (*_FAT_PADS, _EYE):
        level = share * fat if share != _EYE[2] else _EYE[2]
        far = np.sqrt(((np.abs(x) - cx) / axes[0]) ** 2 + ((y - cy) / axes[1]) ** 2 + ((z - cz) / axes[2]) ** 2)
        other = np.where(far < 1 + rough, level, other)
    in_falx = (np.abs(x + 0.4 * rough / 0.12) < _FALX_MM) & (y > 30) & (z > 4) & (rough > -0.03)
    return other, np.where(in_falx, 0.9 * fat, tissue)


def _fluid_share(
    rng: np.random.Generator, shape: Shape, spacing: Spacing, xyz: Sequence[np.ndarray], out_of_brain_mm: np.ndarray
) -> Float[np.ndarray, "i j k"]:
    """Share of fluid, 0-1: ventricles, the cistern around the circle, and sulci near the surface."""
    jitter = 1 + 0.12 * rng.normal(size=4)
    blobs = [  # centre and semi-axes in mm
        ((-9, -8, 27), (5 * jitter[0], 24, 7)),
        ((9, -8, 27), (5 * jitter[1], 24, 7)),
        ((0, -6, 11), (2.5, 10 * jitter[2], 7)),
        ((0, -2, -2), (11 * jitter[3], 11, 6)),
    ]
    share = np.zeros(shape, np.float32)
    for centre, axes in blobs:
        radius = np.sqrt(sum(((p - c) / a) ** 2 for p, c, a in zip(xyz, centre, axes, strict=True)))
        np.maximum(share, np.clip(0.5 + (1 - radius) * min(axes) / 0.8, 0, 1), out=share)
    folds = smooth_field(rng, shape, spacing, 6.5)
    depth = np.clip((out_of_brain_mm + 20) / 8, 0, 1)
    sulci = np.clip(1.5 - np.abs(folds) / 0.09, 0, 1) * depth
    return np.maximum(share, 0.85 * sulci)
