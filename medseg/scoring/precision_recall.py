"""This file measures how well the similarity of two places predicts that they have the same label.

A *pair* is two places with a similarity and the answer whether their labels are the same. Every similarity that occurs
is a threshold: pairs at or above it are predicted to be the same.

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022, section 3.1.
    Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs, NeurIPS 2011, eq. 3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class PrecisionRecall(NamedTuple):
    """Precision and recall at each threshold, the highest first, and the area under them.

    Attributes:
        precision: share of the predicted pairs that have the same label.
        recall: share of the pairs of the same label that are predicted; rises to 1.
        average: average precision, the mean of precision over recall in steps.
    """

    precision: Float[np.ndarray, " t"]
    recall: Float[np.ndarray, " t"]
    average: float


def precision_recall(similarity: Float[np.ndarray, " n"], same_label: Bool[np.ndarray, " n"]) -> PrecisionRecall:
    """Precision against recall over all thresholds; pairs of equal similarity enter together.

    Args:
        similarity: of each pair, in any unit; only the order counts.
        same_label: whether the two places have the same label.

    Returns:
        The curve; without any pair of the same label recall and average precision are NaN.

    Raises:
        ValueError: a similarity is NaN.
    """
    if np.isnan(similarity).any():
        raise ValueError("similarity must be a number in every pair")
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order]
    last_of_its_value = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else order
    right = np.cumsum(same_label[order])[last_of_its_value].astype(float)
    precision = right / (last_of_its_value + 1)
    total = float(np.count_nonzero(same_label))
    recall = right / total if total else np.full_like(right, np.nan)
    steps = np.diff(recall, prepend=0.0)
    return PrecisionRecall(precision, recall, float((steps * precision).sum()) if total else float("nan"))


def crf_affinity(
    first: Float[np.ndarray, "n 5"],
    second: Float[np.ndarray, "n 5"],
    *,
    smoothness_weight: float = 3,
    smoothness_sigma: float = 1,
    appearance_weight: float = 4,
    appearance_sigma_xy: float = 67,
    appearance_sigma_rgb: float = 3,
) -> Float[np.ndarray, " n"]:
    """Logarithm of the dense CRF's kernel between the two places of each pair.

    `k = w1 exp(-|dp|^2 / 2 xy^2 - |dI|^2 / 2 rgb^2) + w2 exp(-|dp|^2 / 2 s^2)`. The logarithm keeps the order of pairs
    whose kernel is too small for a number.

    Args:
        first, second: row, column (pixels), red, green, blue (0 to 255) of the places.
        smoothness_weight, smoothness_sigma: w2 and s (pixels), of the kernel of places.
        appearance_weight, appearance_sigma_xy, appearance_sigma_rgb: w1, xy and rgb, of the kernel of places and
            colours; all as in the CRF that the published program evaluates with.
    """
    difference = (np.asarray(first, float) - second) ** 2
    place, colour = difference[:, :2].sum(1), difference[:, 2:].sum(1)
    alike = np.log(appearance_weight) - place / (2 * appearance_sigma_xy**2) - colour / (2 * appearance_sigma_rgb**2)
    near = np.log(smoothness_weight) - place / (2 * smoothness_sigma**2)
    return np.logaddexp(alike, near)
