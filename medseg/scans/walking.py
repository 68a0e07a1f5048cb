"""This file walks through a folder for volumes and pictures, past whatever medseg itself wrote there.

Results are recognised by the manifests beside them and runs by their `run.yaml`, never by a file's name alone. A link
is followed only where it stays within the folder: what somebody unpacked must not reach the rest of the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.scans.dicom.heads import may_be_dicom
from medseg.scans.names import DATA_PARTS, EXTENSIONS, has_picture_name, split_extension
from medseg.scans.pairing import LeftOut

_VOLUME_KINDS = ("seg", "prob", "uncertainty", "region")
_PICTURE_KINDS = ("seg", "colour", "overlay", "uncertainty", "region")
_OUTPUT_FOLDERS = ("comparison", "plots", "export", "patches")
_CLASSES = "classes.yaml"
_ANNOTATIONS = "annotations.json"
"""As `workflows/annotating.py` writes it beside rough masks."""
_READINGS = "reviewers", "decisions.json"
"""Folder of each reviewer's own labels, and the file beside it, as `review/collect.py` writes them: beside the label of
a case, theirs are no second one."""
_JUNK_FOLDERS = ("__macosx",)
_JUNK_FILES = ("thumbs.db", "desktop.ini")
_RUN_HEAD = 1000
"""Characters of a `run.yaml` in which its `config_hash` stands."""
LEADS_OUT = "a link that leads out of the folder; to use it, list it in a CSV or give what it points to"
"""Why a link is left out."""


@dataclass
class Walk:
    """What a folder holds.

    Args:
        volumes: volume files.
        pictures: pictures, arrays and videos.
        dicom: what begins as DICOM does, and zip archives.
        left_out: other files, with the reason.
        classes: the `classes.yaml` of the folder itself, unless it came with results.
        notes: on folders that were left out.
    """

    volumes: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    dicom: list[Path] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: Path | None = None


def walk(source: Path, skip: set[Path], *, deep: bool = True, named: Path | None = None) -> Walk:
    """Find the files of a folder.

    Args:
        source: the folder, or a link to it.
        skip: resolved files and folders to leave out.
        deep: search the folders below it, too.
        named: a file that the user named, which may be a link to anywhere.
    """
    found = Walk()
    root = _target(source)
    seen = {root}
    results: set[Path] = set()

    def note_unreadable(error: OSError) -> None:
        found.notes.append(f"{error.filename} cannot be read ({error.strerror}) and is skipped")

    for folder_name, folder_names, file_names in os.walk(source, onerror=note_unreadable, followlinks=True):
        folder = Path(folder_name)
        outputs = _outputs(folder, file_names)
        results |= {folder / name for name in outputs or ()}
        is_run = folder != source and "run.yaml" in file_names and _is_run(folder / "run.yaml")
        is_output = outputs is not None and folder != source
        if is_output or is_run:
            what = "a run" if is_run else "results"
            found.notes.append(f"{folder.relative_to(source)} holds {what} of medseg and is skipped")
        kept = []
        for name in sorted(folder_names):
            inner = _target(folder / name)
            is_ours = outputs is not None and name in _OUTPUT_FOLDERS
            is_ours |= name == _READINGS[0] and _READINGS[1] in file_names
            if name.startswith(".") or name.lower() in _JUNK_FOLDERS or is_ours or inner in seen:
                continue
            if inner in skip:
                found.notes.append(f"{(folder / name).relative_to(source)} is where results go and is skipped")
                continue
            if not inner.is_relative_to(root):
                found.left_out.append((folder / name, LEADS_OUT))
                continue
            seen.add(inner)
            kept.append(name)
        folder_names[:] = kept if deep and not is_run else []
        if is_output or is_run:
            continue
        here = {name.lower() for name in file_names}
        for name in sorted(file_names):
            if name.startswith(".") or name.lower() in _JUNK_FILES:
                continue
            path = folder / name
            inner = _target(path)
            if path in results or inner in skip:
                found.left_out.append((path, "result of medseg"))
            elif path != named and not inner.is_relative_to(root) and inner.exists():
                found.left_out.append((path, LEADS_OUT))
            elif inner.exists() and not inner.is_file():
                found.left_out.append((path, "a pipe or a device, no file"))
            elif path == source / _CLASSES:
                found.classes = path
            else:
                _sort_in(path, here, found)
    return found


def _target(path: Path) -> Path:
    """Where a path leads when its links are followed; a link to itself leads nowhere, and that raises nothing here."""
    return Path(os.path.realpath(path))


def _sort_in(path: Path, here: set[str], found: Walk) -> None:
    stem, extension = split_extension(path.name)
    if extension in EXTENSIONS:
        found.volumes.append(path)
    elif has_picture_name(path):
        found.pictures.append(path)
    elif extension in DATA_PARTS and _has_header(stem.lower(), extension, here):
        return
    elif path.suffix.lower() == ".zip" or may_be_dicom(path):
        found.dicom.append(path)
    else:
        found.left_out.append((path, f"not an image ({extension or path.suffix.lower() or 'no extension'})"))


def _outputs(folder: Path, names: Iterable[str]) -> set[str] | None:
    """Results in a folder, and below it, by the medseg manifests in it; none where there is no manifest."""
    outputs: set[str] = set()
    manifests = [name for name in names if name.endswith("_manifest.json") and (folder / name).is_file()]
    is_output = False
    for name in manifests:
        try:
            manifest = read_json(folder / name)
        except MedsegError:
            continue  # somebody else's file
        if isinstance(manifest, dict) and {"run_hash", "source_sha256"} <= manifest.keys():
            is_output = True
            case_id = name.removesuffix("_manifest.json")
            outputs |= {f"{case_id}_{kind}.nii.gz" for kind in _VOLUME_KINDS}
            outputs |= {f"{case_id}_{kind}.png" for kind in _PICTURE_KINDS}
            outputs |= {name, _CLASSES} | set(manifest.get("files", ()))
    if _ANNOTATIONS in names and (rough := _rough_masks(folder / _ANNOTATIONS)):
        is_output = True
        outputs |= {_ANNOTATIONS, _CLASSES} | rough
    return outputs if is_output else None


def _rough_masks(path: Path) -> set[str]:
    """The rough masks beside a record of what was ticked; none where it is somebody else's file."""
    try:
        record = read_json(path)
    except MedsegError:
        return set()
    cases = record.get("cases") if isinstance(record, dict) and "annotations" in record else None
    entries = cases.values() if isinstance(cases, dict) else ()
    return {str(entry["mask"]) for entry in entries if isinstance(entry, dict) and "mask" in entry}


def _is_run(path: Path) -> bool:
    """Whether a `run.yaml` is one of medseg's."""
    try:
        with path.open(encoding="utf-8") as text:
            head = text.read(_RUN_HEAD)
    except (OSError, UnicodeDecodeError):
        return False
    return "config_hash:" in head


def _has_header(stem: str, extension: str, here: set[str]) -> bool:
    if extension == ".img":
        return f"{stem}.hdr" in here
    return any(name.endswith((".mhd", ".nhdr")) for name in here)
