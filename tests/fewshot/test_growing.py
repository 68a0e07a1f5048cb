"""This file tests which labels grow between rounds, and that none is changed."""

import numpy as np
import pytest

from medseg.fewshot.growing import SURE, SURE_OF_NONE, grow_labels
from medseg.fewshot.places import UNKNOWN


def line(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype=dtype)[None, None]


def grown(given: np.ndarray, *probabilities: np.ndarray) -> list[int]:
    return grow_labels(given.astype(np.int8), np.stack(probabilities), np.ones(given.shape, bool))[0, 0].tolist()


def test_nothing_grows_outside_the_region() -> None:
    given, region = line(-1, 1, -1, -1).astype(np.int8), np.array([[[True, True, False, False]]])
    probability = line(0.001, 0.5, 0.99, 0.001)[None]
    assert grow_labels(given, probability, region)[0, 0].tolist() == [0, 1, -1, -1]


def test_a_class_grows_along_sure_places_that_hang_together_with_a_label() -> None:
    given = line(-1, 1, -1, -1, -1, -1, -1)
    probability = line(0.99, 0.5, 0.99, 0.96, 0.6, 0.99, 0.3)
    # The fifth is not sure, and beyond it the sixth hangs together with no label.
    assert grown(given, probability) == [1, 1, 1, 1, -1, -1, -1]


def test_background_grows_wherever_the_probe_is_sure() -> None:
    assert grown(line(-1, -1, -1, 0), line(0.001, 0.03, 0.001, 0.99)) == [0, -1, 0, 0]


def test_given_labels_are_never_changed() -> None:
    rng = np.random.default_rng(0)
    given = rng.integers(-1, 3, (6, 7, 8)).astype(np.int8)
    shares = rng.dirichlet((0.1, 0.1, 0.1), (6, 7, 8)).transpose(3, 0, 1, 2)[1:].astype(np.float32)
    found = grow_labels(given, shares, np.ones(given.shape, bool))
    known = given != UNKNOWN
    assert np.array_equal(found[known], given[known])
    assert (found != given).any()
    assert ((found[~known] >= UNKNOWN) & (found[~known] <= 2)).all()


def test_a_class_does_not_grow_through_labels_of_another() -> None:
    given = line(1, 2, -1, -1)
    assert grown(given, line(0.99, 0.99, 0.99, 0.99), line(0.0, 0.0, 0.0, 0.0)) == [1, 2, -1, -1]


def test_corners_hang_together() -> None:
    given = np.full((3, 3, 3), UNKNOWN, np.int8)
    given[0, 0, 0] = 1
    probability = np.full((1, 3, 3, 3), 0.5, np.float32)
    probability[0, [1, 2], [1, 2], [1, 2]] = 0.99
    found = grow_labels(given, probability, np.ones(given.shape, bool))
    assert found[1, 1, 1] == found[2, 2, 2] == 1
    assert (found == 1).sum() == 3


@pytest.mark.parametrize("share", [SURE, SURE_OF_NONE])
def test_the_bounds_themselves_are_not_sure(share: float) -> None:
    assert grown(line(1, -1), line(share, share)) == [1, UNKNOWN]


def test_sure_classes_leave_no_background_and_several_grow_side_by_side() -> None:
    given = line(1, -1, -1, 2)
    assert grown(given, line(1, 0.97, 0.01, 0), line(0, 0.01, 0.98, 1)) == [1, 1, 2, 2]
