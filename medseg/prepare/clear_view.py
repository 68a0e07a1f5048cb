"""This file makes photographs clear: it takes away colour cast and haze, and lifts local contrast.

Water takes red light away first and scatters the rest; fog scatters all. The same thing then looks different near and
far, and in one picture and the next. *Display values* are sRGB from 0 to 1, *linear light* is what they stand for;
*airlight* is the colour of the haze itself, *transmission* the share of light that comes through it.

A grey picture stays grey. One without a cast or haze is left nearly as it is by these steps; but a large white surface
is taken for haze, as the prior of He et al. does.

References:
    Finlayson and Trezzi, Shades of gray and colour constancy, Color Imaging Conference 2004 (p = 6).
    He, Sun and Tang, Single image haze removal using dark channel prior, CVPR 2009.
    He, Sun and Tang, Guided image filtering, ECCV 2010 (refines the transmission).
    Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.ndimage import minimum_filter, uniform_filter
from skimage.color import lab2rgb, rgb2lab
from skimage.exposure import equalize_adapthist

from medseg.errors import MedsegError

Picture = Float[np.ndarray, "h w 3"]

NORM = 6
"""p of the Minkowski mean that should be grey: 1 is the mean of the picture, infinity its brightest value."""
MOST_GAIN = 3.0
"""How much a channel may be lifted against the others: a red channel without signal would become noise."""
HAZE_TAKEN = 0.95
"""Share of the haze that is taken away; without a rest of it distance looks wrong (He, omega)."""
LEAST_TRANSMISSION = 0.4
"""Transmission is not taken for less: in open water or sky there is nothing behind the haze but noise. He has .1."""
AIRLIGHT_SHARE = 0.001
"""Share of the pixels, the haziest, whose mean is the airlight (He)."""
DARK_SHARE = 1 / 32
"""Side of the window of the dark channel in shorter sides: He's 15 pixels in pictures of 480."""
GUIDE_WINDOWS = 4
"""Radius of the guided filter in sides of that window, so that it reaches past what the window smeared (He)."""
GUIDE_NOISE = 1e-3
"""Variance of grey values below which the guided filter takes an edge for noise (He)."""
CONTRAST_LIMIT = 0.01
"""Share of a tile's pixels above which a histogram bin is cut: skimage's own, gentle."""


def clear_view(picture: Float[np.ndarray, "h w 3"], steps: Sequence[str]) -> Float[np.ndarray, "h w 3"]:
    """Make a picture clear, step by step in the order given.

    Args:
        picture: display values 0 to 1.
        steps: of `CLEAR_VIEW`; none leaves the picture as it is.

    Raises:
        MedsegError: a step that does not exist.
    """
    require_steps(steps)
    cleared = np.asarray(picture, np.float32)
    is_grey = bool((cleared == cleared[..., :1]).all())
    for step in steps:
        cleared = np.clip(_STEPS[step](cleared), 0, 1).astype(np.float32)
    # Colour conversions leave rounding errors behind, which would be a colour.
    return cleared.mean(axis=2, keepdims=True).repeat(3, axis=2) if is_grey and steps else cleared


def require_steps(steps: Sequence[str]) -> None:
    """Check the names of the steps.

    Raises:
        MedsegError: a step that does not exist.
    """
    if unknown := [step for step in steps if step not in _STEPS]:
        raise MedsegError(f"prepare.clear_view must hold steps of {', '.join(_STEPS)}, got {unknown[0]}; correct it")


def _without_cast(picture: Picture) -> Picture:
    """Scale the channels so that their Minkowski means are equal, as a grey world's are, at the same brightness."""
    linear = _to_linear(picture)
    means = np.mean(linear.reshape(-1, 3).astype(np.float64) ** NORM, axis=0) ** (1 / NORM)
    if not means.any():
        return picture
    gains = np.clip(means.mean() / np.maximum(means, 1e-6), 1 / MOST_GAIN, MOST_GAIN)
    brightness = linear.mean(axis=(0, 1))
    return _to_display(linear * (gains * brightness.sum() / (gains * brightness).sum()).astype(np.float32))


def _without_haze(picture: Picture) -> Picture:
    """Take the airlight away where even the darkest channel nearby is bright, which only haze makes it."""
    height, width = picture.shape[:2]
    side = max(1, round(min(height, width) * DARK_SHARE))
    dark = minimum_filter(picture.min(axis=2), side)
    haziest = np.argsort(dark, axis=None)[-max(1, round(dark.size * AIRLIGHT_SHARE)) :]
    airlight = np.maximum(picture.reshape(-1, 3)[haziest].mean(axis=0), 1e-3)
    haze = minimum_filter((picture / airlight).min(axis=2), side)
    transmission = _guided(1 - HAZE_TAKEN * haze, picture.mean(axis=2), 2 * GUIDE_WINDOWS * side + 1)
    return (picture - airlight) / np.clip(transmission, LEAST_TRANSMISSION, 1)[..., None] + airlight


def _with_contrast(picture: Picture) -> Picture:
    """Equalise lightness in tiles of an eighth of the picture; colours stay."""
    lab = rgb2lab(picture)
    if np.ptp(lab[..., 0]) == 0:
        return picture
    lab[..., 0] = 100 * equalize_adapthist(lab[..., 0] / 100, clip_limit=CONTRAST_LIMIT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*negative Z values", category=UserWarning)  # clipped, as we want
        return lab2rgb(lab)


def _guided(values: Float[np.ndarray, "h w"], guide: Float[np.ndarray, "h w"], window: int) -> Float[np.ndarray, "h w"]:
    """The guided filter: in each window a line through (guide, values), so that edges of the guide stay."""
    mean_guide, mean = uniform_filter(guide, window), uniform_filter(values, window)
    covariance = uniform_filter(guide * values, window) - mean_guide * mean
    slope = covariance / (uniform_filter(guide * guide, window) - mean_guide**2 + GUIDE_NOISE)
    return uniform_filter(slope, window) * guide + uniform_filter(mean - slope * mean_guide, window)


def _to_linear(display: Picture) -> Picture:
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def _to_display(linear: Picture) -> Picture:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


_STEPS: Mapping[str, Callable[[Picture], Picture]] = {
    "colour_cast": _without_cast,
    "haze": _without_haze,
    "contrast": _with_contrast,
}
CLEAR_VIEW = tuple(_STEPS)
"""The steps; best in this order, as each trusts what the one before it did."""
