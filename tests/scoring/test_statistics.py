"""This file tests intervals and paired tests against numbers by hand and scipy's tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from medseg.scoring.segmentation import overall
from medseg.scoring.statistics import PairedTest, corrected, paired_test, patient_intervals


def tables(patients: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([[[hits, 3], [10 - hits, 7], [0, 0]] for hits in random.integers(2, 10, patients)])


def test_an_interval_holds_the_score_and_shrinks_with_more_patients() -> None:
    few, many = tables(5), np.concatenate([tables(5)] * 20)
    for key, value in overall(few.sum(0)).items():
        low, high = patient_intervals(few, overall)[key]
        assert low < value < high
        narrow = patient_intervals(many, overall)[key]
        assert narrow[1] - narrow[0] < (high - low) / 2


def test_an_interval_is_that_of_a_slow_loop() -> None:
    counts, seed = tables(4), 3
    draws = np.random.default_rng(seed).multinomial(4, [0.25] * 4, size=50)
    values = [overall(sum(n * table for n, table in zip(draw, counts, strict=True)))["accuracy"] for draw in draws]
    found = patient_intervals(counts, overall, seed=seed, resamples=50)["accuracy"]
    assert found == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_one_patient_has_no_interval_and_equal_patients_have_a_point() -> None:
    assert all(math.isnan(end) for ends in patient_intervals(tables(1), overall).values() for end in ends)
    same = np.repeat(tables(1), 4, axis=0)
    low, high = patient_intervals(same, overall)["mean_iou"]
    assert low == high == pytest.approx(overall(same[0])["mean_iou"])


def test_the_seed_decides() -> None:
    counts = tables(6)
    assert patient_intervals(counts, overall, seed=1) == patient_intervals(counts, overall, seed=1)
    assert patient_intervals(counts, overall, seed=1) != patient_intervals(counts, overall, seed=2)


@pytest.mark.parametrize("count", [6, 9, 14, 40])
def test_p_is_scipys_without_ties(count: int) -> None:
    random = np.random.default_rng(count)
    a, b = random.normal(0.3, 1, count).tolist(), random.normal(0, 1, count).tolist()
    method = "exact" if count <= 15 else "auto"
    assert paired_test("a", "b", a, b).p == pytest.approx(float(wilcoxon(a, b, method=method).pvalue))


def test_with_ties_p_is_that_of_all_signs() -> None:
    differences = [0.1] * 6 + [-0.1]  # of 128 signs, 2 (all equal) + 14 (one other) are as far out
    assert paired_test("a", "b", differences, [0.0] * 7).p == pytest.approx(16 / 128)


def test_fewer_than_six_unequal_pairs_cannot_be_significant_and_that_is_said() -> None:
    test = paired_test("a", "b", [0.9] * 5 + [0.5], [0.1] * 5 + [0.5])
    assert (test.pairs, math.isnan(test.p)) == (6, True)
    assert "fewer than 6 of them differ, so no test can be significant" in test.describe()
    six = paired_test("a", "b", [0.9] * 6, [0.1] * 6)
    assert six.p == pytest.approx(2 / 64)
    assert "p 0.031" in corrected([six])[0].describe()


def test_undefined_scores_are_left_out() -> None:
    test = paired_test("a", "b", [math.nan, 0.5], [0.1, math.nan])
    assert (test.pairs, test.describe()) == (0, "a - b: no patient to compare them on")


def test_holm_multiplies_the_least_most_and_never_turns_the_order() -> None:
    tests = [PairedTest("a", name, 9, 0.1, p) for name, p in (("b", 0.04), ("c", 0.01), ("d", math.nan), ("e", 0.03))]
    found = [test.p_holm for test in corrected(tests)]
    assert found[:2] == pytest.approx([0.06, 0.03])  # 1 x .04 is below 2 x .03, and may not be
    assert math.isnan(found[2])
    assert found[3] == pytest.approx(0.06)
