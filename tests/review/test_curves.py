"""This file tests that precision-recall curves are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from medseg.review.curves import precision_recall_plot
from medseg.scoring.precision_recall import precision_recall


def row_of_the_first_line(path: Path) -> float:
    """Mean row of the blue pixels in the right half, where no legend stands."""
    picture = imread(path)[..., :3]
    rows, columns = np.nonzero((picture[..., 2] > 0.7) & (picture[..., 0] < 0.4))
    return float(rows[columns > picture.shape[1] * 0.6].mean())


def test_a_better_similarity_draws_a_higher_line(tmp_path: Path) -> None:
    same = np.arange(100) < 50
    for name, similarity in (("good", same + 0.0), ("bad", np.arange(100) % 10 / 1.0)):
        precision_recall_plot(
            {"within": ({"feature": precision_recall(similarity, same)}, 0.5)}, tmp_path / f"{name}.png"
        )
    assert row_of_the_first_line(tmp_path / "good.png") < row_of_the_first_line(tmp_path / "bad.png") - 100


def test_many_points_several_panels_and_an_empty_curve_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    curve = precision_recall(rng.random(5000), rng.random(5000) < 0.2)
    none = precision_recall(np.array([0.1, 0.2]), np.array([False, False]))
    precision_recall_plot({"one": ({"a": curve, "b": curve}, 0.2), "two": ({"a": none}, 0.0)}, tmp_path / "a.png", "t")
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert width > 1.8 * height
