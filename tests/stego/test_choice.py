from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from stego.fakes import FakeStore, fake_dataset, small_settings

from medseg.patches.datasets import PatchDataset
from medseg.stego.choice import (
    SIGNALS,
    adjusted_rand,
    contingency,
    correspondence,
    crop_stability,
    fit_codes,
    half_stability,
    measure_candidate,
    neighbour_purity,
    overlapping_windows,
    seed_stability,
    silhouette,
)
from medseg.stego.clustering import sample_points
from medseg.stego.head import Head
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel


def blobs(spread: float = 0.1, count: int = 200) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(0)
    truth = np.arange(count) % 4
    centres = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3], [-3, -3, 0]])
    return torch.from_numpy((centres[truth] + random.normal(size=(count, 3)) * spread).astype(np.float32)), truth


class Overlapping(FakeStore):
    """Two windows of one slice that share half their columns, showing the same tissue there, and one elsewhere."""

    def __init__(self, *, same: bool = True) -> None:
        super().__init__("case", 3, seed=1)
        self.locations = np.array([[5, 0, 0], [5, 0, 4], [9, 0, 0]])
        slice_columns = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1])
        self.tissue[[0, 2]], self.tissue[1] = slice_columns[:8], slice_columns[4:]
        self._features = np.zeros((3, 6, 8, 8), dtype=np.float16)
        for patch in range(3):
            for tissue in (0, 1):
                self._features[patch, tissue][self.tissue[patch] == tissue] = 1
        if not same:
            self._features[1] = self._features[1].swapaxes(1, 2)


def two_clusters() -> ClusterModel:
    return ClusterModel("stego", Head(6, 6, "none"), torch.eye(6)[:2], "cosine", 1.0)


def test_adjusted_rand_is_hubert_and_arabies_number_by_hand() -> None:
    # 6 points; pairs in cells 1 + 1 = 2, in rows 3 + 3 = 6, in columns 1 + 1 + 1 = 3, of 15: (2 - 1.2) / (4.5 - 1.2)
    assert adjusted_rand(np.array([[2, 1, 0], [0, 1, 2]])) == pytest.approx(0.8 / 3.3)
    assert adjusted_rand(np.array([[0, 5], [7, 0]])) == 1.0
    assert adjusted_rand(np.array([[1, 1], [1, 1]])) == pytest.approx((0 - 2 / 3) / (2 - 2 / 3))


def test_adjusted_rand_is_the_count_of_pairs_from_the_papers_words() -> None:
    random = np.random.default_rng(3)
    first, second = random.integers(3, size=30), random.integers(4, size=30)
    together = np.array([[a[i] == a[j] for i, j in combinations(range(30), 2)] for a in (first, second)])
    both, one, other = (together.all(0).sum(), *together.sum(1))
    chance = one * other / together.shape[1]
    wanted = (both - chance) / ((one + other) / 2 - chance)
    assert adjusted_rand(contingency(first, second)) == pytest.approx(wanted)
    assert abs(wanted) < 0.2


def test_adjusted_rand_of_one_cluster_or_none() -> None:
    assert adjusted_rand(np.array([[9]])) == 1.0
    assert adjusted_rand(np.array([[4, 5]])) == 0.0
    nothing = np.zeros(0, dtype=np.int64)
    assert adjusted_rand(contingency(nothing, nothing)) == 1.0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_clear_blobs_are_stable_and_noise_is_not(metric: str) -> None:
    points, _ = blobs()
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    for stability, more in ((half_stability, {"starts": 3}), (seed_stability, {})):
        clear, unclear = (stability(values, 4, metric, seed=0, **more) for values in (points, noise))  # type: ignore[operator]
        assert unclear < 0.9 < clear, stability.__name__
    assert half_stability(points, 4, metric, starts=3, seed=0) == pytest.approx(1)  # type: ignore[arg-type]


def test_too_many_clusters_are_less_stable_than_the_right_number() -> None:
    points, _ = blobs()
    right, many = (half_stability(points, k, "euclidean", starts=3, seed=0) for k in (4, 9))
    assert many < right - 0.1


def test_silhouette_by_hand() -> None:
    codes, prototypes = torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([[0.0], [4.0]])
    assert silhouette(codes, prototypes, "euclidean") == pytest.approx((1 + (3 - 1) / 3 + 1) / 3)
    angle = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # cosines (1, 0) and (.6, .8): distances (0, 1) and (.2, .4)
    assert silhouette(angle, torch.eye(2), "cosine") == pytest.approx((1 + 0.5) / 2)


def test_silhouette_falls_when_blobs_melt() -> None:
    values = []
    for spread in (0.1, 1.5):
        points, truth = blobs(spread)
        centres = torch.stack([points[truth == k].mean(0) for k in range(4)])
        values.append(silhouette(points, centres, "euclidean"))
    assert values[1] < 0.8 < values[0]


def test_correspondence_is_one_for_codes_that_are_the_features_and_zero_for_foreign_or_equal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    features, foreign = (torch.randn(500, 6, generator=generator) for _ in range(2))
    assert correspondence(3 * features, features, seed=0) == pytest.approx(1)
    assert abs(correspondence(foreign, features, seed=0)) < 0.05
    assert correspondence(torch.ones(500, 6), features, seed=0) == 0


def test_purity_is_one_for_groups_of_neighbours_and_zero_for_shuffled_ones() -> None:
    points, truth = blobs()
    assert neighbour_purity(points, truth, seed=0) == pytest.approx(1)
    assert abs(neighbour_purity(points, np.random.default_rng(0).permutation(truth), seed=0)) < 0.05
    assert neighbour_purity(points, np.zeros(200, dtype=np.int64), seed=0) == 0


def test_windows_of_one_slice_overlap_and_those_of_another_do_not() -> None:
    dataset = PatchDataset([FakeStore("other", 2), Overlapping()])
    assert overlapping_windows(dataset).tolist() == [[2, 3]]


def test_a_place_seen_in_two_windows_keeps_its_cluster_or_does_not() -> None:
    assert crop_stability(two_clusters(), PatchDataset([Overlapping()]), seed=0) == 1
    assert crop_stability(two_clusters(), PatchDataset([Overlapping(same=False)]), seed=0) < 0.1
    assert np.isnan(crop_stability(two_clusters(), fake_dataset(), seed=0))


def test_every_signal_is_measured_and_a_seed_gives_the_same_ones() -> None:
    dataset, settings = fake_dataset(), small_settings()
    points, head = sample_points(dataset, 200, 0.5, 0, salient_top=0.15), Head(6, 5)
    codes = codes_at(head, dataset, points)
    model = fit_codes(head, codes, settings, clusters=3, seed=0)
    first, second = (measure_candidate(model, codes, points, dataset, starts=2, seed=1) for _ in range(2))
    assert first.keys() == SIGNALS.keys()
    assert np.array_equal(list(first.values()), list(second.values()), equal_nan=True)
    assert first["stability"] > 0.5 and first["purity"] > 0.5


def test_a_run_that_clusters_by_its_probe_keeps_the_probes_prototypes_for_their_k_only() -> None:
    head, codes, learnt = Head(6, 5), torch.randn(50, 5), torch.randn(3, 5)
    settings = small_settings(cluster_fit="probe", code_metric="euclidean")
    assert torch.equal(fit_codes(head, codes, settings, clusters=3, seed=0, learnt=learnt).prototypes, learnt)
    other = fit_codes(head, codes, settings, clusters=4, seed=0, learnt=learnt)
    assert other.clusters == 4 and other.metric == "cosine"
    by_kmeans = fit_codes(head, codes, small_settings(cluster_fit="kmeans"), clusters=3, seed=0, learnt=learnt)
    assert not torch.equal(by_kmeans.prototypes, learnt)
