"""This file tests precision against recall of labelled pictures, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.workflows.precision_recall import BETWEEN, WITHIN, plot_precision_recall

BANK = {"config": "pictures_bank", "overrides": ["prepare.resize=64", "run.device=cpu"], "points": 60}


def write_scenes(folder: Path, *, shuffled: bool = False, labels: bool = True) -> Path:
    """Pictures with a red disk and a label of it, or a label of elsewhere."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows, columns = np.mgrid[:64, :96]
    for number in range(4):
        disk = (rows - 20 - 5 * number) ** 2 + (columns - 30 - 10 * number) ** 2 < 18**2
        picture = np.where(disk[..., None], (200, 40, 40), (40, 90, 160)) + rng.normal(0, 10, (64, 96, 3))
        Image.fromarray(np.uint8(np.clip(picture, 0, 255))).save(folder / f"{number}_img.png")
        if labels:
            label = rng.permutation(disk.ravel()).reshape(disk.shape) if shuffled else disk
            Image.fromarray(np.uint8(label)).save(folder / f"{number}_label.png")
    return folder


def test_features_predict_labels_that_follow_the_picture(tmp_path: Path) -> None:
    answer = plot_precision_recall(write_scenes(tmp_path / "in"), tmp_path / "out", **BANK)
    written = json.loads((tmp_path / "out" / "precision_recall.json").read_text(encoding="utf-8"))
    assert written["average_precision"] == answer["average_precision"]
    assert set(answer["average_precision"][WITHIN]) == {"feature", "CRF"}
    assert set(answer["average_precision"][BETWEEN]) == {"feature"}
    for pairs, average in answer["average_precision"].items():
        assert average["feature"] > written["chance"][pairs] + 0.1
    assert (tmp_path / "out" / "precision_recall.png").stat().st_size > 10_000
    assert written["slices"] == 4 and answer["failed"] == {}


def test_nothing_predicts_labels_at_random(tmp_path: Path) -> None:
    answer = plot_precision_recall(write_scenes(tmp_path / "in", shuffled=True), tmp_path / "out", **BANK)
    chance = json.loads((tmp_path / "out" / "precision_recall.json").read_text(encoding="utf-8"))["chance"]
    for pairs, average in answer["average_precision"].items():
        for kind in average:
            assert average[kind] == pytest.approx(chance[pairs], abs=0.07)


def test_the_seed_decides_the_points(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "in")
    found = [plot_precision_recall(scenes, tmp_path / "out", seed=s, **BANK)["average_precision"] for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_without_a_label_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="label"):
        plot_precision_recall(write_scenes(tmp_path / "in", labels=False), tmp_path / "out", **BANK)
