"""Tests that every part of the loss, and every number that shapes it, changes what two steps of training give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stego.fakes import fake_dataset, one_process, small_settings

from medseg.patches.pairs import find_pairs
from medseg.stego.training import train

CHANGES: dict[str, Any] = {
    "random_weight": 0.0,
    "knn_weight": 0.0,
    "self_weight": 0.0,
    "random_shift": 0.2,
    "knn_shift": 0.2,
    "self_shift": 0.2,
    "shifts": "auto",
    "correspondence_weight": 0.5,
    "rec_weight": 0.5,
    "aug_alignment_weight": 0.5,
    "crf_weight": 0.5,
    "pointwise": False,
    "zero_clamp": False,
    "stabilise": True,
    "dropout": 0.0,
    "negatives": 2,
    "feature_samples": 6,
    "salient_share": 0.0,
    "salient_top": 0.01,
    "learning_rate": 1e-3,
    "probe_learning_rate": 1e-3,
    "reset_probe_steps": 1,
    "extra_clusters": 2,
    "neighbours": 1,
    "batch": 6,
    "projection": "linear",
    "sampling": "corners",
}
OF_THE_PROBES = {"probe_learning_rate", "reset_probe_steps", "sampling", "extra_clusters"}
"""What touches the probes alone; everything else must move the head."""
CRF = {"crf_weight": 0.5, "crf_samples": 60, "crf_alpha": 5.0, "crf_gamma": 5.0}
WITH_CRF = {"crf_alpha": 30.0, "crf_beta": 1.0, "crf_gamma": 30.0, "crf_w1": 1.0, "crf_w2": 30.0, "crf_shift": 1.0}
WITH_CRF |= {"crf_samples": 30}


def trained(folder: Path, **changes: Any) -> dict[str, Any]:
    """The weights after two steps."""
    settings = small_settings(
        **(
            {
                "steps": 2,
                "learning_rate": 1e-2,
                "fit_points": 30,
                "kmeans_starts": 1,
                "log_every": 9,
                "picture_every": 9,
            }
            | changes
        )
    )
    dataset = fake_dataset()
    train(
        dataset,
        find_pairs(dataset, neighbours=settings.neighbours),
        settings,
        run_dir=folder,
        fabric=one_process(),
        seed=3,
        view_features=lambda image: image[:, None].expand(-1, 6, -1, -1),
    )
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() != other.keys() or any(
        one[name].shape != other[name].shape or not torch.allclose(one[name], other[name], atol=1e-6) for name in one
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("base"))


def test_without_a_change_two_trainings_are_the_same(base: dict[str, Any], tmp_path: Path) -> None:
    again = trained(tmp_path)
    assert not differ(again["head"], base["head"])
    assert not differ(again["probes"], base["probes"])


@pytest.mark.parametrize("name", CHANGES)
def test_every_number_of_the_loss_changes_the_training(name: str, base: dict[str, Any], tmp_path: Path) -> None:
    found = trained(tmp_path, **{name: CHANGES[name]})
    assert differ(found["head"], base["head"]) == (name not in OF_THE_PROBES)
    if name in OF_THE_PROBES:
        assert differ(found["probes"], base["probes"])


@pytest.mark.parametrize("name", WITH_CRF)
def test_every_number_of_the_crf_loss_changes_the_training(name: str, crf_base: dict[str, Any], tmp_path: Path) -> None:
    found = trained(tmp_path, **(CRF | {name: WITH_CRF[name]}))
    assert differ(found["head"], crf_base["head"])


@pytest.fixture(scope="module")
def crf_base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("crf"), **CRF)
