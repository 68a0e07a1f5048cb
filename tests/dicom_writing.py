"""This file writes small DICOM series for tests: random values on a grid that the test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    generate_uid,
)

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_C, _S = np.cos(0.3), np.sin(0.3)
OBLIQUE = (float(_C), float(_S), 0.0, float(-_S * _C), float(_C * _C), float(_S))
"""Row and column directions that are turned about two axes."""


def data_set(pixels: np.ndarray, sop_class: str = CTImageStorage, **elements: Any) -> Dataset:
    """An object with the pixels [rows columns], [frames rows columns] or [rows columns 3] and what must stand in it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = Dataset()
    made.file_meta, made.preamble = meta, bytes(128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.PatientBirthDate = "Secret^Name", "4711", "19600102"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    made.Modality, made.SeriesNumber, made.SeriesDescription = "CT", 3, "thin slices"
    is_colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    made.SamplesPerPixel = 3 if is_colour else 1
    made.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        made.PlanarConfiguration = 0
    made.Rows, made.Columns = pixels.shape[-3:-1] if is_colour else pixels.shape[-2:]
    if pixels.ndim - is_colour == 3:
        made.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def slices(
    values: np.ndarray,
    *,
    orientation: Sequence[float] = STRAIGHT,
    spacing: Sequence[float] = (0.7, 0.9),
    distance: float = 2.5,
    origin: Sequence[float] = (-11.0, 23.5, 40.25),
    **elements: Any,
) -> list[Dataset]:
    """A series with the values [slices rows columns], at equal distances along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    common = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    made = []
    for number, pixels in enumerate(values):
        position = np.array(origin) + number * distance * normal
        one = data_set(pixels, **common)
        one.ImagePositionPatient = [f"{number:.9g}" for number in position]
        one.ImageOrientationPatient = [f"{number:.9g}" for number in orientation]
        one.PixelSpacing, one.SliceThickness = list(spacing), 9.0  # which says nothing about distances
        one.InstanceNumber = number + 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        for name, value in elements.items():
            setattr(one, name, value)
        made.append(one)
    return made


def write(folder: Path, series: Sequence[Dataset], names: Sequence[str] | None = None) -> list[Path]:
    """Write a series under names that do not give its order away, without extensions."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(len(series)).permutation(len(series))
    paths = [folder / (names[n] if names else f"IM{order[n]:04d}") for n in range(len(series))]
    for path, one in zip(paths, series, strict=True):
        one.save_as(path, enforce_file_format=True)
    return paths


def enhanced(values: np.ndarray, order: Sequence[tuple[int, int]], *, distance: float = 3.0) -> Dataset:
    """An enhanced MR with frames [frame rows columns]; `order` says slice and time of each frame."""
    made = data_set(values, EnhancedMRImageStorage, Modality="MR", SeriesNumber=5)
    shared, orientation, measures, scale = (Dataset() for _ in range(4))
    orientation.ImageOrientationPatient = list(OBLIQUE)
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 9.0
    scale.RescaleSlope, scale.RescaleIntercept = 2, -7
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Items([orientation]), Items([measures])
    shared.PixelValueTransformationSequence = Items([scale])
    made.SharedFunctionalGroupsSequence = Items([shared])
    made.DimensionIndexSequence = Items([Dataset(), Dataset()])
    made.DimensionIndexSequence[0].DimensionIndexPointer = 0x00200032
    made.DimensionIndexSequence[1].DimensionIndexPointer = 0x00209128
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    groups = []
    for place, time in order:
        group, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{x:.9g}" for x in np.array([1.0, 2.0, 3.0]) + place * distance * normal]
        content.DimensionIndexValues = [place + 1, time + 1]
        group.PlanePositionSequence, group.FrameContentSequence = Items([position]), Items([content])
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = Items(groups)
    return made


def ultrasound(values: np.ndarray, **elements: Any) -> Dataset:
    """A picture without a place in the patient."""
    return data_set(values, UltrasoundImageStorage, Modality="US", **elements)
