"""This file tests precision against recall: by hand, by a slow loop, and where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.scoring.precision_recall import crf_affinity, precision_recall


def slow_average(similarity: np.ndarray, same: np.ndarray) -> float:
    """Average precision, threshold by threshold from its definition."""
    total, average, before = same.sum(), 0.0, 0.0
    for threshold in sorted(set(similarity.tolist()), reverse=True):
        predicted = similarity >= threshold
        recall = (predicted & same).sum() / total
        average += (recall - before) * (predicted & same).sum() / predicted.sum()
        before = recall
    return average


def test_a_curve_by_hand() -> None:
    found = precision_recall(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]))
    np.testing.assert_allclose(found.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(found.recall, [1 / 2, 1 / 2, 1, 1])
    assert found.average == pytest.approx(1 / 2 + 1 / 3)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_agrees_with_a_slow_loop_also_with_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    similarity = rng.integers(0, levels, 200) / levels
    same = rng.random(200) < 0.3
    found = precision_recall(similarity, same)
    assert found.average == pytest.approx(slow_average(similarity, same))
    assert len(found.precision) == len(np.unique(similarity))


def test_the_order_of_tied_pairs_does_not_matter() -> None:
    same = np.array([True, True, False, False, False, True])
    for order in (same, same[::-1]):
        found = precision_recall(np.zeros(6), order.copy())
        assert found.precision.tolist() == [0.5] and found.recall.tolist() == [1]
        assert found.average == 0.5


def test_only_the_order_of_similarities_counts() -> None:
    rng = np.random.default_rng(0)
    similarity, same = rng.normal(size=50), rng.random(50) < 0.5
    assert precision_recall(similarity, same).average == precision_recall(np.exp(3 * similarity), same).average
    assert precision_recall(-similarity, same).average != precision_recall(similarity, same).average


def test_perfect_and_worst_similarity() -> None:
    same = np.array([True, True, False, False])
    assert precision_recall(same.astype(float), same).average == 1
    assert precision_recall(1 - same.astype(float), same).average == 0.5


def test_without_a_pair_of_the_same_label_there_is_no_average() -> None:
    found = precision_recall(np.array([0.5, 0.2]), np.array([False, False]))
    assert np.isnan(found.average) and np.isnan(found.recall).all()
    assert np.isnan(precision_recall(np.zeros(0), np.zeros(0, bool)).average)


def test_a_similarity_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="number"):
        precision_recall(np.array([np.nan, 1.0]), np.array([True, False]))


def test_the_crf_holds_near_places_of_like_colour_to_be_alike() -> None:
    here = np.array([[10.0, 10, 100, 50, 50]])

    def affinity_to(*difference: float) -> float:
        return float(crf_affinity(here, here + np.array(difference))[0])

    expected = np.log(4 * np.exp(-25 / (2 * 67**2) - 4 / 18) + 3 * np.exp(-25 / 2))
    assert affinity_to(3, 4, 2, 0, 0) == pytest.approx(expected)
    assert affinity_to(0, 0, 0, 0, 0) == pytest.approx(np.log(7))
    assert affinity_to(0, 0, 20, 0, 0) < affinity_to(0, 0, 5, 0, 0)
    assert affinity_to(60, 0, 5, 0, 0) < affinity_to(0, 0, 5, 0, 0)


def test_pairs_far_beyond_the_kernel_keep_their_order() -> None:
    here = np.zeros((1, 5))
    far, farther = crf_affinity(here, here + 200), crf_affinity(here, here + 201)
    assert np.isfinite(farther) and farther < far
