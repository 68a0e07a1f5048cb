"""This file tests that sectors are found where they are and nowhere else, and that pictures come back from the grid."""

import os
from pathlib import Path

import numpy as np
import pytest
from prepare.fans import FAN, SHAPE, overlap, painted
from scipy.ndimage import gaussian_filter

from medseg.prepare.sector import POLAR, Sector, find_sector, from_sector, to_sector
from medseg.scans.readers import read_image, read_labels


@pytest.mark.parametrize(
    "sector",
    [
        FAN,
        Sector(-60.0, 160.0, 90.0, 280.0, -0.3, 0.6),
        Sector(-60.0, 200.0, 90.0, 280.0, -0.6, 0.25),
        Sector(40.0, 150.0, 5.0, 180.0, -0.5, 0.5),
        Sector(-8000.0, 160.0, 8030.0, 8200.0, -0.012, 0.012),
    ],
    ids=["upright", "tilted right", "tilted left", "pointed", "linear probe"],
)
def test_a_painted_sector_is_found_where_it_is(sector: Sector) -> None:
    found = find_sector(painted(sector))
    assert found is not None
    assert overlap(found, sector) > 0.95
    assert found.right - found.left == pytest.approx(sector.right - sector.left, rel=0.1, abs=0.03)


def test_a_shadow_at_one_side_does_not_hide_the_edge() -> None:
    _, u = FAN.coordinates(SHAPE)
    picture = painted()
    picture[(u < -0.6) & (FAN.coordinates(SHAPE)[0] > 0.35)] = 0
    found = find_sector(picture)
    assert found is not None
    assert overlap(found, FAN) > 0.85


def test_a_fan_that_the_picture_cuts_keeps_its_shape() -> None:
    found = find_sector(painted()[:, 60:])
    assert found is not None
    whole = Sector(found.apex_row, found.apex_col + 60, found.near, found.far, found.left, found.right)
    assert overlap(whole, FAN) > 0.93


def test_a_faint_fan_and_one_on_grey_are_found() -> None:
    for picture in (painted() * 0.02, np.maximum(painted(), 8 / 255)):
        found = find_sector(picture)
        assert found is not None
        assert overlap(found, FAN) > 0.9


def test_the_size_of_the_picture_does_not_matter() -> None:
    large = painted().repeat(4, 0).repeat(4, 1)
    found = find_sector(large)
    assert found is not None
    moved = [4 * v + 1.5 for v in (FAN.apex_row, FAN.apex_col)]
    assert overlap(found, Sector(*moved, 4 * FAN.near, 4 * FAN.far, FAN.left, FAN.right), large.shape) > 0.96


def test_a_given_outline_is_followed_into_the_dark() -> None:
    tilted = Sector(-60.0, 160.0, 90.0, 280.0, -0.2, 0.7)
    found = find_sector(np.zeros(SHAPE, np.float32), tilted.mask(SHAPE))
    assert found is not None
    assert overlap(found, tilted) > 0.97


def _photograph(seed: int) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(seed).random(SHAPE), 8)
    return (smooth - smooth.min()) / np.ptp(smooth) * 0.9 + 0.05


def _disc(height: float, width: float) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 0.4 * (((rows - 120) / height) ** 2 + ((columns - 160) / width) ** 2 < 1)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros(SHAPE),
        np.full(SHAPE, 0.5),
        np.random.default_rng(0).random(SHAPE),
        _photograph(1),
        np.pad(_photograph(2)[:160], ((40, 40), (0, 0))),
        _disc(100, 100),
        _disc(100, 75),
        painted()[::-1],
        np.ones((1, 4000)),
    ],
    ids=["black", "even", "noise", "photograph", "letterbox", "disc", "head", "upside down", "strip"],
)
def test_what_is_no_sector_is_none(picture: np.ndarray) -> None:
    assert find_sector(picture.astype(np.float32)) is None


def test_positions_and_coordinates_are_inverse() -> None:
    for sector in (FAN, Sector(-60.5, 150.2, 90.0, 280.0, -0.1, 0.8), Sector(-8e3, 160.0, 8030.0, 8200.0, -0.01, 0.01)):
        rows, columns = sector.positions(32)
        v, u = sector._coordinates_at(rows, columns)
        np.testing.assert_allclose(v, np.repeat((np.arange(32)[:, None] + 0.5) / 32, 32, 1), atol=1e-6)
        np.testing.assert_allclose(u, np.repeat(2 * (np.arange(32)[None] + 0.5) / 32 - 1, 32, 0), atol=1e-6)


def test_coordinates_by_hand() -> None:
    sector = Sector(0.0, 100.0, 50.0, 150.0, -np.pi / 4, np.pi / 4)
    v, u = sector.coordinates((160, 201))
    assert (v[50, 100], v[100, 100], v[150, 100]) == pytest.approx((0, 0.5, 1))
    assert (u[80, 100], u[80, 180], u[80, 20]) == pytest.approx((0, 1, -1), abs=1e-6)
    mask = sector.mask((160, 201))
    assert mask[60, 100] and not mask[40, 100] and not mask[155, 100] and not mask[60, 180]


def test_labels_and_smooth_pictures_come_back() -> None:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = (np.hypot(rows - 130, columns - 150) < 45).astype(np.uint8)[None]
    back = from_sector(to_sector(disc.astype(np.float32), FAN, nearest=True), FAN, SHAPE, nearest=True)
    assert 2 * (back * disc).sum() / (back.sum() + disc.sum()) > 0.97
    smooth = (np.sin(rows / 25) + np.cos(columns / 30))[None].astype(np.float32)
    back = from_sector(to_sector(smooth, FAN), FAN, SHAPE, nearest=False)
    inside = FAN.mask(SHAPE)
    assert np.abs(back - smooth)[0][inside].max() < 0.05
    assert (back[0][~inside] == 0).all()


def test_the_grid_has_depth_downwards_and_the_left_at_the_left() -> None:
    v, u = FAN.coordinates(SHAPE)
    sampled = to_sector(np.stack([v, u]), FAN)
    assert sampled.shape == (2, POLAR, POLAR)
    np.testing.assert_allclose(sampled[0, :, 80], (np.arange(POLAR) + 0.5) / POLAR, atol=0.02)
    np.testing.assert_allclose(sampled[1, 80], 2 * (np.arange(POLAR) + 0.5) / POLAR - 1, atol=0.02)
    assert (to_sector(np.ones((1, 90, 320)), FAN, nearest=True)[0, -1] == 0).all()  # below the picture


def test_a_sector_survives_its_record_and_must_be_one() -> None:
    assert Sector.from_dict(FAN.as_dict()) == FAN
    with pytest.raises(ValueError, match="near < far"):
        Sector(0.0, 0.0, 5.0, 4.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="left < right"):
        Sector(0.0, 0.0, 4.0, 5.0, 1.0, -1.0)


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared pictures")
def test_real_frames_have_a_sector_and_photographs_have_none() -> None:
    data = Path(os.environ["MEDSEG_TEST_DATA"])
    overlaps = []
    for path in sorted((data / "us_liver_aul/imgs/train").glob("*.jpg"))[::16]:
        grey = read_image(path).numpy()[..., 0].mean(0)
        found = find_sector(grey)
        assert found is not None
        outline = read_labels(data / "us_liver_aul/labels/train" / f"{path.stem}.png").numpy()[0, :, :, 0] > 0
        mask = found.mask(grey.shape)
        overlaps.append((mask & outline).sum() / (mask | outline).sum())
    assert np.median(overlaps) > 0.88
    for path in sorted((data / "bench_suim8").glob("*.jpg"))[:3]:
        assert find_sector(read_image(path).numpy()[..., 0].mean(0)) is None
