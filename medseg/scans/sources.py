"""This file says which files one scan is stored in, hashes them, and gives the DICOM objects behind a volume.

A scan is one file, a header with a file of voxels, or the slices of a DICOM series; a zip archive is one file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.scans import itk_formats
from medseg.scans.grids import Grid
from medseg.scans.names import dicom_kind, is_dicom
from medseg.scans.picks import WHOLE, Pick

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medseg.scans.dicom.places import Place


@dataclass(frozen=True)
class DicomSeries:
    """The DICOM objects of one volume, in the order of its slices.

    Attributes:
        path: what the volume was named by.
        grid: where its voxels lie; its axes are column index, row index, slice.
        is_resampled: whether the grid is not that of the slices, so that no object has the pixels of a voxel slice.
        files: the file of each object, each once, in the order of the slices; of a zip archive, the archive.
        sop_class: UID of the kind of its objects.
        sop_instances: UID of the object of each slice; the same for all slices of a multi-frame object.
        frame_numbers: frame of each slice in its object, from 1 as DICOM counts.
        study: UID of the study.
        series: UID of the series.
        frame_of_reference: UID of the coordinate system; empty where the objects do not say it.
        modality: `CT`, `MR` ...
        places: where each object is stored, in the order of the slices.
    """

    path: Path
    grid: Grid
    is_resampled: bool
    files: tuple[Path, ...]
    sop_class: str
    sop_instances: tuple[str, ...]
    frame_numbers: tuple[int, ...]
    study: str
    series: str
    frame_of_reference: str
    modality: str
    places: tuple[Place, ...]

    def datasets(self, *, pixels: bool = False) -> list[Dataset]:
        """The objects in the order of the slices: one for each slice, or one for a multi-frame volume.

        Args:
            pixels: with their pixels, as they are stored; else all but these.

        Raises:
            MedsegError: one has gone or is damaged.
        """
        from medseg.scans.dicom.headers import read_dataset

        return [read_dataset(place, pixels=pixels) for place in self.places]


def dicom_series(path: Path, pick: Pick = WHOLE) -> DicomSeries:
    """The DICOM objects of a volume.

    Args:
        path: any slice, an object of several frames, a folder or a zip archive.
        pick: the series, and the frame where several volumes lie in the same place.

    Raises:
        MedsegError: it is no DICOM volume, or its slices are irregular and are not to be resampled.
    """
    if not is_dicom(path):
        raise MedsegError(f"{path} must be a DICOM series, got another kind of file; give the DICOM files")
    from medseg.scans.dicom.volumes import open_volume

    volume = open_volume(path, pick)
    if not 0 <= (pick.frame or 0) < volume.frames:
        raise MedsegError(f"{path} must have frame {pick.frame} (0 is the first), got {volume.frames} in all; choose")
    slices = volume.stack.frames[pick.frame or 0]
    places = tuple(dict.fromkeys(item.instance.place for item in slices))
    first = slices[0].instance
    return DicomSeries(
        path,
        volume.grid,
        volume.is_resampled,
        tuple(dict.fromkeys(place.path for place in places)),
        first.sop_class,
        tuple(item.instance.uid for item in slices),
        tuple(item.plane.index + 1 for item in slices),
        first.study,
        first.series,
        first.frame_of_reference,
        first.modality,
        places,
    )


def scan_files(path: Path, pick: Pick = WHOLE) -> tuple[Path, ...]:
    """The files that a scan is stored in, the one that names it first.

    Args:
        path: a scan or a picture.
        pick: the series, where a folder holds several.

    Raises:
        MedsegError: it cannot be told.
    """
    if dicom_kind_of_scan(path) in ("slice", "volume"):
        from medseg.scans.dicom.entries import entry_of

        files = dict.fromkeys(instance.place.path for instance in entry_of(path, pick.series).instances)
        return tuple(sorted(files, key=lambda file: (file != path, str(file))))
    partner = _partner(path)
    return (path,) if partner is None else (path, partner)


def hash_scan(path: Path, pick: Pick = WHOLE) -> str:
    """SHA-256 of a scan's content in hex, whatever its files are called: of one file, that of its bytes.

    That of several is the hash of their sorted hashes.

    Raises:
        MedsegError: a file cannot be read.
    """
    hashes = sorted(hash_file(file) for file in scan_files(path, pick))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def dicom_kind_of_scan(path: Path) -> str | None:
    """`slice`, `volume`, `picture` or `other`; none where the content is no DICOM or the name says another kind."""
    return dicom_kind(path) if is_dicom(path) else None


def _partner(path: Path) -> Path | None:
    """The file of voxels beside a header."""
    suffixes = {".hdr": (".img", ".IMG"), ".img": (".hdr", ".HDR")}.get(path.suffix.lower(), ())
    for candidate in (path.with_suffix(suffix) for suffix in suffixes):
        if candidate.is_file():
            return candidate
    return itk_formats.data_file(path) if path.suffix.lower() in (".mhd", ".nhdr") else None
