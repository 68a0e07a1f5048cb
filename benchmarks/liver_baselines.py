"""This file makes the liver benchmark's plain rows: fixed shapes, mean shapes, and clusters of grey value and position.

u is the lateral position (-1 to 1) and v the depth (0 to 1) in the sector. Every mask lies inside the found sector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from liver_cases import Frame, Masks, Picture, Plan
from liver_scores import LIVER, TISSUE, as_classes, cluster_table, value_of_cluster
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from medseg.prepare.sector import POLAR
from medseg.scoring.overlap import dice
from medseg.stego.clustering import fit_kmeans
from medseg.stego.model import nearness

ELLIPSE_CENTRE, ELLIPSE_HALF = (0.45, 0.0), (0.35, 0.9)
"""Centre and half axes (v, u) of the ellipse that stands for a liver in the middle of the sector."""
THRESHOLDS = tuple(np.arange(0.2, 0.71, 0.05).round(2).tolist())
"""Shares of the training labels among which that with the highest mean Dice on them bounds the mean shape."""
CLUSTERS, CLUSTER_POINTS, CLUSTER_STARTS = 5, 20_000, 3
"""K, sampled cells and starts of k-means on grey value and position."""
SMOOTHING = 2.0
"""Standard deviation (cells) of the Gaussian that takes the speckle off grey values before they are clustered."""
_SIZE = POLAR  # rows and columns of the mean shape


def sector_grid(size: int = POLAR) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """v and u of each cell of a sector grid."""
    share = (np.arange(size) + 0.5) / size
    v, u = np.meshgrid(share, 2 * share - 1, indexing="ij")
    return v, u


def ellipse(size: int = POLAR) -> Bool[np.ndarray, "s s"]:
    """The ellipse on a sector grid."""
    v, u = sector_grid(size)
    return ((v - ELLIPSE_CENTRE[0]) / ELLIPSE_HALF[0]) ** 2 + ((u - ELLIPSE_CENTRE[1]) / ELLIPSE_HALF[1]) ** 2 < 1


def whole_sector(plan: Plan) -> Masks:
    """Liver wherever the sector is."""
    return {picture.name: as_classes(picture.frame.mask, picture.frame.mask) for picture in plan.report}


def fixed_ellipse(plan: Plan) -> Masks:
    """Liver in the ellipse."""
    shape = ellipse().astype(np.float32)
    return {picture.name: _inside(picture.frame, picture.frame.spread(shape) > 0.5) for picture in plan.report}


def mean_shape_of_pictures(plan: Plan) -> Masks:
    """The mean of the training labels, each resized to a square, whatever its sector."""
    return _mean_shape(plan, lambda _, label: label, lambda frame, shape: _resized(shape, frame.shape))


def mean_shape_of_boxes(plan: Plan) -> Masks:
    """The same, each cut to the bounding box of its sector first."""

    def gather(frame: Frame, label: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "a b"]:
        return label[bounding_box(frame.mask)]

    def spread(frame: Frame, shape: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "h w"]:
        found = np.zeros(frame.shape, np.float32)
        box = bounding_box(frame.mask)
        found[box] = _resized(shape, found[box].shape)
        return found

    return _mean_shape(plan, gather, spread)


def mean_shape_of_sectors(plan: Plan) -> Masks:
    """The same on the grids of the sectors."""

    def gather(frame: Frame, label: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "a b"]:
        return frame.gathered(label.astype(np.uint8)) > 0

    return _mean_shape(plan, gather, lambda frame, shape: frame.spread(shape))


def bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The smallest box that holds a mask; the whole picture for an empty one."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def best_threshold(
    shares: Sequence[Float[np.ndarray, "_h _w"]], references: Sequence[Bool[np.ndarray, "_h _w"]]
) -> float:
    """The one of `THRESHOLDS` above which shares agree best with the references, by mean Dice."""
    means = [
        np.nanmean([dice(share > threshold, true) for share, true in zip(shares, references, strict=True)])
        for threshold in THRESHOLDS
    ]
    return THRESHOLDS[int(np.argmax(means))]


def _mean_shape(
    plan: Plan,
    gather: Callable[[Frame, Bool[np.ndarray, "h w"]], Bool[np.ndarray, "_a _b"]],
    spread: Callable[[Frame, Float[np.ndarray, "s s"]], Float[np.ndarray, "h w"]],
) -> Masks:
    """The mean of the training labels where they lie in a common frame, above the threshold that suits them best."""
    references = [picture.label >= LIVER for picture in plan.taught]
    pairs = list(zip(plan.taught, references, strict=True))
    shape = np.mean([_resized(gather(picture.frame, true), (_SIZE, _SIZE)) for picture, true in pairs], axis=0)
    shares = [spread(picture.frame, shape) * picture.frame.mask for picture in plan.taught]
    threshold = best_threshold(shares, references)
    return {picture.name: _inside(picture.frame, spread(picture.frame, shape) > threshold) for picture in plan.report}


def clusters_of_position(plan: Plan, seed: int) -> dict[str, Masks]:
    """Clusters of grey value, u and v of all training pictures, by each way of naming them."""
    random = np.random.default_rng(seed)
    points = np.concatenate([_channels(picture.frame)[picture.frame.region] for picture in plan.taught])
    sampled = points[random.choice(len(points), min(CLUSTER_POINTS, len(points)), replace=False)]
    mean, sd = sampled.mean(axis=0), sampled.std(axis=0)
    fitted = fit_kmeans(
        torch.from_numpy((sampled - mean) / sd), CLUSTERS, metric="euclidean", starts=CLUSTER_STARTS, seed=seed
    )

    def clusters(frame: Frame) -> UInt8[np.ndarray, "160 160"]:
        values = torch.from_numpy((_channels(frame).reshape(-1, 3) - mean) / sd)
        nearest = nearness(values.T[None], fitted.prototypes, "euclidean")[0].argmax(0).numpy()
        return (nearest.reshape(frame.image.shape) + 1).astype(np.uint8) * frame.region

    found = {picture.name: clusters(picture.frame) for picture in {*plan.taught, *plan.report}}
    rule = [(found[picture.name], ellipse().astype(np.uint8) + TISSUE) for picture in plan.taught]
    named = {"rule": rule, "labels": _labelled(plan.taught, found), "oracle": _labelled(plan.report, found)}
    masks = {}
    for names, pairs in named.items():
        values = value_of_cluster(np.asarray(sum(cluster_table(*pair, CLUSTERS) for pair in pairs)))
        masks[names] = {picture.name: picture.frame.placed(values[found[picture.name]]) for picture in plan.report}
    return masks


def _labelled(
    pictures: Sequence[Picture], found: Mapping[str, UInt8[np.ndarray, "s s"]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clusters and labels of pictures, both in the grid of the sector."""
    return [(found[picture.name], picture.frame.gathered(picture.label)) for picture in pictures]


def _channels(frame: Frame) -> Float[np.ndarray, "160 160 3"]:
    v, u = sector_grid()
    return np.stack([gaussian_filter(frame.image, SMOOTHING), v, u], axis=-1).astype(np.float32)


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> Float[np.ndarray, "a b"]:
    return resize(values.astype(np.float32), shape, order=1, anti_aliasing=True)


def _inside(frame: Frame, union: Integer[np.ndarray, "h w"] | Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return as_classes(union & frame.mask, frame.mask)
