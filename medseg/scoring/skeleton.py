"""This file thins masks to their centre lines, measures those, and scores with them (clDice).

*Skeleton*: the one voxel wide centre line of a mask, with the topology of the mask. Volumes are thinned
by Lee's algorithm; a volume that is one slice thick is an image, and images are thinned by Zhang's.

References:
    Lee, Kashyap and Chu, CVGIP 56(6), 1994 (thinning in 3-D); Zhang and Suen, CACM 27(3), 1984 (in 2-D).
    Shit et al., clDice, CVPR 2021, arXiv:2003.07311, equations 1 and 2.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import find_objects
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize


def bounding_box(mask: Bool[np.ndarray, "i j k"]) -> tuple[slice, slice, slice]:
    """The smallest box that holds the mask; an empty box for an empty mask."""
    # Projections first: find_objects alone would read the whole volume as integers.
    slices = []
    for axis in range(3):
        along = mask.any(axis=tuple(other for other in range(3) if other != axis))
        found = find_objects(along.astype(np.uint8))
        slices.append(found[0][0] if found else slice(0, 0))
    return slices[0], slices[1], slices[2]


def skeleton(mask: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """Thin a mask to its centre line.

    scikit-image's thinning loses pieces of 2 x 2 (x 2) voxels whole. That is kept, for clDice is published with it;
    only when nothing else is left of a mask does it stand for its own centre line.
    """
    mask = np.asarray(mask, dtype=bool)
    line = np.zeros_like(mask)
    box = bounding_box(mask)  # thinning looks at direct neighbours only, so the box gives the same line, sooner
    inside = mask[box]
    if not inside.size:
        return line
    if 1 in mask.shape:
        flat = mask.shape.index(1)
        thin = np.expand_dims(skeletonize(inside.squeeze(flat), method="zhang"), flat)
    else:
        thin = skeletonize(inside, method="lee").astype(bool)
    line[box] = thin if thin.any() else inside
    return line


def cldice(
    predicted: Bool[np.ndarray, "i j k"],
    reference: Bool[np.ndarray, "i j k"],
    *,
    predicted_skeleton: Bool[np.ndarray, "i j k"] | None = None,
    reference_skeleton: Bool[np.ndarray, "i j k"] | None = None,
) -> float:
    """Centre-line Dice: how much of each mask's centre line lies in the other mask.

    Args:
        predicted: the mask to judge.
        reference: the truth, on the same grid.
        predicted_skeleton: the skeleton of `predicted`, where the caller has it already.
        reference_skeleton: the skeleton of `reference`, likewise.

    Returns:
        The harmonic mean of topology precision and topology sensitivity, 0 to 1. NaN when both masks
        are empty, 0 when one is.
    """
    if not predicted.any() or not reference.any():
        return 0.0 if predicted.any() or reference.any() else float("nan")
    predicted_line = skeleton(predicted) if predicted_skeleton is None else predicted_skeleton
    reference_line = skeleton(reference) if reference_skeleton is None else reference_skeleton
    precision = np.count_nonzero(predicted_line & reference) / np.count_nonzero(predicted_line)
    sensitivity = np.count_nonzero(reference_line & predicted) / np.count_nonzero(reference_line)
    return float(2 * precision * sensitivity / (precision + sensitivity)) if precision + sensitivity else 0.0


def centreline_length(line: Bool[np.ndarray, "i j k"], spacing: tuple[float, float, float]) -> float:
    """Length of a skeleton in mm.

    Neighbouring voxels (26) are joined by their distance in mm, and each piece is measured along its
    shortest spanning tree: the corners of a staircase are not counted twice, and a closed ring lacks one step.

    Args:
        line: a skeleton.
        spacing: voxel size in mm.

    Returns:
        The sum over all pieces; 0 for an empty skeleton and for single voxels.
    """
    voxels = np.argwhere(line)
    if len(voxels) < 2:
        return 0.0
    pairs = cKDTree(voxels).query_pairs(1.01 * np.sqrt(3), output_type="ndarray")
    lengths = np.linalg.norm((voxels[pairs[:, 0]] - voxels[pairs[:, 1]]) * np.asarray(spacing, dtype=float), axis=1)
    graph = coo_array((lengths, (pairs[:, 0], pairs[:, 1])), shape=(len(voxels), len(voxels)))
    return float(minimum_spanning_tree(graph.tocsr()).sum())
