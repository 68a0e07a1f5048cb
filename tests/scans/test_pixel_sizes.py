"""The size of a pixel is taken from files that say it on purpose, and from no others."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from medseg.scans.pixel_sizes import pixel_size_mm

GREY = np.zeros((6, 8), np.uint8)


def tiff(path: Path, description: str | None, columns: float = 4.0, rows: float = 2.0) -> Path:
    tags = ImageFileDirectory_v2()
    if description is not None:
        tags[270] = description
    tags[282], tags[283] = columns, rows
    Image.fromarray(GREY).save(path, tiffinfo=tags)
    return path


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("cm", 10.0), ("inch", 25.4)])
def test_imagej_says_pixels_per_unit(tmp_path: Path, unit: str, factor: float) -> None:
    path = tiff(tmp_path / "a.tif", f"ImageJ=1.53t\nimages=1\nunit={unit}\nmin=0.0\n")
    assert pixel_size_mm(path) == pytest.approx((factor / 2, factor / 4))  # rows first


@pytest.mark.parametrize(
    "description", [None, "unit=mm", "ImageJ=1.53t\n", "ImageJ=1.53t\nunit=pixel\n", "ImageJ=1.53t\nunit=micron\n"]
)
def test_other_resolutions_are_of_a_printer(tmp_path: Path, description: str | None) -> None:
    assert pixel_size_mm(tiff(tmp_path / "a.tif", description)) is None


def test_a_resolution_of_nothing_is_none(tmp_path: Path) -> None:
    assert pixel_size_mm(tiff(tmp_path / "a.tif", "ImageJ=1\nunit=mm\n", columns=0)) is None


def test_pictures_and_videos_say_nothing(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(300, 300))
    assert pixel_size_mm(tmp_path / "a.png") is None


def test_of_volumes_a_single_slice_has_pixels(tmp_path: Path) -> None:
    for shape, expected in (((6, 8, 1), (0.5, 0.25)), ((6, 1, 8), (0.5, 2.0)), ((6, 8, 3), None)):
        image = nibabel.Nifti1Image(np.ones(shape, np.float32), np.diag([-0.5, 0.25, 2, 1]))
        nibabel.save(image, tmp_path / "a.nii")
        assert pixel_size_mm(tmp_path / "a.nii") == expected
