"""This file turns ticked cells into *rough labels*: vessel, no vessel, or unknown for each voxel of a scan.

In a ticked cell (see `annotations`) some voxels are vessel and the others are not; grey values decide which. The voxels
of all ticked cells of a slice are divided together: slices differ in brightness, as inflow fades and slabs change, but
a single cell may hold so little vessel that its own noise would be divided instead. Where the brighter part fills more
than vessels can, fluid or air was divided from tissue, and the brighter part is divided again. Cells of seen slices
that were not ticked are no vessel; all else is unknown.

References:
    Dang et al., Vessel-CAPTCHA: an efficient learning framework for vessel annotation and segmentation, Medical Image
    Analysis 75 (2022), which divides each cell by k-means.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int8, Num

from medseg.errors import MedsegError
from medseg.naming.annotations import AnnotatedSlice, Annotation, cut_cell, slice_axis

METHODS = ("kmeans", "mixture")
"""How grey values are divided: by the two nearest means, or by a mixture of two normal distributions of one width."""
UNKNOWN, NO_VESSEL, VESSEL = -1, 0, 1
VESSEL_WIDTH_MM = 1.5
"""Of what crosses a ticked cell, on average: a band as wide as this fills the largest share that vessels are believed
to have. From 1.25 to 1.5 nothing changed on phantoms; at 2, tissue was taken for vessel where cells held much fluid."""
LARGEST_SHARE = 0.5
"""Of vessels in ticked cells, also where cells are smaller than twice that width."""
MOST_ROUNDS = 200
"""Of the mixture; some 30 are the rule."""
CLOSE_ENOUGH = 1e-4
"""Change of both means in a round, in standard deviations of all values, at which the mixture stands still."""


def rough_labels(
    image: Num[np.ndarray, "i j k"], annotation: Annotation, method: str = "kmeans"
) -> Int8[np.ndarray, "i j k"]:
    """Rough labels on the scan's own stored grid.

    A ticked cell in which nothing is as bright as the vessels of its slice stays unknown as a whole: the annotator says
    that it holds one, and grey values do not say where.

    Args:
        image: grey values in which vessels are bright.
        annotation: of that scan.
        method: one of `METHODS`.

    Returns:
        `VESSEL`, `NO_VESSEL` or `UNKNOWN` for each voxel.

    Raises:
        MedsegError: the image has another shape, or there is no such method.
    """
    if image.shape != annotation.grid.shape:
        raise MedsegError(
            f"the scan of {annotation.case} must have the shape {annotation.grid.shape} that was annotated, got "
            f"{image.shape}; give the scan itself"
        )
    if method not in METHODS:
        raise MedsegError(f"method must be one of {', '.join(METHODS)}, got {method}; choose one")
    labels = np.full(image.shape, UNKNOWN, np.int8)
    axis = slice_axis(annotation.grid.affine)
    for part in annotation.slices:
        # Views: what is written into them is written into the labels.
        _label_slice(
            np.moveaxis(labels, axis, 0)[part.index], np.moveaxis(image, axis, 0)[part.index], part, annotation, method
        )
    return labels


def _label_slice(
    labels: Int8[np.ndarray, "rows columns"],
    values: Num[np.ndarray, "rows columns"],
    part: AnnotatedSlice,
    annotation: Annotation,
    method: str,
) -> None:
    if part.seen:
        labels[...] = NO_VESSEL
    if not part.ticked:
        return
    is_ticked = np.zeros(values.shape, bool)
    for place in part.ticked:
        cut_cell(is_ticked, place, annotation.cell)[...] = True
    is_vessel = np.zeros(values.shape, bool)
    is_vessel[is_ticked] = brightest_part(values[is_ticked].astype(np.float64), _most_share(annotation), method)
    labels[is_ticked] = np.where(is_vessel[is_ticked], VESSEL, NO_VESSEL)
    for place in part.ticked:
        if not cut_cell(is_vessel, place, annotation.cell).any():
            cut_cell(labels, place, annotation.cell)[...] = UNKNOWN


def _most_share(annotation: Annotation) -> float:
    """Largest share of ticked cells that vessels are believed to have."""
    axis = slice_axis(annotation.grid.affine)
    spacing = np.delete(annotation.grid.spacing, axis)
    return min(VESSEL_WIDTH_MM / (annotation.cell * float(np.sqrt(spacing.prod()))), LARGEST_SHARE)


def brightest_part(values: Float[np.ndarray, " n"], most: float, method: str) -> Bool[np.ndarray, " n"]:
    """Which values are those of vessels.

    Args:
        values: of the ticked cells of a slice.
        most: share of them that vessels have at most; a brighter part that is larger is divided again.
        method: one of `METHODS`; what is divided again, k-means decides for both.

    Returns:
        None of them where all values are equal.
    """
    chosen = np.ones(len(values), bool)
    bright = by_kmeans(values)
    while bright.sum() > most * len(values):
        inner = by_kmeans(values[bright])
        if not inner.any():  # all of them are equal
            break
        chosen = bright.copy()
        bright[chosen] = inner
    if method == "mixture":
        bright[chosen] = by_mixture(values[chosen])
    return bright


def by_kmeans(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which values belong to the brighter of two means, so that squared distances are least.

    In one dimension the best two groups are divided by a threshold, so all of them are tried: there is no first guess
    on which the answer could depend.

    Returns:
        None of them where all values are equal.

    Example:
        >>> by_kmeans(np.array([1.0, 2, 9, 1])).tolist()
        [False, False, True, False]
    """
    ordered = np.sort(values)
    dark = np.arange(1, len(values))  # how many are in the darker group
    if not len(dark) or ordered[0] == ordered[-1]:
        return np.zeros(len(values), bool)
    sums = np.cumsum(ordered - ordered.mean())[:-1]
    between = sums**2 * (1 / dark + 1 / (len(values) - dark))  # the mean of all is 0
    between[ordered[1:] == ordered[:-1]] = -1  # equal values cannot be divided
    best = int(between.argmax())
    return values > ordered[best]


def by_mixture(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which values more likely belong to the brighter of two normal distributions, fitted by expectation-maximisation.

    Both have one standard deviation, so that a threshold divides them: a brighter part with a width of its own takes
    the flanks of tissue as well (on four phantoms a Dice of .64 to .86 instead of .84 to .90). It begins with
    `by_kmeans`.

    Returns:
        None of them where all values are equal.
    """
    is_bright = by_kmeans(values)
    if not is_bright.any():
        return is_bright
    spread = values.std()
    share = np.stack([~is_bright, is_bright]).astype(np.float64)  # of each part in each value
    means = np.full(2, np.inf)
    for _ in range(MOST_ROUNDS):
        weight = share.sum(1)
        before, means = means, share @ values / weight
        squared = (values - means[:, None]) ** 2
        variance = (share * squared).sum() / len(values)
        if np.abs(means - before).max() < CLOSE_ENOUGH * spread or not variance:
            break
        log = np.log(weight)[:, None] - squared / (2 * variance)
        share = np.exp(log - log.max(0)) + np.finfo(np.float64).tiny
        share /= share.sum(0)
    return share[1] > share[0]
