"""Frames of a cine inform their neighbours."""

import numpy as np
import pytest

from medseg.reconstruction.frames import smooth_frame, smooth_frames

CINE = np.random.default_rng(0).random((2, 4, 5, 7)).astype(np.float32)


def slow(values, sd, radius):
    """The definition, for one pixel's row of frames."""
    count = len(values)
    mirrored = [*values[::-1], *values, *values[::-1]]
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sd) ** 2)
    weights /= weights.sum()
    return [sum(weights[d] * mirrored[count + n + d - radius] for d in range(2 * radius + 1)) for n in range(count)]


def test_each_pixel_is_the_weighted_mean_over_its_frames():
    before = CINE.copy()
    smoothed = smooth_frames(CINE, 1.0)
    assert smoothed.shape == CINE.shape and smoothed.dtype == np.float32
    assert smoothed[1, 2, 3] == pytest.approx(slow(CINE[1, 2, 3], 1.0, 4), abs=1e-6)
    assert np.array_equal(CINE, before)


def test_a_flicker_of_one_frame_goes_and_what_lasts_stays():
    cine = np.zeros((1, 1, 2, 9), np.float32)
    cine[0, 0, 0, 4] = 1  # one frame only
    cine[0, 0, 1] = 0.8
    smoothed = smooth_frames(cine, 1.5)
    assert smoothed[0, 0, 0].max() < 0.5
    assert smoothed[0, 0, 1] == pytest.approx(np.full(9, 0.8))


def test_probabilities_still_sum_to_one():
    shares = np.stack([CINE[0], 1 - CINE[0]])
    assert smooth_frames(shares, 2.0).sum(0) == pytest.approx(np.ones(CINE.shape[1:]), abs=1e-6)


def test_one_frame_or_no_width_is_left_untouched():
    single = CINE[..., :1]
    assert smooth_frames(single, 3.0) is single
    assert smooth_frames(CINE, 0.0) is CINE


def test_a_slice_that_shows_nothing_stays_empty_and_takes_nothing_from_its_neighbours():
    cine = np.full((2, 3, 3, 6), 0.5, np.float32)
    cine[..., 4:] = 0
    smoothed = smooth_frames(cine, 1.5)
    assert smoothed[..., :4] == pytest.approx(np.full((2, 3, 3, 4), 0.5))
    assert not smoothed[..., 4:].any()


@pytest.mark.parametrize(("count", "sd"), [(30, 1.5), (30, 0.4), (7, 3.0), (3, 5.0), (1, 2.0), (5, 0.0)])
def test_a_frame_alone_is_that_of_all(count, sd):
    cine = np.random.default_rng(1).random((2, 3, 4, count)).astype(np.float32)
    whole = smooth_frames(cine, sd)
    for index in range(count):
        assert np.allclose(smooth_frame(cine, index, sd), whole[..., [index]], atol=1e-6)
