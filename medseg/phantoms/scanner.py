"""This file does to an ideal image what a scanner does: slabs, ghosts, sampling, noise.

Brightness is in tissue medians.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import fft, ndimage

Spacing = tuple[float, float, float]
_DIP_MM = 2.5
"""Half width of the dim band where two slabs meet: the outer slices that a slab profile loses."""
_PAD_VOXELS = 8
"""Mirrored border before a Fourier transform, so that one face of the volume does not ring into the opposite one."""


def inflow_shares(slices: int, remaining: float, slabs: int) -> Float[np.ndarray, " k"]:
    """Share of fresh signal in each slice: 1 where a slab starts, `remaining` where it ends."""
    through = (np.arange(slices) * slabs / slices) % 1.0
    return (1 - (1 - remaining) * through).astype(np.float32)


def slab_gains(slices: int, spacing_mm: float, slabs: int, dip: float) -> Float[np.ndarray, " k"]:
    """Gain of each slice that falls by `dip` where two slabs meet: the blinds of overlapping thin slabs."""
    gains = np.ones(slices, np.float32)
    for border in range(1, slabs):
        distance_mm = (np.arange(slices) + 0.5 - border * slices / slabs) * spacing_mm
        gains *= (1 - dip * np.exp(-0.5 * (distance_mm / _DIP_MM) ** 2)).astype(np.float32)
    return gains


def ghosts(moving: Float[np.ndarray, "i j k"], share: float) -> Float[np.ndarray, "i j k"]:
    """What pulsation adds to the image: the moving signal at a third of the volume to either side along j."""
    step = moving.shape[1] // 3
    # The two side bands of a pulsation have opposite phase, so one brightens the tissue and the other dims it.
    return share * (np.roll(moving, step, axis=1) - 0.5 * np.roll(moving, -step, axis=1))


def cut_k_space(
    image: Float[np.ndarray, "i j k"], spacing: Spacing, acquired_mm: Spacing, apodise: float = 0.0
) -> Float[np.ndarray, "i j k"]:
    """Sample the image at a coarser voxel size and interpolate it back by zeros in k-space.

    Args:
        image: on the grid.
        spacing: of the grid, in mm.
        acquired_mm: the coarser voxel size; an axis along which it is no coarser stays as it is.
        apodise: share of the sampled frequencies, from their upper end, that fade out as a raised cosine.
    """
    padded = np.pad(image.astype(np.float32), _PAD_VOXELS, mode="reflect")
    spectrum = fft.rfftn(padded)
    for axis, (size, coarse) in enumerate(zip(spacing, acquired_mm, strict=True)):
        if coarse <= size:
            continue
        length = padded.shape[axis]
        frequency = np.abs((fft.rfftfreq if axis == 2 else fft.fftfreq)(length, size)) * 2 * coarse
        fading = np.clip((frequency - (1 - apodise)) / max(apodise, 1e-6), 0, 1)
        window = (0.5 + 0.5 * np.cos(np.pi * fading)).astype(np.float32)
        spectrum *= window.reshape([-1 if axis == position else 1 for position in range(3)])
    inner = tuple(slice(_PAD_VOXELS, -_PAD_VOXELS) for _ in range(3))
    return np.ascontiguousarray(fft.irfftn(spectrum, padded.shape)[inner])


def add_rician_noise(
    rng: np.random.Generator,
    image: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    sd: float | Float[np.ndarray, "i j k"],
    grain_mm: float = 0.0,
    acquired_mm: Spacing | None = None,
    apodise: float = 0.0,
) -> Float[np.ndarray, "i j k"]:
    """The magnitude of `image` plus complex Gaussian noise of standard deviation `sd` in each of its two parts.

    Args:
        rng: the source of the noise.
        image: the noiseless brightness.
        spacing: voxel size in mm.
        sd: in the units of the image; one number, or one for each voxel.
        grain_mm: neighbouring voxels share noise over this length (a Gaussian's sigma); 0 for independent voxels.
        acquired_mm: voxel size at which the scanner samples the noise as it does the image; None for the grid's own.
        apodise: as in `cut_k_space`.
    """
    real, imaginary = (rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    if grain_mm > 0:
        sigma_voxels = [grain_mm / size for size in spacing]
        real, imaginary = (
            _unit_sd(ndimage.gaussian_filter(part, sigma_voxels, mode="wrap")) for part in (real, imaginary)
        )
    if acquired_mm is not None:
        real, imaginary = (_unit_sd(cut_k_space(part, spacing, acquired_mm, apodise)) for part in (real, imaginary))
    return np.hypot(image + sd * real, sd * imaginary)


def _unit_sd(values: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    return values / values.std()
