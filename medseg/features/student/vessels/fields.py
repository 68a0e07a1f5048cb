"""This file makes smooth random fields for one window: a few plane waves, cheap because each is a product of axes.

Its words: a *field* has mean 0 and sd 1 over its draws, and hardly changes within its *length* (mm).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

WAVES = 3
"""Plane waves in a field: enough that no window looks like stripes, few enough to cost a millisecond each."""


def smooth_field(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float], lengths_mm: tuple[float, float]
) -> Float[np.ndarray, "i j k"]:
    """Draw a sum of plane waves whose wavelengths lie (log-uniform) between two lengths."""
    field = np.zeros(shape, np.float32)
    for _ in range(WAVES):
        direction = rng.normal(size=3)
        wavelength_mm = np.exp(rng.uniform(*np.log(lengths_mm)))
        wave = 2 * np.pi / wavelength_mm * direction / np.linalg.norm(direction)
        x, y, z = (np.exp(1j * n * h * np.arange(length)) for n, h, length in zip(wave, spacing, shape, strict=True))
        x = x * np.exp(2j * np.pi * rng.uniform())
        plane = (y[:, None] * z).astype(np.complex64).reshape(-1)
        x = x.astype(np.complex64)
        # Re(x y z) as one product of real matrices: half the work of complex ones.
        real = np.stack([x.real, -x.imag], axis=1) @ np.stack([plane.real, plane.imag])
        field += real.reshape(field.shape)
    field *= np.float32(np.sqrt(2 / WAVES))
    return field
