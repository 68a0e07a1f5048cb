"""This file holds the simple rules that every method is measured against: thresholds and Frangi's filter.

Each takes the brightness of a scan (any unit: all thresholds come from the volume itself), the *region* it
looks at, and the voxel size in mm, and returns a mask inside the region. None has seen a label.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from skimage.filters import frangi, threshold_otsu

from medseg.errors import MedsegError
from medseg.scoring.skeleton import bounding_box

FRANGI_SCALES_MM = (0.4, 0.8, 1.6)
"""Standard deviations of Frangi's Gaussians: half the radius of the vessels they answer to best, roughly."""

_HALO_MM = 6.0


def brightest_1_percent(
    image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]
) -> Bool[np.ndarray, "i j k"]:
    """The voxels above the 99th percentile of the region."""
    return region & (image > np.percentile(_inside(image, region), 99))


def otsu(
    image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]
) -> Bool[np.ndarray, "i j k"]:
    """The brighter of the region's two classes by Otsu's threshold."""
    return region & (image > threshold_otsu(_inside(image, region)))


def median_6mad(
    image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]
) -> Bool[np.ndarray, "i j k"]:
    """The voxels more than six deviations above the region's median; a deviation is 1.4826 MAD, robust for sigma."""
    values = _inside(image, region)
    median = np.median(values)
    return region & (image > median + 6 * 1.4826 * np.median(np.abs(values - median)))


def frangi_top_half_percent(
    image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]
) -> Bool[np.ndarray, "i j k"]:
    """The .5 % of the region with the highest Frangi vesselness (bright tubes).

    The scales `FRANGI_SCALES_MM` become voxels by the mean voxel size, for scikit-image knows one sigma for all axes.

    References:
        Frangi, Niessen, Vincken and Viergever, MICCAI 1998, equation 13.
    """
    _inside(image, region)
    # Tissue just outside the region still shapes the filter's answer at its rim.
    box = tuple(
        slice(max(along.start - round(_HALO_MM / step), 0), along.stop + round(_HALO_MM / step))
        for along, step in zip(bounding_box(region), spacing, strict=True)
    )
    sigmas_voxels = [scale / float(np.mean(spacing)) for scale in FRANGI_SCALES_MM]
    vesselness = frangi(np.asarray(image[box], dtype=np.float32), sigmas=sigmas_voxels, black_ridges=False)
    mask = np.zeros(image.shape, dtype=bool)
    mask[box] = region[box] & (vesselness > np.percentile(vesselness[region[box]], 99.5))
    return mask


BASELINES: dict[str, Callable[..., Bool[np.ndarray, "i j k"]]] = {
    "brightest 1 %": brightest_1_percent,
    "Otsu": otsu,
    "median + 6 MAD": median_6mad,
    "Frangi top .5 %": frangi_top_half_percent,
}
"""The rules under the names they carry in every table."""


def _inside(image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"]) -> Float[np.ndarray, " n"]:
    """Brightness inside the region, which must not be empty."""
    if not region.any():
        raise MedsegError("region must hold voxels, got none; give another brain mask or `prepare.brain_mask: none`")
    return image[region]
