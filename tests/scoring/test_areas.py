"""Areas of classes, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.scoring.areas import Areas, count_pixels, write_areas

PIXELS = np.array([[100, 0], [300, 50]])


def test_each_value_is_counted() -> None:
    labels = np.array([[0, 1, 1], [2, 1, 9]], np.uint8)
    assert count_pixels(labels, (1, 2, 5)).tolist() == [3, 1, 0]


def test_square_millimetres_become_square_centimetres() -> None:
    areas = Areas(("liver", "mass"), PIXELS, (0.5, 2.0))  # a pixel of 1 mm2
    assert areas.cm2 is not None
    assert areas.cm2.tolist() == [[1.0, 0.0], [3.0, 0.5]]
    assert areas.means() == {"area_px": {"liver": 200, "mass": 25}, "area_cm2": {"liver": 2.0, "mass": 0.25}}


def test_without_a_pixel_size_there_is_no_area_in_cm2() -> None:
    areas = Areas(("liver", "mass"), PIXELS[:1])
    assert areas.cm2 is None
    assert areas.means() == {"area_px": {"liver": 100, "mass": 0}}
    assert all(isinstance(count, int) for count in areas.means()["area_px"].values())


@pytest.mark.parametrize(
    ("pixel_mm", "ending"), [((1.0, 1.0), ("1.000", "0.000", "3.000", "0.500")), (None, ("",) * 4)]
)
def test_the_table_has_a_row_for_each_frame_and_class(
    tmp_path: Path, pixel_mm: tuple[float, float] | None, ending: tuple[str, ...]
) -> None:
    write_areas(tmp_path / "areas.csv", Areas(("liver", "a, b"), PIXELS, pixel_mm))
    starts = ("1,liver,100", '1,"a, b",0', "2,liver,300", '2,"a, b",50')
    expected = ["frame,class,pixels,cm2", *(f"{row},{cm2}" for row, cm2 in zip(starts, ending, strict=True))]
    assert (tmp_path / "areas.csv").read_bytes() == ("\n".join(expected) + "\n").encode()
