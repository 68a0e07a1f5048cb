"""This file measures how strongly grey values flow into a tube: the oriented flux of a volume, tile by tile.

Its words: the *radius* is that of the tube, and of the sphere through which the flux is measured; a *tile* is a box of
the volume with a *halo* that covers the support of every kernel, so the result does not depend on the tiles.
Lengths are in mm, `spacing` is the voxel size along i, j, k.

References: Law and Chung, "Three dimensional curvilinear structure detection using optimally oriented flux",
ECCV 2008, equations 3-6.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise, product

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float

Spacing = Sequence[float]
Tile = tuple[slice, slice, slice]

RADII_MM = (0.4, 0.6, 0.9, 1.3, 1.9, 2.7)
"""Tube radii looked for: distal branches to the carotid, in steps of 1.45, so that no radius lies far between two."""
FLUX_SMOOTHING_MM = 0.3
"""Smallest sd of the Gaussian that goes with each ball; half a voxel of a usual TOF, enough to tame its noise."""
FLUX_SMOOTHING_PER_RADIUS = 0.25
"""Above it the Gaussian grows with the ball, because wider tubes have softer, curved walls."""
TILE_VOXELS = 160
"""Edge of a tile: with its halo about 210 voxels, so that one tile's working arrays stay under about half a GB."""
SCRATCH_VOXELS = 1 << 26
"""Voxels above which the maps lie in a temporary file instead of memory (a quarter of a GB each)."""

# Central differences of eighth order: exact second and first derivatives of polynomials up to degree 9 and 8.
_SECOND = np.array([-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560])
_FIRST = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
_STENCIL_VOXELS = len(_FIRST)


def length_unit(radii_mm: Sequence[float]) -> float:
    """Return how many mm stand for one of this rule's mm when other radii than `RADII_MM` are looked for.

    The rule knows no length but those of vessels, so it is the same at any scale: with vessels five times as wide,
    each constant in mm is five times as long. Dividing the spacing by this number does that everywhere at once.
    It is exactly 1 for the default radii.
    """
    return max(radii_mm) / max(RADII_MM)


def spacing_in_units(spacing: Spacing, radii_mm: Sequence[float]) -> tuple[float, float, float]:
    """Return the voxel size in the rule's own mm, see `length_unit`."""
    i, j, k = (size / length_unit(radii_mm) for size in spacing)
    return i, j, k


def scratch_array(shape: Sequence[int], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """Return a zeroed array, in memory when small, else in a temporary file that goes with the array."""
    if int(np.prod(shape)) <= SCRATCH_VOXELS:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:  # np.memmap keeps its own handle
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


def oriented_flux(
    j: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    radii_mm: Sequence[float] = RADII_MM,
    tile_voxels: int = TILE_VOXELS,
    region: Bool[np.ndarray, "i j k"] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """Return the largest oriented flux of bright tubes over the radii, M >= 0, in j per mm.

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


def _tiles(shape: Sequence[int], tile_voxels: int) -> Iterable[Tile]:
    """Cut a volume into equal tiles of at most `tile_voxels` along each axis."""
    counts = [-(-length // tile_voxels) for length in shape]
    cuts = [[length * n // count for n in range(count + 1)] for length, count in zip(shape, counts, strict=True)]
    axes = [[slice(a, b) for a, b in pairwise(cut)] for cut in cuts]
    return product(*axes)


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
            scipy.fft.irfftn(smoothed * operator, s=shape)[inner].copy()  # else the halo stays in memory six times
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
