"""Tests of training, saving and naming points with a feature pyramid as the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stego.fakes import one_process, small_settings
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.features.pyramid import JOINED_CHANNELS, join_trunk
from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.stego.head import PyramidHead
from medseg.stego.methods import codes_at
from medseg.stego.model import load_method
from medseg.stego.settings import StegoSettings
from medseg.stego.training import StegoRun, measure_shifts, train


class TrunkStore:
    """Patches of one case with joined trunk maps: the left and the right half are two tissues."""

    plane = "axial"

    def __init__(self, case_id: str, count: int, seed: int) -> None:
        self.case_id = self.patient = case_id
        generator = torch.Generator().manual_seed(seed)
        self.tissue = np.zeros((count, 16, 16), dtype=np.int64)
        self.tissue[:, :, 8:] = 1
        centres = [torch.randn(2, c, generator=torch.Generator().manual_seed(c)) for c in (512, 1024, 2048)]
        maps = []
        for level, centre in enumerate(centres):
            side = 4 >> level
            halves = centre[[0] * max(side // 2, 1) + [1] * (side // 2)]
            noise = torch.randn(count, len(centre[0]), side, side, generator=generator)
            maps.append(halves.T[None, :, None, :].expand(count, -1, side, -1) + 0.1 * noise)
        self._features = join_trunk(maps, torch.randn(count, 3, 32, 32, generator=generator)).half().numpy()
        self.locations = np.stack([np.arange(count) * 10, np.zeros(count, int), np.zeros(count, int)], axis=1)

    def __len__(self) -> int:
        return len(self.tissue)

    def features(self, index: int) -> np.ndarray:
        return self._features[index]

    def image(self, index: int) -> np.ndarray:
        return self.tissue[index].astype(np.float16)

    def salience(self, index: int) -> np.ndarray:
        return np.zeros((16, 16), dtype=np.float16)


def trunk_dataset(*, labelled: bool = False) -> PatchDataset:
    stores = [TrunkStore(f"case{k}", 3, seed=k) for k in range(2)]
    return PatchDataset(stores, [store.tissue for store in stores] if labelled else None)


def pyramid_settings(**changes: Any) -> StegoSettings:
    values: dict[str, Any] = {"projection": "pyramid", "steps": 2, "batch": 3, "clusters": 2, "fit_points": 60}
    return small_settings(**(values | {"salient_share": 0.0, "code_dim": 4} | changes))


def run(folder: Path, settings: StegoSettings, **more: Any) -> StegoRun:
    dataset = trunk_dataset(labelled=True)
    pairs = find_pairs(dataset, neighbours=settings.neighbours)
    return train(dataset, pairs, settings, run_dir=folder, fabric=one_process(), seed=3, **more)


@pytest.mark.parametrize("granularity", [1, 2, 4])
def test_a_pyramid_trains_and_its_methods_are_read_back_as_they_were(tmp_path: Path, granularity: int) -> None:
    settings = pyramid_settings(
        granularity=granularity, cluster_fit="kmeans", crf_weight=0.1, crf_samples=20, aug_alignment_weight=0.1
    )
    joined = torch.from_numpy(trunk_dataset().stores[0].features(0)).float()
    found = run(tmp_path, settings, view_features=lambda image: joined.expand(len(image), -1, -1, -1))
    features = trunk_dataset()[0]["features"][None]
    assert found.linear is not None
    for method in [*found.methods.values(), found.linear]:
        again = load_method(tmp_path / "methods" / method.name)
        assert torch.equal(again.probabilities(features), method.probabilities(features))
        grid = (4, 4) if method.name == "kmeans" else (8, 8)
        assert again.probabilities(features).shape[2:] == grid
        assert again.feature_dim == JOINED_CHANNELS
    assert isinstance(found.methods["stego"].head, PyramidHead)
    metrics = (tmp_path / "metrics.csv").read_text()
    assert "nan" not in metrics
    rows = metrics.splitlines()
    assert float(rows[-1].split(",")[rows[0].split(",").index("test/cluster/Accuracy")]) > 0


def test_a_pyramid_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    run(tmp_path / "whole", pyramid_settings(steps=4))
    run(tmp_path / "parts", pyramid_settings(steps=2))
    run(tmp_path / "parts", pyramid_settings(steps=4))
    whole, parts = (torch.load(tmp_path / n / "checkpoints" / "last.pt", weights_only=True) for n in ("whole", "parts"))
    for name, value in whole["head"].items():
        assert torch.equal(parts["head"][name], value), name


def test_codes_of_points_are_those_of_their_cells() -> None:
    dataset = trunk_dataset()
    head = PyramidHead(JOINED_CHANNELS, 4, 4).eval()
    from medseg.stego.clustering import sample_points

    points = sample_points(dataset, 40, 0.0, 0)
    codes = codes_at(head, dataset, points)
    for n in range(0, 40, 7):
        store = dataset.stores[points.case[n]]
        whole = head(torch.from_numpy(store.features(int(points.patch[n]))).float()[None])[0]
        row, column = points.cell[n]
        wanted = functional.avg_pool2d(whole, 2)[0, :, row, column]
        assert torch.allclose(codes[n], wanted, atol=1e-5)


def test_measured_shifts_are_those_of_the_coarsest_map() -> None:
    dataset, settings = trunk_dataset(), pyramid_settings(shifts="auto", dropout=0.0)
    pairs = find_pairs(dataset, neighbours=3)
    found = measure_shifts(dataset, pairs, settings, threshold=0.0, seed=0)
    assert found.self_ < 1
    assert found == measure_shifts(
        dataset, pairs, pyramid_settings(granularity=2, shifts="auto"), threshold=0.0, seed=0
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sampling": "corners"}, r"stego\.sampling must be maps with stego\.projection pyramid, got corners"),
        ({"sampling": "pixels"}, r"stego\.sampling must be maps"),
        ({"rec_weight": 0.1}, r"stego\.rec_weight must be 0 with stego\.projection pyramid"),
        ({"granularity": 5}, r"stego\.granularity must be 1 to 4"),
    ],
)
def test_what_a_pyramid_cannot_do_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MedsegError, match=complaint):
        pyramid_settings(**changes)


def test_a_pyramid_on_other_features_is_refused() -> None:
    with pytest.raises(
        MedsegError, match=r"must have 3596 channels, got 6; set features\.backbone to resnet50@2\+3\+4"
    ):
        PyramidHead(6, 4, 4)
