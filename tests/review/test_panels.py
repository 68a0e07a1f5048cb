"""This file tests panels and confusion matrices: colours are those of the classes, numbers those of the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from medseg.review import panels
from medseg.review.panels import NO_CLASS, confusion_picture, panel_picture

NAMES = {0: "background", 1: "sky", 2: "sea"}
COLOURS = {0: "#000000", 1: "#ff0000", 2: "#0000ff"}


def count(picture: np.ndarray, colour: tuple[float, float, float]) -> int:
    return int(np.all(np.abs(picture[..., :3] - colour) < 0.02, axis=-1).sum())


def test_classes_have_their_colours_in_proportion(tmp_path: Path) -> None:
    labels = np.ones((20, 40), int)
    labels[:, 30:] = 2
    panel_picture(
        tmp_path / "a.png", np.full((20, 40, 3), 128, np.uint8), {"label": labels}, names=NAMES, colours=COLOURS
    )
    picture = imread(tmp_path / "a.png")
    assert count(picture, (1, 0, 0)) == pytest.approx(3 * count(picture, (0, 0, 1)), rel=0.1)


def test_a_pixel_without_class_has_no_colour_of_a_class(tmp_path: Path) -> None:
    labels = np.full((20, 40), NO_CLASS)
    panel_picture(tmp_path / "a.png", np.ones((20, 40, 3), np.float32), {"label": labels}, names=NAMES, colours=COLOURS)
    picture = imread(tmp_path / "a.png")
    assert not count(picture, (1, 0, 0)) and not count(picture, (0, 0, 1))


@pytest.mark.parametrize("dark", [True, False])
def test_a_dark_page_is_dark(tmp_path: Path, dark: bool) -> None:
    labels = np.ones((8, 8), int)
    panel_picture(
        tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), {"x": labels}, names=NAMES, colours=COLOURS, dark=dark
    )
    confusion_picture(tmp_path / "b.png", np.eye(4, 3, dtype=int), ["a", "b", "c"], dark=dark)
    for name in ("a.png", "b.png"):
        assert (imread(tmp_path / name)[0, 0, :3].mean() < 0.2) == dark


@pytest.mark.parametrize("size", [(1, 1), (400, 3), (3, 400)])
def test_odd_sizes_can_be_drawn(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = np.zeros(size, int)
    panel_picture(tmp_path / "a.png", np.zeros((*size, 3), np.uint8), {"x": labels}, names=NAMES, colours=COLOURS)
    assert imread(tmp_path / "a.png").shape[0] > 50


def written(counts: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """The numbers in the cells, line by line, and the names of the columns."""
    figures: list[Figure] = []
    monkeypatch.setattr(panels, "_save", lambda figure, path: figures.append(figure))
    confusion_picture(tmp_path / "a.png", counts, ["sky", "sea"])
    (axis,) = figures[0].axes
    return [text.get_text() for text in axis.texts], [label.get_text() for label in axis.get_xticklabels()]


def test_a_line_is_a_true_class_in_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, columns = written(np.array([[6, 1], [2, 1], [0, 2]]), tmp_path, monkeypatch)
    assert numbers == ["75", "25", "0", "25", "25", "50"]
    assert columns == ["sky", "sea", "no class"]


def test_an_absent_class_has_no_numbers_and_no_column_stands_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, columns = written(np.array([[3, 0], [1, 0], [0, 0]]), tmp_path, monkeypatch)
    assert numbers == ["75", "25"]
    assert columns == ["sky", "sea"]
