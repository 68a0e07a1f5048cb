"""This file tests the bank for pictures: its channels by hand, its features by what they must tell apart."""

import math

import numpy as np
import pytest
import torch

from medseg.features.backbones import SliceBackbone, load_slice_backbone, to_rgb
from medseg.features.image_bank import BINS, CHANNELS, FAINT_COLOUR, NOISE, ImageBank, measure

NUMBERS = list(CHANNELS)


def even(*colour: float, side: int = 64) -> torch.Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, side, side).contiguous()


def grey(lightness: np.ndarray) -> torch.Tensor:
    """A grey picture of this Oklab lightness, whose cube is the linear light."""
    linear = lightness**3
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return torch.from_numpy(shown.astype(np.float32)).expand(1, 3, -1, -1)


def features(picture: torch.Tensor) -> torch.Tensor:
    return ImageBank()(to_rgb(picture, "rgb"))


def middle(maps: torch.Tensor) -> torch.Tensor:
    return maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2]


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Of the middles of two feature maps."""
    a, b = (maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2] for maps in (one, other))
    return float(a @ b)


def test_it_is_a_slice_backbone_that_loads_by_name() -> None:
    bank = load_slice_backbone("image_bank")
    assert isinstance(bank, SliceBackbone)
    assert (bank.name, bank.dim, bank.stride) == ("image_bank", BINS * len(CHANNELS), 4)
    assert bank.dim <= 120
    assert bank.fingerprint == ImageBank().fingerprint


@pytest.mark.parametrize(
    ("colour", "oklab"),
    [
        ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (0.6280, 0.2249, 0.1258)),
        ((0.0, 1.0, 0.0), (0.8664, -0.2339, 0.1795)),
        ((0.0, 0.0, 1.0), (0.4520, -0.0325, -0.3115)),
    ],
)
def test_colours_are_the_published_oklab(colour, oklab) -> None:
    measured = measure(even(*colour))
    for suffix in ("", "_8", "_32"):
        got = [measured[f"{name}{suffix}"] for name in ("lightness", "green_red", "blue_yellow")]
        lightness, red, yellow = (float(middle(values)) for values in got)
        assert lightness == pytest.approx(oklab[0], abs=1e-3)
        assert [FAINT_COLOUR * math.sinh(red), FAINT_COLOUR * math.sinh(yellow)] == pytest.approx(oklab[1:], abs=1e-3)


def test_the_edge_of_a_ramp_is_its_slope_times_the_scale() -> None:
    measured = measure(grey(np.broadcast_to(0.2 + 0.003 * np.arange(160), (160, 160))))
    for scale in (1, 2, 4, 8):
        assert float(middle(measured[f"edge_{scale}"])) == pytest.approx(math.log(0.003 * scale + NOISE), abs=0.02)
    for flat in ("contrast_8", "line_4"):
        assert abs(float(middle(measured[flat]))) < 0.02


def test_texture_is_the_rms_of_its_band() -> None:
    period = 20
    rows = np.arange(160)[:, None] / period
    measured = measure(grey(np.broadcast_to(0.5 + 0.1 * np.sin(2 * np.pi * rows), (160, 160))))
    passed = [math.exp(-0.5 * (2 * math.pi * scale / period) ** 2) for scale in (2, 4)]
    rms = 0.1 * (passed[0] - passed[1]) / math.sqrt(2)
    assert float(middle(measured["texture_2"])) == pytest.approx(math.log(rms + NOISE), abs=0.15)
    assert float(middle(measured["stripes"])) > 0.95


def test_grain_is_the_rms_of_what_a_gaussian_of_one_pixel_takes_away() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.05, (160, 160))
    kept = 1 - 2 * 0.3989**2 + 0.2821**2  # of white noise: |delta - g|^2, with g(0) = 1 / 2 pi and |g|^2 = 1 / 4 pi
    measured = measure(grey(noise))
    assert float(measured["texture_0"].mean()) == pytest.approx(math.log(0.05 * math.sqrt(kept) + NOISE), abs=0.05)


def test_noise_has_no_direction() -> None:
    noise = np.random.default_rng(0).uniform(0.3, 0.7, (160, 160))
    assert float(measure(grey(noise))["stripes"].mean()) < 0.35


@pytest.mark.parametrize("turned", [False, True])
def test_bright_lines_and_spots_are_above_zero_and_dark_ones_below(turned: bool) -> None:
    apart = np.arange(128)[:, None] - 65.5 + np.zeros((1, 128))
    bump = 0.2 * np.exp(-0.5 * ((apart.T if turned else apart) / 5) ** 2)
    bright, dark = (measure(grey(0.5 + sign * bump)) for sign in (1, -1))
    for name in ("line_4", "contrast_8"):
        assert float(middle(bright[name])) > 0.5
        assert float(middle(dark[name])) < -0.5
    # Across it, the second derivative of a Gaussian smoothed by another, times the scale squared.
    wanted = 0.2 * 5 / math.hypot(5, 4) ** 3 * 4**2
    assert float(middle(bright["line_4"])) == pytest.approx(math.asinh(wanted / 0.02), abs=0.25)


def test_colour_texture_is_the_spread_of_colour_and_not_of_lightness() -> None:
    chequers = torch.from_numpy((np.indices((64, 64)) // 4).sum(0) % 2).float()
    coloured = torch.stack([chequers, 1 - chequers, torch.full_like(chequers, 0.5)])[None]
    assert float(middle(measure(coloured)["colour_texture"])) > math.log(0.1)
    assert float(middle(measure(chequers.expand(1, 3, -1, -1))["colour_texture"])) < math.log(2 * NOISE)


def test_every_feature_and_every_channel_has_its_share_of_norm_1() -> None:
    got = features(torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)))
    assert got.shape == (2, BINS * len(CHANNELS), 12, 16)
    shares = got.unflatten(1, (len(CHANNELS), BINS)).square().sum(2)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(CHANNELS)))


def test_cosine_falls_with_difference_in_colour_and_in_texture() -> None:
    mud = features(even(0.5, 0.4, 0.3))
    assert cosine(mud, features(even(0.5, 0.4, 0.3))) == pytest.approx(1)
    assert 1 > cosine(mud, features(even(0.5, 0.42, 0.3))) > cosine(mud, features(even(0.2, 0.4, 0.8)))
    fine = 0.5 + 0.2 * np.sin(np.arange(64)[:, None] * 2) * np.sin(np.arange(64)[None] * 2)
    assert cosine(features(grey(np.full((64, 64), 0.5))), features(grey(fine))) < 0.95


def test_a_shift_by_a_cell_shifts_the_features_and_the_batch_does_not_matter() -> None:
    picture = torch.rand(1, 3, 260, 260, generator=torch.Generator().manual_seed(1))
    one, other = picture[..., :256, :256], picture[..., 4:, :256]
    both = features(torch.cat([one, other]))
    inner = slice(28, 36)  # further from the edge than the widest Gaussian reaches
    torch.testing.assert_close(both[0, :, 29:37, inner], both[1, :, 28:36, inner], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[:1], features(one))


@pytest.mark.parametrize(("size", "cells"), [((33, 17), (8, 4)), ((1, 1), (1, 1)), ((3, 50), (1, 13))])
def test_odd_and_tiny_sizes_are_brought_to_whole_cells(size, cells) -> None:
    got = features(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert got.shape[2:] == cells
    assert torch.isfinite(got).all()


def test_in_a_grey_picture_colours_are_the_same_everywhere() -> None:
    got = features(grey(np.random.default_rng(0).uniform(0, 1, (64, 64)))).unflatten(1, (len(CHANNELS), BINS))
    for name in ("green_red", "blue_yellow_8", "colour_texture"):
        channel = got[:, NUMBERS.index(name)]
        torch.testing.assert_close(channel, channel[..., :1, :1].expand_as(channel), atol=2e-3, rtol=0)
