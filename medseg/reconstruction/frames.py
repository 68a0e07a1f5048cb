"""This file lets the frames of a cine inform each other: an organ does not jump from one frame to the next."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from medseg.prepare.vesselness import scratch_array

SD_FRAMES = 1.5
"""Frames: at 25 a second an organ moves by less than a millimetre in so short a time, and a flicker is gone."""
_REACH = 4.0
"""Standard deviations beyond which a Gaussian counts as 0."""


def smooth_frames(
    probability: Float[np.ndarray, "c i j n"], sd_frames: float = SD_FRAMES
) -> Float[np.ndarray, "c i j n"]:
    """Average the probabilities of neighbouring frames, the nearer the more.

    Beyond the first and the last frame the cine counts as mirrored, so a probability that is the same in all frames
    stays what it is, and probabilities that sum to 1 still do. A frame in which all is 0, such as a slice beyond the
    organ, says nothing and stays empty. A single frame is given back untouched.

    Args:
        probability: of each class in each frame.
        sd_frames: standard deviation of the Gaussian in frames; 0 changes nothing.
    """
    if probability.shape[3] == 1 or sd_frames == 0:
        return probability
    speaks = np.array([probability[..., n].any() for n in range(probability.shape[3])], np.float64)
    weight = np.where(speaks, gaussian_filter1d(speaks, sd_frames, mode="reflect", truncate=_REACH), np.inf)
    smoothed = scratch_array(probability.shape)
    for given, wanted in zip(probability, smoothed, strict=True):
        for row, target in zip(given, wanted, strict=True):  # no temporary volume
            target[:] = gaussian_filter1d(row, sd_frames, axis=-1, mode="reflect", truncate=_REACH) / weight
    return smoothed


def smooth_frame(
    probability: Float[np.ndarray, "c i j n"], index: int, sd_frames: float = SD_FRAMES
) -> Float[np.ndarray, "c i j 1"]:
    """One frame of what `smooth_frames` gives, without a copy of the others.

    Args:
        probability: of each class in each frame.
        index: of the frame, from 0.
        sd_frames: standard deviation of the Gaussian in frames; 0 changes nothing.
    """
    reach = math.ceil(_REACH * sd_frames) + 1
    first = max(0, index - reach)
    return smooth_frames(probability[..., first : index + reach + 1], sd_frames)[..., [index - first]]
