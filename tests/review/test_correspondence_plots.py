"""This file tests sheets and movies of correspondences by their pixels."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from medseg.review.correspondence_plots import (
    PANEL_PIXELS,
    correspondence_sheet,
    heat_panel,
    path_through,
    write_movie,
    write_sheet,
)


@pytest.fixture
def picture() -> np.ndarray:
    return np.full((40, 60, 3), 0.6)


def test_heat_is_drawn_in_the_points_colour_and_only_where_it_is(picture: np.ndarray) -> None:
    heats = np.zeros((2, 40, 60))
    heats[0, 5, 5], heats[1, 20, 20] = 1, 1
    shown = heat_panel(picture, heats, [0.2, 0.2])
    assert shown[5, 5].argmax() == 0 and shown[5, 5, 0] > 0.8  # red
    assert shown[20, 20, :2].min() > 0.6 > shown[20, 20, 2]  # yellow
    assert np.ptp(shown[30, 30]) == 0 and shown[30, 30, 0] < 0.6  # grey and dark


def test_a_cosine_at_or_below_the_lowest_gets_no_colour(picture: np.ndarray) -> None:
    cold = heat_panel(picture, np.full((1, 40, 60), -1.0), [0.3])
    assert np.array_equal(cold, heat_panel(picture, np.full((1, 40, 60), 0.3), [0.3]))
    assert not np.array_equal(cold, heat_panel(picture, np.full((1, 40, 60), 0.7), [0.3]))


def test_a_sheet_has_a_row_for_each_kind_and_a_panel_for_each_picture(picture: np.ndarray) -> None:
    other = np.full((40, 20, 3), 0.4)
    heat = [np.zeros((1, 40, 60)), np.zeros((1, 40, 20))]
    one = correspondence_sheet([picture, other], ["a", "b"], [(0.5, 0.5)], {"feature": heat})
    two = correspondence_sheet([picture, other], ["a", "b"], [(0.5, 0.5)], {"feature": heat, "code": heat})
    assert two.shape[0] == 2 * one.shape[0] and two.shape[1] == one.shape[1]
    assert one.shape[1] > PANEL_PIXELS * (1.5 + 1.5 + 0.5)


def test_the_cross_stands_at_row_and_column_not_column_and_row(picture: np.ndarray) -> None:
    sheet = correspondence_sheet([picture], ["a"], [(0.25, 0.75)], {"feature": [np.zeros((1, 40, 60))]}).astype(int)
    red = (sheet[..., 0] - sheet[..., 2] > 100)[:, : sheet.shape[1] // 2]
    rows, columns = np.nonzero(red)
    assert rows.mean() - 24 == pytest.approx(0.25 * PANEL_PIXELS, abs=2)
    assert columns.mean() - 3 == pytest.approx(0.75 * 1.5 * PANEL_PIXELS, abs=2)


def test_a_long_name_and_umlauts_fit_into_their_panel(picture: np.ndarray, tmp_path: Path) -> None:
    sheet = correspondence_sheet([picture], ["Größe #1 " * 20], [(0.5, 0.5)], {"feature": [np.zeros((1, 40, 60))]})
    write_sheet(sheet, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), sheet)


def test_a_path_runs_through_its_points_at_even_speed() -> None:
    path = np.array(path_through([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)], 34))
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert path[0].tolist() == [0, 0]
    assert steps.max() < 1.001 * (2 + 2**0.5) / 34
    assert np.linalg.norm(path - [0, 1], axis=1).min() < 0.06 and np.linalg.norm(path - [1, 1], axis=1).min() < 0.06


def test_a_single_point_is_led_round_the_middle() -> None:
    path = np.array(path_through([(0.1, 0.1)], 20))
    np.testing.assert_allclose(np.linalg.norm(path - 0.5, axis=1), 0.35)


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_movie_has_its_frames_and_moves(kind: str, tmp_path: Path) -> None:
    frames = [np.full((51, 81, 3), (200, 30, 30), np.uint8) for _ in range(6)]
    for number, frame in enumerate(frames):
        frame[:, 12 * number : 12 * number + 12] = (20, 20, 220)
    write_movie(frames, tmp_path / f"a.{kind}")
    found = imageio.imread(tmp_path / f"a.{kind}", plugin="pyav" if kind == "mp4" else "pillow")
    assert len(found) == 6
    for number, frame in enumerate(found):
        assert int(frame[25, 12 * number + 6, 2]) > 150 > int(frame[25, 12 * number + 6, 0])
        assert int(frame[25, (12 * number + 40) % 80, 0]) > 120
