"""This file finds out how large a pixel is in mm, where a file says so in a way that can be believed.

A volume of one slice says it in its affine. Of the pictures DICOM is believed, and TIFFs by ImageJ, whose unit somebody
set on purpose: the resolution of other pictures is that of a printer or a screen (72 dots per inch), not of a patient.
"""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from medseg.scans.arrays import read_grid
from medseg.scans.names import is_dicom, is_picture
from medseg.scans.picture_files import opened_picture

_UNITS_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "inch": 25.4}
_DESCRIPTION, _COLUMNS_PER_UNIT, _ROWS_PER_UNIT = 270, 282, 283
_UNIT = re.compile(r"^unit=(\w+)", re.MULTILINE)


def pixel_size_mm(path: Path) -> tuple[float, float] | None:
    """Height and width of a pixel in mm; None where the file does not say it, and for volumes of several slices.

    Raises:
        MedsegError: the file cannot be read.
    """
    if not is_picture(path):
        grid = read_grid(path)
        lengths = [mm for mm, count in zip(grid.spacing, grid.shape, strict=True) if count > 1]
        return (lengths[0], lengths[1]) if len(lengths) == 2 else None
    if is_dicom(path):
        from medseg.scans.dicom.pictures import open_picture

        return open_picture(path).pixel_size
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with opened_picture(path) as image:
        return _by_imagej(image)


def _by_imagej(image: Image.Image) -> tuple[float, float] | None:
    tags = dict(image.getexif())
    description = str(tags.get(_DESCRIPTION, ""))
    unit = _UNIT.search(description)
    if not description.startswith("ImageJ=") or unit is None or unit[1].lower() not in _UNITS_MM:
        return None
    per_unit = [float(tags.get(tag, 0)) for tag in (_ROWS_PER_UNIT, _COLUMNS_PER_UNIT)]
    if not min(per_unit) > 0:
        return None
    unit_mm = _UNITS_MM[unit[1].lower()]
    return unit_mm / per_unit[0], unit_mm / per_unit[1]
