"""This file tests how the liver benchmark scores, names clusters and sums up; not how good anything is."""

from __future__ import annotations

import cProfile
import math
import pstats
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("a source distribution holds no benchmarks", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import liver_baselines  # noqa: E402 (the folder is made known first)
import liver_cases  # noqa: E402
import liver_scores  # noqa: E402
import liver_times  # noqa: E402

sys.path.remove(str(BENCHMARKS))  # its features.py would hide tests/features from the processes that tests start

from medseg.errors import MedsegError  # noqa: E402
from medseg.prepare.sector import Sector  # noqa: E402

REFERENCE = np.array([[0, 1, 1, 1], [1, 2, 2, 3], [1, 2, 2, 3]], np.uint8)


def cell(*unions: float | None) -> dict[str, Any]:
    """A cell of pictures with these Dice scores, and one right and one wrong pixel each."""
    counts = [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]
    scores = {
        str(n): {"union": union, "liver": union, "mass": None, "counts": counts} for n, union in enumerate(unions)
    }
    return {"scores": scores}


def test_a_perfect_mask_scores_one_everywhere() -> None:
    found = liver_scores.score_picture(REFERENCE, REFERENCE)
    assert (found["union"], found["liver"], found["mass"]) == (1, 1, 1)
    assert found["counts"] == [[5, 0, 0], [0, 4, 0], [0, 0, 2], [0, 0, 0]]


def test_a_mask_without_mass_has_the_union_but_not_its_classes() -> None:
    predicted = np.where(REFERENCE >= 2, 2, REFERENCE).astype(np.uint8)
    found = liver_scores.score_picture(predicted, REFERENCE)
    assert found["union"] == 1
    assert found["liver"] == 2 * 4 / (4 + 6)
    assert found["mass"] == 0
    assert found["counts"] == [[5, 0, 0], [0, 4, 2], [0, 0, 0], [0, 0, 0]]


def test_pixels_outside_the_labelled_outline_enter_dice_but_no_counts() -> None:
    predicted = REFERENCE.copy()
    predicted[0, 0], predicted[2, 1] = 2, 0
    found = liver_scores.score_picture(predicted, REFERENCE)
    assert found["union"] == 2 * 5 / (6 + 6)
    assert found["counts"] == [[5, 0, 0], [0, 3, 0], [0, 0, 2], [0, 1, 0]]


def test_the_mass_of_a_picture_without_one_is_undefined() -> None:
    without = np.where(REFERENCE == 3, 2, REFERENCE)
    assert liver_scores.score_picture(without, without)["mass"] is None
    assert liver_scores.score_picture(REFERENCE, without)["mass"] == 0


def test_clusters_are_named_for_the_highest_dice_of_the_union() -> None:
    # Cluster 1 is liver, cluster 2 two thirds of it, cluster 3 hardly; the last value is in no pixel.
    table = np.array([[0, 10], [4, 8], [30, 3], [0, 0]])
    assert liver_scores.value_of_cluster(table).tolist() == [0, 2, 2, 1, 1]


def test_a_cluster_table_counts_black_margins_and_takes_masses_for_liver() -> None:
    clusters = np.array([[3, 1, 1, 0], [1, 2, 2, 2], [1, 2, 1, 2]], np.uint8)
    table = liver_scores.cluster_table(clusters, REFERENCE, 3)
    assert table.tolist() == [[4, 1], [0, 5], [1, 0]]


def test_a_summary_is_the_mean_over_pictures_of_the_mean_over_seeds() -> None:
    found = liver_scores.summary([cell(0.6, 0.8), cell(0.8, 1.0)], [cell(0.5, 0.5)])
    assert found["union"]["mean"] == pytest.approx(0.8)
    assert found["union"]["low"] == pytest.approx(0.7)
    assert found["union"]["high"] == pytest.approx(0.9)
    assert found["difference"]["mean"] == pytest.approx(0.3)
    assert found["difference"]["low"] == pytest.approx(0.2)
    assert found["of_seeds"]["values"] == pytest.approx([0.7, 0.9])
    assert found["of_seeds"]["sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert found["worst"] == pytest.approx(0.7)
    assert math.isnan(found["mass"]["mean"]) and found["mass"]["pictures"] == 0
    assert found["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert found["mean_iou"]["mean"] == pytest.approx((1 + 1 / 2) / 2)


def test_the_difference_is_paired_by_the_pictures_name() -> None:
    shuffled = {"scores": dict(reversed(cell(0.5, 0.7)["scores"].items()))}
    assert liver_scores.summary([cell(0.5, 0.7)], [shuffled])["difference"]["low"] == 0


def test_the_table_shows_intervals_and_marks_rows_that_learnt_from_labels() -> None:
    found = liver_scores.summary([cell(0.6, 0.8), cell(0.6, 0.8)], [cell(0.5, 0.5)])
    plain, marked = liver_scores.markdown([("a", "-", "label-free", found), ("b", "-", "96 labelled cases", found)])[2:]
    assert plain.startswith("| a | - | label-free | 0.700 (0.600 to 0.800) | +0.200 (+0.100 to +0.300) | 0.700 | - |")
    assert plain.endswith("| 0.000 of 2 |")
    assert marked.startswith("| *b* | - | 96 labelled cases |")


def test_the_threshold_is_that_of_the_best_dice() -> None:
    share = np.linspace(0, 1, 101).reshape(1, -1)
    assert liver_baselines.best_threshold([share, share], [share > 0.35, share > 0.35]) == 0.35


def test_boxes_of_masks() -> None:
    mask = np.zeros((5, 6), bool)
    assert liver_baselines.bounding_box(mask) == (slice(0, 5), slice(0, 6))
    mask[1, 2] = mask[3, 4] = True
    assert liver_baselines.bounding_box(mask) == (slice(1, 4), slice(2, 5))


def test_the_ellipse_has_its_centre_and_half_axes() -> None:
    shape = liver_baselines.ellipse(100)
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    assert (rows[0], rows[-1]) == (10, 79)
    assert (columns[0], columns[-1]) == (5, 94)


def test_a_frame_brings_labels_to_its_grid_and_back() -> None:
    sector = Sector(apex_row=-20, apex_col=64, near=30, far=120, left=-0.6, right=0.6)
    frame = liver_cases.Frame(np.zeros((160, 160), np.float32), np.ones((160, 160), bool), sector, (128, 128))
    label = np.ones((128, 128), np.uint8)
    label[40:70, 50:80] = 2
    back = frame.placed(frame.gathered(label))
    assert (back[~frame.mask] == 0).all() and not frame.mask.all()
    assert (back[frame.mask] == label[frame.mask]).mean() > 0.99


def test_a_frame_without_a_sector_is_empty() -> None:
    frame = liver_cases.Frame(np.zeros((160, 160), np.float32), np.zeros((160, 160), bool), None, (20, 30))
    assert not frame.mask.any() and not frame.placed(np.full((160, 160), 2, np.uint8)).any()
    assert frame.spread(np.ones((48, 48), np.float32)).shape == (20, 30)
    assert not frame.gathered(np.full((20, 30), 2, np.uint8)).any()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("imgs", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((3, 4), 99, np.uint8)).save(tmp_path / f"imgs/{split}/{split}_{number}.jpg")
            Image.fromarray(REFERENCE).save(tmp_path / f"labels/{split}/{split}_{number}.png")
    return tmp_path


def test_the_check_reports_on_the_training_pictures_that_it_does_not_learn_from(data: Path) -> None:
    plan = liver_cases.Plan.of_set(data, data / "work", "check")
    assert [picture.name for picture in plan.learn] == ["train_0", "train_2", "train_4"]
    assert [picture.name for picture in plan.report] == ["train_1", "train_3", "train_5"]
    final = liver_cases.Plan.of_set(data, data / "work", "val")
    assert (len(final.learn), [picture.name for picture in final.report]) == (6, ["val_0", "val_1"])
    assert {path.name for path in plan.folder("learn").iterdir()} == {"train_0.jpg", "train_2.jpg", "train_4.jpg"}


def test_a_finished_cell_is_not_computed_again(data: Path) -> None:
    plan = liver_cases.Plan.of_set(data, data / "work", "val")
    found = plan.cell("row", 0, lambda: {picture.name: REFERENCE for picture in plan.report})
    assert found["scores"]["val_0"]["union"] == 1

    def never() -> dict[str, np.ndarray]:
        raise AssertionError

    assert plan.cell("row", 0, never) == found
    assert (plan.mask("row", 0, "val_1") == REFERENCE).all()


def test_a_folder_that_is_not_the_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must hold imgs/train"):
        liver_cases.Plan.of_set(tmp_path, tmp_path / "work", "val")


def test_stages_are_found_by_file_and_function(tmp_path: Path) -> None:
    place = tmp_path / "prepare" / "chain.py"
    names: dict[str, Any] = {"sleep": time.sleep}
    exec(compile("def prepare_case():\n    sleep(0.06)\n\ndef other():\n    sleep(0.06)\n", place, "exec"), names)
    profiler = cProfile.Profile()
    with profiler:
        names["prepare_case"]()
        names["other"]()
    minutes = liver_times.stage_minutes(pstats.Stats(profiler))
    assert minutes["preparation (sector, overlays), all together"] == pytest.approx(0.001, rel=0.5)
    assert minutes["masks"] == 0
