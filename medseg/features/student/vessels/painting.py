"""This file paints vessels whose place is known exactly into a window of a real scan, and things that are none.

Its words: a *window* is a box of a prepared scan; what is *painted* is added to it, so noise, texture and neighbours
are the scan's own; C is the contrast of the scan's large vessels. Labels are those of `teachers/vessels.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter

from medseg.features.student.vessels.painting_sheets import draw_sheets
from medseg.features.student.vessels.painting_trees import draw_trees
from medseg.features.student.vessels.painting_tubes import draw_tubes
from medseg.features.teachers.vessels import UNKNOWN, YES
from medseg.prepare.vesselness import STATISTICS_VOXELS, smooth

BLUR_MM = (0.25, 0.5)
"""sd of the scanner's point spread, drawn for each window."""
SEEN_SDS, SEEN_CONTRAST = 1.5, 0.06
"""A painted voxel is YES where it is brighter than this many sd of the noise, and than this share of C."""
PAINTED_WEIGHT = 2.0
"""Weight of painted positives in the loss: their labels are exact, the teacher's are not."""
SHEETS_SHARE = 0.35
"""Share of the windows that also get bright things that are no vessels."""
NOISE_SMOOTHING_MM = 0.6
"""sd of the smoothing whose residual is taken for noise."""
NOISE_TISSUE = (0.6, 1.5)
"""Tissue medians between which the noise is measured: no fluid, no vessels."""


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted window.

    Attributes:
        image: grey values in tissue medians.
        labels: NO, YES or UNKNOWN.
        weight: of each voxel in the loss, where it is known.
    """

    image: Float[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]
    weight: Float[np.ndarray, "i j k"]


def paint(
    rng: np.random.Generator,
    image: Float[np.ndarray, "i j k"],
    labels: UInt8[np.ndarray, "i j k"],
    spacing: Sequence[float],
    *,
    contrast_scale: float,
    noise_sd: float,
) -> Painted:
    """Add 1-4 trees of bright tubes to a window, and now and then sheets and lumps that stay what they were called.

    Voxels inside a tube become YES where one could see it, UNKNOWN where it is too faint; what was YES stays YES.

    Args:
        rng: decides all that is painted.
        image: window of a scan in tissue medians.
        labels: the teacher's.
        spacing: voxel size in mm.
        contrast_scale: C of the whole scan, tissue medians.
        noise_sd: of the whole scan, see `noise_sd_of`.
    """
    shape = image.shape
    blur_mm = rng.uniform(*BLUR_MM)
    size_mm = np.asarray(shape) * np.asarray(spacing, float)
    tubes = draw_trees(rng, size_mm, contrast_scale=contrast_scale, noise_sd=noise_sd)
    added, inside = draw_tubes(tubes, shape, spacing)
    sigma = [blur_mm / h for h in spacing]
    gaussian_filter(added, sigma, output=added, truncate=3.0)
    painted = image + added
    if rng.uniform() < SHEETS_SHARE:
        sheets = draw_sheets(rng, shape, spacing, contrast_scale=contrast_scale)
        painted += gaussian_filter(sheets, sigma, truncate=3.0)
    seen = inside & (added > max(SEEN_SDS * noise_sd, SEEN_CONTRAST * contrast_scale))
    updated = labels.copy()
    updated[inside & (labels != YES)] = UNKNOWN
    updated[seen] = YES
    weight = np.where(seen, np.float32(PAINTED_WEIGHT), np.float32(1))
    return Painted(painted.astype(np.float32, copy=False), updated, weight)


def noise_sd_of(
    image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: Sequence[float]
) -> float:
    """Robust sd of what a slight smoothing takes from ordinary tissue; 0 where there is none.

    It is below the true sd where the noise is alike over many voxels, and holds some texture of the tissue.
    """
    step = max(1, image.size // STATISTICS_VOXELS)
    smoothed = smooth(image, NOISE_SMOOTHING_MM, spacing)[::step]
    tissue = (image[::step] > NOISE_TISSUE[0]) & (image[::step] < NOISE_TISSUE[1]) & region[::step]
    residual = image[::step][tissue] - smoothed[tissue]
    return 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) if residual.size else 0.0
