"""This file fits clusters to points sampled from the training patches: k-means, by cosine or Euclidean.

Half of the points come from the most salient pixels by default: thin structures fill so little of a volume that uniform
points never show them. No point lies outside the region, where salience is negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.patches.datasets import PatchDataset
from medseg.progress import track
from medseg.stego.model import Metric, nearness, unit
from medseg.stego.sampling import generator_for

_MOST_PATCHES = 2000
_ITERATIONS = 100


@dataclass(frozen=True)
class PointSample:
    """Pixels of the training patches, with what is known of each.

    Attributes:
        features: frozen features.
        image: mean prepared image value of the pixel's cell, over colours too.
        salience: largest salience in the cell.
        case: place of the case in `PatchDataset.stores`.
        patch: place of the patch in the case's store.
        cell: row and column in the feature map.
        grid: rows and columns of the feature maps.
        salient: whether the point was drawn from the most salient pixels; the others are a uniform sample.
    """

    features: Float[Tensor, "n d"]
    image: Float[np.ndarray, " n"]
    salience: Float[np.ndarray, " n"]
    case: Int[np.ndarray, " n"]
    patch: Int[np.ndarray, " n"]
    cell: Int[np.ndarray, "n 2"]
    grid: tuple[int, int]
    salient: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


def salience_threshold(dataset: PatchDataset, top: float, seed: int) -> float:
    """The salience above which a pixel belongs to the share `top` of all pixels, from up to 2000 patches."""
    chosen = _some_patches(dataset, np.random.default_rng([seed, 2]))
    return _threshold(np.concatenate([_salience(dataset, index) for index in chosen.tolist()]), top)


def sample_points(
    dataset: PatchDataset, count: int, salient_share: float, seed: int, *, salient_top: float = 0.05
) -> PointSample:
    """Draw pixels from the training patches (from 2000 of them at most).

    Args:
        dataset: the patches.
        count: points; fewer where the patches hold fewer pixels of the region.
        salient_share: share of the points that is drawn from the `salient_top` most salient pixels, the rest uniformly.
        seed: of the draw.
        salient_top: share of all pixels that counts as salient.
    """
    random = np.random.default_rng([seed, 3])
    chosen = _some_patches(dataset, random)
    (height, width), area = dataset.grid, dataset.grid[0] * dataset.grid[1]
    salience = np.concatenate([_salience(dataset, index) for index in chosen.tolist()])
    candidates = np.flatnonzero(salience > _threshold(salience, salient_top))
    salient_count = min(round(count * salient_share), len(candidates))
    inside = np.flatnonzero(salience >= 0)
    uniform_count = min(count - salient_count, len(inside))
    picked = np.concatenate(
        (
            random.choice(candidates, salient_count, replace=False),
            inside[random.choice(len(inside), uniform_count, replace=False)],
        )
    )
    features = torch.empty((len(picked), dataset.feature_dim))
    image = np.empty(len(picked), dtype=np.float32)
    order = np.argsort(picked // area, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(picked[order] // area)) + 1)
    for points in track(groups, "sampling points"):
        item = dataset[int(chosen[picked[points[0]] // area])]
        cells = torch.from_numpy(picked[points] % area)
        features[points] = item["features"].flatten(1)[:, cells].T
        pixels = item["image"].reshape(-1, *item["image"].shape[-2:])
        means = functional.adaptive_avg_pool2d(pixels, (height, width)).mean(0)
        image[points] = means.flatten()[cells].numpy()
    patch = chosen[picked // area]
    return PointSample(
        features=features,
        image=image,
        salience=salience[picked],
        case=dataset.store_index[patch],
        patch=dataset.patch_index[patch],
        cell=np.stack(np.divmod(picked % area, width), axis=1),
        grid=(height, width),
        salient=np.arange(len(picked)) < salient_count,
    )


def _some_patches(dataset: PatchDataset, random: np.random.Generator) -> Int[np.ndarray, " m"]:
    """All patches, or so many of them that a large set stays affordable."""
    if len(dataset) <= _MOST_PATCHES:
        return np.arange(len(dataset))
    return np.sort(random.choice(len(dataset), _MOST_PATCHES, replace=False))


def _salience(dataset: PatchDataset, index: int) -> Float[np.ndarray, " p"]:
    """Salience of a patch on its feature grid, flat."""
    return dataset.salience(index).numpy().ravel()


def _threshold(salience: np.ndarray, top: float) -> float:
    """Quantile above which the share `top` lies; never below 0, so that nothing is salient where all is 0."""
    return max(float(np.quantile(salience, 1 - top)), 0.0)


@dataclass(frozen=True)
class KMeans:
    """Prototypes and the mean squared distance (or 1 - cosine) of the points to the nearest of them."""

    prototypes: Float[Tensor, "k e"]
    spread: float


def fit_kmeans(points: Float[Tensor, "n e"], clusters: int, *, metric: Metric, starts: int, seed: int) -> KMeans:
    """Lloyd's k-means from several k-means++ starts; the tightest result is kept.

    Args:
        points: what to cluster.
        clusters: K.
        metric: `euclidean`, or `cosine`: points and prototypes of unit length (spherical k-means).
        starts: number of starts.
        seed: of the starts.

    Raises:
        MedsegError: there are fewer points than clusters.

    References:
        Arthur and Vassilvitskii, k-means++, SODA 2007; Dhillon and Modha, Machine Learning 42 (2001), section 3.
    """
    if len(points) < clusters:
        raise MedsegError(
            f"the number of points must be at least stego.clusters ({clusters}), got {len(points)}; use more patches"
        )
    values = unit(points.float()) if metric == "cosine" else points.float()
    # Distances do not depend on the origin; near it float32 keeps more of them.
    origin = values.mean(0) if metric == "euclidean" else torch.zeros(values.shape[1])
    values = values - origin
    generator = generator_for(seed, "clustering")
    runs = [_lloyd(values, _spread_out(values, clusters, generator), metric) for _ in range(starts)]
    best = min(runs, key=lambda run: run.spread)
    return KMeans(best.prototypes + origin, best.spread)


def _spread_out(values: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next prototype is a point drawn in proportion to its squared distance."""
    chosen = [int(torch.randint(len(values), (1,), generator=generator))]
    distance = (values - values[chosen[0]]).square().sum(1)
    while len(chosen) < clusters:
        if float(distance.sum()) == 0:  # fewer distinct points than clusters
            distance = torch.ones_like(distance)
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = torch.minimum(distance, (values - values[chosen[-1]]).square().sum(1))
    return values[chosen]


def _lloyd(values: Tensor, prototypes: Tensor, metric: Metric) -> KMeans:
    """Assign and average until no point changes its cluster; an emptied cluster takes the farthest point."""
    clusters = len(prototypes)
    before = torch.full((len(values),), -1)
    flat = values.T[None]
    for _ in range(_ITERATIONS):
        near, nearest = nearness(flat, prototypes, metric)[0].max(0)
        if torch.equal(nearest, before):
            break
        before = nearest
        members = functional.one_hot(nearest, clusters).to(values.dtype)
        count = members.sum(0)
        prototypes = (members.T @ values) / count.clamp_min(1)[:, None]
        empty = (count == 0).nonzero().flatten()
        prototypes[empty] = values[near.topk(len(empty), largest=False).indices]
        if metric == "cosine":
            prototypes = unit(prototypes)
    best = nearness(flat, prototypes, metric)[0].amax(0)
    spread = (1 - best) if metric == "cosine" else -best
    return KMeans(prototypes, float(spread.mean().clamp_min(0)))
