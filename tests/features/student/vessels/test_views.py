"""A view changes grey values as it says, and turns image, labels and weight alike."""

from dataclasses import replace

import numpy as np
import pytest

from medseg.features.student.vessels.views import View, draw_view, show, turn

PLAIN = View(
    blur_mm=0.0,
    contrast=1.0,
    shading_sd=0.0,
    gain=1.0,
    noise_sd=0.0,
    grain_mm=0.3,
    contrast_scale_factor=1.0,
    flips=(False, False, False),
    order=(0, 1, 2),
    spacing=(0.5, 0.5, 0.5),
)


def _shown(image: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    return show(replace(PLAIN, **changes), image, np.random.default_rng(seed))


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.2, 4, (16, 14, 12)).astype(np.float32)


def test_a_plain_view_changes_nothing(image):
    np.testing.assert_array_equal(_shown(image), image)
    np.testing.assert_array_equal(turn(PLAIN, image), image)


def test_contrast_is_about_the_tissue_and_never_negative():
    image = np.array([0.0, 1.0, 3.0], np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(_shown(image, contrast=0.5).ravel(), [0.5, 1, 2])
    np.testing.assert_allclose(_shown(image, contrast=1.2).ravel(), [0, 1, 3.4], rtol=1e-6)
    np.testing.assert_allclose(_shown(image, gain=1.1).ravel(), [0, 1.1, 3.3], rtol=1e-6)


def test_noise_is_rician_with_the_sd_that_the_view_says():
    for level, noise_sd in ((10.0, 0.3), (0.0, 0.3)):
        shown = _shown(np.full((40, 40, 40), level, np.float32), noise_sd=noise_sd)
        if level:
            assert shown.std() == pytest.approx(noise_sd, rel=0.05)
        else:  # Rayleigh
            assert shown.mean() == pytest.approx(noise_sd * np.sqrt(np.pi / 2), rel=0.05) and shown.min() >= 0


def test_grain_is_in_mm():
    def alike(axis: int) -> float:
        noise = _shown(np.full((40, 40, 40), 10, np.float32), noise_sd=0.1, spacing=(0.3, 0.3, 3.0)) - 10
        here, next_to_it = (np.moveaxis(noise, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
        return float(np.corrcoef(here.ravel(), next_to_it.ravel())[0, 1])

    assert alike(0) == pytest.approx(np.exp(-(0.3**2) / (4 * 0.3**2)), abs=0.05) and abs(alike(2)) < 0.02


def test_blur_and_shading_do_what_they_say(image):
    flat = np.ones((16, 16, 16), np.float32)
    np.testing.assert_allclose(_shown(flat, blur_mm=0.4), flat, rtol=1e-5)
    assert _shown(image, blur_mm=0.4).std() < 0.6 * image.std()
    shaded = np.stack([np.log(_shown(flat, seed, shading_sd=0.15)) for seed in range(100)])
    assert shaded.std() == pytest.approx(0.15, rel=0.15)
    assert np.abs(np.diff(shaded, axis=1)).max() < 0.03


def test_a_drawn_view_is_repeated_by_its_seeds(image):
    views = [draw_view(np.random.default_rng(5), (0.5, 0.5, 0.5)) for _ in range(2)]
    assert views[0] == views[1] != draw_view(np.random.default_rng(6), (0.5, 0.5, 0.5))
    assert np.array_equal(_shown(image, 7, noise_sd=0.1), _shown(image, 7, noise_sd=0.1))
    assert not np.array_equal(_shown(image, 7, noise_sd=0.1), _shown(image, 8, noise_sd=0.1))


def test_shares_of_the_draws_are_those_of_the_recipe():
    rng = np.random.default_rng(0)
    views = [draw_view(rng, (0.5, 0.5, 0.5)) for _ in range(4000)]
    noise = np.array([view.noise_sd for view in views])
    assert np.mean((noise > 0) & (noise <= 0.14)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(noise > 0.14) == pytest.approx(0.1, abs=0.02) and noise.max() <= 0.35
    assert np.mean([view.blur_mm > 0 for view in views]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([view.contrast != 1 for view in views]) == pytest.approx(0.4, abs=0.03)
    assert np.mean([view.shading_sd > 0 for view in views]) == pytest.approx(0.5, abs=0.03)
    assert np.std(np.log([view.contrast_scale_factor for view in views])) == pytest.approx(0.2, rel=0.1)
    assert np.std(np.log([view.gain for view in views])) == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose(np.mean([view.flips for view in views], axis=0), 0.5, atol=0.03)


@pytest.mark.parametrize(
    ("spacing", "count"), [((0.5, 0.5, 0.5), 6), ((0.5, 0.502, 0.9), 2), ((0.9, 0.5, 0.9), 2), ((0.5, 0.6, 0.9), 1)]
)
def test_only_axes_of_equal_spacing_are_exchanged(spacing, count):
    rng = np.random.default_rng(0)
    orders = {draw_view(rng, spacing).order for _ in range(200)}
    assert len(orders) == count
    for order in orders:
        np.testing.assert_allclose([spacing[axis] for axis in order], spacing, rtol=0.011)


def test_turning_flips_then_exchanges_and_keeps_channels():
    array = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    view = replace(PLAIN, flips=(True, False, True), order=(2, 0, 1))
    turned = turn(view, array)
    assert turned.shape == (2, 4, 2, 3) and turned.flags.c_contiguous
    for c, i, j, k in np.ndindex(array.shape):
        assert turned[c, 3 - k, 1 - i, j] == array[c, i, j, k]
