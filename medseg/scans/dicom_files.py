"""This file makes scans and pictures of the DICOM files that were found in folders.

The slices of one series are one scan: it is called after its folder and read by the path of its first slice. A file
with a volume or a picture of its own is called after the file. Nothing is called after what stands in a DICOM header,
where names of patients are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError
from medseg.scans.dicom.entries import CHOOSE, Contents, choices, contents_of, places_in, scans_in
from medseg.scans.dicom.places import is_zip, place_of
from medseg.scans.pairing import LeftOut


@dataclass
class DicomFiles:
    """What DICOM files of a folder, and of those below it, are.

    Args:
        volumes: the file by which a scan is read, by the path that names it: the folder of a series, or the file.
        pictures: files that are pictures.
        problems: what keeps a folder or a file from being used, by the path that names it.
        left_out: other files, with the reason.
    """

    volumes: dict[Path, Path] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    problems: dict[Path, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=list)


def sort_dicom(files: Sequence[Path], source: Path, series: str | None = None) -> DicomFiles:
    """Sort DICOM files, folder by folder; each zip archive is like a folder.

    Args:
        files: what may be DICOM, and zip archives.
        source: the folder that was searched; its own files are called after it.
        series: number, UID or a part of the description of the series to take from folders with several.
    """
    found = DicomFiles()
    folders: dict[Path, list[Path]] = {}
    for path in files:
        if is_zip(path):
            _sort_zip(path, series, found)
        else:
            folders.setdefault(path.parent, []).append(path)
    for folder, paths in folders.items():
        _sort_folder(name_of_folder(folder, source), paths, series, found)
    return found


def name_of_folder(folder: Path, source: Path) -> Path:
    """The path that names the series in a folder: the folder, and inside it for the searched folder itself."""
    return folder / folder.resolve().name if folder == source else folder


def _sort_folder(name: Path, paths: Sequence[Path], series: str | None, found: DicomFiles) -> None:
    places = []
    for path in paths:
        try:
            places.append(place_of(path))
        except MedsegError as error:
            found.problems[path] = str(error)
    contents = contents_of(places)
    _note_others(contents, found)
    entries = contents.entries
    meant = scans_in(entries, series) if entries else []
    if not meant and entries:
        found.problems[name] = (
            f"{paths[0].parent} must hold the series {series!r}, got {choices(entries)}; choose another --series"
        )
        return
    volumes = [entry for entry in meant if entry.kind != "picture"]
    several = [entry for entry in volumes if len(entry.instances) > 1]
    if several and len(volumes) > 1:
        found.problems[name] = (
            f"{paths[0].parent} must hold one series or say which, got {len(volumes)} ({choices(volumes)}); {CHOOSE}"
        )
        return
    if several:
        found.volumes[name] = several[0].first.place.path
    else:
        found.volumes |= {entry.first.place.path: entry.first.place.path for entry in volumes}
    pictures = [entry for entry in entries if entry.kind == "picture" and (series is None or entry in meant)]
    found.pictures += [entry.first.place.path for entry in pictures]
    why = "DICOM of another series" if series is not None else "single DICOM slices beside a series"
    found.left_out += [
        (instance.place.path, why)
        for entry in entries
        if entry not in volumes and entry not in pictures
        for instance in entry.instances
    ]


def _sort_zip(path: Path, series: str | None, found: DicomFiles) -> None:
    try:
        contents = contents_of(places_in(path))
    except MedsegError as error:
        found.problems[path] = str(error)
        return
    if contents.damaged:
        found.problems[path] = contents.damaged[0][1]
    elif not contents.entries:
        found.left_out.append((path, "an archive without DICOM images"))
    elif len(meant := scans_in(contents.entries, series)) != 1:
        got = choices(meant or contents.entries)
        found.problems[path] = f"{path} must hold one series or say which, got {got}; {CHOOSE.partition(', or')[0]}"
    elif meant[0].kind == "picture":
        found.pictures.append(path)
    else:
        found.volumes[path] = path


def _note_others(contents: Contents, found: DicomFiles) -> None:
    found.problems |= {place.path: line for place, line in contents.damaged}
    found.left_out += [(place.path, what) for place, what in contents.others]
