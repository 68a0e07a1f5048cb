"""This file paints what lies around the arteries: brain, fluid, skull, scalp fat, veins, coil shading, noise.

Brightness is in units of the brain's: 1 is tissue, 0 is air. Positions are in mm as in `trees`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medseg.phantoms.trees import Branch, Envelope

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
FLUID, BONE, MUSCLE = 0.38, 0.12, 0.62
_SKULL_MM, _SCALP_MM, _DURA_MM = 6.0, 6.0, 1.5


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
    texture_sd: float = 0.03,
) -> Head:
    """Paint a head around the arterial circle, cut to the grid.

    Args:
        rng: the source of every random choice.
        envelope: the brain; the skull lies around it, the skull base below it.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        origin_mm: where the centre of voxel (0, 0, 0) lies.
        fat: brightness of fat.
        texture_sd: how much brain tissue varies.
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
        + texture_sd * smooth_field(rng, shape, spacing, 7.0)
        + 0.7 * texture_sd * smooth_field(rng, shape, spacing, 2.5)
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
    tissue = np.where(brain, tissue, other).astype(np.float32)
    return Head(tissue, brain, _veins(rng, envelope), _scalp_arteries(rng, envelope))


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


def _veins(rng: np.random.Generator, envelope: Envelope) -> tuple[Branch, ...]:
    """The sagittal sinus along the midline of the surface, the straight sinus, and two transverse sinuses."""
    centre, axes = envelope.centre_mm, envelope.semi_axes_mm
    angle = np.deg2rad(np.linspace(60, 195, 160))
    sagittal = centre + np.stack([0.6 * np.sin(3 * angle), axes[1] * np.cos(angle), axes[2] * np.sin(angle)], 1)
    back = sagittal[-1]
    straight = np.linspace((0, -38, 18), back, 80) + np.array([0, 0, 2.5]) * np.sin(np.linspace(0, np.pi, 80))[:, None]
    veins = [
        _tube("sagittal sinus", sagittal, rng.uniform(2.4, 3.4)),
        _tube("straight sinus", straight, rng.uniform(1.4, 2)),
    ]
    turn = np.deg2rad(np.linspace(0, 75, 100))
    for side in (-1, 1):
        around = np.stack(
            [side * axes[0] * np.sin(turn), centre[1] - axes[1] * np.cos(turn), back[2] - 6 * np.sin(turn)], 1
        )
        veins.append(_tube("transverse sinus", around * [0.97, 0.97, 1], rng.uniform(2, 3)))
    return tuple(veins)


def _scalp_arteries(rng: np.random.Generator, envelope: Envelope) -> tuple[Branch, ...]:
    """Thin wavy arteries that climb in the scalp on both sides, at the temple and behind the ear."""
    out = _DURA_MM + _SKULL_MM + _SCALP_MM / 2
    scale = 1 + out / float(envelope.semi_axes_mm.min())
    arteries = []
    for side in (-1, 1):
        for azimuth_deg in (rng.uniform(15, 40), rng.uniform(-45, -20)):
            height = np.linspace(-0.6, 0.75, 200)
            azimuth = (
                np.deg2rad(azimuth_deg)
                + 0.07 * np.sin(height * rng.uniform(12, 20) + rng.uniform(0, 6))
                + 0.25 * height
            )
            flat = np.sqrt(1 - height**2)
            unit = np.stack([side * flat * np.cos(azimuth), flat * np.sin(azimuth), height], 1)
            points = envelope.centre_mm + envelope.semi_axes_mm * scale * unit
            arteries.append(_tube("scalp artery", points, rng.uniform(0.5, 0.9)))
    return tuple(arteries)


def _tube(name: str, points_mm: np.ndarray, radius_mm: float) -> Branch:
    return Branch(name, np.asarray(points_mm, float), np.full(len(points_mm), float(radius_mm)))


def add_rician_noise(
    rng: np.random.Generator, image: Float[np.ndarray, "i j k"], spacing: Spacing, *, sd: float, grain_mm: float = 0.0
) -> Float[np.ndarray, "i j k"]:
    """The magnitude of `image` plus complex Gaussian noise of standard deviation `sd` in each of its two parts.

    Args:
        rng: the source of the noise.
        image: the noiseless brightness.
        spacing: voxel size in mm.
        sd: in the units of the image.
        grain_mm: neighbouring voxels share noise over this length (a Gaussian's sigma); 0 for independent voxels.
    """
    real, imaginary = (rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    if grain_mm > 0:
        sigma_voxels = [grain_mm / size for size in spacing]
        real, imaginary = (
            _unit_sd(ndimage.gaussian_filter(part, sigma_voxels, mode="wrap")) for part in (real, imaginary)
        )
    return np.hypot(image + sd * real, sd * imaginary)


def _unit_sd(values: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    return values / values.std()
