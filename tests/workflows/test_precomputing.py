"""This file tests that features are computed before a training, and that the training goes on from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.workflows import training
from medseg.workflows.precomputing import precompute_pairs

SMALL = [
    "patches.size=32", "patches.per_case=4", "patches.scheme=R", "stego.steps=2", "stego.batch=4",
    "stego.fit_points=300", "stego.neighbours=3", "stego.clusters=3", "prepare.resize=null", "run.device=cpu",
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 72, 3), np.uint8)).save(path)
    return path.parent


def test_training_goes_on_from_the_computed_features(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = precompute_pairs("pictures_bank", pictures, tmp_path / "run", overrides=SMALL)
    assert answer["patches"] == 12 and answer["neighbours"] == 3 and not answer["failed"]
    assert "100% of them from other patients" in answer["lines"][1]

    def computed_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(training, "extract_case", computed_again)
    trained = training.train_run("pictures_bank", pictures, tmp_path / "run", overrides=SMALL)
    assert trained["patches"] == 12
    with pytest.raises(AssertionError):  # another window is another feature
        training.train_run("pictures_bank", pictures, tmp_path / "other", overrides=[*SMALL, "patches.size=40"])


def test_a_backbone_that_must_be_trained_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must need no training, got student"):
        precompute_pairs("tof_mra", pictures, tmp_path / "run", overrides=["features.backbone=student"])
