"""This file tests the picture of what preparation does: before on the left, after on the right, both in proportion."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from medseg.review.before_after import BeforeAfter, before_after_picture


def drawn(rows: list[BeforeAfter], path: Path, **options) -> np.ndarray:
    before_after_picture(rows, path, **options)
    return imread(path)[..., :3]


def even(height: int, width: int, *colour: float) -> np.ndarray:
    return np.broadcast_to(np.float32(colour), (height, width, 3))


def where(picture: np.ndarray, *colour: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a colour."""
    return np.nonzero((np.abs(picture - np.float32(colour)) < 0.02).all(axis=2))


def test_before_is_left_and_after_is_right_at_one_size(tmp_path: Path) -> None:
    row = BeforeAfter("a", even(60, 90, 0, 0.5, 0.5), even(20, 30, 0.5, 0, 0))
    picture = drawn([row], tmp_path / "a.png", steps=["haze"])
    before, after = where(picture, 0, 0.5, 0.5), where(picture, 0.5, 0, 0)
    assert before[1].max() < after[1].min()
    for rows, columns in (before, after):
        assert np.ptp(columns) / np.ptp(rows) > 1.45 and np.ptp(columns) / np.ptp(rows) < 1.55
    assert abs(np.ptp(before[0]) - np.ptp(after[0])) <= 2


def test_each_picture_has_its_row(tmp_path: Path) -> None:
    one = BeforeAfter("a", even(40, 40, 0, 0, 0.6), even(40, 40, 0, 0, 0.6))
    two = BeforeAfter("b $x_1 ü", even(80, 40, 0, 0.6, 0), even(40, 20, 0, 0.6, 0))
    picture = drawn([one, two], tmp_path / "a.png")
    assert where(picture, 0, 0, 0.6)[0].max() < where(picture, 0, 0.6, 0)[0].min()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png"}


def test_a_strip_and_a_single_pixel_are_drawn_too(tmp_path: Path) -> None:
    for size in ((1, 1), (2, 400), (400, 2)):
        assert len(where(drawn([BeforeAfter("a", *(even(*size, 0, 0.6, 0),) * 2)], tmp_path / "a.png"), 0, 0.6, 0)[0])
