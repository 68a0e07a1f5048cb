"""Small CT and contrast MRA phantoms with known vessels and bone; mm, HU, values made here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

SPACING = (1.5, 1.5, 2.0)
SHAPE = (64, 60, 40)
AORTA_MM, BRANCH_MM = 9.0, 3.0


@dataclass(frozen=True, eq=False)
class Trunk:
    """Where things are: aorta with a branch, a vertebra with its marrow, a plaque on the wall, the body, the lungs."""

    vessels: np.ndarray
    bone: np.ndarray
    marrow: np.ndarray
    plaque: np.ndarray
    body: np.ndarray
    lungs: np.ndarray


def positions_mm() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(SHAPE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


def trunk(gap_mm: float = 2.0) -> Trunk:
    """A trunk whose aorta lies `gap_mm` in front of the spine."""
    x, y, z = positions_mm()
    body = (x / 44) ** 2 + (y / 40) ** 2 < 1
    lungs = ((np.abs(x) - 26) / 10) ** 2 + ((y - 8) / 18) ** 2 < 1
    spine = np.hypot(x, y + 22)
    bone = (spine < 13) & (np.abs(z) < 34)
    marrow = (spine < 11) & (np.abs(z) < 31)
    front = -22 + 13 + gap_mm + AORTA_MM
    radial = np.hypot(x, y - front)
    branch = (np.hypot(z - 6, y - front - 4) < BRANCH_MM) & (x > 0) & (x < 26)
    plaque = (np.abs(radial - AORTA_MM + 1) < 1.5) & (y > front) & (np.abs(x) < 4) & (np.abs(z + 14) < 6)
    vessels = ((radial < AORTA_MM) | branch) & ~plaque
    return Trunk(vessels, bone & ~vessels, marrow & ~vessels, plaque, body, lungs & ~vessels)


def ct_volume(parts: Trunk, *, contrast_hu: float = 350.0, noise_hu: float = 15.0, seed: int = 0) -> np.ndarray:
    """HU with fat under the skin, spongy marrow, and blur; without contrast the vessels are like tissue."""
    rng = np.random.default_rng(seed)
    x, y, _ = positions_mm()
    hu = np.full(SHAPE, -1000.0)
    hu[parts.body] = -100
    hu[(x / 40) ** 2 + (y / 36) ** 2 < 1] = 55
    hu[parts.lungs] = -850
    hu[parts.bone] = 1000
    hu[parts.marrow] = (200 + 50 * rng.standard_normal(SHAPE))[parts.marrow]
    hu[parts.vessels] = contrast_hu
    hu[parts.plaque] = 1200
    hu = gaussian_filter(hu, [0.7 / h for h in SPACING])
    return (hu + noise_hu * rng.standard_normal(SHAPE)).astype(np.float32)


def mr_volume(parts: Trunk, *, seed: int = 0) -> np.ndarray:
    """First-pass MRA: vessels five times as bright as tissue, bone and air dark."""
    rng = np.random.default_rng(seed)
    image = np.where(parts.body, 100.0, 2.0)
    image[parts.lungs] = 15
    image[parts.bone] = 40
    image[parts.vessels | parts.plaque] = 500
    image = gaussian_filter(image, [0.7 / h for h in SPACING])
    return np.hypot(image + 6 * rng.standard_normal(SHAPE), 6 * rng.standard_normal(SHAPE)).astype(np.float32)
