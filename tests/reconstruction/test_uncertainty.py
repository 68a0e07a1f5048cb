"""This file tests that uncertainty counts who disagrees with the mask."""

from __future__ import annotations

import numpy as np

from medseg.reconstruction.uncertainty import Agreement

SHAPE = (3, 4, 5)


def full(value: float) -> np.ndarray:
    return np.full((1, *SHAPE), value, np.float32)


def test_members_that_agree_with_the_mask_leave_no_doubt_and_those_that_do_not_leave_all() -> None:
    agreement = Agreement((1, *SHAPE))
    agreement.add(full(1.0))
    agreement.add(full(1.0))
    assert not agreement.uncertainty(np.ones(SHAPE, np.uint8), [1]).any()
    assert (agreement.uncertainty(np.zeros(SHAPE, np.uint8), [1]) == 1).all()


def test_uncertainty_is_the_mean_of_the_votes_against() -> None:
    agreement = Agreement((1, *SHAPE))
    agreement.add(full(0.8), votes=3)  # the mean of three voters
    agreement.add(full(0.0))
    labels = np.zeros(SHAPE, np.uint8)
    labels[0] = 1
    uncertain = agreement.uncertainty(labels, [1])
    assert np.allclose(uncertain[0], 1 - 0.6, atol=1e-6)
    assert np.allclose(uncertain[1:], 0.6, atol=1e-6)


def test_of_several_classes_the_one_that_the_mask_gives_counts() -> None:
    agreement = Agreement((2, *SHAPE))
    agreement.add(np.stack([np.full(SHAPE, 0.5), np.full(SHAPE, 0.3)]).astype(np.float32))
    labels = np.zeros(SHAPE, np.uint8)
    labels[1], labels[2] = 7, 9
    uncertain = agreement.uncertainty(labels, [7, 9])
    assert np.allclose([uncertain[n, 0, 0] for n in range(3)], [0.8, 0.5, 0.7], atol=1e-6)


def test_a_slice_alone_gets_what_it_gets_among_all() -> None:
    rng = np.random.default_rng(0)
    agreement = Agreement((2, *SHAPE))
    agreement.add((rng.random((2, *SHAPE)) / 2).astype(np.float32))
    labels = rng.choice(np.array([0, 7, 9], np.uint8), SHAPE)
    whole = agreement.uncertainty(labels, [7, 9])
    for k in range(SHAPE[2]):
        one = agreement.uncertainty(labels[..., k : k + 1], [7, 9], slices=slice(k, k + 1))
        assert np.array_equal(one, whole[..., k : k + 1])
