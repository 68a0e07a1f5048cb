"""The areas of a cine are drawn, one panel for each class that occurs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from medseg.review.areas import area_plot
from medseg.scoring.areas import Areas

BLUE, RED = (0, 114, 178), (213, 94, 0)


def drawn(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has a colour: rows and columns."""
    picture = np.round(imread(path)[..., :3] * 255)
    return np.argwhere(np.abs(picture - colour).max(axis=2) < 3)


def test_a_growing_class_rises_and_a_class_that_is_nowhere_has_no_panel(tmp_path: Path) -> None:
    pixels = np.stack([np.linspace(500, 3000, 30).astype(int), np.zeros(30, int), np.full(30, 7)], axis=1)
    area_plot(Areas(("liver", "nowhere", "mass"), pixels, (0.3, 0.3)), tmp_path / "a.png", "case")
    liver, mass = drawn(tmp_path / "a.png", BLUE), drawn(tmp_path / "a.png", RED)
    assert len(liver) and len(mass)
    assert len(drawn(tmp_path / "a.png", (0, 158, 115))) == 0
    left, right = liver[liver[:, 1].argmin()], liver[liver[:, 1].argmax()]
    assert right[0] < left[0] - 50
    assert np.ptp(mass[:, 0]) < 15
    assert mass[:, 0].min() > liver[:, 0].max()


def test_a_cine_without_any_class_is_drawn_too(tmp_path: Path) -> None:
    area_plot(Areas(("liver",), np.zeros((4, 1), int)), tmp_path / "a.png")
    assert len(drawn(tmp_path / "a.png", BLUE))
