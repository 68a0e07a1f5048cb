"""This file measures, without any label, how good a clustering of codes looks, so that one of several can be chosen.

*Candidate*: the head of one checkpoint and a number of clusters K. *Signal*: a number of a candidate; with all of them
higher is meant to be better. Whether it is, only labelled data can tell: see `docs/choosing.md`.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from medseg.patches.datasets import PatchDataset
from medseg.stego.clustering import PointSample, fit_kmeans
from medseg.stego.head import AnyHead
from medseg.stego.health import measure_codes
from medseg.stego.model import ClusterModel, Metric, nearness, unit
from medseg.stego.settings import StegoSettings

SIGNALS = {
    "stability": "agreement of clusterings fitted on disjoint halves of the points (adjusted Rand index)",
    "seed_stability": "agreement of clusterings of all points from other seeds (adjusted Rand index)",
    "crop_stability": "agreement of two windows on the pixels that both show (adjusted Rand index)",
    "silhouette": "simplified silhouette of the codes",
    "correspondence": "correlation of code cosine and feature cosine over pairs of points",
    "purity": "share of a point's nearest neighbours in features that share its cluster, beyond chance",
    "effective_rank": "directions that the codes use",
    "spread": "one minus the mean cosine of the codes",
}
"""Signals, in words."""

DEFAULT_SIGNAL = "stability"
"""What a choice is made by unless the user says otherwise; the simplest, see `docs/choosing.md`."""

_SPLITS = 3  # halvings, and seeds: few, because each costs a k-means
_STABILITY_POINTS = 6000  # k-means takes most of the time; docs/choosing.md was measured with so many
_PAIRS = 20_000  # of points, for a correlation known to about .01
_NEIGHBOURS = 10
_NEIGHBOUR_POINTS = 4000  # all distances among them are held at once: 64 MB
_WINDOW_PAIRS = 200


def fit_codes(
    head: AnyHead,
    codes: Float[Tensor, "n e"],
    settings: StegoSettings,
    *,
    clusters: int,
    seed: int,
    learnt: Float[Tensor, "k e"] | None = None,
) -> ClusterModel:
    """Cluster the codes of a head as a training does at its end.

    Args:
        head: of a checkpoint.
        codes: of the sampled points.
        settings: of the run.
        clusters: K.
        seed: of k-means.
        learnt: prototypes of the checkpoint's probe; they are taken where the run clusters by them and K is theirs.
    """
    if settings.cluster_fit == "probe" and learnt is not None and len(learnt) == clusters:
        return ClusterModel("stego", head, learnt, "cosine", settings.cluster_alpha)
    metric = code_metric(settings)
    fitted = fit_kmeans(codes, clusters, metric=metric, starts=settings.kmeans_starts, seed=seed)
    sharpness = settings.cluster_alpha if metric == "cosine" else 1 / max(fitted.spread, 1e-12)
    return ClusterModel("stego", head, fitted.prototypes, metric, sharpness)


def code_metric(settings: StegoSettings) -> Metric:
    """The distance of codes; the cluster probe's is the cosine."""
    return "cosine" if settings.cluster_fit == "probe" else settings.code_metric


def measure_candidate(
    model: ClusterModel,
    codes: Float[Tensor, "n e"],
    points: PointSample,
    dataset: PatchDataset,
    *,
    starts: int,
    seed: int,
) -> dict[str, float]:
    """All signals of one candidate.

    Args:
        model: its clustering.
        codes: of the points, by its head.
        points: on which it was fitted.
        dataset: the patches they were sampled from.
        starts: of each k-means.
        seed: of the draws; candidates that are compared take the same.

    Returns:
        Values by the keys of `SIGNALS`; `crop_stability` is NaN where no two windows of a slice overlap.
    """
    near = nearness(codes, model.prototypes, model.metric)
    health = measure_codes(codes, near)
    order = np.random.default_rng([seed, 8]).permutation(len(codes))[:_STABILITY_POINTS]
    some = codes[torch.from_numpy(order)]
    return {
        "stability": half_stability(some, model.clusters, model.metric, starts=starts, seed=seed),
        "seed_stability": seed_stability(some, model.clusters, model.metric, seed=seed),
        "crop_stability": crop_stability(model, dataset, seed=seed),
        "silhouette": silhouette(codes, model.prototypes, model.metric),
        "correspondence": correspondence(codes, points.features, seed=seed),
        "purity": neighbour_purity(points.features, near.argmax(1).numpy(), seed=seed),
        "effective_rank": health.effective_rank,
        "spread": 1 - health.mean_cosine,
    }


def contingency(first: Integer[np.ndarray, " n"], second: Integer[np.ndarray, " n"]) -> Int[np.ndarray, "k m"]:
    """How often each pair of clusters meets."""
    table = np.zeros((int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(table, (first, second), 1)
    return table


def adjusted_rand(table: Integer[np.ndarray, "k m"]) -> float:
    """Adjusted Rand index of two clusterings of the same points: 1 for equal ones, 0 for the agreement of chance.

    Args:
        table: see `contingency`.

    Returns:
        The index; 1 where both put all points into one cluster or each into its own, which then are equal.

    References:
        Hubert and Arabie, Comparing partitions, Journal of Classification 2 (1985), equation 5.

    Example:
        >>> adjusted_rand(np.array([[2, 0], [0, 2]]))
        1.0
    """

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0) / 2).sum())

    both, first, second = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = first * second / max(pairs(np.asarray(table.sum())), 1.0)
    largest = (first + second) / 2
    return (both - chance) / (largest - chance) if largest != chance else 1.0


def half_stability(codes: Float[Tensor, "n e"], clusters: int, metric: Metric, *, starts: int, seed: int) -> float:
    """Mean agreement of the clusterings of two random halves, each extended to all points.

    References:
        von Luxburg, Clustering stability: an overview, Foundations and Trends in Machine Learning 2 (2010), section 2.
    """
    found = []
    for split in range(_SPLITS):
        order = torch.from_numpy(np.random.default_rng([seed, 4, split]).permutation(len(codes)))
        halves = [
            _cluster(
                codes, fit_kmeans(codes[part], clusters, metric=metric, starts=starts, seed=seed).prototypes, metric
            )
            for part in order.tensor_split(2)
        ]
        found.append(adjusted_rand(contingency(*halves)))
    return float(np.mean(found))


def seed_stability(codes: Float[Tensor, "n e"], clusters: int, metric: Metric, *, seed: int) -> float:
    """Mean agreement of clusterings of all points from single starts of other seeds.

    References:
        von Luxburg 2010, section 3.1: it tells how many local optima K has, not whether K is right.
    """
    found = [
        _cluster(codes, fit_kmeans(codes, clusters, metric=metric, starts=1, seed=seed + start).prototypes, metric)
        for start in range(_SPLITS)
    ]
    return float(np.mean([adjusted_rand(contingency(*pair)) for pair in combinations(found, 2)]))


def crop_stability(model: ClusterModel, dataset: PatchDataset, *, seed: int) -> float:
    """Agreement of the clusters that two overlapping windows of a slice give to the pixels in both.

    A volume backbone's features do not depend on the window, and then this is 1.

    Returns:
        The adjusted Rand index over the pixels of up to 200 pairs; NaN where no windows overlap.
    """
    pairs = overlapping_windows(dataset)
    if not len(pairs):
        return float("nan")
    if len(pairs) > _WINDOW_PAIRS:
        pairs = np.random.default_rng([seed, 5]).choice(pairs, _WINDOW_PAIRS, replace=False)
    table = np.zeros((model.clusters, model.clusters), dtype=np.int64)
    for pair in pairs.tolist():
        maps = [cluster_map(model, dataset, index) for index in pair]
        corners = np.array([_location(dataset, index)[1:] for index in pair])
        start, stop = corners.max(0), corners.min(0) + maps[0].shape
        shared = [
            found[tuple(map(slice, start - corner, stop - corner))] for found, corner in zip(maps, corners, strict=True)
        ]
        np.add.at(table, tuple(shared), 1)
    return adjusted_rand(table)


def cluster_map(model: ClusterModel, dataset: PatchDataset, index: int) -> Int[np.ndarray, "h w"]:
    """The nearest cluster of each pixel of a patch; a cell of the feature grid gives its cluster to all its pixels."""
    item = dataset[index]
    found = nearness(model.codes(item["features"][None]), model.prototypes, model.metric)[0].argmax(0).numpy()
    pixels = item["image"].shape[-2:]
    rows, columns = (np.arange(n) * cells // n for n, cells in zip(pixels, found.shape, strict=True))
    return found[rows[:, None], columns]


def overlapping_windows(dataset: PatchDataset) -> Int[np.ndarray, "n 2"]:
    """Pairs of patches of one slice whose windows share at least a quarter of a window."""
    found = []
    for number, store in enumerate(dataset.stores):
        indices = np.flatnonzero(dataset.store_index == number)
        places = np.asarray(store.locations)[dataset.patch_index[indices]]
        if not len(indices):
            continue
        size = np.array(store.salience(0).shape)
        for slice_index in np.unique(places[:, 0]):
            members = np.flatnonzero(places[:, 0] == slice_index)
            for a, b in combinations(members.tolist(), 2):
                shared = np.maximum(size - np.abs(places[a, 1:] - places[b, 1:]), 0)
                if 4 * shared.prod() >= size.prod() and shared.prod() < size.prod():
                    found.append((indices[a], indices[b]))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def silhouette(codes: Float[Tensor, "n e"], prototypes: Float[Tensor, "k e"], metric: Metric) -> float:
    """Mean of `(b - a) / max(a, b)`: a is a point's distance to its own prototype, b that to the second nearest.

    Distances are Euclidean, or one minus the cosine.

    References:
        Rousseeuw, Silhouettes, Journal of Computational and Applied Mathematics 20 (1987); with prototypes instead of
        all points: Vendramin, Campello and Hruschka, Statistical Analysis and Data Mining 3 (2010), section 3.
    """
    near = nearness(codes, prototypes, metric).topk(2, dim=1).values.double()
    distance = (1 - near if metric == "cosine" else -near).clamp_min(0)
    if metric == "euclidean":
        distance = distance.sqrt()
    own, other = distance[:, 0], distance[:, 1]
    return float(((other - own) / other.clamp_min(1e-12)).mean())


def correspondence(codes: Float[Tensor, "n e"], features: Float[Tensor, "n d"], *, seed: int) -> float:
    """Pearson correlation of the code cosine and the feature cosine of random pairs: what STEGO trains for.

    Returns:
        The correlation; 0 where one of the two does not vary.

    References:
        Hamilton et al., STEGO, ICLR 2022, section 3.1.
    """
    random = np.random.default_rng([seed, 6])
    first = torch.from_numpy(random.integers(len(codes), size=_PAIRS))
    second = (first + torch.from_numpy(random.integers(1, max(len(codes), 2), size=_PAIRS))) % len(codes)
    cosine = [(unit(values[first]) * unit(values[second])).sum(1).double().numpy() for values in (codes, features)]
    if min(values.std() for values in cosine) < 1e-9:
        return 0.0
    return float(np.corrcoef(cosine[0], cosine[1])[0, 1])


def neighbour_purity(features: Float[Tensor, "n d"], assigned: Int[np.ndarray, " n"], *, seed: int) -> float:
    """Share of the 10 nearest points in features (by cosine) that lie in a point's cluster, beyond chance.

    Returns:
        `(share - chance) / (1 - chance)` with the chance that two random points share a cluster; 0 with one cluster.
    """
    count = min(len(features), _NEIGHBOUR_POINTS)
    chosen = np.random.default_rng([seed, 7]).choice(len(features), count, replace=False)
    values, clusters = unit(features[torch.from_numpy(chosen)].float()), torch.from_numpy(assigned[chosen])
    cosine = (values @ values.T).fill_diagonal_(-2)
    nearest = cosine.topk(min(_NEIGHBOURS, count - 1), dim=1).indices
    share = float((clusters[nearest] == clusters[:, None]).double().mean())
    sizes = torch.bincount(clusters).double()
    chance = float((sizes * (sizes - 1)).sum()) / (count * (count - 1))
    return (share - chance) / (1 - chance) if chance < 1 else 0.0


def _cluster(codes: Tensor, prototypes: Tensor, metric: Metric) -> Int[np.ndarray, " n"]:
    return nearness(codes, prototypes, metric).argmax(1).numpy()


def _location(dataset: PatchDataset, index: int) -> Int[np.ndarray, "3"]:
    return np.asarray(dataset.stores[dataset.store_index[index]].locations[dataset.patch_index[index]], dtype=np.int64)
