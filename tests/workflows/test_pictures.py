"""Folders of pictures go the whole way: training, masks at their own size, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workflows.scenes import write_scenes

from medseg.errors import MedsegError
from medseg.naming.classes import read_classes
from medseg.scans.stacks import read_stack
from medseg.workflows.evaluation import evaluate_run
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.scoring import score_results
from medseg.workflows.training import train_run
from medseg.workflows.whole import run_all

SMALL = [
    "prepare.resize=48", "patches.size=32", "patches.per_case=4", "stego.steps=30", "stego.batch=8",
    "stego.clusters=4", "stego.fit_points=1500", "stego.code_dim=8", "reconstruct.refine=[]",
]  # fmt: skip


def loaded(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, labelled=3)
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    answer = train_run("pictures_bank", scenes, folder, overrides=SMALL)
    assert answer["failed"] == {}
    assert len(answer["cases"]) == 5  # the given val pictures are held out
    return folder


def test_masks_come_back_at_the_size_of_each_picture_with_its_name(scenes: Path, run: Path, tmp_path: Path) -> None:
    answer = reconstruct_run(run, scenes, tmp_path)
    assert answer["failed"] == {}
    assert len(answer["done"]) == 7
    for source in sorted((scenes / "imgs").rglob("*.png")):
        size = loaded(source).size
        kinds = ("seg", "colour", "overlay", "uncertainty", "region")
        pictures = {kind: loaded(tmp_path / f"{source.stem}_{kind}.png") for kind in kinds}
        assert {kind: picture.size for kind, picture in pictures.items()} == dict.fromkeys(kinds, size)
        indices = np.asarray(pictures["seg"])
        assert indices.ndim == 2
        assert set(np.unique(indices)) <= {1, 2, 3, 4}  # each cluster is a class; nothing is background
        assert len(np.unique(indices)) > 1
        manifest = json.loads((tmp_path / f"{source.stem}_manifest.json").read_text(encoding="utf-8"))
        assert manifest["named_by"] == "clusters"
        assert sum(manifest["share"].values()) == pytest.approx(1)
    again = reconstruct_run(run, scenes, tmp_path)
    assert len(again["skipped"]) == 7


def test_names_from_training_labels_score_well_on_held_out_pictures(scenes: Path, run: Path, tmp_path: Path) -> None:
    reconstruct_run(run, scenes, tmp_path, held_out=True, overrides=["naming.source=training_labels"], compare=True)
    answer = score_results(tmp_path, scenes / "labels")
    union = {entry["method"]: entry for entry in answer["aggregates"] if entry["structure"] == "class 1"}
    assert {"stego", "kmeans", "untrained", "linear"} <= union.keys()
    assert union["stego"]["spreads"]["dice"]["mean"] > 0.8  # the sky
    assert union["stego"]["cases"] == 2
    assert "hd95_px" in union["stego"]["spreads"]
    assert "hd95_mm" not in union["stego"]["spreads"]


@pytest.mark.parametrize("windows", ["whole", "tiled"])
def test_a_named_mask_is_the_mask_of_clusters_with_names(scenes: Path, run: Path, tmp_path: Path, windows: str) -> None:
    seen = [f"reconstruct.windows={windows}", f"reconstruct.flip={windows == 'whole'}"]
    reconstruct_run(run, scenes, tmp_path / "clusters", held_out=True, overrides=seen)
    named = [*seen, "naming.source=training_labels"]
    reconstruct_run(run, scenes, tmp_path / "named", held_out=True, overrides=named)
    value_of = {c + 1: v for c, v in read_classes(tmp_path / "named" / "classes.yaml").class_of_cluster.items()}
    table = np.array([value_of.get(value, 0) for value in range(5)])
    for path in (tmp_path / "clusters").glob("*_seg.png"):
        named = np.asarray(loaded(tmp_path / "named" / path.name))
        assert np.mean(named == table[np.asarray(loaded(path))]) > 0.98  # but where enlarging moves a border


def test_outside_a_given_mask_a_picture_is_background(scenes: Path, run: Path, tmp_path: Path) -> None:
    picture = sorted((scenes / "imgs" / "val").glob("*.png"))[0]
    inside = np.zeros(loaded(picture).size[::-1], np.uint8)
    inside[:, 20:50] = 255
    Image.fromarray(inside).save(tmp_path / "mask.png")
    (tmp_path / "cases.csv").write_text(f"case,image,mask\nx,{picture},mask.png\n", encoding="utf-8")
    assert reconstruct_run(run, tmp_path / "cases.csv", tmp_path / "out")["failed"] == {}
    labels = np.asarray(loaded(tmp_path / "out" / "x_seg.png"))
    assert (labels[:, :20] == 0).all() and (labels[:, 50:] == 0).all()
    assert (labels[:, 20:50] > 0).all()


def test_clusters_without_names_are_not_scored_as_classes(scenes: Path, run: Path, tmp_path: Path) -> None:
    reconstruct_run(run, scenes, tmp_path, held_out=True)
    with pytest.raises(MedsegError, match="medseg evaluate"):
        score_results(tmp_path, scenes / "labels")


def test_evaluation_stands_every_method_beside_its_namings(scenes: Path, run: Path, tmp_path: Path) -> None:
    answer = evaluate_run(run, scenes, tmp_path, processes=1, held_out=True)
    assert answer["failed"] == {}
    text = "\n".join(answer["lines"])
    assert all(word in text for word in ("stego", "kmeans", "untrained", "linear", "oracle", "training labels"))
    assert (tmp_path / "evaluation.json").is_file()


def test_a_tiff_of_several_pages_gives_frames_and_one_stack(scenes: Path, run: Path, tmp_path: Path) -> None:
    pages = [loaded(path) for path in sorted((scenes / "imgs" / "val").glob("*.png"))]
    pages = [page.resize((70, 60)) for page in pages]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "cine.tif", save_all=True, append_images=pages[1:])
    answer = reconstruct_run(run, tmp_path / "in", tmp_path / "out")
    assert answer["failed"] == {}
    stack = read_stack(tmp_path / "out" / "cine_seg.nii.gz")
    assert stack.shape == (60, 70, 2)
    frames = sorted((tmp_path / "out" / "cine_frames").glob("*_seg.png"))
    assert [path.name for path in frames] == ["0001_seg.png", "0002_seg.png"]
    assert np.array_equal(np.asarray(loaded(frames[1])), stack[:, :, 1])


def test_one_command_trains_masks_and_evaluates(scenes: Path, tmp_path: Path) -> None:
    answer = run_all("pictures_bank", scenes, tmp_path / "out", overrides=[*SMALL, "stego.steps=4"])
    assert answer["failed"] == {}
    assert (tmp_path / "out" / "evaluation" / "evaluation.json").is_file()


def test_pictures_refuse_what_is_for_angiograms(scenes: Path, tmp_path: Path) -> None:
    for override, word in (
        ("features.backbone=filter_bank", "image_bank"),
        ("reconstruct.method=flux", "stego or kmeans"),
        ("reconstruct.refine=[tubes]", "crf"),
        ("prepare.n4=true", "prepare.resize"),
    ):
        with pytest.raises(MedsegError, match=word):
            train_run("pictures_bank", scenes, tmp_path / "run", overrides=[*SMALL, override])
