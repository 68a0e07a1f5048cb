"""The rule that needs no learning: where it expects a liver, and what speaks against one along a ray."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import expit
from skimage.transform import resize

from medseg.prepare.liver_cues import CELLS, HAND_SET, frame_cues, liver_by_cues, prior_logit

SIDE = 160
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def speckle(seed: int = 0) -> np.ndarray:
    """An even sector full of tissue."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE)), 1.0)
    return (0.3 + 0.03 * noise / noise.std()).astype(np.float32)


def test_in_even_tissue_the_answer_is_the_prior() -> None:
    likely = liver_by_cues(speckle(), EVERYWHERE)
    assert likely.shape == (SIDE, SIDE) and likely.dtype == np.float32
    assert likely[70, 70] > 0.9
    assert likely[:8].max() < 0.15 and likely[-8:, 80:].max() < 0.15
    expected = resize(expit(prior_logit() + HAND_SET.offset), likely.shape, order=1)
    assert np.abs(likely - expected)[20:-20].mean() < 0.03


def test_it_reaches_deeper_at_the_left() -> None:
    likely = liver_by_cues(speckle(), EVERYWHERE)
    left, right = likely[:, 24:32].mean(1), likely[:, -32:-24].mean(1)
    assert (left > 0.5).nonzero()[0].max() > (right > 0.5).nonzero()[0].max() + 8


def test_behind_a_bright_echo_there_is_no_liver_and_beside_it_there_is() -> None:
    frame = speckle()
    frame[84:88, 40:90] = 1
    plain, likely = liver_by_cues(speckle(), EVERYWHERE), liver_by_cues(frame, EVERYWHERE)
    np.testing.assert_allclose(likely[:70], plain[:70], atol=0.05)
    assert plain[112:120, 55:75].mean() > 0.75 and likely[112:120, 55:75].mean() < 0.5
    np.testing.assert_allclose(likely[:, 115:], plain[:, 115:], atol=0.05)


def test_above_the_echo_of_a_body_wall_there_is_none() -> None:
    frame = speckle()
    frame[40:44] = 1
    plain, likely = liver_by_cues(speckle(), EVERYWHERE), liver_by_cues(frame, EVERYWHERE)
    assert plain[32:36].mean() > likely[32:36].mean() + 0.3
    np.testing.assert_allclose(likely[60:], plain[60:], atol=0.05)


def test_an_area_without_signal_is_none() -> None:
    frame = speckle()
    frame[:, 60:90] = 0
    likely = liver_by_cues(frame, EVERYWHERE)
    assert likely[60:80, 70:80].max() < liver_by_cues(speckle(), EVERYWHERE)[60:80, 70:80].min()
    assert likely[60:80, 110:120].mean() > 0.8


def test_the_gain_of_the_machine_changes_nothing() -> None:
    loud, quiet = speckle(), speckle() * np.float32(0.8)
    np.testing.assert_allclose(liver_by_cues(loud, EVERYWHERE), liver_by_cues(quiet, EVERYWHERE), atol=0.1)


def test_outside_the_region_it_is_zero_and_echoes_there_are_not_looked_at() -> None:
    region = EVERYWHERE.copy()
    region[:, 120:] = False
    frame = speckle() * region
    assert not liver_by_cues(frame, region)[:, 120:].any()
    np.testing.assert_allclose(
        liver_by_cues(frame, region)[:, :100], liver_by_cues(speckle(), EVERYWHERE)[:, :100], atol=0.1
    )


@pytest.mark.parametrize("region", [EVERYWHERE, ~EVERYWHERE], ids=["black", "nothing seen"])
def test_a_black_frame_has_a_finite_answer(region: np.ndarray) -> None:
    likely = liver_by_cues(np.zeros((SIDE, SIDE), np.float32), region)
    assert np.isfinite(likely).all()
    assert likely.max() <= 0.95  # no echo is no signal: the prior is pulled down
    cues = frame_cues(np.zeros((SIDE, SIDE), np.float32), region)
    assert cues.flat.shape == (CELLS, CELLS) and cues.flat.min() > 0.9


def test_the_offset_moves_the_border_outwards() -> None:
    sizes = [
        (liver_by_cues(speckle(), EVERYWHERE, replace(HAND_SET, offset=offset)) > 0.5).mean() for offset in (-1.0, 1.0)
    ]
    assert sizes[0] < sizes[1]
