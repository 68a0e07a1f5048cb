"""This file tests that what a scanner drew is found and filled in, and that what the probe saw stays."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from prepare.fans import FAN, SHAPE, painted
from scipy.ndimage import binary_dilation

from medseg.prepare.overlays import fill_overlays, find_overlays


def _drawn(draw) -> tuple[np.ndarray, np.ndarray]:
    """A painted fan in colour that was drawn over, and what was drawn."""
    picture = Image.fromarray((painted() * 255).astype(np.uint8)).convert("RGB")
    before = np.asarray(picture)
    draw(ImageDraw.Draw(picture))
    after = np.asarray(picture)
    return after.astype(np.float32) / 255, (before != after).any(-1)


def _cross(draw: ImageDraw.ImageDraw) -> None:
    draw.line([(150, 120), (162, 120)], fill="white")
    draw.line([(156, 114), (156, 126)], fill="white")


def _dots(draw: ImageDraw.ImageDraw) -> None:
    draw.point([(130 + 8 * n, 110 + 3 * n) for n in range(9)], fill="white")


def _coloured_mark(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle([150, 120, 170, 140], fill=(60, 60, 140))


def _text(draw: ImageDraw.ImageDraw) -> None:
    draw.text((5, 5), "DOE^JANE", fill=(200, 200, 200), font=ImageFont.load_default(12))


def _colour_bar(draw: ImageDraw.ImageDraw) -> None:
    for row in range(80):
        draw.line([(306, 20 + row), (312, 20 + row)], fill=(40 + 2 * row,) * 3)


def _ruler(draw: ImageDraw.ImageDraw) -> None:
    for row in range(40, 220, 20):
        draw.line([(314, row), (318, row)], fill="white")


@pytest.mark.parametrize("draw", [_cross, _dots, _coloured_mark, _text, _colour_bar, _ruler])
def test_what_was_drawn_is_found(draw) -> None:
    picture, drawn = _drawn(draw)
    found = find_overlays(picture)
    assert drawn.sum() >= 9
    assert (found & drawn).sum() > 0.9 * drawn.sum()
    without = find_overlays(np.repeat(painted()[..., None], 3, -1))
    assert not (found & ~without & ~binary_dilation(drawn, iterations=4)).any()  # a narrow margin, no more


def test_tissue_and_bright_borders_stay() -> None:
    picture = painted()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(rows - 130, columns - 160)
    picture[np.abs(distance - 40) < 2] = 0.95  # the border of a mass
    picture[distance < 4] = 0.9  # a bright focus
    found = find_overlays(picture)
    inside = FAN.mask(SHAPE)
    assert found[inside].mean() < 0.01
    assert not found[distance < 45].any()
    tinted = picture[..., None] * np.array([1.0, 0.93, 0.85])
    assert find_overlays(tinted.astype(np.float32))[inside].mean() < 0.01


def test_the_brightest_part_of_a_line_that_goes_on_is_no_mark() -> None:
    picture = painted() * 0.3
    columns = np.arange(110, 210)
    picture[130, columns] = 0.3 + 0.65 * np.exp(-(((columns - 160) / 14) ** 2))
    assert not find_overlays(picture.astype(np.float32))[128:133, 115:205].any()
    picture[130, :140] = picture[130, 180:] = 0.1  # a stroke that ends stands alone
    assert find_overlays(picture.astype(np.float32))[130, 150:170].all()


def test_filling_in_takes_what_lies_around_and_changes_nothing_else() -> None:
    smooth = np.linspace(0, 1, 80)[None].repeat(60, 0)
    overlays = np.zeros((60, 80), bool)
    overlays[28:33, 30:50] = True
    drawn = np.where(overlays, 1.0, smooth)
    filled = fill_overlays(drawn, overlays)
    np.testing.assert_allclose(filled, smooth, atol=0.03)
    np.testing.assert_array_equal(filled[~overlays], smooth[~overlays])
    wide = np.zeros((60, 80), bool)
    wide[:, 10:] = True  # wider than any surroundings
    assert fill_overlays(np.where(wide, 1.0, 0.2), wide) == pytest.approx(np.full((60, 80), 0.2), abs=1e-3)
    assert fill_overlays(smooth, ~np.zeros_like(overlays)) is smooth


def test_a_large_frame_takes_less_than_a_second() -> None:
    picture = np.pad(painted(), ((0, 16), (0, 21))).repeat(3, 0).repeat(3, 1)[..., None].repeat(3, -1)
    assert picture.shape[:2] == (768, 1023)
    start = time.process_time()
    fill_overlays(picture.mean(-1), find_overlays(picture))
    assert time.process_time() - start < 1
