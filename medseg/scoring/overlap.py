"""This file scores one mask against one reference: every number of the score table.

Empty masks are decided here, for every score: a ratio (Dice, clDice, precision, recall, surface Dice) is NaN
when both masks are empty and 0 when one is; a distance is NaN when one is; counts, lengths and volumes
of nothing are 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import cc3d
import numpy as np
from jaxtyping import Bool, Integer

from medseg.errors import MedsegError
from medseg.scoring.skeleton import bounding_box, centreline_length, cldice, skeleton
from medseg.scoring.surface import hausdorff_95, surface_dice

UNION = "union"
"""The name under which all foreground classes together are scored."""


def dice(predicted: Bool[np.ndarray, "*shape"], reference: Bool[np.ndarray, "*shape"]) -> float:
    """Twice the common voxels over the sum of both; NaN when both masks are empty, 0 when one is."""
    both = np.count_nonzero(predicted) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(predicted & reference) / both) if both else float("nan")


def precision(predicted: Bool[np.ndarray, "*shape"], reference: Bool[np.ndarray, "*shape"]) -> float:
    """Share of the predicted voxels that are right; NaN when both masks are empty, 0 when one is."""
    count = np.count_nonzero(predicted)
    if not count:
        return 0.0 if reference.any() else float("nan")
    return float(np.count_nonzero(predicted & reference) / count)


def recall(predicted: Bool[np.ndarray, "*shape"], reference: Bool[np.ndarray, "*shape"]) -> float:
    """Share of the reference's voxels that were found; NaN when both masks are empty, 0 when one is."""
    return precision(reference, predicted)


def components(mask: Bool[np.ndarray, "i j k"]) -> int:
    """Number of pieces that do not touch, not even by a corner (26 neighbours)."""
    inside = np.ascontiguousarray(mask[bounding_box(mask)])
    return int(cc3d.connected_components(inside, connectivity=26, return_N=True)[1]) if inside.size else 0


def score_mask(
    predicted: Bool[np.ndarray, "_ _ _"],
    reference: Bool[np.ndarray, "i j k"],
    spacing: tuple[float, float, float],
    *,
    region: Bool[np.ndarray, "_ _ _"] | None = None,
) -> dict[str, float]:
    """Score a mask against a reference.

    Args:
        predicted: the mask to judge.
        reference: the truth, on the same grid.
        spacing: voxel size in mm.
        region: where given, both masks count inside it only; without it misses outside a brain mask count.

    Returns:
        `dice`, `cldice`, `precision`, `recall`, `hd95_mm`, `surface_dice_1voxel`, then of the predicted mask
        `components` (26 neighbours) and `centreline_mm`, and `volume_difference_ml` (predicted minus reference).

    Raises:
        MedsegError: the arrays differ in shape.

    Example:
        >>> mask = np.zeros((4, 4, 4), dtype=bool)
        >>> mask[1:3, 1:3, 1:3] = True
        >>> score_mask(mask, mask, (1.0, 1.0, 1.0))["dice"]
        1.0
    """
    predicted, reference = np.asarray(predicted, dtype=bool), np.asarray(reference, dtype=bool)
    for name, array in (("predicted mask", predicted), ("region", region)):
        if array is not None and array.shape != reference.shape:
            raise MedsegError(
                f"{name} must have the shape of the reference {reference.shape}, got {array.shape}; "
                "bring both onto the scan's grid"
            )
    if region is not None:
        inside = np.asarray(region, dtype=bool)
        predicted, reference = predicted & inside, reference & inside
    voxel_ml = float(np.prod(spacing)) / 1000
    volume_difference_ml = float(np.count_nonzero(predicted) - np.count_nonzero(reference)) * voxel_ml
    predicted_line, reference_line = skeleton(predicted), skeleton(reference)
    return {
        "dice": dice(predicted, reference),
        "cldice": cldice(predicted, reference, predicted_skeleton=predicted_line, reference_skeleton=reference_line),
        "precision": precision(predicted, reference),
        "recall": recall(predicted, reference),
        "hd95_mm": hausdorff_95(predicted, reference, spacing),
        "surface_dice_1voxel": surface_dice(predicted, reference),
        "components": float(components(predicted)),
        "centreline_mm": centreline_length(predicted_line, spacing),
        "volume_difference_ml": volume_difference_ml,
    }


def score_labels(
    predicted: Integer[np.ndarray, "_ _ _"],
    reference: Integer[np.ndarray, "i j k"],
    spacing: tuple[float, float, float],
    *,
    region: Bool[np.ndarray, "_ _ _"] | None = None,
    names: Mapping[int, str] | None = None,
    background: Collection[int] = (),
) -> dict[str, dict[str, float]]:
    """Score integer labels: all foreground together, then each class where there are several.

    Args:
        predicted: labels, 0 is background.
        reference: the true labels, on the same grid.
        spacing: voxel size in mm.
        region: see `score_mask`.
        names: class names by value; a value without one is called `class VALUE`.
        background: values that are no part of the union, such as the tissue around an organ.

    Returns:
        Scores by structure: `union`, and, when the reference or the prediction holds more than one
        class, one entry a class. A class that only one of them holds scores 0.
    """
    around = [0, *background]
    found = {UNION: score_mask(~np.isin(predicted, around), ~np.isin(reference, around), spacing, region=region)}
    values = sorted(value for value in _values(predicted) | _values(reference) if value)
    if len(values) > 1:
        for value in values:
            name = (names or {}).get(value, f"class {value}")
            found[name] = score_mask(predicted == value, reference == value, spacing, region=region)
    return found


def _values(labels: Integer[np.ndarray, "i j k"]) -> set[int]:
    """The values that occur; a count, because sorting a volume takes seconds."""
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
