"""This file tests maps that are stitched from result folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, Naming, one_class_a_cluster, write_classes
from medseg.scans.picture_masks import write_index_png
from medseg.workflows import mosaic
from medseg.workflows.mosaic import stitch_tiles

COLOURS = {1: "#ff0000", 2: "#00ff00"}


@pytest.fixture
def tiles(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A result folder, the tiles it was made of, and the labels of the whole area."""
    results, images = tmp_path / "results", tmp_path / "tiles"
    results.mkdir()
    images.mkdir()
    whole = np.random.default_rng(0).integers(0, 3, (16, 24), dtype=np.uint8)
    for row in range(2):
        for column in range(3):
            name, tile = f"2_10_{row}_{column}", whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            write_index_png(results / f"{name}_seg.png", tile, COLOURS)
            grey = Image.fromarray(np.full((8, 8, 3), 40 * (3 * row + column), np.uint8))
            grey.save(images / f"{name}_img.png")
            Image.fromarray(tile).save(images / f"{name}_label.png")
    write_classes(
        results / "classes.yaml", Naming((ClassEntry(1, "a", COLOURS[1]), ClassEntry(2, "b", COLOURS[2])), "hand")
    )
    return results, images, whole


def test_image_label_and_prediction_stand_side_by_side(tiles: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    results, images, whole = tiles
    answer = stitch_tiles(results, tmp_path / "out", images=images)
    assert answer["failed"] == {} and answer["written"] == [str(tmp_path / "out" / "2_10_map.png")]
    sheet = np.asarray(Image.open(tmp_path / "out" / "2_10_map.png"))
    image, label, predicted = (sheet[30:46, left : left + 24] for left in (8, 40, 72))
    assert image[::8, ::8, 0].tolist() == [[0, 40, 80], [120, 160, 200]]
    table = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)])
    assert np.array_equal(predicted, table[whole]) and np.array_equal(label, table[whole])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "2_10_map_seg.png")), whole)


@pytest.fixture
def legends(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What the drawing is told."""
    told: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(mosaic, "side_by_side", lambda maps, path, *, legends: told.update(legends))
    return told


def test_legends_name_what_a_person_named(
    tiles: tuple[Path, Path, np.ndarray], tmp_path: Path, legends: dict[str, dict[str, str]]
) -> None:
    results, images, _ = tiles
    stitch_tiles(results, tmp_path / "out", images=images)
    expected = {"a": COLOURS[1], "b": COLOURS[2], "background or none": "#000000"}
    assert legends == {"label": expected, "prediction": expected}


def test_a_label_does_not_get_the_names_of_clusters(
    tiles: tuple[Path, Path, np.ndarray], tmp_path: Path, legends: dict[str, dict[str, str]]
) -> None:
    results, images, _ = tiles
    write_classes(results / "classes.yaml", one_class_a_cluster(2))
    stitch_tiles(results, tmp_path / "out", images=images)
    assert list(legends["label"]) == ["class 1", "class 2", "background or none"]
    assert list(legends["prediction"]) == ["cluster 0", "cluster 1", "background or none"]


def test_masks_of_one_method_are_taken_from_an_evaluation(tiles: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    results, _, whole = tiles
    for path in results.glob("*_seg.png"):
        path.rename(path.with_name(path.name.replace("_seg", "_stego")))
        write_index_png(path.with_name(path.name.replace("_seg", "_kmeans")), np.zeros((8, 8), np.uint8), COLOURS)
    stitch_tiles(results, tmp_path / "out", method="stego")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "2_10_map_seg.png")), whole)
    with pytest.raises(MedsegError, match="give the method of an evaluation's export"):
        stitch_tiles(results, tmp_path / "out")


def test_a_missing_tile_stays_black_and_is_said(tiles: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    results, _, whole = tiles
    (results / "2_10_1_1_seg.png").unlink()
    answer = stitch_tiles(results, tmp_path / "out")
    assert "5 tiles on 2 rows x 3 columns; 1 missing, left black: (row, column) (1, 1)" in answer["lines"][0]
    whole[8:, 8:16] = 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "2_10_map_seg.png")), whole)


def test_numbered_tiles_take_the_grid_that_is_given(tiles: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    results, _, whole = tiles
    for row in range(2):
        for column in range(3):
            (results / f"2_10_{row}_{column}_seg.png").rename(results / f"town_{3 * row + column}_seg.png")
    stitch_tiles(results, tmp_path / "out", grid=(2, 3))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "town_map_seg.png")), whole)
    assert "--grid" in stitch_tiles(results, tmp_path / "out", grid=(2, 2))["failed"]["town"]


def test_a_folder_without_tiles_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must hold masks"):
        stitch_tiles(tmp_path, tmp_path / "out")
