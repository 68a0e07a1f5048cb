"""This file tests what is said of pictures; volumes and runs are described in the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medseg.workflows.information import describe


def test_a_picture_has_pixels_and_a_cine_frames_too(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), 50 * n, np.uint8)) for n in range(3)]
    frames[0].save(tmp_path / "photo.png")
    frames[0].save(tmp_path / "cine.tif", save_all=True, append_images=frames[1:])
    assert describe(tmp_path)["lines"][-2:] == ["  cine: 6 x 8 pixels, 3 frames", "  photo: 6 x 8 pixels"]
