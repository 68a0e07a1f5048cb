"""This file tests the published program's scripts one after the other, on a set of tiles in the folders of Potsdam."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import main_of
from PIL import Image
from scipy.io import savemat

TILE, ROWS = 32, 3
FLOOR = {1: (120, 120, 125), 2: (180, 70, 60), 3: (60, 140, 60)}
"""Mean colour of road, roof and meadow."""
TESTED = (2, 4)
"""Tiles that the lists keep from training."""
SMALL = [
    "--config", "pictures_bank", f"res={TILE}", "stego.fit_points=600", "stego.code_dim=8",
]  # fmt: skip


def town() -> tuple[np.ndarray, np.ndarray]:
    """A picture from above, and the class of each pixel."""
    side = TILE * ROWS
    labels = np.full((side, side), 3, np.uint8)
    labels[:, 40:56] = labels[20:30] = 1
    for row, column in ((2, 2), (36, 8), (60, 64), (4, 70), (70, 10)):
        labels[row : row + 14, column : column + 18] = 2
    grain = np.random.default_rng(0).normal(0, 8, (side, side, 1))
    picture = np.array([FLOOR[value] for value in (1, 2, 3)])[labels - 1] + grain
    return np.uint8(picture.clip(0, 255)), labels


def tile(values: np.ndarray, number: int) -> np.ndarray:
    row, column = divmod(number, ROWS)
    return values[TILE * row : TILE * (row + 1), TILE * column : TILE * (column + 1)]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain") / "data" / "town"
    for part in ("imgs", "gt"):
        (folder / part).mkdir(parents=True)
    picture, labels = town()
    names = [f"town_{number}" for number in range(ROWS**2)]
    for number, name in enumerate(names):
        Image.fromarray(tile(picture, number)).save(folder / "imgs" / f"{name}.png")
        savemat(folder / "gt" / f"{name}.mat", {"imageData": tile(labels, number)})
    lists = {
        "all": names, "labelled_test": [names[number] for number in TESTED],
        "labelled_train": [name for number, name in enumerate(names) if number < 5 and number not in TESTED],
        "unlabelled_train": names[5:],
    }  # fmt: skip
    for name, entries in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(tiles: Path) -> Path:
    """The run of the training script, where its options put it."""
    root = tiles.parents[1]
    line = [
        f"pytorch_data_dir={tiles.parent}",
        "dir_dataset_name=town",
        "dir_dataset_n_classes=4",
        f"output_root={root}",
    ]
    assert main_of("precompute_knns")([*line, *SMALL, "num_neighbors=3"]) == 0
    assert main_of("train_segmentation")([*line, *SMALL, "num_neighbors=3", "max_steps=6", "batch_size=4"]) == 0
    return root / "checkpoints" / "town_exp1"


@pytest.fixture(scope="module")
def evaluation(tiles: Path, run: Path) -> Path:
    root = tiles.parents[1]
    line = [f"pytorch_data_dir={tiles.parent}", "dir_dataset_name=town", f"output_root={root}", f"model_paths={run}"]
    assert main_of("eval_segmentation")([*line, f"res={TILE}", "num_workers=1"]) == 0
    return root / "results" / "predictions" / "exp1"


def test_training_keeps_its_hands_off_the_tiles_of_the_test_list(run: Path) -> None:
    record = (run / "run.yaml").read_text(encoding="utf-8")
    assert record.count("split: held_out") == len(TESTED) and record.count("split: train") == ROWS**2 - len(TESTED)


def test_evaluation_scores_every_method_on_the_tiles_of_the_test_list(evaluation: Path) -> None:
    content = json.loads((evaluation / "evaluation.json").read_text(encoding="utf-8"))
    assert (content["images"], content["seen_in_training"]) == (len(TESTED), 0)
    rows = {(row["method"], row["naming"]): row for row in content["rows"]}
    methods = ("stego", "kmeans", "untrained")
    assert {(method, naming) for method in methods for naming in ("training_labels", "oracle")} < set(rows)
    assert ("linear", "training_labels") in rows
    assert {sum(map(sum, row["confusion"])) for row in rows.values()} == {len(TESTED) * TILE**2}
    assert rows["kmeans", "training_labels"]["accuracy"] > 0.7
    assert {path.stem for path in (evaluation / "panels").iterdir()} == {f"town_{number}" for number in TESTED}


def test_the_masks_of_the_demo_make_the_map_of_the_town(tiles: Path, run: Path, tmp_path: Path) -> None:
    masks, maps = tmp_path / "masks", tmp_path / "maps"
    line = [f"model_path={run}", f"image_dir={tiles}", "--out", str(masks), "naming.source=training_labels"]
    assert main_of("demo_segmentation")([*line, "reconstruct.method=kmeans"]) == 0
    assert main_of("plot_potsdam")([f"results={masks}", f"image_dir={tiles}", f"output_root={maps}"]) == 0
    found = np.asarray(Image.open(maps / "town_map_seg.png"))
    picture, labels = town()
    assert (found == labels).mean() > 0.7
    sheet = np.asarray(Image.open(maps / "town_map.png"))
    assert np.array_equal(sheet[30 : 30 + TILE * ROWS, 8 : 8 + TILE * ROWS], picture)


def test_the_exported_masks_of_the_evaluation_make_a_map_too(tiles: Path, evaluation: Path, tmp_path: Path) -> None:
    line = [f"results={evaluation / 'export'}", "method=stego", f"image_dir={tiles}", f"output_root={tmp_path}"]
    assert main_of("plot_potsdam")([*line, "grid=3x3"]) == 0
    found = np.asarray(Image.open(tmp_path / "town_map_seg.png"))
    for number in range(ROWS**2):
        assert bool(tile(found, number).any()) == (number in TESTED)
    exported = Image.open(evaluation / "export" / f"town_{TESTED[0]}_stego.png")
    assert np.array_equal(tile(found, TESTED[0]), np.asarray(exported))
