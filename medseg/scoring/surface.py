"""This file measures how far the surfaces of two masks lie from each other.

*Surface*: the voxels of a mask with a face neighbour outside it; what lies beyond the volume is outside.
Distances are taken between surface voxels by a k-d tree: exact for any spacing, in the memory of the surfaces
and not of the volume, and without the seconds that MONAI's metrics need to start torch (the tests compare
with those).

References:
    Huttenlocher et al., PAMI 15(9), 1993 (Hausdorff distance). Nikolov et al., arXiv:1809.04430 (surface Dice).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from medseg.scoring.skeleton import bounding_box


def surface_voxels(mask: Bool[np.ndarray, "i j k"]) -> Float[np.ndarray, "n 3"]:
    """Indices of the surface voxels of a mask; `[0, 3]` for an empty one."""
    box = bounding_box(mask)
    inside = mask[box]
    start = [along.start for along in box]
    return np.argwhere(inside & ~binary_erosion(inside)) + np.asarray(start, dtype=float)


def surface_distances(
    from_voxels: Float[np.ndarray, "n 3"], to_voxels: Float[np.ndarray, "m 3"], spacing: tuple[float, float, float]
) -> Float[np.ndarray, " n"]:
    """Distance of each voxel to the nearest of the others, in the unit of `spacing`; neither set may be empty."""
    scale = np.asarray(spacing, dtype=float)
    return cKDTree(to_voxels * scale).query(from_voxels * scale)[0]


def hausdorff_95(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]
) -> float:
    """The larger of the two directed 95th percentiles of surface distance, in mm.

    Returns:
        0 for equal masks. NaN when a mask is empty: there is no distance to nothing, and a 0 would
        be the best of all values.
    """
    predicted_surface, reference_surface = surface_voxels(predicted), surface_voxels(reference)
    if not len(predicted_surface) or not len(reference_surface):
        return float("nan")
    there = np.percentile(surface_distances(predicted_surface, reference_surface, spacing), 95)
    back = np.percentile(surface_distances(reference_surface, predicted_surface, spacing), 95)
    return float(max(there, back))


def surface_dice(
    predicted: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"], *, tolerance_voxels: float = 1.0
) -> float:
    """Share of both surfaces that lies within a tolerance of the other one.

    The tolerance is in voxels, along each axis the voxel's own size: a mask that is off by a step along
    a coarse axis and one that is off by a step along a fine axis are equally right.

    Returns:
        0 to 1; NaN when both masks are empty, 0 when one is.
    """
    predicted_surface, reference_surface = surface_voxels(predicted), surface_voxels(reference)
    if not len(predicted_surface) or not len(reference_surface):
        return 0.0 if len(predicted_surface) or len(reference_surface) else float("nan")
    unit = (1.0, 1.0, 1.0)
    near = np.count_nonzero(surface_distances(predicted_surface, reference_surface, unit) <= tolerance_voxels)
    near += np.count_nonzero(surface_distances(reference_surface, predicted_surface, unit) <= tolerance_voxels)
    return float(near / (len(predicted_surface) + len(reference_surface)))
