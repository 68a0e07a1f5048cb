"""This file tests what is measured of a cluster."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.cards import FACTS, MEASUREMENTS, VOLUME, measure_clusters

ASSIGNMENTS = np.array([0, 0, 2, 2, 2, 0])
CASES = np.array([0, 0, 0, 1, 1, 1])
BRIGHTNESS = np.array([1.0, 3.0, 5.0, 6.0, 10.0, 2.0], dtype=np.float32)


def test_a_card_holds_shares_and_statistics_by_hand() -> None:
    cards = measure_clusters(ASSIGNMENTS, {"brightness": BRIGHTNESS}, CASES, clusters=3)
    assert [card.cluster for card in cards] == [0, 1, 2]
    assert [card.voxels for card in cards] == [3, 0, 3]
    assert cards[2].facts["share"] == 0.5
    assert cards[2].facts["cases"] == 1
    assert cards[2].facts["mean_brightness"] == pytest.approx(7)
    assert cards[2].facts["median_brightness"] == pytest.approx(6)
    assert cards[2].facts["p10_brightness"] == pytest.approx(5.2)
    assert cards[2].facts["p90_brightness"] == pytest.approx(9.2)


def test_an_unused_cluster_has_shares_only() -> None:
    card = measure_clusters(ASSIGNMENTS, {"brightness": BRIGHTNESS}, CASES, clusters=3)[1]
    assert card.facts == {"share": 0, "cases": 0}


def test_a_cluster_of_one_case_is_known_by_its_share_of_cases() -> None:
    cards = measure_clusters(np.array([0, 0, 1]), {}, np.array([4, 4, 7]), clusters=2)
    assert [card.facts["cases"] for card in cards] == [0.5, 0.5]


def test_every_fact_that_can_be_measured_is_described() -> None:
    measurements = dict.fromkeys((*MEASUREMENTS, VOLUME), BRIGHTNESS)
    card = measure_clusters(ASSIGNMENTS, measurements, CASES, clusters=3)[0]
    assert set(card.facts) == set(FACTS)


@pytest.mark.parametrize(
    ("assignments", "measurements", "words"),
    [
        (ASSIGNMENTS, {"brightnes": BRIGHTNESS}, "measurement must be one of brightness"),
        (ASSIGNMENTS + 1, {}, r"0\.\.2, got 1\.\.3"),
        (ASSIGNMENTS[:0], {}, "got none"),
    ],
)
def test_what_cannot_be_measured_is_refused(assignments: np.ndarray, measurements: dict, words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        measure_clusters(assignments, measurements, CASES[: len(assignments)], clusters=3)


def test_volumes_are_added_up_and_shared_by_the_cases() -> None:
    found = measure_clusters(
        np.array([0, 0, 1, 0]), {VOLUME: np.array([2.0, 3, 5, 7])}, np.array([0, 0, 0, 1]), clusters=3
    )
    assert [card.facts["mm3"] for card in found] == [6.0, 2.5, 0.0]
    assert "mean_mm3" not in found[0].facts


def test_symmetry_is_the_smaller_side_over_the_larger_of_each_case() -> None:
    places = np.array([0.1, 0.9, 0.8, 0.2, 0.3, 0.4, 0.6])
    cases = np.array([0, 0, 0, 1, 1, 1, 1])
    (card,) = measure_clusters(np.zeros(7, int), {"left_right": places}, cases, clusters=1)
    assert card.facts["symmetry"] == 2 / 5  # 1 of 3 voxels and 1 of 4 lie on the smaller side: (1 + 1) / (2 + 3)
