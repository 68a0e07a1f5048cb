"""This file measures, without labels, how much each voxel of an angiogram looks like a vessel.

Its words: *j* is the image in units of the tissue median, background at or above 0; the *contrast* c is how far j rises
above its surroundings; the *oriented flux* M (Law and Chung) is how strongly grey values flow out of a tube through
the voxel; Q = sqrt(c M) is in grey-value units, the *salience* q is Q over a scale that each volume gives itself, so
that a threshold on q means the same in every volume; the *tubularity* M / c is high in tubes and low in sheets.
Lengths are in mm, `spacing` is the voxel size along i, j, k. Where vessels of other radii than the default are looked
for, all lengths of the rule are stretched with the largest of them (`flux.length_unit`). The flux itself comes from
`prepare/flux.py`; the steps from maps to masks live in `prepare/edges.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from medseg.prepare.edges import (
    EDGE_SALIENCE,
    NOISY_EDGE_SALIENCE,
    drop_small_components,
    drop_unlike_tubes,
    drop_weak_sheets,
    half_maximum_edge,
    hysteresis,
    keep_by_median,
    keep_touching,
    radius_edge,
)
from medseg.prepare.flux import RADII_MM, length_unit, oriented_flux, scratch_array, spacing_in_units
from medseg.prepare.objects import thick_objects

__all__ = [
    "ALARM_MADS",
    "EDGE_SALIENCE",
    "NOISY_EDGE_SALIENCE",
    "FluxMaps",
    "drop_small_components",
    "drop_unlike_tubes",
    "drop_weak_sheets",
    "flux_core",
    "flux_maps",
    "flux_rule",
    "half_maximum_edge",
    "hysteresis",
    "keep_by_median",
    "keep_touching",
    "local_contrast",
    "oriented_flux",
    "radius_edge",
    "scratch_array",
    "smooth",
    "tissue_median",
]

Spacing = Sequence[float]

IMAGE_SMOOTHING_MM = 0.3
"""sd of the smoothing that the contrast is read from: less than the thinnest vessel's radius."""
BACKGROUND_SIGMA_MM = 5.0
"""sd of the surroundings: twice the widest vessel radius, so that a vessel hardly lifts its own background."""
BACKGROUND_CLIP = 1.5
"""Tissue medians at which j is cut before it enters the background, so that vessels and fat do not enter whole."""
TUBULARITY_CONTRAST_FLOOR = 0.05
"""Tissue medians: least contrast that the flux is divided by; a twentieth of the tissue is grain."""

BLOCK_MM = 12.0
"""Edge of the blocks whose contraharmonic means make the scale: a block holds a vessel and its surroundings."""
BLOCK_MIN_VOXELS = 500
"""Region voxels that a block needs before its mean is trusted, or a quarter of its own where that is less (voxels of
.95 mm and more)."""
BLOCK_MIN_SHARE = 0.25
"""Share of a block's voxels that is enough, however coarse the grid: below it a block is a rim of the region."""
BLOCK_PERCENTILE = 95.0
"""The scale comes from the blocks with large vessels; the maximum would be ruined by one very bright object."""
CONTRAHARMONIC_POWER = 4
"""k of sum(x^(k+1)) / sum(x^k): high enough that the mean lies on the vessels, whatever their share of the volume."""
NOISE_FLOOR_MADS = 25.0
"""The scale is at least this many robust sd (1.4826 MAD) of the positive Q, so that noise never reaches the core."""
ALARM_MADS = 12.0
"""Signal below which the rule finds nothing that it could trust: faint arteries in strong noise reach 12-20. (An alarm
at the floor itself would call those scans empty.)"""
NOISE_MADS = 5.5
"""Signal below which there is nothing at all: pure noise of any grain and voxel size reaches 5.0. Between this and the
rule's alarm a network may still see vessels."""
NOISELESS = 1e6
"""Signal of a volume without any noise; a finite number, so that it can be written down."""
STATISTICS_VOXELS = 1 << 23
"""Voxels above which medians are taken over every n-th voxel, to keep memory flat; the error is below a thousandth."""
CORE_LOW, CORE_HIGH = 0.30, 0.36
"""q of the core's hysteresis: the threshold that labels would have chosen lay at .29-.36 on all development volumes."""
CORE_MIN_MM3 = 2.0
"""Smallest component of the core: 5 mm of a vessel of .35 mm radius; specks of noise are smaller."""
SURE_SALIENCE = 0.7
"""A component whose q reaches this is a vessel whatever its shape (bends and branchings are no tubes)."""
CORE_TUBULARITY = 0.29
"""Median tubularity that other components need: tubes lie above, fat strands and sheets below."""
CORE_SHARE_MIN, CORE_SHARE_MAX = 0.0005, 0.04
"""Shares of the region that arteries can fill: a TOF of the brain has .2-2 %; less or more is something else."""
NOT_FOUND = "no vessels found"
"""How every alarm begins."""


@dataclass(frozen=True, eq=False)
class FluxMaps:
    """The maps of one volume and the numbers that standardise them.

    Attributes:
        salience: q >= 0, 0 outside the region and in objects too thick to be vessels; about 1 in the brightest large
            vessels, vessels above .3.
        tubularity: M / max(contrast, .05) in 1/mm; above .3 in tubes, below .25 in sheets; 0 outside the region. With
            other radii in 1/unit, so that the same numbers hold.
        contrast: c >= 0 in tissue medians, over the whole volume.
        scale: what Q was divided by, tissue medians.
        contrast_scale: C, the contrast of this volume's large vessels, tissue medians; from blocks, like the scale.
        alarm: words that say why the rule believes no vessel, or None.
        signal: what large vessels reach, in robust sd of the positive Q; pure noise of any grain reaches 5.
        radii_mm: that were looked for; whatever is done with the maps must know them.
    """

    salience: Float[np.ndarray, "i j k"]
    tubularity: Float[np.ndarray, "i j k"]
    contrast: Float[np.ndarray, "i j k"]
    scale: float
    contrast_scale: float
    alarm: str | None
    signal: float = NOISELESS
    radii_mm: Sequence[float] = RADII_MM


def _slabs(shape: Sequence[int], voxels: int = 1 << 21) -> Iterator[slice]:
    """Cut axis 0 into slabs of about `voxels`, for arithmetic without whole-volume temporaries."""
    step = max(1, voxels // max(1, int(np.prod(shape[1:]))))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def tissue_median(image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"]) -> float:
    """Return the grey value of ordinary tissue: the median above .3 of the 80th percentile inside the region.

    The cut leaves out air and fluid, so the value hardly depends on how much of them the region holds.
    Returns 0 for an empty region or one without a positive value.
    """
    values = _sample(image, region)
    if not values.size:
        return 0.0
    tissue = values[values > 0.3 * np.percentile(values, 80)]
    return float(np.median(tissue)) if tissue.size else 0.0


def _sample(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Values at `where`; of large volumes every n-th voxel."""
    step = max(1, values.size // STATISTICS_VOXELS)
    picked = [values[s].reshape(-1)[::step][where[s].reshape(-1)[::step]] for s in _slabs(values.shape)]
    return np.concatenate(picked) if picked else np.empty(0, values.dtype)


def smooth(
    values: Float[np.ndarray, "i j k"], sigma_mm: float, spacing: Spacing, *, out: np.ndarray | None = None
) -> Float[np.ndarray, "i j k"]:
    """Gaussian of `sigma_mm` in mm, the volume reflected at its border; `out` may be `values` itself."""
    result = scratch_array(values.shape) if out is None else out
    source = values
    for axis in range(3):
        gaussian_filter1d(source, sigma_mm / spacing[axis], axis, output=result, truncate=4.0)
        source = result
    return result


def local_contrast(
    j: Float[np.ndarray, "i j k"], spacing: Spacing
) -> tuple[Float[np.ndarray, "i j k"], Float[np.ndarray, "i j k"]]:
    """Return (contrast, background): c = max(G(.3 mm) j - background, 0), background = G(5 mm) min(j, 1.5).

    The contrast is a difference, not a ratio: dividing by a slow field costs accuracy near fat and air.
    """
    background = scratch_array(j.shape)
    np.minimum(j, BACKGROUND_CLIP, out=background)
    smooth(background, BACKGROUND_SIGMA_MM, spacing, out=background)
    contrast = smooth(j, IMAGE_SMOOTHING_MM, spacing)
    for s in _slabs(j.shape):
        contrast[s] -= background[s]
        np.maximum(contrast[s], 0, out=contrast[s])
    return contrast, background


def flux_maps(
    j: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    radii_mm: Sequence[float] = RADII_MM,
    core_share_max: float = CORE_SHARE_MAX,
    noise_region: Bool[np.ndarray, "i j k"] | None = None,
    exclude_thick: bool = True,
) -> FluxMaps:
    """Measure salience, tubularity and contrast of one volume, and the numbers that standardise them.

    A grey-value scale of the source changes nothing, because j is in tissue medians; nor does a length scale, if voxels
    and radii grow together. Large volumes get maps that lie in temporary files.

    Args:
        j: image in tissue medians.
        region: where vessels are sought.
        spacing: voxel size in mm.
        radii_mm: of the vessels looked for. The shortest and the longest should lie about as far apart as the default's
            (a factor of 7), because all other lengths follow the longest.
        core_share_max: share of the region above which the core is no vessels; more where hearts are in view.
        exclude_thick: whether bright objects wider than any vessel are left out; not where they are hearts, which
            vessels come from.
        noise_region: where the noise of Q is measured; None: in the whole region, nearly all of which is tissue.
    """
    unit, spacing_mm = length_unit(radii_mm), spacing
    spacing = spacing_in_units(spacing_mm, radii_mm)
    contrast, tubularity = local_contrast(j, spacing)
    salience = oriented_flux(j, spacing, radii_mm=[radius / unit for radius in radii_mm], region=region)
    thick = thick_objects(j, spacing_mm, largest_radius=max(radii_mm)) if exclude_thick else None
    looked_at = region if thick is None else region & ~thick
    for s in _slabs(j.shape):
        flux = np.where(looked_at[s], salience[s], 0)
        tubularity[s] = flux / np.maximum(contrast[s], TUBULARITY_CONTRAST_FLOOR)
        salience[s] = np.sqrt(contrast[s] * flux)
    noise = _noise_sd(salience, looked_at if noise_region is None else noise_region & looked_at)
    level = _large_vessel_level(salience, looked_at, spacing)
    scale = max(level, NOISE_FLOOR_MADS * noise)
    if scale > 0:
        for s in _slabs(j.shape):
            salience[s] /= scale
    contrast_scale = _large_vessel_level(contrast, looked_at, spacing)
    signal = min(level / noise, NOISELESS) if noise > 0 else NOISELESS * (level > 0)
    maps = FluxMaps(salience, tubularity, contrast, scale, contrast_scale, None, signal, tuple(radii_mm))
    if signal <= ALARM_MADS:
        return replace(maps, alarm=f"{NOT_FOUND}: nothing stands out from the noise")
    return replace(maps, alarm=_share_alarm(maps, region, spacing_mm, core_share_max))


def _noise_sd(salience: np.ndarray, region: np.ndarray) -> float:
    """Robust sd of the positive Q, which is noise nearly everywhere."""
    positive = _sample(salience, region)
    positive = positive[positive > 0]
    return 1.4826 * float(np.median(np.abs(positive - np.median(positive)))) if positive.size else 0.0


def _large_vessel_level(values: np.ndarray, region: np.ndarray, spacing: Spacing) -> float:
    """The value that this volume's large vessels reach: from blocks, so that one very bright object does not set it."""
    means = _block_means(values, region, spacing)
    return float(np.percentile(means, BLOCK_PERCENTILE)) if means.size else _contraharmonic_mean(values, region)


def _contraharmonic_mean(values: np.ndarray, region: np.ndarray) -> float:
    """sum x^(k+1) / sum x^k over the region, 0 where there is nothing; the mean that large values dominate."""
    above = below = 0.0
    for s in _slabs(values.shape):
        x = values[s][region[s]].astype(np.float64)
        power = x**CONTRAHARMONIC_POWER
        below += float(power.sum())
        above += float((power * x).sum())
    return above / below if below > 0 else 0.0


def _block_means(values: np.ndarray, region: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Contraharmonic means of the blocks of 12 mm that hold enough of the region."""
    edges = [max(1, round(BLOCK_MM / h)) for h in spacing]
    enough = min(BLOCK_MIN_VOXELS, BLOCK_MIN_SHARE * float(np.prod(edges)))
    starts = [np.arange(0, length, edge) for length, edge in zip(values.shape, edges, strict=True)]
    means = []
    for first in starts[0]:
        s = slice(first, first + edges[0])
        inside = region[s]
        x = np.where(inside, values[s], 0).astype(np.float64)
        power = x**CONTRAHARMONIC_POWER
        count, below, above = (
            np.add.reduceat(np.add.reduceat(part.sum(0), starts[1], 0), starts[2], 1)
            for part in (inside, power, power * x)
        )
        trusted = (count > enough) & (below > 0)
        means.append(above[trusted] / below[trusted])
    return np.concatenate(means)


def _share_alarm(maps: FluxMaps, region: np.ndarray, spacing: Spacing, share_max: float) -> str | None:
    """Say in words that too little or too much of the region looks like vessels."""
    core = flux_core(maps.salience, maps.tubularity, spacing, radii_mm=maps.radii_mm)
    share = core.sum() / max(1, int(region.sum()))
    if CORE_SHARE_MIN <= share <= share_max:
        return None
    few_or_many = "too little" if share < CORE_SHARE_MIN else "too much"
    return (
        f"{NOT_FOUND}: {100 * share:.2g} % of the region looks like vessels, {few_or_many} for arteries "
        f"({100 * CORE_SHARE_MIN:g}-{100 * share_max:g} %)"
    )


def flux_core(
    q: Float[np.ndarray, "i j k"],
    tubularity: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    radii_mm: Sequence[float] = RADII_MM,
) -> Bool[np.ndarray, "i j k"]:
    """Voxels that surely lie in vessels: salient, in components that are large enough and tubular or very salient.

    Both maps and `radii_mm` are those of `flux_maps`.
    """
    spacing = spacing_in_units(spacing, radii_mm)
    core = drop_small_components(hysteresis(q, CORE_LOW, CORE_HIGH), spacing, CORE_MIN_MM3)
    return drop_unlike_tubes(core, q, tubularity, sure_salience=SURE_SALIENCE, min_tubularity=CORE_TUBULARITY)


def flux_rule(
    j: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    maps: FluxMaps | None = None,
    radii_mm: Sequence[float] = RADII_MM,
) -> Bool[np.ndarray, "i j k"]:
    """The vessels by physics alone: the core with its wall. Empty when the maps raise an alarm.

    Given maps bring their own radii.
    """
    maps = maps or flux_maps(j, region, spacing, radii_mm=radii_mm)
    if maps.alarm is not None:
        return np.zeros(region.shape, bool)
    core = flux_core(maps.salience, maps.tubularity, spacing, radii_mm=maps.radii_mm)
    return radius_edge(j, core, maps.salience, spacing_in_units(spacing, maps.radii_mm)) & region
