"""This file tests how pictures and labels meet in an evaluation; whole evaluations are in test_pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workflows.scenes import write_scenes

from medseg.errors import MedsegError
from medseg.naming.classes import read_classes
from medseg.workflows.evaluation import evaluate_run
from medseg.workflows.training import train_run

SMALL = [
    "prepare.resize=32", "patches.size=24", "patches.per_case=3", "stego.steps=4", "stego.batch=4",
    "stego.clusters=4", "stego.fit_points=600", "stego.code_dim=8", "naming.source=clusters",
]  # fmt: skip


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_scenes(folder / "scenes", train=3, val=0)
    assert train_run("pictures_bank", folder / "scenes", folder / "run", overrides=SMALL)["failed"] == {}
    return folder / "run"


def test_a_bad_picture_is_reported_and_the_others_go_on(run: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", train=3, val=0)
    images, labels = (sorted((tmp_path / "in" / kind / "train").glob("*.png")) for kind in ("imgs", "labels"))
    images[0].write_bytes(images[0].read_bytes()[:200])
    save(labels[1], np.ones((5, 5), np.uint8))
    answer = evaluate_run(run, tmp_path / "in", tmp_path / "out", crf=False, panels=3)
    assert len(answer["failed"]) == 2
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert content["images"] == 1
    assert content["crf"] is False
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 1
    assert not (tmp_path / "out" / "export").exists()


def test_exported_labels_have_the_size_of_their_picture_and_the_values_of_the_classes(
    run: Path, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "in", train=1, val=0)
    evaluate_run(run, tmp_path / "in", tmp_path / "out", crf=False, flip=False, panels=0, export=True)
    exported = sorted((tmp_path / "out" / "export").glob("*_stego.png"))
    assert len(exported) == 1
    values = np.asarray(Image.open(exported[0]))
    assert values.shape == (60, 72)
    assert set(np.unique(values)) <= {0, 1, 2, 3}
    naming = read_classes(exported[0].parent / "classes.yaml")
    assert [(entry.value, entry.name) for entry in naming.classes] == [(1, "class 1"), (2, "class 2"), (3, "class 3")]
    assert naming.named_by == "training_labels"


def test_unlabelled_pixels_do_not_count(run: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", train=1, val=0)
    (label,) = (tmp_path / "in" / "labels" / "train").glob("*.png")
    values = np.asarray(Image.open(label)).copy()
    values[:, 36:] = 255
    save(label, values)
    answer = evaluate_run(run, tmp_path / "in", tmp_path / "out", crf=False, panels=0)
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert sum(map(sum, content["rows"][0]["confusion"])) == pytest.approx(32 * 38 / 2, abs=32)
    assert answer["failed"] == {}


def test_without_labels_or_a_run_on_pictures_it_is_said(run: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(MedsegError, match="must hold labelled pictures, got none with a label"):
        evaluate_run(run, tmp_path / "in", tmp_path / "out")
    record = (run / "run.yaml").read_text(encoding="utf-8")
    (tmp_path / "volumes").mkdir()
    changed = record.replace("modality: picture", "modality: tof").replace("resize: 32", "resize: null")
    changed = changed.replace("- image_bank", "- filter_bank").replace("- crf", "- region")
    (tmp_path / "volumes" / "run.yaml").write_text(changed, encoding="utf-8")
    with pytest.raises(MedsegError, match=r"must be a run on pictures to be evaluated, got prepare\.modality tof"):
        evaluate_run(tmp_path / "volumes", tmp_path / "in", tmp_path / "out")
