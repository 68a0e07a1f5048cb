"""This file finds out what a folder, a zip archive or some files hold, series by series, and which of it is meant.

An *entry* is what can be read as one scan or picture: the slices of one series, a volume of several frames, a picture.
Series are told apart by their UIDs and shown by number and description.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError
from medseg.scans.dicom.heads import may_be_dicom
from medseg.scans.dicom.instances import Instance, Kind, read_instance, require_image
from medseg.scans.dicom.places import Place, is_zip, members, place_of

_log = logging.getLogger(__name__)
_SHOWN = 12
CHOOSE = "choose one with --series (its number, its UID or a part of its description), or give one of its files"
"""What to do about several series."""


@dataclass(frozen=True)
class Entry:
    """One scan or picture.

    Args:
        kind: slices of a series, a volume of several frames, or a picture.
        instances: its objects, sorted by name.
    """

    kind: Kind
    instances: tuple[Instance, ...]

    @property
    def first(self) -> Instance:
        """The object by which the entry is named."""
        return self.instances[0]

    def describe(self) -> str:
        """Its series in a few words; nothing in them is of the patient."""
        first = self.first
        what = f"{len(self.instances)} slices" if self.kind == "slice" else f"{first.frames} frames"
        what = "1 picture" if self.kind == "picture" and first.frames == 1 else what
        words = [f"series {first.number or 'without number'}", first.modality, first.description[:40], what]
        return " ".join(word for word in words if word)


@dataclass
class Contents:
    """What a folder, an archive or some files hold.

    Args:
        entries: scans and pictures.
        others: files that are DICOM and no image, with what they are.
        damaged: files that are DICOM and cannot be read, with the line that says so.
    """

    entries: list[Entry] = field(default_factory=list)
    others: list[tuple[Place, str]] = field(default_factory=list)
    damaged: list[tuple[Place, str]] = field(default_factory=list)


def contents_of(places: Iterable[Place]) -> Contents:
    """Sort objects into entries; what is no DICOM is left out.

    Args:
        places: where they are stored, in any order.
    """
    found = Contents()
    slices: dict[str, list[Instance]] = {}
    for place in sorted(places, key=lambda place: (str(place.path), place.member or 0)):
        try:
            instance = read_instance(place)
        except MedsegError as error:
            found.damaged.append((place, str(error)))
            continue
        if instance is None:
            continue
        if instance.kind == "other":
            found.others.append((place, instance.what))
        elif instance.kind == "slice":
            slices.setdefault(instance.series, []).append(instance)
        else:
            found.entries.append(Entry(instance.kind, (instance,)))
    found.entries += [Entry("slice", tuple(instances)) for instances in slices.values()]
    found.entries.sort(key=lambda entry: (str(entry.first.place.path), entry.first.place.member or 0))
    return found


def places_in(path: Path) -> list[Place]:
    """The files of a folder (not those below it) or of a zip archive, or the one file."""
    if path.is_dir():
        return [
            place_of(inner) for inner in sorted(path.iterdir()) if inner.is_file() and not inner.name.startswith(".")
        ]
    return members(path) if is_zip(path) else [place_of(path)]


def entry_of(path: Path, series: str | None = None) -> Entry:
    """The entry that a path names: a file of it, or a folder or archive that holds it.

    Args:
        path: any file of a series, a file with a volume or a picture, a folder or a zip archive.
        series: number, UID or a part of the description of the series that is meant.

    Raises:
        MedsegError: there is none, or more than one.
    """
    if path.is_dir() or is_zip(path):
        return _chosen(path, contents_of(places_in(path)), series)
    place = place_of(path)
    instance = read_instance(place)
    if instance is None:
        raise MedsegError(f"{path} must be a DICOM file, got other content; export it again")
    require_image(instance)
    entry = Entry(instance.kind, (instance,))
    if instance.kind == "slice" and instance.series:
        folder = contents_of(place for place in places_in(path.parent) if _may_be_slice(path, place))
        entry = next((one for one in folder.entries if instance in one.instances), entry)
        if folder.damaged:
            _log.warning("%s and %d more", folder.damaged[0][1], len(folder.damaged) - 1)
    if series is not None and not matches(entry, series):
        raise MedsegError(f"{path} must be of the series {series!r}, got {entry.describe()}; choose another --series")
    return entry


def kind_of(path: Path) -> Kind | None:
    """What a path is that is no other kind of file by its name: slices, a volume, a picture; none if it is no DICOM.

    What is damaged, or holds several series, counts as slices: whoever reads it says what is wrong.
    """
    try:
        if not (path.is_dir() or is_zip(path)):
            instance = read_instance(place_of(path)) if may_be_dicom(path) else None
            return None if instance is None else instance.kind
        found = contents_of(places_in(path))
    except MedsegError:
        return "slice"
    if not (found.entries or found.others or found.damaged):
        return None
    meant = scans_in(found.entries, None)
    return meant[0].kind if len(meant) == 1 else "slice"


def matches(entry: Entry, series: str) -> bool:
    """Whether an entry is of the series that is picked: by number, UID or a part of the description."""
    first = entry.first
    return series in (first.number, first.series) or bool(
        series.strip() and series.casefold() in first.description.casefold()
    )


def scans_in(entries: Sequence[Entry], series: str | None) -> list[Entry]:
    """The entries that are meant: those picked, else the one series of slices with scouts beside it left out, else all.

    A number or a UID beats a description that happens to contain it.
    """
    if series is not None:
        exact = [entry for entry in entries if series in (entry.first.number, entry.first.series)]
        return exact or [entry for entry in entries if matches(entry, series)]
    volumes = [entry for entry in entries if entry.kind != "picture"]
    many = [entry for entry in volumes if len(entry.instances) > 1]
    lone = [entry for entry in volumes if len(entry.instances) == 1]
    if len(many) == 1 and all(entry.kind == "slice" for entry in lone):
        return many
    return volumes or list(entries)


def choices(entries: Sequence[Entry]) -> str:
    """The entries in words, for a message."""
    told = [entry.describe() for entry in entries[:_SHOWN]]
    if len(set(told)) < len(told):  # then only their files tell them apart
        told = [f"{words} with {entry.first.place.path.name}" for words, entry in zip(told, entries, strict=False)]
    return "; ".join(told) + (f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else "")


def _chosen(path: Path, found: Contents, series: str | None) -> Entry:
    if found.damaged:
        raise MedsegError(found.damaged[0][1])
    if not found.entries:
        got = f"{len(found.others)} of other kinds ({found.others[0][1]})" if found.others else "none"
        raise MedsegError(f"{path} must hold DICOM images, got {got}; choose another")
    meant = scans_in(found.entries, series)
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise MedsegError(
            f"{path} must hold the series {series!r}, got {choices(found.entries)}; choose another --series"
        )
    raise MedsegError(f"{path} must hold one series or say which, got {len(meant)} ({choices(meant)}); {CHOOSE}")


def _may_be_slice(path: Path, place: Place) -> bool:
    """Leave out files that are surely no slices of the same series, so that they are not opened."""
    return place.path == path or not place.path.name.lower().endswith((".gz", ".nii", ".png", ".json", ".csv", ".zip"))
