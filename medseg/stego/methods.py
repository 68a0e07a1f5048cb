"""This file makes the methods that a training leaves behind of its last weights: clusterings and a linear probe.

All clusterings are fitted to one sample of points, so that they differ in nothing but what they cluster.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from medseg.patches.datasets import PatchDataset
from medseg.progress import track
from medseg.stego.clustering import PointSample, fit_kmeans, sample_points
from medseg.stego.head import AnyHead, PyramidHead
from medseg.stego.health import CodeHealth, measure_codes
from medseg.stego.model import ClusterModel, LinearModel, Metric, nearness
from medseg.stego.probes import Probes
from medseg.stego.settings import StegoSettings

_log = logging.getLogger(__name__)


class FittedMethods(NamedTuple):
    """The clusterings by name, the points they were fitted to, the cluster of each point, and the codes' health."""

    methods: dict[str, ClusterModel]
    points: PointSample
    assignments: dict[str, Int[np.ndarray, " n"]]
    health: CodeHealth


def fit_methods(
    dataset: PatchDataset, settings: StegoSettings, head: AnyHead, untrained_head: AnyHead, probes: Probes, seed: int
) -> FittedMethods:
    """Fit `stego`, `kmeans` (on the features) and `untrained` to one sample of points.

    The online prototypes minimise the objective of spherical k-means, so with `cluster_fit: probe` the untrained head's
    codes are clustered by that.
    """
    points = sample_points(
        dataset, settings.fit_points, settings.fit_salient_share, seed, salient_top=settings.salient_top
    )
    clusters, probe = settings.prototypes, settings.cluster_fit == "probe"
    code_metric: Metric = "cosine" if probe else settings.code_metric
    codes = codes_at(head, dataset, points)

    def by_kmeans(name: str, used_head: AnyHead | None, values: Tensor, metric: Metric) -> ClusterModel:
        fitted = fit_kmeans(values, clusters, metric=metric, starts=settings.kmeans_starts, seed=seed)
        sharpness = settings.cluster_alpha if metric == "cosine" else 1 / max(fitted.spread, 1e-12)
        return ClusterModel(name, used_head, fitted.prototypes, metric, sharpness)

    stego = (
        ClusterModel("stego", head, probes.prototypes, "cosine", settings.cluster_alpha)
        if probe
        else by_kmeans("stego", head, codes, code_metric)
    )
    random_codes = codes_at(untrained_head, dataset, points)
    found = {
        stego: codes,
        by_kmeans("kmeans", None, points.features, settings.feature_metric): points.features,
        by_kmeans("untrained", untrained_head, random_codes, code_metric): random_codes,
    }
    health = measure_codes(codes, nearness(codes, stego.prototypes, stego.metric))
    _log.info(
        "codes: mean cosine %.2f, effective rank %.1f, %d of %d clusters used",
        *(health.mean_cosine, health.effective_rank, health.clusters_used, clusters),
    )
    assignments = {method.name: method.assign_codes(values).numpy() for method, values in found.items()}
    return FittedMethods({method.name: method for method in found}, points, assignments, health)


def linear_method(head: AnyHead, probes: Probes) -> LinearModel | None:
    """The linear probe as a method; None where no label taught one."""
    if probes.linear is None:
        return None
    assert probes.linear.bias is not None
    return LinearModel("linear", head, probes.linear.weight[:, :, 0, 0], probes.linear.bias)


@torch.no_grad()
def codes_at(head: AnyHead, dataset: PatchDataset, points: PointSample) -> Float[Tensor, "n e"]:
    """Codes of the sampled points.

    A pyramid sees their whole patches; each point gets the mean code of its cell.
    """
    head.eval()
    if not isinstance(head, PyramidHead):
        return head(points.features.T[None, :, :, None])[0][0, :, :, 0].T
    codes = torch.empty((len(points), head.code_dim))
    patches = np.searchsorted(dataset.store_index, points.case) + points.patch
    for patch in track(np.unique(patches).tolist(), "codes of points"):
        cells = functional.adaptive_avg_pool2d(head(dataset[patch]["features"][None])[0][0], points.grid)
        chosen = torch.from_numpy(patches == patch)
        row, column = torch.from_numpy(points.cell)[chosen].T
        codes[chosen] = cells[:, row, column].T
    return codes
