"""This file tests that a sweep is drawn: a line a scheme, a band for the SD, a lone size as a point."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from medseg.review.sweep_plot import sweep_plot
from medseg.scoring.sweeps import SchemeAtSize


def row(scheme: str, size: float, dice: float, sd: float = 0.0, seeds: tuple[int, ...] = (1, 42)) -> SchemeAtSize:
    scores = {"dice": dice, "cldice": dice}
    return SchemeAtSize(scheme, size, 1000 * size, seeds, scores, {"dice": sd, "cldice": sd})


def near(path: Path, colour: tuple[float, float, float], within: float) -> np.ndarray:
    """Rows and columns of the left panel's pixels of about a colour, without the legend below."""
    picture = imread(path)[..., :3]
    height, width = picture.shape[:2]
    found = (np.abs(picture - colour).max(axis=2) < within)[: int(0.85 * height), : width // 2]
    return np.argwhere(found)


BLUE, ORANGE, PALE_BLUE = (0x2F / 255, 0x6F / 255, 0xDE / 255), (0xF0 / 255, 0x8A / 255, 0x24 / 255), (0.88, 0.92, 0.98)


def test_a_better_scheme_lies_higher_and_more_patches_lie_to_the_right(tmp_path: Path) -> None:
    rows = [row("R", 0.01, 0.5), row("R", 0.1, 0.5), row("CFX", 0.1, 0.8), row("CFX", 1.0, 0.8)]
    sweep_plot(rows, tmp_path / "a.png", "title")
    random, farthest = near(tmp_path / "a.png", BLUE, 0.05), near(tmp_path / "a.png", ORANGE, 0.05)
    assert farthest[:, 0].max() < random[:, 0].min()
    assert random[:, 1].min() < farthest[:, 1].min() < random[:, 1].max() + 20
    assert farthest[:, 1].max() > random[:, 1].max() + 100


def test_the_band_grows_with_the_sd(tmp_path: Path) -> None:
    heights = []
    for number, sd in enumerate((0.01, 0.05)):
        rows = [row("R", 0.01, 0.5, sd), row("R", 1.0, 0.7, sd)]
        sweep_plot(rows, tmp_path / f"{number}.png")
        heights.append(len(near(tmp_path / f"{number}.png", PALE_BLUE, 0.03)))
    assert heights[1] > 2 * heights[0] > 0


def test_one_seed_a_lone_size_and_an_undefined_score_are_drawn(tmp_path: Path) -> None:
    rows = [row("R", 0.1, 0.5, math.nan, (1,)), row("C", 0.1, math.nan, math.nan, (1,)), row("all", 1.0, 0.6, 0.02)]
    sweep_plot(rows, tmp_path / "a.png")
    assert len(near(tmp_path / "a.png", BLUE, 0.05)) > 10
