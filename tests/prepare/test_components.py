"""This file tests the choice of components by what they touch and by their median."""

from __future__ import annotations

import numpy as np

from medseg.prepare.edges import keep_by_median, keep_touching

SHAPE = (12, 8, 6)


def blocks() -> tuple[np.ndarray, np.ndarray]:
    """Two blocks that do not touch each other."""
    one, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[1:4, 1:4, 1:4] = True
    other[7:11, 2:6, 2:5] = True
    return one, other


def test_a_component_stays_whole_where_the_core_touches_it_in_one_voxel() -> None:
    one, other = blocks()
    core = np.zeros(SHAPE, bool)
    core[7, 2, 2] = core[5, 0, 0] = True  # the second lies in no component
    assert np.array_equal(keep_touching(one | other, core), other)
    assert not keep_touching(one | other, np.zeros(SHAPE, bool)).any()


def test_the_median_of_a_component_decides_not_its_extremes() -> None:
    one, other = blocks()
    values = np.where(one, 0.5, 0.1).astype(np.float32)
    values[1, 1, 1] = 0.0  # a hole in a sure component
    values[7, 2, 2] = 1.0  # a bright voxel in an unsure one
    assert np.array_equal(keep_by_median(one | other, values, 0.2), one)
    assert np.array_equal(keep_by_median(one | other, values, 0.05), one | other)
    assert not keep_by_median(one | other, values, 0.5).any()


def test_an_empty_mask_stays_empty() -> None:
    empty = np.zeros(SHAPE, bool)
    assert not keep_by_median(empty, np.ones(SHAPE, np.float32), 0.2).any()
    assert not keep_touching(empty, ~empty).any()
