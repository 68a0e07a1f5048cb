"""This file tests centre lines: their lengths in mm, and what clDice makes of them."""

import math
from pathlib import Path

import numpy as np
import pytest

from medseg.scoring.skeleton import bounding_box, centreline_length, cldice, skeleton

GOLDEN = Path(__file__).parents[1] / "golden" / "casio_reconstruct.npz"


@pytest.mark.parametrize("volume", ["vol0", "vol1"])
def test_the_skeleton_equals_the_golden_one(volume: str) -> None:
    golden = np.load(GOLDEN)
    line = skeleton(golden[f"{volume}/in_label"] > 0)
    assert np.array_equal(line, golden[f"{volume}/out_skeleton_label"] > 0)


@pytest.mark.parametrize("volume", ["vol0", "vol1"])
def test_cldice_of_one_slice_equals_the_golden_number(volume: str) -> None:
    golden = np.load(GOLDEN)
    predicted, reference = golden[f"{volume}/in_pred"] > 0, golden[f"{volume}/in_label"] > 0
    values = {
        cldice(np.take(predicted, [middle], axis=axis), np.take(reference, [middle], axis=axis))
        for axis in range(3)
        for middle in [predicted.shape[axis] // 2]
    }
    assert any(math.isclose(value, float(golden[f"{volume}/out_cldice_2d_mid"]), rel_tol=1e-12) for value in values)


def test_the_skeleton_lies_in_the_mask_and_reaches_every_piece() -> None:
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[2:18, 4:7, 4:7] = mask[2:5, 14:17, 14:17] = True
    line = skeleton(mask)
    assert line.any() and not (line & ~mask).any()
    assert line[2:5, 14:17, 14:17].any()
    assert line.sum() < 20


def test_the_skeleton_of_nothing_is_nothing_and_of_a_square_something() -> None:
    assert not skeleton(np.zeros((4, 5, 6), dtype=bool)).any()
    for shape in ((6, 6, 1), (6, 6, 6)):
        square = np.zeros(shape, dtype=bool)
        square[2:4, 2:4, 2 % shape[2] : 2 % shape[2] + 2] = True
        assert skeleton(square).any()


def test_the_bounding_box_is_tight() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[2, 3, 4] = mask[5, 3, 8] = True
    assert bounding_box(mask) == (slice(2, 6), slice(3, 4), slice(4, 9))
    assert mask[bounding_box(np.zeros_like(mask))].size == 0


def test_cldice_by_hand() -> None:
    reference = np.zeros((12, 5, 5), dtype=bool)
    reference[1:11, 2, 2] = True  # a line of ten voxels is its own skeleton
    predicted = np.zeros_like(reference)
    predicted[1:5, 2, 2] = True  # four of them, and
    predicted[1, 4, 4] = True  # one specks elsewhere
    precision, sensitivity = 4 / 5, 4 / 10
    assert cldice(predicted, reference) == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
    assert cldice(np.roll(reference, 2, axis=1), reference) == 0


@pytest.mark.parametrize(
    ("step", "expected_mm"),
    [((1, 0, 0), 4 * 0.5), ((0, 0, 1), 4 * 2.0), ((1, 1, 0), 4 * math.hypot(0.5, 1.0))],
)
def test_a_straight_line_has_its_length_in_mm(step: tuple[int, int, int], expected_mm: float) -> None:
    line = np.zeros((7, 7, 7), dtype=bool)
    for index in range(5):
        line[tuple(1 + index * along for along in step)] = True
    assert centreline_length(line, (0.5, 1.0, 2.0)) == pytest.approx(expected_mm)


def test_the_corner_of_a_stair_is_not_counted_twice() -> None:
    line = np.zeros((5, 5, 3), dtype=bool)
    line[0:3, 1, 1] = line[2, 1:4, 1] = True
    assert centreline_length(line, (1.0, 1.0, 1.0)) == pytest.approx(4)


def test_specks_and_nothing_have_no_length() -> None:
    specks = np.zeros((9, 9, 9), dtype=bool)
    assert centreline_length(specks, (1.0, 1.0, 1.0)) == 0
    specks[1, 1, 1] = specks[5, 5, 5] = True
    assert centreline_length(specks, (1.0, 1.0, 1.0)) == 0
