"""This file recognises from its values what kind of image a volume is, so that none is taken for another in silence.

Its words: the *modality* is what a config says its scans are; *j* is an MR image in tissue medians. A wrong modality
is an error, because grey values mean something else there. A volume of the right kind in which no vessels can be found
only raises an *alarm*: words that say why, so that its mask stays empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.prepare.mra import sample_values
from medseg.prepare.vesselness import NOT_FOUND, flux_maps

MODALITIES = ("tof", "ce_mra", "cta")
"""Time-of-flight MRA; MRA with contrast agent; CT angiography in Hounsfield units."""

CT_AIR_HU = (-1100.0, -900.0)
"""Air is -1000 HU by definition; scanners stay within 100 of it."""
CT_TISSUE_HU = (-150.0, 250.0)
"""Everything between fat and enhanced blood."""
CT_FAT_HU = -40.0
"""A hundredth of any body is fat or air, below this; MR values below zero belong to offsets and standard scores."""
CT_BRIGHT_HU = 150.0
"""A thousandth of any CT is bone or contrast, above this; standard scores stay below 50."""

HOLE_LEVEL = 0.3
"""Tissue medians around a voxel of exactly 0 from which on it is a missing value: air and bone have none around."""
HOLES_MAX = 0.05
"""Share of the region that may be missing: single blanked slices or metal."""
HOLES_OVER_DIM = 3.0
"""How many more zeros than other dark voxels lie in the midst of tissue where values are missing; noise that was cut at
zero leaves as many of both."""
TISSUE_LEVELS = (0.65, 1.5)
"""Grey values of ordinary tissue, tissue medians: above fluid and bone, below fat and blood."""
DARKEST_TISSUE = 0.3
"""Tissue medians below which a voxel is air, bone or fluid and says nothing about tissue."""
TISSUE_SHARE_MIN = 0.35
"""Least share of brighter voxels at the tissue's level: MR of a head has .8, with noise of sd .6 still .5; ultrasound
and photographs have no such level and stay near .3."""
DARK_SIGNAL = 7.0
"""Signal of dark tubes that is no noise, which reaches 5."""
DARK_OVER_BRIGHT = 1.5
"""How much more dark tubes must stand out than bright ones: other MR has both, much alike."""


def is_ct(image: Float[np.ndarray, "i j k"]) -> bool:
    """Say whether grey values are Hounsfield units: air near -1000 and a body near 0, with bone or blood above it.

    MR values that an offset made negative, even all of them, are not: their tissue lies close above their air.
    """
    values = sample_values(image)
    has_air = np.mean((values > CT_AIR_HU[0]) & (values < CT_AIR_HU[1])) > 0.01
    return bool(has_air) and _has_body(values)


def may_be_ct(image: Float[np.ndarray, "i j k"]) -> bool:
    """Say whether grey values may be Hounsfield units, also of a box cut out of a body, without air."""
    values = sample_values(image)
    darkest, brightest = np.percentile(values, (1, 99.9))
    return is_ct(image) or bool(darkest < CT_FAT_HU and brightest > CT_BRIGHT_HU and _has_body(values))


def _has_body(values: np.ndarray) -> bool:
    body = values[values > -500]
    return bool(body.size and CT_TISSUE_HU[0] < np.median(body) < CT_TISSUE_HU[1])


def require_modality(image: Float[np.ndarray, "i j k"], modality: str, name: str) -> None:
    """Refuse values of another modality.

    Args:
        image: as stored.
        modality: one of `MODALITIES`.
        name: of the file, for the message.

    Raises:
        MedsegError: CT values where an MR image is expected, or the other way round.
    """
    if modality != "cta" and is_ct(image):
        raise MedsegError(
            f"{name} must be an MR image, got CT values (air near -1000); leave it out, or use the config cta"
        )
    if modality == "cta" and not may_be_ct(image):
        low, high = np.percentile(sample_values(image), (1, 99.9))
        raise MedsegError(
            f"{name} must be CT in Hounsfield units (air -1000, water 0), got values from {low:.4g} to {high:.4g}; "
            "leave it out, or use the config tof_mra or ce_mra for MR"
        )


def why_no_angiogram(
    j: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    spacing: Sequence[float],
    *,
    modality: str,
    signal: float,
    radii_mm: Sequence[float],
) -> str | None:
    """Say in words why an MR volume seems to be no angiogram at all, or None.

    Args:
        j: image in tissue medians.
        region: where vessels are sought.
        spacing: voxel size in mm.
        modality: that was asked for.
        signal: how much bright tubes stand out, see `FluxMaps`; where it is low, dark ones are looked for too.
        radii_mm: of the vessels looked for.
    """
    holes = _missing_share(j, region)
    if holes > HOLES_MAX:
        return f"{NOT_FOUND}: {holes:.0%} of the region are missing values (exactly 0 in the midst of tissue)"
    share = _tissue_share(j, region)
    if modality == "tof" and share < TISSUE_SHARE_MIN:
        return (
            f"{NOT_FOUND}: only {share:.0%} of the bright voxels have the grey value of one tissue; "
            "this looks like ultrasound, a photograph or a mask, not like a TOF"
        )
    if signal < DARK_SIGNAL:
        dark = flux_maps(np.maximum(2 - j, 0), region, spacing, radii_mm=radii_mm).signal
        if dark > max(DARK_SIGNAL, DARK_OVER_BRIGHT * signal):
            return f"{NOT_FOUND}: dark tubes stand out, not bright ones; is this an inverted or a black-blood image?"
    return None


def _missing_share(j: np.ndarray, region: np.ndarray) -> float:
    """Share of the region that is exactly 0 in the midst of tissue."""
    zero = (j == 0) & region
    if zero.sum() <= HOLES_MAX * region.sum():
        return 0.0
    amid = ndimage.uniform_filter(j, 3) > HOLE_LEVEL
    holes, dim = int((zero & amid).sum()), int(((j > 0) & (j < HOLE_LEVEL) & region & amid).sum())
    return holes / int(region.sum()) if holes > HOLES_OVER_DIM * dim else 0.0


def _tissue_share(j: np.ndarray, region: np.ndarray) -> float:
    """Share of the voxels that are not dark which have the grey value of tissue; 1 where there are none."""
    values = sample_values(j)[sample_values(region)]
    values = values[values > DARKEST_TISSUE]
    return float(np.mean((values > TISSUE_LEVELS[0]) & (values < TISSUE_LEVELS[1]))) if values.size else 1.0
