"""This file shows the student a window as another scanner might have: blurred, noisy, shaded, turned.

The teacher labels the clean scan, the student sees a *view* of it; what survives that is what makes a vessel. A view is
drawn in one step and applied in another, so the draw can be tested and the same view repeated. Grey values are in
tissue medians, lengths in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import gaussian_filter

from medseg.features.student.vessels.fields import smooth_field

BLUR_SHARE, BLUR_MM = 0.3, (0.1, 0.4)
"""Share of the views that are blurred, and the sd of it."""
CONTRAST_SHARE, CONTRAST = 0.4, (0.55, 1.2)
"""Share of the views with another contrast about the tissue, and its factor: vessels more often fade than shine."""
NOISE_SHARE, NOISE_SD = 0.5, (0.02, 0.14)
"""Share of the views with added noise, and the sd of each of its two channels: a usual TOF."""
STRONG_NOISE_SHARE, STRONG_NOISE_SD = 0.1, (0.14, 0.35)
"""The same for fast or high-resolution scans, in which a vessel is seen only along its length."""
GRAIN_MM = (0.2, 0.45)
"""sd of the smoothing that makes the noise of neighbours alike, as interpolation on the scanner does."""
SHADING_SHARE, SHADING_SD, SHADING_LENGTH_MM = 0.5, 0.15, (40.0, 160.0)
"""Share of the views with a coil's gain, the sd of its logarithm, and its wavelengths."""
GAIN_SD = 0.1
"""sd of the logarithm of the gain of a whole view: the tissue median of a scan is not exact."""
CONTRAST_SCALE_SD = 0.2
"""sd of the logarithm of the factor on C, which depends on how much of the large vessels a scan shows."""
EQUAL_SPACING = 0.01
"""Relative difference below which two axes may be exchanged."""


@dataclass(frozen=True)
class View:
    """The draws of one view.

    Attributes:
        blur_mm: sd, 0 for none.
        contrast: factor on the difference to the tissue, 1.
        shading_sd: of the logarithm of the coil's gain, 0 for none.
        gain: factor on all grey values.
        noise_sd: of each of the two channels of the Rician noise, 0 for none.
        grain_mm: sd of the noise's smoothing.
        contrast_scale_factor: on the scan's C.
        flips: whether each axis runs backwards.
        order: which axis of the flipped window comes first, second and third.
        spacing: voxel size (mm) of the window before it is turned.
    """

    blur_mm: float
    contrast: float
    shading_sd: float
    gain: float
    noise_sd: float
    grain_mm: float
    contrast_scale_factor: float
    flips: tuple[bool, bool, bool]
    order: tuple[int, int, int]
    spacing: tuple[float, float, float]


def draw_view(rng: np.random.Generator, spacing: Sequence[float]) -> View:
    """Draw a view of windows with this voxel size (mm)."""
    i, j, k = (float(h) for h in spacing)
    blurred, contrasted, noisy, shaded = rng.uniform(size=4)
    noise_sd = 0.0
    if noisy < NOISE_SHARE:
        noise_sd = rng.uniform(*NOISE_SD)
    elif noisy < NOISE_SHARE + STRONG_NOISE_SHARE:
        noise_sd = rng.uniform(*STRONG_NOISE_SD)
    flips = rng.uniform(size=3) < 0.5
    orders = _orders((i, j, k))
    return View(
        blur_mm=rng.uniform(*BLUR_MM) if blurred < BLUR_SHARE else 0.0,
        contrast=rng.uniform(*CONTRAST) if contrasted < CONTRAST_SHARE else 1.0,
        shading_sd=SHADING_SD if shaded < SHADING_SHARE else 0.0,
        gain=float(np.exp(rng.normal(0, GAIN_SD))),
        noise_sd=noise_sd,
        grain_mm=rng.uniform(*GRAIN_MM),
        contrast_scale_factor=float(np.exp(rng.normal(0, CONTRAST_SCALE_SD))),
        flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
        order=orders[rng.integers(len(orders))],
        spacing=(i, j, k),
    )


def show(view: View, image: Float[np.ndarray, "i j k"], rng: np.random.Generator) -> Float[np.ndarray, "i j k"]:
    """Change the grey values of a window; `rng` decides noise and shading. It is not turned yet."""
    shown = image.astype(np.float32)
    if view.blur_mm:
        gaussian_filter(shown, [view.blur_mm / h for h in view.spacing], output=shown, truncate=3.0)
    if view.contrast != 1:
        shown = np.maximum(1 + np.float32(view.contrast) * (shown - 1), 0)
    if view.shading_sd:
        field = smooth_field(rng, shown.shape, view.spacing, SHADING_LENGTH_MM)
        shown *= np.exp(np.float32(view.shading_sd) * field)
    shown *= np.float32(view.gain)
    if view.noise_sd:
        real, imaginary = (_noise(rng, shown.shape, view) for _ in range(2))
        shown = np.hypot(shown + real, imaginary)
    return shown


def turn(view: View, array: Shaped[np.ndarray, "*channels i j k"]) -> Shaped[np.ndarray, "*channels a b c"]:
    """Flip the last three axes of an array and exchange those of equal spacing; image, labels and weight alike."""
    first = array.ndim - 3
    flipped = np.flip(array, tuple(first + axis for axis in range(3) if view.flips[axis]))
    return np.ascontiguousarray(flipped.transpose(*range(first), *(first + axis for axis in view.order)))


def _orders(spacing: tuple[float, float, float]) -> list[tuple[int, int, int]]:
    """The orders of the axes that leave the spacing as it is."""
    return [
        (i, j, k)
        for i, j, k in permutations(range(3))
        if all(abs(spacing[axis] / h - 1) <= EQUAL_SPACING for axis, h in zip((i, j, k), spacing, strict=True))
    ]


def _noise(rng: np.random.Generator, shape: Sequence[int], view: View) -> np.ndarray:
    """Gaussian noise of the view's sd and grain."""
    noise = rng.standard_normal(shape, np.float32)
    gaussian_filter(noise, [view.grain_mm / h for h in view.spacing], output=noise, truncate=3.0)
    noise *= np.float32(view.noise_sd) / max(float(noise.std()), 1e-6)
    return noise
