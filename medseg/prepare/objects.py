"""This file finds what is bright and too thick to be a vessel: a bleeding, a tumour, a lake of fat or contrast agent.

Its words: an object is *thick* where a ball wider than any vessel fits into it. Such an object is no vessel, yet its
rim carries the largest flux of the volume; left in, it would set the scale by which all vessels are judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from skimage.measure import block_reduce

Spacing = Sequence[float]

THICK_RADII = 2.0
"""Radius of the ball in multiples of the widest vessel's: 5.4 mm by default, so that aneurysms of 1 cm stay."""
BRIGHT = 1.5
"""Tissue medians from which on a block is bright: tissue varies by a third, the rest is blood, fat or calcium."""
COARSE_PER_RADIUS = 0.75
"""Edge of the blocks in multiples of the widest radius: 2 mm by default; enough to tell 4 mm from 8 mm."""


def thick_objects(
    j: Float[np.ndarray, "i j k"], spacing: Spacing, *, largest_radius: float
) -> Bool[np.ndarray, "i j k"] | None:
    """Find bright objects that are too thick to be vessels, with the rim that their flux reaches; None without any.

    Block means are opened by a ball (Soille, "Morphological Image Analysis", section 4.2), which keeps what is thick,
    and the result is widened by one radius of the widest vessel.

    Args:
        j: image in tissue medians.
        spacing: voxel size in mm.
        largest_radius: of the vessels looked for, mm.
    """
    edge = COARSE_PER_RADIUS * largest_radius
    factors = [max(1, round(edge / size)) for size in spacing]
    coarse_spacing = [size * factor for size, factor in zip(spacing, factors, strict=True)]
    bright = block_reduce(np.minimum(j, 2 * BRIGHT), tuple(factors), np.mean) > BRIGHT
    if bright.all():
        return None
    inner = distance_transform_edt(bright, sampling=coarse_spacing) > THICK_RADII * largest_radius
    if not inner.any():
        return None
    reach = (THICK_RADII + 1) * largest_radius
    near = distance_transform_edt(~inner, sampling=coarse_spacing) <= reach
    for axis, factor in enumerate(factors):
        near = np.repeat(near, factor, axis)
    return near[: j.shape[0], : j.shape[1], : j.shape[2]]
