from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from stego.fakes import FakeStore, fake_dataset

from medseg.errors import MedsegError
from medseg.files import read_json, write_json
from medseg.patches.datasets import PatchDataset
from medseg.stego.clustering import fit_kmeans, salience_threshold, sample_points
from medseg.stego.head import Head
from medseg.stego.health import measure_codes
from medseg.stego.model import Clusterer, ClusterModel, nearness


def blobs(spread: float = 0.1) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 50)
    centres = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3], [-3, -3, 0]], dtype=np.float32)
    return torch.from_numpy(centres[truth] + random.normal(size=(200, 3)).astype(np.float32) * spread), truth


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_kmeans_finds_four_blobs_whatever_the_seed(metric: str) -> None:
    points, truth = blobs()
    for seed in range(5):
        fitted = fit_kmeans(points, 4, metric=metric, starts=5, seed=seed)  # type: ignore[arg-type]
        found = ClusterModel("kmeans", None, fitted.prototypes, metric, 1.0).assign(points).numpy()  # type: ignore[arg-type]
        assert len({(a, b) for a, b in zip(found, truth, strict=True)}) == 4


def test_euclidean_kmeans_is_as_tight_as_scipys() -> None:
    points, _ = blobs(2.0)
    fitted = fit_kmeans(points, 4, metric="euclidean", starts=10, seed=0)
    best = min(
        float(((points.numpy() - centres[labels]) ** 2).sum(1).mean())
        for centres, labels in (kmeans2(points.double().numpy(), 4, minit="++", seed=s, iter=100) for s in range(10))
    )
    assert fitted.spread <= best * 1.001


def test_kmeans_is_seeded_and_leaves_the_global_state_alone() -> None:
    points, _ = blobs(2.0)
    before = torch.get_rng_state()
    first, second = (fit_kmeans(points, 3, metric="cosine", starts=1, seed=4).prototypes for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_equal_points_and_too_few_points() -> None:
    fitted = fit_kmeans(torch.ones(10, 2), 3, metric="euclidean", starts=2, seed=0)
    assert fitted.prototypes.isfinite().all() and fitted.spread == 0
    with pytest.raises(MedsegError, match=r"at least stego\.clusters"):
        fit_kmeans(torch.ones(2, 2), 3, metric="euclidean", starts=1, seed=0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearness_is_the_plain_formula(metric: str) -> None:
    codes, prototypes = torch.randn(2, 5, 3, 4), torch.randn(6, 5)
    found = nearness(codes, prototypes, metric)  # type: ignore[arg-type]
    pixel, centre = codes[1, :, 2, 3], prototypes[4]
    wanted = torch.cosine_similarity(pixel, centre, dim=0) if metric == "cosine" else -(pixel - centre).square().sum()
    assert torch.allclose(found[1, 4, 2, 3], wanted, atol=1e-5)


def test_points_are_what_the_patches_hold() -> None:
    dataset = fake_dataset()
    points = sample_points(dataset, 200, 0.5, 0, salient_top=0.15)
    assert len(points) == 200 and points.salient.sum() == 100
    for index in range(0, 200, 7):
        store, patch = dataset.stores[points.case[index]], points.patch[index]
        row, column = points.cell[index]
        assert np.allclose(points.features[index], store.features(patch)[:, row, column].astype(np.float32))
        assert points.image[index] == store.image(patch)[row, column]
        assert points.salience[index] == store.salience(patch)[row, column]
    assert (points.salience[points.salient] == 1).all()
    assert points.salience[~points.salient].mean() < 0.3


def test_more_points_than_pixels_and_no_salience_at_all() -> None:
    dataset = fake_dataset(cases=1, count=1)
    points = sample_points(dataset, 10**6, 0.5, 0, salient_top=0.15)
    assert (~points.salient).sum() == 64

    class Dull(FakeStore):
        def salience(self, index: int) -> np.ndarray:
            return np.zeros((8, 8), dtype=np.float16)

    dull = PatchDataset([Dull("a", 2)])
    assert salience_threshold(dull, 0.05, 0) == 0
    assert not sample_points(dull, 50, 0.5, 0).salient.any()


def test_salience_and_image_are_brought_to_a_coarser_feature_grid() -> None:
    class Coarse(FakeStore):
        def features(self, index: int) -> np.ndarray:
            return super().features(index)[:, ::2, ::2]

    dataset = PatchDataset([Coarse("a", 3)])
    points = sample_points(dataset, 48, 0.0, 0)
    assert points.grid == (4, 4)
    cell = (0, *points.cell[0])
    store = dataset.stores[0]
    row, column = (slice(2 * c, 2 * c + 2) for c in cell[1:])
    assert points.salience[0] == store.salience(points.patch[0])[row, column].max()
    assert points.image[0] == pytest.approx(store.image(points.patch[0])[row, column].mean())


def test_every_method_is_a_clusterer_and_broken_folders_are_refused(tmp_path: Path) -> None:
    model = ClusterModel("stego", Head(4, 3), torch.randn(2, 3), "cosine", 2.0)
    assert isinstance(model, Clusterer)
    model.save(tmp_path)
    assert ClusterModel.load(tmp_path).feature_dim == 4
    content = read_json(tmp_path / "method.json")
    write_json(tmp_path / "method.json", content | {"head": None})
    with pytest.raises(MedsegError, match="weights of a method"):
        ClusterModel.load(tmp_path)
    write_json(tmp_path / "method.json", {"format": "other"})
    with pytest.raises(MedsegError, match="medseg-method/1"):
        ClusterModel.load(tmp_path)


def test_health_tells_spread_codes_from_collapsed_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(500, 8, generator=generator)
    healthy = measure_codes(spread, spread[:, :4])
    assert not healthy.alarms
    assert abs(healthy.mean_cosine) < 0.05 and 7.5 < healthy.effective_rank <= 8.01 and healthy.clusters_used == 4
    line = torch.ones(500, 8) + 0.01 * spread
    sick = measure_codes(line, torch.tensor([1.0, 0.0]).expand(500, 2))
    assert len(sick.alarms) == 3
    assert "stego.shifts: auto" in sick.describe()


def test_mean_cosine_leaves_out_each_point_with_itself() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert measure_codes(codes, codes).mean_cosine == pytest.approx((0 + 0.6 + 0.8) / 3)


def test_no_log_at_info_means_no_progress_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sample_points(fake_dataset(), 20, 0.5, 0)
    assert not caplog.records


class HalfSeen(FakeStore):
    """Of whose patches the upper half lies outside the region."""

    def salience(self, index: int) -> np.ndarray:
        values = super().salience(index)
        values[: len(values) // 2] = -1
        return values


def test_points_lie_inside_the_region_only() -> None:
    dataset = PatchDataset([HalfSeen("one", 4), HalfSeen("two", 4, seed=1)])
    points = sample_points(dataset, 1000, 0.5, seed=0, salient_top=0.15)
    uniform = ~points.salient
    assert uniform.sum() == 8 * 4 * 8 and points.cell[:, 0].min() == 4
    assert points.salience.min() >= 0
