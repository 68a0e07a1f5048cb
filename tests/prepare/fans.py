"""Painted fans for the tests of ultrasound."""

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.prepare.sector import Sector

FAN = Sector(apex_row=-60.0, apex_col=160.0, near=90.0, far=280.0, left=-0.55, right=0.55)
SHAPE = (240, 320)


def painted(sector: Sector = FAN, shape: tuple[int, int] = SHAPE, *, seed: int = 0) -> np.ndarray:
    """A fan of speckle on black, as an 8-bit scanner shows it, with values from 0 to 1."""
    speckle = gaussian_filter(np.random.default_rng(seed).rayleigh(1, shape), 1.2)
    grey = 0.35 * speckle / speckle.mean() * sector.mask(shape)
    return (np.round(grey.clip(0, 1) * 255) / 255).astype(np.float32)


def overlap(one: Sector, other: Sector, shape: tuple[int, int] = SHAPE) -> float:
    """Intersection over union of two sectors."""
    a, b = one.mask(shape), other.mask(shape)
    return float((a & b).sum() / (a | b).sum())
