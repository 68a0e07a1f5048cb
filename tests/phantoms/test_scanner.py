"""The scanner of the phantoms: slabs, sampling and noise do to an image what is known by hand."""

import numpy as np
import pytest

from medseg.phantoms.scanner import add_rician_noise, cut_k_space, ghosts, inflow_shares, slab_gains

SPACING = (0.5, 0.6, 0.7)


def _waves(period_mm: float) -> np.ndarray:
    return np.broadcast_to(np.cos(2 * np.pi * np.arange(80)[:, None, None] * 0.5 / period_mm), (80, 20, 20)).copy()


def test_inflow_and_dips_by_hand():
    assert np.allclose(inflow_shares(4, 0.6, 1), [1, 0.9, 0.8, 0.7])
    assert np.allclose(inflow_shares(4, 0.6, 2), [1, 0.8, 1, 0.8])
    gains = slab_gains(40, 1.0, 2, 0.5)
    assert gains[19] == pytest.approx(gains[20]) == pytest.approx(1 - 0.5 * np.exp(-0.5 * 0.2**2))
    assert gains[0] == pytest.approx(1) and np.all(slab_gains(40, 1.0, 1, 0.5) == 1)


@pytest.mark.parametrize("apodise", [0.0, 0.5])
def test_k_space_keeps_slow_waves_and_loses_fast_ones(apodise):
    # Sampling every 1 mm cannot hold waves shorter than 2 mm; half of the kept frequencies fade in the other case.
    inner = np.s_[20:-20, 5:-5, 5:-5]
    slow, fast = (cut_k_space(_waves(period), SPACING, (1.0, 0.6, 0.7), apodise)[inner] for period in (8.0, 1.5))
    assert np.abs(slow - _waves(8.0)[inner]).max() < 0.08
    assert np.abs(fast).max() < 0.15


def test_a_sharp_end_of_k_space_rings_and_a_soft_one_does_not():
    step = np.zeros((80, 20, 20))
    step[40:] = 1
    sharp, soft = (cut_k_space(step, SPACING, (1.0, 0.6, 0.7), apodise)[20:60, 10, 10] for apodise in (0.0, 1.0))
    assert sharp.max() > 1.05 and soft.max() < 1.02


def test_an_axis_sampled_as_finely_as_the_grid_stays_as_it_is():
    image = np.random.default_rng(0).normal(size=(20, 22, 24))
    assert np.allclose(cut_k_space(image, SPACING, SPACING), image, atol=1e-5)


def test_a_ghost_moves_by_a_third_and_leaves_still_signal_alone():
    moving = np.zeros((4, 12, 4))
    moving[:, 1] = 1.0
    ghost = ghosts(moving, 0.2)
    assert np.all(ghost[:, 5] == 0.2) and np.all(ghost[:, 9] == -0.1) and np.count_nonzero(ghost) == 32


@pytest.mark.parametrize("acquired_mm", [None, (0.9, 0.9, 1.2)])
def test_noise_differs_from_place_to_place_as_asked_for(acquired_mm):
    image, sd = np.full((60, 60, 60), 50.0), np.full((60, 60, 60), 0.1)
    sd[30:] = 0.4
    noise = add_rician_noise(np.random.default_rng(0), image, SPACING, sd=sd, acquired_mm=acquired_mm) - image
    assert noise[:30].std() == pytest.approx(0.1, rel=0.05) and noise[30:].std() == pytest.approx(0.4, rel=0.05)
    alike = np.corrcoef(noise[1:30].ravel(), noise[:29].ravel())[0, 1]
    assert alike > 0.3 if acquired_mm else abs(alike) < 0.03
