"""This file measures, without labels, how much each voxel of an angiogram looks like a vessel.

Its words: *j* is the image in units of the tissue median, background at or above 0; the *contrast* c is how far j rises
above its surroundings; the *oriented flux* M (Law and Chung) is how strongly grey values flow out of a tube through
the voxel; Q = sqrt(c M) is in grey-value units, the *salience* q is Q over a scale that each volume gives itself, so
that a threshold on q means the same in every volume; the *tubularity* M / c is high in tubes and low in sheets.
Lengths are in mm, `spacing` is the voxel size along i, j, k. Masks are made from these maps in `prepare/edges.py`.

Everything is exact under tiling: kernels have finite support and every tile reads a halo that covers it.

References: Law and Chung, "Three dimensional curvilinear structure detection using optimally oriented flux",
ECCV 2008, equations 3-6.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d

from medseg.prepare.edges import (
    drop_small_components,
    drop_unlike_tubes,
    half_maximum_edge,
    hysteresis,
    radius_edge,
)

__all__ = [
    "FluxMaps",
    "drop_small_components",
    "drop_unlike_tubes",
    "flux_core",
    "flux_maps",
    "flux_rule",
    "half_maximum_edge",
    "hysteresis",
    "local_contrast",
    "oriented_flux",
    "radius_edge",
    "scratch_array",
    "smooth",
    "tissue_median",
]

Spacing = Sequence[float]
Tile = tuple[slice, slice, slice]

RADII_MM = (0.4, 0.6, 0.9, 1.3, 1.9, 2.7)
"""Tube radii looked for: distal branches to the carotid, in steps of about 1.45 so that no radius lies far between two."""
FLUX_SMOOTHING_MM = 0.3
"""Smallest sd of the Gaussian that goes with each ball; half a voxel of a usual TOF, enough to tame its noise."""
FLUX_SMOOTHING_PER_RADIUS = 0.25
"""Above it the Gaussian grows with the ball, because wider tubes have softer, curved walls."""
TILE_VOXELS = 160
"""Edge of a tile: with its halo about 210 voxels, so that one tile's working arrays stay under about half a GB."""

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
"""Region voxels that a block needs before its mean is trusted."""
BLOCK_PERCENTILE = 95.0
"""The scale comes from the blocks with large vessels; the maximum would be ruined by one very bright object."""
CONTRAHARMONIC_POWER = 4
"""k of sum(x^(k+1)) / sum(x^k): high enough that the mean lies on the vessels, whatever their share of the volume."""
NOISE_FLOOR_MADS = 25.0
"""The scale is at least this many robust sd (1.4826 MAD) of the positive Q, so that noise never reaches the core."""
ALARM_MADS = 12.0
"""Robust sd of the positive Q below which a scale is noise: pure noise of any grain reaches 4, arteries at a contrast of
five noise sd reach 12-20, so the alarm does not wait until the floor of 25 lets the scale go."""
STATISTICS_VOXELS = 1 << 23
"""Voxels above which medians are taken over every n-th voxel, to keep memory flat; the error is below a thousandth."""
SCRATCH_VOXELS = 1 << 26
"""Voxels above which the maps lie in a temporary file instead of memory (a quarter of a GB each)."""

CORE_LOW, CORE_HIGH = 0.30, 0.36
"""q of the core's hysteresis: the threshold that labels would have chosen lay at .29-.36 on all development volumes."""
CORE_MIN_MM3 = 2.0
"""Smallest component of the core: 5 mm of a vessel of .35 mm radius; specks of noise are smaller."""
SURE_SALIENCE = 0.7
"""A component whose q reaches this is a vessel whatever its shape (bends and branchings are no tubes)."""
CORE_TUBULARITY = 0.29
"""Median tubularity that other components need: tubes lie above, fat strands and sheets below."""
CORE_SHARE_MIN, CORE_SHARE_MAX = 0.0005, 0.04
"""Shares of the region that arteries can fill: a TOF of the brain has .2-2 %; outside, what was found is something else."""

# Central differences of eighth order: exact second and first derivatives of polynomials up to degree 9 and 8.
_SECOND = np.array([-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560])
_FIRST = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
_STENCIL_VOXELS = len(_FIRST)


@dataclass(frozen=True, eq=False)
class FluxMaps:
    """The maps of one volume and the numbers that standardise them.

    Attributes:
        salience: q >= 0, 0 outside the region; about 1 in the brightest large vessels, vessels above .3.
        tubularity: M / max(contrast, .05) in 1/mm x mm = unitless; above .3 in tubes, below .25 in sheets; 0 outside.
        contrast: c >= 0 in tissue medians, over the whole volume.
        scale: what Q was divided by, tissue medians.
        contrast_scale: contraharmonic mean of the contrast in the region, tissue medians.
        alarm: words that say why no vessel is believed, or None.
    """

    salience: Float[np.ndarray, "i j k"]
    tubularity: Float[np.ndarray, "i j k"]
    contrast: Float[np.ndarray, "i j k"]
    scale: float
    contrast_scale: float
    alarm: str | None


def scratch_array(shape: Sequence[int], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """Return a zeroed array, in memory when small, else in a temporary file that goes with the array."""
    if int(np.prod(shape)) <= SCRATCH_VOXELS:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:  # np.memmap keeps its own handle
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


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


def oriented_flux(
    j: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    radii_mm: Sequence[float] = RADII_MM,
    tile_voxels: int = TILE_VOXELS,
    region: Bool[np.ndarray, "i j k"] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """Return the largest oriented flux of bright tubes over the radii, M >= 0, in units of j per mm x mm.

    For each radius r: the Hessian of j smoothed by a Gaussian and a ball of radius r, over the area of the sphere,
    is the matrix of flux through the sphere; sqrt(l1 l2) of its two most negative eigenvalues, 0 unless both are
    negative. It is linear in j; an offset changes nothing.

    Args:
        j: image, reflected at its border.
        spacing: voxel size in mm, may differ by axis.
        radii_mm: tube radii.
        tile_voxels: edge of the tiles; the result does not depend on it.
        region: tiles without a voxel of it are left 0.
    """
    kernels = [_flux_kernel(radius, spacing) for radius in radii_mm]
    halo = [max(kernel.shape[axis] // 2 for kernel in kernels) + _STENCIL_VOXELS for axis in range(3)]
    flux = scratch_array(j.shape)
    for tile in _tiles(j.shape, tile_voxels):
        if region is None or region[tile].any():
            flux[tile] = _flux_of_tile(j, tile, halo, kernels, spacing)
    return flux


def _tiles(shape: Sequence[int], tile_voxels: int) -> Iterator[Tile]:
    """Cut a volume into equal tiles of at most `tile_voxels` along each axis."""
    counts = [-(-length // tile_voxels) for length in shape]
    cuts = [[length * n // count for n in range(count + 1)] for length, count in zip(shape, counts, strict=True)]
    axes = [[slice(a, b) for a, b in zip(cut, cut[1:], strict=False)] for cut in cuts]
    for i, j, k in product(*axes):
        yield i, j, k


def _reflected(start: int, stop: int, length: int) -> np.ndarray:
    """Indices start..stop of an axis that is mirrored at its ends (the border voxel counts twice)."""
    folded = np.arange(start, stop) % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)


def _flux_kernel(radius_mm: float, spacing: Spacing) -> Float[np.ndarray, "i j k"]:
    """Ball of the radius over its sphere's area, smoothed by the Gaussian: band-limited and of finite support.

    It is the inverse Fourier transform of the analytic product, cut where the Gaussian has fallen to 3e-4.
    """
    sigma_mm = max(FLUX_SMOOTHING_MM, FLUX_SMOOTHING_PER_RADIUS * radius_mm)
    half = [int(np.ceil((radius_mm + 4 * sigma_mm) / h)) for h in spacing]
    shape = [2 * n + 1 for n in half]
    axes = [2 * np.pi * scipy.fft.fftfreq(n, h) for n, h in zip(shape, spacing, strict=True)]
    square = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    x = np.sqrt(square) * radius_mm
    small = x < 1e-3
    x = np.where(small, 1.0, x)
    ball_over_area = radius_mm * np.where(small, 1 / 3, (np.sin(x) - x * np.cos(x)) / x**3)
    kernel = scipy.fft.ifftn(ball_over_area * np.exp(-0.5 * sigma_mm**2 * square)).real
    return scipy.fft.fftshift(kernel)


def _flux_of_tile(
    j: np.ndarray, tile: Tile, halo: Sequence[int], kernels: Sequence[np.ndarray], spacing: Spacing
) -> np.ndarray:
    """The flux inside one tile. In double precision: the square root near 0 would make single visible (3e-4)."""
    lengths = [t.stop - t.start for t in tile]
    indices = [_reflected(t.start - n, t.stop + n, length) for t, n, length in zip(tile, halo, j.shape, strict=True)]
    padded = j[np.ix_(*indices)].astype(np.float64)
    shape = [scipy.fft.next_fast_len(length + 2 * n, real=True) for length, n in zip(lengths, halo, strict=True)]
    spectrum = scipy.fft.rfftn(padded, s=shape)
    inner = tuple(slice(n, n + length) for n, length in zip(halo, lengths, strict=True))
    second, first = zip(*(_derivatives(shape, axis, h) for axis, h in enumerate(spacing)), strict=True)
    best = np.zeros(lengths)
    for kernel in kernels:
        smoothed = spectrum * _transfer(kernel, shape)
        hessian = [
            scipy.fft.irfftn(smoothed * operator, s=shape)[inner]
            for operator in (*second, -first[0] * first[1], -first[0] * first[2], -first[1] * first[2])
        ]
        for n in range(lengths[0]):  # one plane at a time stays in the processor's cache
            np.maximum(best[n], _tube_strength(*(component[n] for component in hessian)), out=best[n])
    return best


def _transfer(kernel: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Fourier transform of a centred kernel on a larger grid: real, because the kernel is even."""
    spectrum = scipy.fft.rfft(kernel, n=shape[2], axis=2)
    spectrum = scipy.fft.fft(spectrum, n=shape[1], axis=1)
    spectrum = scipy.fft.fft(spectrum, n=shape[0], axis=0)
    for axis, length in enumerate(shape):
        half = kernel.shape[axis] // 2
        waves = np.arange(spectrum.shape[axis]) / length
        spectrum *= np.expand_dims(np.exp(2j * np.pi * half * waves), [a for a in range(3) if a != axis])
    return spectrum.real


def _derivatives(shape: Sequence[int], axis: int, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Transfer functions of the second derivative, and of the first over i, along one axis of a half spectrum."""
    count = shape[axis] // 2 + 1 if axis == 2 else shape[axis]
    waves = 2 * np.pi * np.arange(count) / shape[axis]
    steps = np.arange(1, _STENCIL_VOXELS + 1)
    second = (_SECOND[0] + 2 * np.cos(np.outer(waves, steps)) @ _SECOND[1:]) / spacing_mm**2
    first = 2 * np.sin(np.outer(waves, steps)) @ _FIRST / spacing_mm
    others = [a for a in range(3) if a != axis]
    return np.expand_dims(second, others), np.expand_dims(first, others)


def _tube_strength(
    ii: np.ndarray, jj: np.ndarray, kk: np.ndarray, ij: np.ndarray, ik: np.ndarray, jk: np.ndarray
) -> np.ndarray:
    """sqrt(l1 l2) of the two most negative eigenvalues of symmetric matrices, 0 unless both are negative.

    Only the largest eigenvalue l3 is solved for (in closed form); l1 + l2 and l1 l2 follow from trace and minors.
    """
    trace = ii + jj + kk
    mean = trace / 3
    a, b, c = ii - mean, jj - mean, kk - mean
    aa, bb, cc = ij * ij, ik * ik, jk * jk
    variance = np.maximum((a * a + b * b + c * c + 2 * (aa + bb + cc)) / 6, 1e-60)
    deviation = np.sqrt(variance)
    half_determinant = (a * (b * c - cc) - ij * (ij * c - ik * jk) + ik * (ij * jk - b * ik)) / 2
    angle = np.arccos(np.clip(half_determinant / (variance * deviation), -1, 1)) / 3
    largest = mean + 2 * deviation * np.cos(angle)
    minors = ii * jj - aa + ii * kk - bb + jj * kk - cc
    rest = trace - largest
    return np.where(rest < 0, np.sqrt(np.maximum(minors - largest * rest, 0)), 0)


def flux_maps(j: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], spacing: Spacing) -> FluxMaps:
    """Measure salience, tubularity and contrast of one volume, and the numbers that standardise them.

    A grey-value scale of the source changes nothing, because j is in tissue medians. Large volumes get maps that lie
    in temporary files.
    """
    contrast, tubularity = local_contrast(j, spacing)
    salience = oriented_flux(j, spacing, region=region)
    for s in _slabs(j.shape):
        flux = np.where(region[s], salience[s], 0)
        tubularity[s] = flux / np.maximum(contrast[s], TUBULARITY_CONTRAST_FLOOR)
        salience[s] = np.sqrt(contrast[s] * flux)
    noise = _noise_sd(salience, region)
    own_scale = _own_scale(salience, region, spacing)
    scale = max(own_scale, NOISE_FLOOR_MADS * noise)
    if scale > 0:
        for s in _slabs(j.shape):
            salience[s] /= scale
    maps = FluxMaps(salience, tubularity, contrast, scale, _contraharmonic_mean(contrast, region), None)
    return replace(maps, alarm=_alarm(maps, region, spacing, own_scale <= ALARM_MADS * noise))


def _noise_sd(salience: np.ndarray, region: np.ndarray) -> float:
    """Robust sd of the positive Q, which is noise nearly everywhere."""
    positive = _sample(salience, region)
    positive = positive[positive > 0]
    return 1.4826 * float(np.median(np.abs(positive - np.median(positive)))) if positive.size else 0.0


def _own_scale(salience: np.ndarray, region: np.ndarray, spacing: Spacing) -> float:
    """The Q of this volume's large vessels: from blocks, so that one very bright object does not set it."""
    means = _block_means(salience, region, spacing)
    return float(np.percentile(means, BLOCK_PERCENTILE)) if means.size else _contraharmonic_mean(salience, region)


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
        trusted = (count > BLOCK_MIN_VOXELS) & (below > 0)
        means.append(above[trusted] / below[trusted])
    return np.concatenate(means)


def _alarm(maps: FluxMaps, region: np.ndarray, spacing: Spacing, only_noise: bool) -> str | None:
    """Say in words why the volume seems to hold no vessels."""
    if only_noise:
        return "no vessels found: nothing stands out from the noise"
    share = flux_core(maps.salience, maps.tubularity, spacing).sum() / max(1, int(region.sum()))
    if not CORE_SHARE_MIN <= share <= CORE_SHARE_MAX:
        few_or_many = "too little" if share < CORE_SHARE_MIN else "too much"
        return (
            f"no vessels found: {100 * share:.2g} % of the region looks like vessels, {few_or_many} for arteries "
            f"({100 * CORE_SHARE_MIN:g}-{100 * CORE_SHARE_MAX:g} %)"
        )
    return None


def flux_core(
    q: Float[np.ndarray, "i j k"], tubularity: Float[np.ndarray, "i j k"], spacing: Spacing
) -> Bool[np.ndarray, "i j k"]:
    """Voxels that surely lie in vessels: salient, in components that are large enough and tubular or very salient."""
    core = drop_small_components(hysteresis(q, CORE_LOW, CORE_HIGH), spacing, CORE_MIN_MM3)
    return drop_unlike_tubes(core, q, tubularity, sure_salience=SURE_SALIENCE, min_tubularity=CORE_TUBULARITY)


def flux_rule(
    j: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    maps: FluxMaps | None = None,
) -> Bool[np.ndarray, "i j k"]:
    """The vessels by physics alone: the core with its wall. Empty when the maps raise an alarm."""
    maps = maps or flux_maps(j, region, spacing)
    if maps.alarm is not None:
        return np.zeros(region.shape, bool)
    core = flux_core(maps.salience, maps.tubularity, spacing)
    return radius_edge(j, core, maps.salience, spacing) & region
