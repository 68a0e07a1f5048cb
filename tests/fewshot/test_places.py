"""Places that teach a probe are drawn from what is labelled, and most where a label says something new."""

from __future__ import annotations

import numpy as np

from medseg.fewshot.places import UNKNOWN, choose_slices, draw_anchors, draw_points, draw_windows, hard_places


def test_slices_are_spread_evenly_and_lie_where_most_stands_out() -> None:
    salience = np.zeros((4, 4, 12), np.float32)
    salience[..., [1, 2, 6, 11]] = 1
    salience[0, 0, 2] = 5
    region = np.ones(salience.shape, bool)
    assert choose_slices(salience, region, 3).tolist() == [2, 6, 11]
    region[..., 6:] = False  # nobody looks there
    assert choose_slices(salience, region, 2).tolist() == [2, 3]
    assert len(choose_slices(salience, region, 99)) == 6
    assert len(choose_slices(salience, np.zeros_like(region), 3)) == 0


def test_hard_is_what_contradicts_the_prior_or_is_salient_background() -> None:
    labels = np.array([[[0, 0, 0, 1, 1, UNKNOWN]]], np.int8)
    prior = np.array([[[0, 1, 0, 1, 0, 1]]])
    salience = np.array([[[0.0, 0.0, 0.9, 0.9, 0.0, 0.9]]], np.float32)
    assert hard_places(labels, prior, salience).ravel().tolist() == [False, True, True, False, True, False]


def test_points_stand_for_all_that_is_labelled() -> None:
    rng = np.random.default_rng(0)
    labels = np.full((10, 10, 10), UNKNOWN, np.int8)
    labels[:6] = 0
    labels[0, :4] = 1
    hard = labels == 0
    hard[3:] = False
    points = draw_points(labels, hard, most=100, rng=rng)
    values = labels[tuple(points.places.T)]
    assert UNKNOWN not in values
    assert (values == 1).sum() == 40  # all of them, being fewer than half
    for stratum in (labels == 1, (labels == 0) & hard, (labels == 0) & ~hard):
        drawn = stratum[tuple(points.places.T)]
        assert np.isclose(points.weight[drawn].sum(), stratum.sum())


def test_anchors_lie_where_nobody_labelled_anything() -> None:
    labels = np.full((8, 8, 8), UNKNOWN, np.int8)
    labels[:4] = 0
    prior = np.zeros(labels.shape, int)
    prior[:, 0] = 1
    region = np.ones(labels.shape, bool)
    region[7] = False
    places = draw_anchors(labels, prior, region, most=20, rng=np.random.default_rng(0))
    assert (labels[tuple(places.T)] == UNKNOWN).all() and region[tuple(places.T)].all()
    assert (prior[tuple(places.T)] == 1).sum() == 10 and len(places) == 20
    everything = np.zeros(labels.shape, np.int8)
    assert len(draw_anchors(everything, prior, region, most=20, rng=np.random.default_rng(0))) == 0


def test_windows_hold_labelled_voxels_and_lie_in_the_volume() -> None:
    labels = np.full((40, 30, 10), UNKNOWN, np.int8)
    labels[..., 5] = 0
    labels[20, 15, 5] = 1
    hard = labels == 1
    starts = draw_windows(labels, hard, side=12, count=16, rng=np.random.default_rng(0))
    assert starts.shape == (16, 3)
    assert (starts >= 0).all() and (starts[:, :2] + 12 <= labels.shape[:2]).all() and (starts[:, 2] == 0).all()
    holds = [(labels[i : i + 12, j : j + 12, k : k + 12] == 1).any() for i, j, k in starts]
    assert sum(holds) >= 12  # half on the class, a quarter on hard places
    nobody = np.full_like(labels, UNKNOWN)
    assert len(draw_windows(nobody, nobody == 0, side=12, count=4, rng=np.random.default_rng(0))) == 0
