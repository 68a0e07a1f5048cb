"""A mask is drawn over its picture at the picture's size."""

import numpy as np
from PIL import Image

from medseg.review.picture_overlay import TINT, draw_overlay


def test_classes_are_tinted_outlined_and_the_rest_is_left(tmp_path):
    picture = np.full((9, 12, 1), 0.5, np.float32)
    labels = np.zeros((9, 12), np.uint8)
    labels[2:7, 3:9] = 4
    draw_overlay(picture, labels, tmp_path / "overlay.png", colours={4: "#ff0000", 5: "#00ff00"})
    with Image.open(tmp_path / "overlay.png") as written:
        shown = np.asarray(written)
    assert shown.shape == (9, 12, 3)
    assert shown[0, 0].tolist() == [128, 128, 128]
    assert shown[2, 3].tolist() == [255, 0, 0]
    assert shown[4, 5].tolist() == [round(255 * (TINT + (1 - TINT) / 2)), *[round(255 * (1 - TINT) / 2)] * 2]
