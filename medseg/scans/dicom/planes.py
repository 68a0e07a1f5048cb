"""This file reads where the frames of a DICOM object lie: the *planes* of a slice or of a multi-frame volume.

Positions are DICOM's, LPS+ in mm. The *order* of a plane tells volumes apart that lie in the same place (echoes, times,
b-values): planes of one volume have the same rank in it. *Functional groups* are where enhanced objects keep all this,
once for all frames (shared) or for each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import Tag

_PLACES = {Tag("ImagePositionPatient"), Tag("InStackPositionNumber"), Tag("StackID"), Tag("SliceLocation")}
"""Dimensions of a multi-frame object that say where a frame lies, and not which volume it belongs to."""
_ORDER = (
    "EchoNumbers",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "TriggerTime",
    "InstanceNumber",
)
"""Elements of a slice that tell volumes in the same place apart, the strongest first."""
ORDER_TAGS = _ORDER
PLANE_TAGS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence",
)


@dataclass(frozen=True)
class Plane:
    """Where one frame lies.

    Args:
        index: the frame in its object, from 0.
        position: of the centre of its first pixel, mm, LPS+.
        orientation: the directions in which the column index and the row index grow.
        spacing: mm between rows, and between columns.
        slope: of what is stored to values.
        intercept: of what is stored to values.
        thickness: mm, where the object says it.
        order: which of several volumes in the same place it belongs to.
    """

    index: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float
    thickness: float | None
    order: tuple[float, ...]


def planes_of(header: Dataset) -> tuple[Plane, ...]:
    """The planes of all frames; none where one of them has no place in the patient."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if int(header.get("NumberOfFrames") or 1) > 1:
            return ()
        plane = _plane(0, [header], tuple(_number(header, name) for name in _ORDER))
        return () if plane is None else (plane,)
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), Dataset())
    kept = [
        number
        for number, dimension in enumerate(header.get("DimensionIndexSequence") or ())
        if dimension.get("DimensionIndexPointer") not in _PLACES
    ]
    planes = []
    for index, groups in enumerate(per_frame):
        plane = _plane(index, _macros(groups, shared), _dimensions(groups, kept))
        if plane is None:
            return ()
        planes.append(plane)
    return tuple(planes)


def _plane(index: int, places: Sequence[Dataset], order: tuple[float, ...]) -> Plane | None:
    position = _numbers(places, "ImagePositionPatient", 3)
    orientation = _numbers(places, "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return None
    slope = _numbers(places, "RescaleSlope", 1) or (1.0,)
    intercept = _numbers(places, "RescaleIntercept", 1) or (0.0,)
    thickness = _numbers(places, "SliceThickness", 1)
    spacing = _numbers(places, "PixelSpacing", 2) or ()
    return Plane(
        index,
        position,
        orientation,
        spacing,
        slope[0],
        intercept[0],
        thickness[0] if thickness and thickness[0] > 0 else None,
        order,
    )


def _macros(groups: Dataset, shared: Dataset) -> list[Dataset]:
    """The items of a frame's functional groups, and after them the shared ones."""
    found = []
    for place in (groups, shared):
        for name in (
            "PlanePositionSequence",
            "PlaneOrientationSequence",
            "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):
            found += list(place.get(name) or ())[:1]
    return found


def _dimensions(groups: Dataset, kept: Sequence[int]) -> tuple[float, ...]:
    content = next(iter(groups.get("FrameContentSequence") or ()), Dataset())
    values: Any = content.get("DimensionIndexValues")
    if values is None:
        values = ()
    values = [values] if isinstance(values, int) else list(values)
    return tuple(float(values[number]) for number in kept if number < len(values))


def _numbers(places: Sequence[Dataset], name: str, count: int) -> tuple[float, ...] | None:
    """The numbers of an element, from the first place that has it; none unless there are as many as there must be."""
    for place in places:
        value = place.get(name)
        if value is None or value == "":
            continue
        numbers = [float(number) for number in (value if count > 1 else [value])]
        return tuple(numbers) if len(numbers) == count else None
    return None


def _number(header: Dataset, name: str) -> float:
    """A number that orders slices; 0 where it is missing or is none."""
    value = header.get(name)
    try:
        return float(value)
    except (TypeError, ValueError):  # missing, empty or several
        return 0.0
