"""This file tests scores of labelled pictures against numbers by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from medseg.naming.matching import confusion, count_table, hungarian
from medseg.scoring.segmentation import (
    SegmentationScores,
    class_dice,
    mean_dice,
    overall,
    published_names,
    write_segmentation_csv,
    write_segmentation_json,
)

# given sky to 6 of sky and 2 of sea, sea to 1 and 3, and 1 and 2 pixels to nothing
COUNTS = np.array([[6, 2], [1, 3], [1, 2]])


def row(method: str = "stego", naming: str = "oracle", counts: np.ndarray = COUNTS) -> SegmentationScores:
    intervals = {"mean_iou": (0.4, 0.6), "accuracy": (0.5, 0.7), "mean_dice": (math.nan, math.nan)}
    return SegmentationScores(method, naming, ("sky", "=sea"), counts, intervals)


def test_scores_are_those_counted_by_hand() -> None:
    assert class_dice(COUNTS) == pytest.approx([2 * 6 / (8 + 8), 2 * 3 / (4 + 7)])
    assert overall(COUNTS) == pytest.approx(
        {"mean_iou": (6 / 10 + 3 / 8) / 2, "accuracy": 9 / 15, "mean_dice": (12 / 16 + 6 / 11) / 2}
    )


def test_a_perfect_answer_has_one_and_a_wrong_one_nothing() -> None:
    assert overall(np.array([[5, 0], [0, 7], [0, 0]])) == {"mean_iou": 1, "accuracy": 1, "mean_dice": 1}
    assert overall(np.array([[0, 7], [5, 0], [0, 0]])) == {"mean_iou": 0, "accuracy": 0, "mean_dice": 0}


def test_an_absent_class_counts_when_it_was_given_and_is_left_out_when_not() -> None:
    given = np.array([[5, 0], [1, 0], [0, 0]])
    never = np.array([[5, 0], [0, 0], [1, 0]])
    assert class_dice(given).tolist() == pytest.approx([10 / 11, 0])
    assert mean_dice(given) == pytest.approx(5 / 11)
    assert math.isnan(class_dice(never)[1])
    assert mean_dice(never) == pytest.approx(10 / 11)


def test_nothing_labelled_is_undefined() -> None:
    assert all(math.isnan(value) for value in overall(np.zeros((3, 2), int)).values())


def test_left_over_clusters_count_as_errors() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    assignments = np.array([0] * 6 + [2] * 4 + [1] * 10)
    table = count_table(assignments, labels, clusters=3, classes=2)
    assert overall(confusion(table, hungarian(table)))["accuracy"] == 16 / 20


def test_published_names_are_in_percent_and_of_stego_by_oracle_and_the_linear_probe_only() -> None:
    perfect = np.array([[4, 0], [0, 4], [0, 0]])
    rows = [row(), row("stego", "training_labels", perfect), row("kmeans"), row("linear", "training_labels", perfect)]
    found = published_names(rows)
    assert found["final/cluster/Accuracy"] == pytest.approx(60)
    assert found["final/linear/mIoU"] == 100
    assert sorted(found) == sorted(
        f"final/{p}/{m}" for p in ("cluster", "linear") for m in ("mIoU", "Accuracy", "Dice")
    )


def test_the_csv_has_a_line_for_all_and_for_each_class(tmp_path: Path) -> None:
    write_segmentation_csv(tmp_path / "evaluation.csv", [row()])
    with (tmp_path / "evaluation.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["class"] for line in lines] == ["all", "sky", "'=sea"]
    assert (lines[0]["accuracy"], lines[0]["mean_iou_low"], lines[0]["mean_dice_low"]) == ("0.6", "0.4", "")
    assert (lines[2]["pixels"], lines[2]["iou"], lines[0]["label_free"]) == ("7", "0.375", "no")
    assert {line["effort"] for line in lines} == {"oracle"}


def test_the_json_knows_no_nan(tmp_path: Path) -> None:
    write_segmentation_json(tmp_path / "evaluation.json", [row()], facts={"images": 3, "p": math.nan})
    content = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert content["rows"][0]["intervals"]["mean_dice"] == [None, None]
    assert content["rows"][0]["confusion"] == COUNTS.tolist()
    assert (content["images"], content["p"]) == (3, None)
