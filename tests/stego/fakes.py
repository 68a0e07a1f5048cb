"""This file makes small stores of patches with three known tissues, as the feature store would give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.stego.settings import StegoSettings, settings_from_preset


class FakeStore:
    """Patches of one case: dark, bright and, along one row, a thin vessel (tissue 2)."""

    plane = "axial"

    def __init__(self, case_id: str, count: int, *, patient: str = "", dim: int = 6, seed: int = 0) -> None:
        self.case_id, self.patient = case_id, patient or case_id
        random, side = np.random.default_rng(seed), 8
        self.tissue = np.zeros((count, side, side), dtype=np.int64)
        self.tissue[:, :, side // 2 :] = 1
        self.tissue[np.arange(count), random.integers(side, size=count)] = 2
        centres = np.random.default_rng(7).normal(size=(3, dim)) * 2
        noise = random.normal(size=(count, dim, side, side)) * 0.3
        self._features = (centres[self.tissue].transpose(0, 3, 1, 2) + noise).astype(np.float16)
        self.locations = np.stack([np.arange(count) * 10, np.zeros(count, int), np.zeros(count, int)], axis=1)

    def __len__(self) -> int:
        return len(self.tissue)

    def features(self, index: int) -> np.ndarray:
        return self._features[index]

    def image(self, index: int) -> np.ndarray:
        return self.tissue[index].astype(np.float16)

    def salience(self, index: int) -> np.ndarray:
        return (self.tissue[index] == 2).astype(np.float16)


def fake_dataset(*, labelled: bool = False, cases: int = 3, count: int = 8) -> PatchDataset:
    stores = [FakeStore(f"case{k}", count, seed=k) for k in range(cases)]
    return PatchDataset(stores, [store.tissue for store in stores] if labelled else None)


def small_settings(**changes: Any) -> StegoSettings:
    values: dict[str, Any] = {"steps": 6, "batch": 4, "code_dim": 5, "clusters": 3, "feature_samples": 4}
    values |= {"fit_points": 300, "kmeans_starts": 2, "checkpoint_every": 2, "log_every": 1, "picture_every": 3}
    values |= {"salient_share": 0.5, "salient_top": 0.15, "neighbours": 3}
    return settings_from_preset("default", **(values | changes))


def one_process() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def train_in_processes(fabric: Fabric, runs: dict[str, dict[str, Any]]) -> None:
    """Train one run for each folder; takes plain values, which is all that a launcher passes on."""
    from medseg.stego.training import train

    for folder, changes in runs.items():
        settings, dataset = small_settings(**changes), fake_dataset(labelled=True)
        pairs = find_pairs(dataset, neighbours=settings.neighbours)
        train(dataset, pairs, settings, run_dir=Path(folder), fabric=fabric, seed=3)
