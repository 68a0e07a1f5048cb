"""This file groups the segments of all pictures into classes, and leaves out those that cannot be trusted.

Words: *principal components* are the directions in which the features of the segments differ most; *over-clustering* is
k-means with more clusters than classes are wanted, which are then merged; *noise* is the label of segments that are too
small for a network to know what they show.

The published program uses mini-batches, which spare memory where there are millions of points. Segments are some tens a
picture, so whole k-means with several starts is used here: it is what mini-batches come near to.

References:
    Kumar, Sur and Baruah, DatUS, 2024, section III. Ward, Journal of the American Statistical Association 58, 1963.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from medseg.datus.segments import OUTSIDE
from medseg.errors import MedsegError
from medseg.stego.clustering import fit_kmeans

NOISE = -1
"""Label of segments that belong to no class."""
COMPONENTS = 32
"""Principal components that are kept; fewer where there are fewer segments."""
LEAST_CELLS = 6
"""Cells below which a segment is noise, as published."""
STARTS = 10
"""Of k-means; the tightest result is kept."""
PROBABILITY = 0.7
"""Of a cell's own class before the CRF; the others share the rest."""


def principal_components(features: Float[Tensor, "n d"], most: int = COMPONENTS) -> Float[Tensor, "n c"]:
    """The features in the directions in which they differ most, around their mean."""
    centred = features.double() - features.double().mean(0)
    left, strengths, _ = torch.linalg.svd(centred, full_matrices=False)
    return (left * strengths)[:, :most].float()


def label_segments(
    features: Float[Tensor, "n d"],
    cells: Integer[np.ndarray, " n"],
    *,
    clusters: int,
    classes: int,
    seed: int = 0,
) -> Integer[np.ndarray, " n"]:
    """The class of each segment, 0 to `classes` - 1, or `NOISE`.

    Args:
        features: of the segments of all pictures.
        cells: how many cells each segment has; those of fewer than `LEAST_CELLS` are noise and make no cluster.
        clusters: of k-means.
        classes: that are wanted; more clusters than that are merged, the pair first whose merging adds least to the
            spread within classes (Ward).
        seed: of k-means.

    Raises:
        MedsegError: there are fewer segments than clusters.
    """
    large = cells >= LEAST_CELLS
    if large.sum() < clusters:
        raise MedsegError(
            f"pictures must have at least {clusters} segments of {LEAST_CELLS} cells or more for {clusters} clusters, "
            f"got {large.sum()}; ask for fewer clusters, raise --resolution, or use more pictures"
        )
    places = principal_components(features[torch.from_numpy(large)])
    fitted = fit_kmeans(places, clusters, metric="euclidean", starts=STARTS, seed=seed)
    prototypes = fitted.prototypes.double()
    nearest = torch.cdist(places.double(), prototypes).argmin(1).numpy()
    class_of = merged(prototypes.numpy(), np.bincount(nearest, minlength=clusters), classes)
    labels = np.full(len(cells), NOISE, dtype=np.int64)
    labels[large] = class_of[nearest]
    return labels


def merged(
    prototypes: Float[np.ndarray, "k c"], sizes: Integer[np.ndarray, " k"], classes: int
) -> Integer[np.ndarray, " k"]:
    """The class of each cluster after Ward's merging, numbered in the order of their first clusters."""
    groups = [[number] for number in range(len(prototypes))]
    centres, weights = prototypes.astype(np.float64), np.maximum(sizes, 1).astype(np.float64)
    while len(groups) > classes:
        apart = ((centres[:, None] - centres) ** 2).sum(-1)
        cost = apart * weights[:, None] * weights / (weights[:, None] + weights)
        cost[np.tril_indices(len(groups))] = np.inf
        keep, gone = np.unravel_index(cost.argmin(), cost.shape)
        total = weights[keep] + weights[gone]
        centres[keep] = (centres[keep] * weights[keep] + centres[gone] * weights[gone]) / total
        weights[keep] = total
        groups[keep] += groups.pop(gone)
        centres, weights = np.delete(centres, gone, axis=0), np.delete(weights, gone)
    class_of = np.empty(len(prototypes), dtype=np.int64)
    for number, members in enumerate(sorted(groups, key=min)):
        class_of[members] = number
    return class_of


def pseudo_mask(
    segments: Integer[np.ndarray, "hc wc"], labels: Integer[np.ndarray, " s"]
) -> Integer[np.ndarray, "hc wc"]:
    """The label of each cell's segment; noise, and cells that are not looked at, are `NOISE`."""
    return np.where(segments == OUTSIDE, NOISE, np.append(labels, NOISE)[segments])


def log_probabilities(
    mask: Integer[np.ndarray, "hc wc"], size: tuple[int, int], classes: Integer[np.ndarray, " t"]
) -> Float[np.ndarray, "t h w"]:
    """What a CRF starts from: the classes of a pseudo mask, its steps smoothed to the picture's size.

    Args:
        mask: class of each cell; where it is `NOISE`, all are as likely.
        size: of the picture.
        classes: those that are wanted, usually those that occur.
    """
    known = torch.from_numpy(mask[None] == classes[:, None, None]).float()
    others = (1 - PROBABILITY) / max(len(classes) - 1, 1)
    shares = torch.where(known.any(0), others + (PROBABILITY - others) * known, 1 / max(len(classes), 1))
    wide = torch.nn.functional.interpolate(shares[None], size, mode="bilinear", align_corners=False)[0]
    return wide.clamp(min=1e-6).log().numpy()
