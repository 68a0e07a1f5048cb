"""This file tests the clear view: what it takes away, what it leaves alone, and pictures that hold nothing."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from medseg.errors import MedsegError
from medseg.prepare.clear_view import CLEAR_VIEW, LEAST_TRANSMISSION, clear_view


def scene(seed: int = 0) -> np.ndarray:
    """Coloured spots of all brightnesses without a cast, and without haze: a black pixel is in every window."""
    drawn = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 128, 3)), (3, 3, 0))
    ranks = drawn.reshape(-1, 3).argsort(axis=0).argsort(axis=0).reshape(drawn.shape)
    picture = (ranks / ranks.max()).astype(np.float32) ** 2
    picture[1::3, 1::3] = 0
    return picture


def to_linear(display: np.ndarray) -> np.ndarray:
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def to_display(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def test_a_cast_is_taken_away_and_brightness_stays() -> None:
    clear = scene()
    cast = to_display(to_linear(clear) * (0.4, 0.8, 1.0))
    mended = clear_view(cast, ["colour_cast"])
    assert difference(cast, clear) > 0.04
    assert difference(to_display(to_linear(clear) * 0.73), mended) < 0.02  # .73: the mean of the three
    np.testing.assert_allclose(to_linear(mended).mean(), to_linear(cast).mean(), rtol=0.02)


def test_a_lamp_of_one_colour_leaves_brightness_as_it_was() -> None:
    dim = 0.3 * scene()
    dim[:4, :4, 2] = 1
    np.testing.assert_allclose(to_linear(clear_view(dim, ["colour_cast"])).mean(), to_linear(dim).mean(), rtol=0.02)


def test_without_a_cast_colours_stay() -> None:
    assert difference(clear_view(scene(), ["colour_cast"]), scene()) < 0.01


def test_a_red_channel_without_signal_does_not_become_noise() -> None:
    picture = scene()
    picture[..., 0] = np.random.default_rng(1).uniform(0, 0.01, picture.shape[:2])
    red = to_linear(clear_view(picture, ["colour_cast"]))[..., 0]
    assert red.max() < 6 * to_linear(picture)[..., 0].max()


def test_haze_is_taken_away_and_a_picture_without_haze_stays() -> None:
    clear = scene()
    airlight = np.float32([0.5, 0.8, 0.85])
    transmission = np.linspace(1, 0.02, 96, dtype=np.float32)[:, None, None]
    hazy = clear * transmission + airlight * (1 - transmission)
    near = (transmission > LEAST_TRANSMISSION).ravel()
    mended = clear_view(hazy, ["haze"])
    assert difference(hazy[near], clear[near]) > 0.08
    assert difference(mended[near], clear[near]) < 0.2 * difference(hazy[near], clear[near])
    assert difference(mended[-5:], hazy[-5:]) < 0.05  # where nothing comes through, haze is not replaced by noise
    assert difference(clear_view(clear, ["haze"]), clear) < 0.02


def test_contrast_lifts_lightness_and_keeps_hue() -> None:
    dull = 0.4 + 0.1 * scene()
    lifted = clear_view(dull, ["contrast"])
    before, after = rgb2lab(dull), rgb2lab(lifted)
    assert after[..., 0].std() > 2 * before[..., 0].std()
    assert np.abs(after[..., 1:] - before[..., 1:]).mean() < 1


def test_steps_are_taken_in_the_order_given() -> None:
    picture = scene() * np.float32([0.3, 0.8, 1.0])
    both = clear_view(picture, ["colour_cast", "contrast"])
    np.testing.assert_array_equal(both, clear_view(clear_view(picture, ["colour_cast"]), ["contrast"]))
    assert not np.array_equal(both, clear_view(picture, ["contrast", "colour_cast"]))
    np.testing.assert_array_equal(clear_view(picture, []), picture)


@pytest.mark.parametrize("step", CLEAR_VIEW)
def test_grey_stays_grey(step: str) -> None:
    grey = scene()[..., :1].repeat(3, axis=2)
    cleared = clear_view(grey, [step])
    assert (cleared == cleared[..., :1]).all()
    assert cleared.std() > 0.1


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 40), (64, 48)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_even_picture_of_any_size_stays_as_it_is(shape: tuple[int, int], value: float) -> None:
    even = np.full((*shape, 3), value, np.float32)
    np.testing.assert_allclose(clear_view(even, CLEAR_VIEW), even, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 40), (9, 7)])
def test_tiny_pictures_are_cleared(shape: tuple[int, int]) -> None:
    tiny = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    cleared = clear_view(tiny, CLEAR_VIEW)
    assert cleared.shape == tiny.shape
    assert cleared.dtype == np.float32
    assert np.isfinite(cleared).all() and cleared.min() >= 0 and cleared.max() <= 1


def test_a_step_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MedsegError, match="must hold steps of colour_cast, haze, contrast, got sharpen"):
        clear_view(scene(), ["haze", "sharpen"])
