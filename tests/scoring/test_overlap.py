"""This file tests the scores of one mask against another, by hand, by golden numbers, and by their saying no."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scoring.overlap import components, dice, precision, recall, score_labels, score_mask

GOLDEN = Path(__file__).parents[1] / "golden" / "casio_reconstruct.npz"
SPACING = (0.5, 0.6, 0.8)


def box(shape: tuple[int, int, int], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*ends) for ends in ranges)] = True
    return mask


def test_dice_precision_and_recall_match_numbers_by_hand() -> None:
    reference = box((6, 6, 6), (1, 5), (2, 3), (2, 3))  # 4 voxels
    predicted = box((6, 6, 6), (3, 6), (2, 3), (2, 3))  # 3 voxels, 2 of them right
    assert dice(predicted, reference) == pytest.approx(4 / 7)
    assert precision(predicted, reference) == pytest.approx(2 / 3)
    assert recall(predicted, reference) == pytest.approx(2 / 4)


@pytest.mark.parametrize("volume", ["vol0", "vol1"])
def test_dice_and_cldice_equal_the_golden_numbers(volume: str) -> None:
    golden = np.load(GOLDEN)
    scores = score_mask(golden[f"{volume}/in_pred"] > 0, golden[f"{volume}/in_label"] > 0, SPACING)
    assert scores["dice"] == pytest.approx(float(golden[f"{volume}/out_dice"]), rel=1e-12)
    assert scores["cldice"] == pytest.approx(float(golden[f"{volume}/out_cldice"]), rel=1e-12)


def test_a_mask_scores_perfectly_against_itself() -> None:
    mask = box((12, 13, 14), (2, 10), (5, 8), (6, 9))
    scores = score_mask(mask, mask, SPACING)
    for metric in ("dice", "cldice", "precision", "recall", "surface_dice_1voxel"):
        assert scores[metric] == 1
    assert scores["hd95_mm"] == 0
    assert scores["volume_difference_ml"] == 0


@pytest.mark.parametrize("change", ["shifted", "mirrored"])
def test_a_wrong_mask_scores_less(change: str) -> None:
    reference = box((12, 13, 14), (1, 4), (5, 8), (6, 9))
    predicted = np.roll(reference, 1, axis=0) if change == "shifted" else reference[::-1]
    scores = score_mask(predicted, reference, SPACING)
    assert scores["dice"] == pytest.approx(2 / 3 if change == "shifted" else 0)
    assert scores["hd95_mm"] == pytest.approx(0.5 if change == "shifted" else 7 * 0.5)
    assert scores["volume_difference_ml"] == 0


def test_two_empty_masks_leave_every_ratio_undefined() -> None:
    empty = np.zeros((5, 6, 7), dtype=bool)
    scores = score_mask(empty, empty, SPACING)
    for metric in ("dice", "cldice", "precision", "recall", "surface_dice_1voxel", "hd95_mm"):
        assert math.isnan(scores[metric])
    assert scores["components"] == scores["centreline_mm"] == scores["volume_difference_ml"] == 0


@pytest.mark.parametrize("empty_one", ["predicted", "reference"])
def test_one_empty_mask_scores_nothing(empty_one: str) -> None:
    empty, full = np.zeros((5, 6, 7), dtype=bool), box((5, 6, 7), (1, 4), (2, 4), (2, 4))
    pair = (empty, full) if empty_one == "predicted" else (full, empty)
    scores = score_mask(*pair, SPACING)
    for metric in ("dice", "cldice", "precision", "recall", "surface_dice_1voxel"):
        assert scores[metric] == 0
    assert math.isnan(scores["hd95_mm"])
    sign = -1 if empty_one == "predicted" else 1
    assert scores["volume_difference_ml"] == pytest.approx(sign * 12 * 0.5 * 0.6 * 0.8 / 1000)


def test_misses_outside_a_region_count_unless_the_region_is_asked_for() -> None:
    reference = box((8, 8, 8), (0, 8), (3, 5), (3, 5))
    region = box((8, 8, 8), (0, 4), (0, 8), (0, 8))
    predicted = reference & region
    assert score_mask(predicted, reference, SPACING)["recall"] == 0.5
    assert score_mask(predicted, reference, SPACING, region=region)["recall"] == 1


def test_masks_of_unequal_shape_are_refused() -> None:
    with pytest.raises(MedsegError, match=r"shape of the reference \(5, 6, 7\), got \(5, 6, 8\)"):
        score_mask(np.zeros((5, 6, 8), dtype=bool), np.zeros((5, 6, 7), dtype=bool), SPACING)


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert components(mask) == 1
    mask[4, 4, 4] = True
    assert components(mask) == 2
    assert components(np.zeros((3, 3, 3), dtype=bool)) == 0


def test_several_classes_are_scored_each_and_together() -> None:
    reference = np.zeros((9, 9, 9), dtype=np.uint8)
    reference[1:3, 2:5, 2:5], reference[5:8, 2:5, 2:5] = 1, 2
    swapped = np.array([0, 2, 1], dtype=np.uint8)[reference]
    scores = score_labels(swapped, reference, SPACING, names={1: "artery"})
    assert list(scores) == ["union", "artery", "class 2"]
    assert scores["union"]["dice"] == 1
    assert scores["artery"]["dice"] == scores["class 2"]["dice"] == 0


def test_one_class_is_scored_once_whatever_its_value() -> None:
    reference = np.zeros((9, 9, 9), dtype=np.int16)
    reference[1:3, 2:5, 2:5] = 7
    assert list(score_labels(reference, reference, SPACING)) == ["union"]


def test_a_single_slice_is_scored() -> None:
    reference = box((16, 16, 1), (2, 14), (6, 9), (0, 1))
    scores = score_mask(reference, reference, SPACING)
    assert scores["cldice"] == scores["dice"] == 1


def test_scores_and_pictures_start_without_torch() -> None:
    names = "medseg.scoring.tables, medseg.scoring.baselines, medseg.scoring.overlap, medseg.review.plots"
    code = f"import {names}, sys; sys.exit(', '.join({{'torch', 'monai', 'timm'}} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_background_class_is_no_part_of_the_union() -> None:
    truth, found = np.ones((4, 4, 1), np.uint8), np.ones((4, 4, 1), np.uint8)
    truth[:2], found[:3] = 2, 2
    scores = score_labels(found, truth, (1, 1, 1), names={1: "tissue", 2: "liver"}, background=[1])
    assert scores["union"]["dice"] == scores["liver"]["dice"] == pytest.approx(16 / 20)
    assert score_labels(found, truth, (1, 1, 1))["union"]["dice"] == 1
    assert scores["tissue"]["dice"] == pytest.approx(8 / 12)
