"""This file tests that tiles come back to their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.review.mosaic import TileName, mosaic, place_tiles, read_tile_name, side_by_side


@pytest.mark.parametrize(
    ("name", "numbering", "area", "place"),
    [
        ("2_10_0_3", "auto", "2_10", (0, 3)),
        ("top_potsdam_2_10_14_3", "auto", "top_potsdam_2_10", (14, 3)),
        ("7_12_13", "auto", "7", (12, 13)),
        ("2_10_17", "number", "2_10", (17,)),
        ("town_17", "auto", "town", (17,)),
        ("town17", "auto", "town", (17,)),
        ("2_17", "auto", "2", (17,)),
        ("2_17", "row_column", "", (2, 17)),
        ("17", "auto", "", (17,)),
        ("a_row3_col12", "auto", "a", (3, 12)),
        ("a r03 c12", "auto", "a", (3, 12)),
        ("R3C12", "auto", "", (3, 12)),
    ],
)
def test_names_say_area_and_place(name: str, numbering: str, area: str, place: tuple[int, ...]) -> None:
    assert read_tile_name(name, numbering) == TileName(area, place)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "numbering"), [("photo", "auto"), ("17_town", "number"), ("town_17", "row_column")])
def test_names_without_the_numbers_say_nothing(name: str, numbering: str) -> None:
    assert read_tile_name(name, numbering) is None  # type: ignore[arg-type]


def test_numbers_are_in_reading_order() -> None:
    names = [TileName("a", (number,)) for number in range(6)]
    places, grid = place_tiles(names, (2, 3))
    assert grid == (2, 3)
    assert [places[name] for name in names] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_without_a_grid_numbers_fill_a_square_and_rows_reach_as_far_as_named() -> None:
    assert place_tiles([TileName("a", (number,)) for number in range(9)], None)[1] == (3, 3)
    assert place_tiles([TileName("a", (8,))], None)[1] == (3, 3)
    assert place_tiles([TileName("a", (0, 4)), TileName("a", (1, 0))], None)[1] == (2, 5)


@pytest.mark.parametrize("name", [TileName("a", (6,)), TileName("a", (2, 0)), TileName("a", (0, 3))])
def test_a_tile_beside_the_grid_is_an_error(name: TileName) -> None:
    with pytest.raises(MedsegError, match="--grid"):
        place_tiles([name], (2, 3))


def test_cutting_and_stitching_gives_the_picture_back() -> None:
    whole = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    tiles = {(r, c): whole[4 * r : 4 * r + 4, 5 * c : 5 * c + 5] for r in range(3) for c in range(4)}
    assert np.array_equal(mosaic(tiles, (3, 4)), whole)
    del tiles[1, 2]
    found = mosaic(tiles, (3, 4))
    assert (found[4:8, 10:15] == 0).all()
    found[4:8, 10:15] = whole[4:8, 10:15]
    assert np.array_equal(found, whole)


def test_tiles_of_two_sizes_are_an_error() -> None:
    with pytest.raises(MedsegError, match="one shape"):
        mosaic({(0, 0): np.zeros((2, 2)), (0, 1): np.zeros((2, 3))}, (1, 2))


def test_maps_stand_side_by_side_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    red, blue = (np.full((1500, 3000, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    side_by_side({"image": red, "prediction": blue}, tmp_path / "a.png")
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert found.shape[1] < 2500
    assert found[300, 300].tolist() == [255, 0, 0] and found[300, 2000].tolist() == [0, 0, 255]


def test_a_legend_stands_below_its_map_and_no_wider(tmp_path: Path) -> None:
    grey = np.full((40, 200, 3), 128, np.uint8)
    colours = {"roads": "#ff0000", "buildings": "#00ff00", "low vegetation": "#0000ff"}
    side_by_side({"image": grey, "label": grey}, tmp_path / "a.png", legends={"label": colours})
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert (found[:70, :208] != 255).any() and (found[70:, :216] == 255).all()
    rows = []
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        places = np.argwhere((found == colour).all(-1))
        assert len(places) > 80 and places[:, 1].min() >= 216
        rows.append(places[:, 0].min())
    assert rows[0] == rows[1] < rows[2]  # the third did not fit beside the others
    assert found.shape == (30 + 40 + 8 + 2 * 20, 8 + 2 * 208, 3)
