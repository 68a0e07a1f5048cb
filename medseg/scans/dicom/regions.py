"""This file finds the size of a pixel in a DICOM picture.

Ultrasound says it by *region*: a part of the picture with its own scale, as tissue, a Doppler curve or a ruler. Only a
two-dimensional region of tissue in centimetres is believed, and of several the largest.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

REGION_TAGS = ("SequenceOfUltrasoundRegions", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_TWO_D, _TISSUE, _CENTIMETRE = 1, 1, 3
_MM_PER_CM = 10.0


def pixel_size_of(header: Dataset) -> tuple[float, float] | None:
    """Height and width of a pixel in mm; none where the header does not say it."""
    sizes = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        if (region.get("RegionSpatialFormat"), region.get("RegionDataType")) != (_TWO_D, _TISSUE):
            continue
        if (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")) != (_CENTIMETRE,) * 2:
            continue
        height, width = (
            abs(float(region.get(name) or 0)) * _MM_PER_CM for name in ("PhysicalDeltaY", "PhysicalDeltaX")
        )
        sides = [float(region.get(f"RegionLocation{end}") or 0) for end in ("MinX0", "MaxX1", "MinY0", "MaxY1")]
        if min(height, width) > 0:
            sizes.append(((sides[1] - sides[0]) * (sides[3] - sides[2]), (height, width)))
    if sizes:
        return max(sizes)[1]
    for name in REGION_TAGS[1:]:
        value = header.get(name)
        if value and len(value) == 2 and min(float(value[0]), float(value[1])) > 0:
            return float(value[0]), float(value[1])
    return None
