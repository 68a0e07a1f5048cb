"""Answers spread over even cells, stop at borders, and are the exact minimum of the walker's energy."""

import numpy as np
import pytest

from medseg.features.teachers.random_walk import LEAST_WEIGHT, RandomWalker


def _slow(values, region, prior, pull, sharpness):
    """The same system, built link by link and solved densely."""
    h, w = region.shape
    links = [((i, j), (i, j + 1)) for i in range(h) for j in range(w - 1)]
    links += [((i, j), (i + 1, j)) for i in range(h - 1) for j in range(w)]
    squares = {link: float(((values[:, *link[0]] - values[:, *link[1]]) ** 2).sum()) for link in links}
    mean = sum(squares.values()) / len(squares)
    matrix = pull * np.eye(h * w)
    for (one, two), square in squares.items():
        if not (region[one] and region[two]):
            continue
        weight = np.exp(-sharpness * square / mean) + LEAST_WEIGHT
        a, b = one[0] * w + one[1], two[0] * w + two[1]
        matrix[a, a] += weight
        matrix[b, b] += weight
        matrix[a, b] -= weight
        matrix[b, a] -= weight
    return np.linalg.solve(matrix, pull * prior.ravel()).reshape(h, w)


def test_the_answer_solves_the_walkers_equations():
    rng = np.random.default_rng(0)
    values, priors, region = rng.normal(size=(3, 6, 9)), rng.random((2, 6, 9)), rng.random((6, 9)) < 0.8
    walker = RandomWalker([(values, 1.0)], region, pull=0.1, sharpness=2.0)
    for prior, answer in zip(priors, walker.answers(priors), strict=True):
        np.testing.assert_allclose(answer, _slow(values, region, prior, 0.1, 2.0), rtol=0, atol=1e-6)


def test_maps_count_by_their_shares():
    one, two = np.zeros((1, 4, 8)), np.zeros((1, 4, 8))
    one[..., 4:], two[:, 2:] = 1, 1
    prior = np.zeros((1, 4, 8))
    prior[0, 0, 0] = 1
    region = np.ones((4, 8), bool)
    both = [RandomWalker([(one, a), (two, b)], region, pull=0.01, sharpness=0.4) for a, b in ((1, 0), (2, 0), (1, 1))]
    first, doubled, mixed = (walker.answers(prior)[0] for walker in both)
    np.testing.assert_allclose(first, doubled)
    assert first[3, 0] > 1.2 * first[0, 7] and mixed[3, 0] < 0.95 * first[3, 0]


def test_without_borders_a_weak_pull_gives_the_mean_and_values_stay_in_range():
    prior = np.random.default_rng(1).random((1, 12, 12))
    walker = RandomWalker([(np.ones((2, 12, 12)), 1.0)], np.ones((12, 12), bool), pull=1e-7, sharpness=3.0)
    np.testing.assert_allclose(walker.answers(prior)[0], prior.mean(), atol=1e-4)
    strong = RandomWalker([(np.ones((2, 12, 12)), 1.0)], np.ones((12, 12), bool), pull=0.5, sharpness=3.0)
    answer = strong.answers(prior)
    assert prior.min() <= answer.min() < answer.max() <= prior.max()


@pytest.mark.parametrize("turned", [False, True])
def test_an_answer_stops_at_a_border(turned):
    values = np.zeros((1, 16, 16))
    values[0, :8] = 1
    prior = np.zeros((1, 16, 16))
    prior[0, 2:4, 5:9] = 1
    if turned:
        values, prior = values.swapaxes(1, 2), prior.swapaxes(1, 2)
    answer = RandomWalker([(values, 1.0)], np.ones((16, 16), bool), pull=0.01, sharpness=3.0).answers(prior)[0]
    answer = answer.T if turned else answer
    assert answer[:8].min() > 3 * answer[8:].max()


def test_cells_outside_the_region_keep_their_prior_and_give_nothing():
    region = np.ones((6, 6), bool)
    region[:, 3:] = False
    prior = np.zeros((1, 6, 6))
    prior[0, :, 4] = 1
    answer = RandomWalker([(np.ones((1, 6, 6)), 1.0)], region, pull=0.1, sharpness=1.0).answers(prior)[0]
    np.testing.assert_allclose(answer, prior[0], atol=1e-12)
