"""This file reads from its header what a DICOM object is: a slice, a volume of several frames, a picture, no image.

Headers are kept in memory by file, time and size, because every slice of a series is asked for several times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from medseg.errors import MedsegError
from medseg.scans.dicom.headers import guarded, is_dicom, read_header
from medseg.scans.dicom.places import Place
from medseg.scans.dicom.planes import ORDER_TAGS, PLANE_TAGS, Plane, planes_of
from medseg.scans.dicom.regions import REGION_TAGS, pixel_size_of
from medseg.scans.grids import require_plausible_size

Kind = Literal["slice", "volume", "picture", "other"]

_HEADERS_KEPT = 50_000
"""Slices whose headers stay in memory; one takes about 2 kB."""
_IMAGE_CLASSES = ("Image Storage", "Enhanced US Volume Storage")
_NO_IMAGES = ("Whole Slide", "Tiled Pyramidal")
"""Kinds of images that are read as none: their frames are tiles."""
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = (*_GREY, "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420")
_LOSSY = "01"
_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "LossyImageCompression",
    "ModalityLUTSequence",
    *ORDER_TAGS,
    *PLANE_TAGS,
    *REGION_TAGS,
)


@dataclass(frozen=True)
class Instance:
    """One DICOM object.

    Args:
        place: where it is stored.
        kind: what it is.
        what: the standard's name of its kind.
        sop_class: UID of its kind.
        uid: its own UID.
        study, series, frame_of_reference: UIDs of what it belongs to.
        number, description: of its series.
        modality: `CT`, `MR`, `US` ...
        rows, columns, frames, samples: its size.
        photometric: how its samples are to be understood.
        bits_allocated, bits, is_signed: how a sample is stored.
        transfer_syntax: UID of how the whole is stored.
        is_lossy: whether values were lost to a compression.
        planes: where its frames lie; none for a picture.
        pixel_size: height and width of a pixel of a picture in mm, where it says so.
    """

    place: Place
    kind: Kind
    what: str
    sop_class: str
    uid: str
    study: str
    series: str
    frame_of_reference: str
    number: str
    description: str
    modality: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits: int
    is_signed: bool
    transfer_syntax: UID
    is_lossy: bool
    planes: tuple[Plane, ...]
    pixel_size: tuple[float, float] | None

    @property
    def itemsize(self) -> int:
        """Bytes of one sample."""
        return max(self.bits_allocated // 8, 1)


def read_instance(place: Place) -> Instance | None:
    """What an object is; none where it is no DICOM.

    Raises:
        MedsegError: it is DICOM, and damaged.
    """
    return _read(place)


def require_image(instance: Instance) -> None:
    """Refuse what is DICOM and no image.

    Raises:
        MedsegError: so it is.
    """
    if instance.kind != "other":
        return
    is_directory = instance.sop_class == MediaStorageDirectoryStorage
    advice = "give the folder of the images" if is_directory else "give the images it belongs to"
    raise MedsegError(f"{instance.place.name} must be a DICOM image, got {instance.what}; {advice}")


def require_whole(instance: Instance) -> None:
    """Compare what an object claims with its size and the machine, before memory is asked for.

    Raises:
        MedsegError: it cannot be so.
    """
    shape = (instance.rows, instance.columns, instance.frames * instance.samples)
    native = not instance.transfer_syntax.is_encapsulated and not instance.transfer_syntax.is_deflated
    if instance.bits_allocated == 1:
        shape = (instance.rows, instance.columns, -(-instance.frames // 8))
    if instance.photometric == "YBR_FULL_422" and native:
        shape = (instance.rows, instance.columns, instance.frames * 2)
    path = Path(instance.place.name)
    require_plausible_size(path, shape, instance.itemsize, instance.place.size, compressed=not native)


@lru_cache(maxsize=_HEADERS_KEPT)
def _read(place: Place) -> Instance | None:
    if not is_dicom(place):
        return None
    header = read_header(place, _TAGS)
    with guarded(place):
        return _instance(place, header)


def _instance(place: Place, header: Dataset) -> Instance:
    sop_class = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))
    rows, columns = (int(header.get(name) or 0) for name in ("Rows", "Columns"))
    photometric = str(header.get("PhotometricInterpretation") or "")
    samples = int(header.get("SamplesPerPixel") or 1)
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    what = sop_class.name if sop_class.name != sop_class else "an unknown kind of object"
    is_known = sop_class.name != sop_class
    is_image = rows > 0 and columns > 0
    if is_known:
        is_image = any(name in what for name in _IMAGE_CLASSES) and not any(name in what for name in _NO_IMAGES)
    planes = planes_of(header) if is_image and photometric in _GREY and samples == 1 else ()
    kind: Kind = "picture"
    if not is_image:
        kind = "other"
    elif planes:
        kind = "slice" if "PerFrameFunctionalGroupsSequence" not in header else "volume"
    bits = int(header.get("BitsAllocated") or 8)
    instance = Instance(
        place,
        kind,
        _article(what),
        str(sop_class),
        str(header.get("SOPInstanceUID") or ""),
        str(header.get("StudyInstanceUID") or ""),
        str(header.get("SeriesInstanceUID") or ""),
        str(header.get("FrameOfReferenceUID") or ""),
        str(header.get("SeriesNumber") if header.get("SeriesNumber") is not None else ""),
        " ".join(str(header.get("SeriesDescription") or "").split()),
        str(header.get("Modality") or ""),
        rows,
        columns,
        int(header.get("NumberOfFrames") or 1),
        samples,
        photometric,
        bits,
        int(header.get("BitsStored") or bits),
        bool(header.get("PixelRepresentation") or 0),
        syntax,
        str(header.get("LossyImageCompression") or "") == _LOSSY,
        planes,
        pixel_size_of(header),
    )
    if kind != "other":
        _require_readable(instance)
    return instance


def _require_readable(instance: Instance) -> None:
    name = instance.place.name
    if instance.rows < 1 or instance.columns < 1 or instance.frames < 1:
        raise MedsegError(
            f"{name} must have at least one pixel, got {instance.rows} rows, {instance.columns} columns and "
            f"{instance.frames} frames; export it again"
        )
    if instance.photometric not in _COLOURS:
        raise MedsegError(
            f"{name} must hold grey values, RGB, YBR or a palette, got {instance.photometric or 'no word on it'}; "
            "export it again"
        )
    if instance.samples not in (1, 3) or not 1 <= instance.bits <= instance.bits_allocated <= 32:
        raise MedsegError(
            f"{name} must have one or three samples of up to 32 bits, got {instance.samples} of {instance.bits}; "
            "export it again"
        )
    if instance.planes and len(instance.planes) != instance.frames:
        raise MedsegError(
            f"{name} must say where each of its {instance.frames} frames lies, got {len(instance.planes)} places; "
            "export it again"
        )
    if "MPEG" in instance.transfer_syntax.name or "H.264" in instance.transfer_syntax.name:
        raise MedsegError(
            f"{name} must hold frames, got a video ({instance.transfer_syntax.name[:30]}); export it as MP4"
        )


def _article(what: str) -> str:
    """`a Segmentation Storage` reads badly: the word Storage is the standard's, not the user's."""
    short = what.removesuffix(" Storage")
    if short == "Media Storage Directory":
        return "a DICOMDIR, which lists other files"
    return short if short.startswith("an ") else f"a DICOM {short}"
