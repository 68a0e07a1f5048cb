"""This file writes a mask as a DICOM segmentation (SEG) that refers to the images it was made from.

A *segment* is one class of the mask; its number counts from 1 in the order of the classes, and only frames that hold
some of it are stored. Each frame takes the voxels that position, orientation and pixel spacing of its own slice point
to, so that neither the order of the slices nor the way the grid's axes run matters. Positions are DICOM's, LPS+ in mm.

The segmentation carries the UIDs that it must refer to. Highdicom copies the patient, texts of the study, the
institution and the scanner from its source images, so it is given images that hold none of these, or only the patient
and the study where identity is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from medseg import __version__
from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.scans.dicom.entries import entry_of
from medseg.scans.dicom.headers import is_dicom, read_header
from medseg.scans.dicom.places import is_zip, place_of
from medseg.scans.dicom.planes import Plane
from medseg.scans.dicom.stacks import Slice
from medseg.scans.dicom.volumes import open_volume
from medseg.scans.grids import Grid
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.schemes import colour_of

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

_log = logging.getLogger(__name__)

RESEARCH_ONLY = "Research use only: medseg, not for diagnosis"
"""Series and content description of every segmentation; 64 characters are the most that DICOM allows."""
_SERIES_NUMBER = 9000
"""Far above the numbers that scanners give, so that the segmentation stands after the images of its study."""
_OFF_VOXELS = 0.25
"""How far a slice's corner may lie from the voxel it belongs to; readers allow slices that are a little uneven."""
_LONGEST_TEXT = 64
_ELSEWHERE = "export --to slicer or nifti instead"
_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_PATIENT_AND_STUDY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
"""What a segmentation must have, if only empty."""
_WHERE_KNOWN = ("IssuerOfPatientID", "PatientAge", "ReferringPhysicianName", "StudyDescription")
"""What else is copied where identity is kept."""
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_TERM_OF_WORD = {
    "vessel": "BloodVessel",
    "vessels": "BloodVessel",
    "artery": "Artery",
    "arteries": "Artery",
    "vein": "Vein",
    "veins": "Vein",
    "aorta": "Aorta",
    "aneurysm": "Aneurysm",
    "brain": "Brain",
    "liver": "Liver",
    "gallbladder": "Gallbladder",
    "kidney": "Kidney",
    "mass": "Mass",
    "lesion": "Lesion",
    "tumour": "Neoplasm",
    "tumor": "Neoplasm",
}
"""Term of a class that brings no code of its own, by a word of its name; all others are tissue."""
_ABNORMAL = ("Mass", "Lesion", "Neoplasm", "Aneurysm")


def write_dicom_seg(
    path: Path,
    labels: UInt8[np.ndarray, "i j k"],
    classes: Sequence[Mapping[str, Any]],
    *,
    source: Path,
    pick: Pick = WHOLE,
    keep_identity: bool = False,
) -> None:
    """Write a mask as a binary DICOM segmentation of the series that `source` belongs to.

    Args:
        path: where to, `.dcm`.
        labels: on the grid of the source.
        classes: entries of `classes.yaml`: `value`, `name`, and where known `colour` and `code`.
        source: any file of the series, or a multi-frame file.
        pick: which of several series or volumes.
        keep_identity: copy the patient's and the study's particulars, which a PACS needs to file it.

    Raises:
        MedsegError: the extra `dicom` is not installed, the source is not DICOM, was resampled or has no positions, or
            the mask does not lie on its grid.
    """
    _require_extra()
    _require_source(source, pick)
    volume = open_volume(source, pick)
    frame = pick.frame or 0
    if not 0 <= frame < volume.frames:
        raise MedsegError(f"{source} must have the frame {frame}, got {volume.frames}; count from 0")
    segmentation = seg_of(volume.stack.frames[frame], labels, classes, volume.grid, keep_identity=keep_identity)
    if keep_identity:
        _log.warning("%s carries the patient's name and number, as --keep-identity asks", path)
    else:
        _log.info("%s names no patient; a PACS needs that: export with --keep-identity to send it to one", path)
    with replacing(path) as beside:
        segmentation.save_as(beside)


def seg_of(
    slices: Sequence[Slice],
    labels: UInt8[np.ndarray, "i j k"],
    classes: Sequence[Mapping[str, Any]],
    grid: Grid,
    *,
    keep_identity: bool = False,
) -> Segmentation:
    """The segmentation of a mask: one segment a class that has voxels, and only the frames that hold some.

    An empty mask becomes empty frames of every class, because looking everywhere and finding nothing is an answer too.

    Args:
        slices: of the source, in any order.
        labels: on `grid`.
        classes: entries of `classes.yaml`.
        grid: of the source.
        keep_identity: copy the patient's and the study's particulars.

    Raises:
        MedsegError: slices and grid do not fit together, or DICOM does not allow what the source says.
    """
    from highdicom import UID
    from highdicom.seg import Segmentation

    frames = frames_of(slices, labels, grid)
    found = set(np.unique(labels).tolist())
    if unnamed := found - {0} - {int(entry["value"]) for entry in classes}:
        raise MedsegError(f"classes of {grid.name} must name each label, got none for {min(unnamed)}; complete them")
    present = [entry for entry in classes if int(entry["value"]) in found]
    if not present:
        _log.info("the mask of %s is empty, and so is each frame of its segmentation", grid.name)
    elif absent := [str(entry["name"]) for entry in classes if entry not in present]:
        _log.info("the mask of %s holds no %s: no segment for it", grid.name, ", ".join(absent))
    segments = present or list(classes)
    number = np.zeros(256, np.uint8)
    number[[int(entry["value"]) for entry in segments]] = np.arange(1, len(segments) + 1)
    sources = _sources(slices, grid, keep_identity=keep_identity)
    try:
        segmentation = Segmentation(
            sources,
            number[frames],
            "BINARY",
            [_description(position, entry) for position, entry in enumerate(segments, start=1)],
            series_instance_uid=UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer="medseg",
            manufacturer_model_name="medseg",
            software_versions=__version__,
            device_serial_number="none",
            content_label="SEGMENTATION",
            content_description=RESEARCH_ONLY,
            series_description=RESEARCH_ONLY,
            specific_character_set="ISO_IR 192",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MedsegError(
            f"{grid.name} must be a source that DICOM SEG can refer to, got: {_one_line(error)}; {_ELSEWHERE}"
        ) from error
    _restore_frame_numbers(segmentation, slices)
    return segmentation


def frames_of(
    slices: Sequence[Slice], labels: UInt8[np.ndarray, "i j k"], grid: Grid
) -> UInt8[np.ndarray, "slices rows columns"]:
    """What of `labels` lies on each slice; every voxel lies on one.

    Raises:
        MedsegError: a slice lies off the grid, or the slices are not exactly the grid's voxels.
    """
    if labels.shape != grid.shape:
        raise MedsegError(f"the mask must have the shape {grid.shape} of {grid.name}, got {labels.shape}; {_ELSEWHERE}")
    shown = np.zeros(labels.shape, dtype=bool)
    frames = []
    for item in slices:
        voxels = _voxels(item, grid)
        shown[voxels] = True
        frames.append(labels[voxels])
    if not shown.all() or sum(frame.size for frame in frames) != labels.size:
        raise MedsegError(
            f"{grid.name} must show each of its {labels.size} voxels in one slice, got {len(frames)} slices that "
            f"show {int(shown.sum())} of them; {_ELSEWHERE}"
        )
    return np.stack(frames)


def _voxels(item: Slice, grid: Grid) -> tuple[Int[np.ndarray, "rows columns"], ...]:
    """Indices i, j, k of the voxel under each pixel of a slice."""
    columns, rows = item.instance.columns, item.instance.rows
    exact = (np.linalg.inv(grid.affine) @ _RAS @ _affine(item.plane))[:3]
    whole = np.rint(exact)
    corners = np.array([(c, r, 1) for c in (0, columns - 1) for r in (0, rows - 1)], dtype=float).T
    off = np.abs((exact - whole) @ corners).max()
    ends = (whole @ corners).T
    if not off <= _OFF_VOXELS or (ends < 0).any() or (ends >= np.array(grid.shape)).any():
        raise MedsegError(
            f"{grid.name} must lie where its slices lie, got one that is {off:.3g} voxels off its grid or outside it; "
            f"{_ELSEWHERE}"
        )
    across, down, start = whole.astype(int).T
    c, r = np.arange(columns), np.arange(rows)[:, None]
    return tuple(start[axis] + across[axis] * c + down[axis] * r for axis in range(3))


def _affine(plane: Plane) -> Float[np.ndarray, "4 3"]:
    """Column, row and 1 to the homogeneous position of a pixel (LPS+, mm), as the standard defines it."""
    affine = np.zeros((4, 3))
    affine[:3, 0] = np.multiply(plane.orientation[:3], plane.spacing[1])
    affine[:3, 1] = np.multiply(plane.orientation[3:], plane.spacing[0])
    affine[:3, 2], affine[3, 2] = plane.position, 1
    return affine


def _sources(slices: Sequence[Slice], grid: Grid, *, keep_identity: bool) -> list[Dataset]:
    """Images for highdicom to copy from and refer to: one a slice, or one multi-frame image of all slices."""
    common = _common(slices[0], keep_identity=keep_identity)
    plane = slices[0].plane
    step_mm = abs(np.linalg.det(grid.affine[:3, :3])) / (plane.spacing[0] * plane.spacing[1])
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = _decimals(plane.spacing)
    measures.SliceThickness = _decimals([plane.thickness or step_mm])[0]
    measures.SpacingBetweenSlices = _decimals([step_mm])[0]
    orientation.ImageOrientationPatient = _decimals(plane.orientation)
    positions = []
    for item in slices:
        position = Dataset()
        position.ImagePositionPatient = _decimals(item.plane.position)
        positions.append(position)
    if slices[0].instance.kind == "slice":
        images = []
        for item, position in zip(slices, positions, strict=True):
            image = deepcopy(common)  # an update of a data set would share its elements
            for part in (measures, orientation, position):
                image.update(part)
            image.SOPInstanceUID = item.instance.uid
            images.append(image)
        return images
    shared, common.PerFrameFunctionalGroupsSequence = Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for position in positions:
        own = Dataset()
        own.PlanePositionSequence = [position]
        common.PerFrameFunctionalGroupsSequence.append(own)
    common.SharedFunctionalGroupsSequence, common.NumberOfFrames = [shared], len(slices)
    return [common]


def _common(first: Slice, *, keep_identity: bool) -> Dataset:
    """What the segmentation gets from all images alike; without identity the patient and the study stay empty."""
    instance, image = first.instance, Dataset()
    image.SOPClassUID, image.SOPInstanceUID = instance.sop_class, instance.uid
    image.StudyInstanceUID, image.SeriesInstanceUID = instance.study, instance.series
    if instance.frame_of_reference:
        image.FrameOfReferenceUID = instance.frame_of_reference
    image.Rows, image.Columns, image.Modality = instance.rows, instance.columns, instance.modality
    for keyword in _PATIENT_AND_STUDY:
        setattr(image, keyword, "")
    identity = (*_PATIENT_AND_STUDY, *_WHERE_KNOWN) if keep_identity else ()
    header = read_header(instance.place, (*_LOSSY, *identity))
    for keyword in (*_LOSSY, *identity):
        value = header.get(keyword)
        if value is not None:
            setattr(image, keyword, str(value) if keyword in identity else value)  # as text: free of its character set
    return image


def _restore_frame_numbers(segmentation: Segmentation, slices: Sequence[Slice]) -> None:
    """Refer to the frames by their numbers in the source file, of which only the chosen ones were given."""
    if slices[0].instance.kind == "slice":
        return
    referred = (
        image
        for group in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in group.DerivationImageSequence
        for image in derivation.SourceImageSequence
    )
    for image in {id(image): image for image in referred}.values():  # segments share what they refer to
        image.ReferencedFrameNumber = slices[int(image.ReferencedFrameNumber) - 1].plane.index + 1


def _description(number: int, entry: Mapping[str, Any]) -> SegmentDescription:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    category, term = _codes(entry)
    colour = str(entry.get("colour") or colour_of(number - 1))
    return SegmentDescription(
        segment_number=number,
        segment_label=str(entry["name"]).replace("\\", "/")[:_LONGEST_TEXT],  # a backslash parts two values
        segmented_property_category=category,
        segmented_property_type=term,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            "medseg", family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
        display_color=CIELabColor.from_rgb(*bytes.fromhex(colour.removeprefix("#"))),
    )


def _codes(entry: Mapping[str, Any]) -> tuple[Code, Code]:
    """Category and term of a class: its own code, else one that a word of its name suggests, else tissue."""
    words = str(entry["name"]).lower().replace("_", " ").split()
    keyword = next((_TERM_OF_WORD[word] for word in words if word in _TERM_OF_WORD), "Tissue")
    term = getattr(codes.SCT, keyword)
    if own := entry.get("code"):
        term = Code(str(own["value"]), str(own["scheme"]), str(own["meaning"]))
    if term == codes.SCT.Tissue:
        return codes.SCT.Tissue, term
    if any(term == getattr(codes.SCT, abnormal) for abnormal in _ABNORMAL):
        return codes.SCT.MorphologicallyAbnormalStructure, term
    return codes.SCT.AnatomicalStructure, term


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """Numbers as DICOM writes them, in 16 characters at most."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def _require_source(source: Path, pick: Pick) -> None:
    if not source.is_dir() and not is_zip(source) and not is_dicom(place_of(source)):
        raise MedsegError(f"dicom-seg must have a DICOM source, got {source}; {_ELSEWHERE}")
    if (entry := entry_of(source, pick.series)).kind == "picture":
        raise MedsegError(
            f"dicom-seg must have images that say where they lie, got {source}, {entry.first.what} without; "
            "export --to nifti instead"
        )
    if pick.resample:
        raise MedsegError(f"dicom-seg must have a series as it was stored, got {source} resampled; {_ELSEWHERE}")


def _require_extra() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise MedsegError("dicom-seg must have the package highdicom, got none; pip install medseg[dicom]") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
