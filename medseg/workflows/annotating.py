"""This file lets somebody tick which cells of a few slices hold a vessel, and makes rough masks of what was ticked.

medseg_annotation.html                   the page; it needs no network, and lets one download its annotation

OUT/CASE_rough.nii.gz                    on the scan's own grid: 1 vessel, 2 background, 0 unknown
OUT/classes.yaml                         says so
OUT/annotations.json                     what was ticked, by whom, with what effort, and what came of it
OUT/patches/                             the same as small pictures, see `review/exports/patch_folders.py`

*Rough labels* are those of `naming/rough_masks.py`; what is written for one case can be read back for another use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, printable, require_folder, write_json, write_text
from medseg.naming.annotations import (
    SCHEMA,
    Annotation,
    is_annotation_file,
    read_annotations,
    require_cell,
    require_scan,
)
from medseg.naming.classes import ClassEntry, Naming, write_classes
from medseg.naming.effort import Effort, in_words
from medseg.naming.rough_masks import METHODS, NO_VESSEL, VESSEL, rough_labels
from medseg.progress import track
from medseg.review.annotator.page import MOST_MB, case_data, write_annotation_page
from medseg.review.exports.annotated_patches import patches_of
from medseg.review.exports.patch_folders import CasePatches, write_patches
from medseg.scans.arrays import read_grid, read_values
from medseg.scans.cases import Case
from medseg.scans.masks import write_labels
from medseg.scans.names import is_picture
from medseg.scans.schemes import colour_of
from medseg.scans.sources import hash_scan
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.rough_labels import (
    FILE_BACKGROUND,
    FILE_VESSEL,
    RECORD,
    collected_before,
    file_values,
    total_effort,
)

PAGE = "medseg_annotation.html"
MODALITIES = ("tof", "ce_mra", "cta")
"""In which vessels are bright, as rough masks need it."""
CELL = 16
"""Voxels along a side of a cell."""
SLICES = 3
"""Of a case that are offered."""
_CLASSES_HEAD = "# rough masks: 0 is unknown, no background; do not score them, and leave 0 out of a loss\n"

_log = logging.getLogger(__name__)


def annotation_page(
    scans: Path,
    out: Path,
    *,
    cell: int = CELL,
    slices: int = SLICES,
    modality: str | None = None,
    intake: Intake = AS_IT_IS,
    max_mb: float = MOST_MB,
) -> dict[str, Any]:
    """Write the page on which the cells of axial slices are ticked that hold a vessel.

    Args:
        scans: folder, datalist, CSV or one scan.
        out: folder for the page.
        cell: side of a cell in voxels.
        slices: of each case, spread evenly.
        modality: one of `MODALITIES`, which chooses the windows; None where it is not known.
        intake: what to take of files that hold several volumes, and what cases are called.
        max_mb: largest page in MB (10^6 bytes).

    Returns:
        `lines` for the terminal, `file`, `cases`; `failed`: cases that are left out.

    Raises:
        MedsegError: a setting is out of range, no case can be shown, or the page would be too large.
    """
    require_cell(cell, "--cell")
    if slices < 1:
        raise MedsegError(f"--slices must be at least 1, got {slices}; 3 is a good start")
    if modality not in (None, *MODALITIES):
        raise MedsegError(f"--modality must be {', '.join(MODALITIES[:-1])} or {MODALITIES[-1]}, got {modality}")
    require_folder(out, "-o")
    listing = intake.cases(scans, skip=(out,))
    failed = dict(listing.problems)
    shown = []
    for case in track(listing.cases, "reading slices"):
        try:
            image, grid = read_values(_volume(case), case.pick)
            sha256 = hash_scan(case.image, case.pick)
            shown.append(case_data(case.case_id, sha256, image, grid, slices=slices, modality=modality))
        except MedsegError as error:
            _log.error(str(error))
            failed[case.case_id] = str(error)
    if not shown:
        raise MedsegError(f"{scans} must hold a volume that can be shown, got none; give scans")
    path = out / PAGE
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_annotation_page(path, shown, title="Vessel annotation", created=created, cell=cell, max_mb=max_mb)
    count = sum(len(data["indices"]) for data in shown)
    cases = "1 case" if len(shown) == 1 else f"{len(shown)} cases"
    return {
        "lines": [
            f"{path}: {count} slices of {cases}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser",
            "tick the cells that hold a vessel, download the annotation, and collect it",
        ],
        "file": str(path),
        "cases": [data["case"] for data in shown],
        "failed": failed,
    }


def collect_annotations(
    downloads: Path,
    scans: Path,
    out: Path,
    *,
    method: str = "kmeans",
    patches: bool = False,
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Check what annotators downloaded, and write a rough mask of each case.

    Of several annotations of a case the last one counts.

    Args:
        downloads: an annotation file, or a folder with some, also in folders below it.
        scans: what was annotated.
        out: folder for the masks.
        method: how grey values are divided within ticked cells.
        patches: write each cell as a small picture, too.
        intake: as for the page.

    Returns:
        `lines` for the terminal, `cases`: what came of each, `failed`: a line for each annotation that is left out.

    Raises:
        MedsegError: there is no annotation at all, none ticks a cell, or `out` cannot be used.
    """
    if method not in METHODS:
        raise MedsegError(f"--method must be one of {', '.join(METHODS)}, got {method}; choose one")
    require_folder(out, "-o")
    listing = intake.cases(scans, skip=(out,))
    known = {case.case_id: case for case in listing.cases}
    found, failed = _found(downloads)
    latest, lines = _latest(found)
    if latest and not any(annotation.ticked for annotation in latest):
        raise MedsegError(
            f"{downloads} must hold at least one ticked cell, got none (judged slices: "
            f"{sum(one.seen for one in latest)}); tick the cells that hold a vessel"
        )
    cases: dict[str, dict[str, Any]] = {}
    kept: list[tuple[Annotation, Case]] = []
    for annotation in track(latest, "making rough masks"):
        try:
            case = _case_of(annotation, known)
            cases[annotation.case] = _file_mask(annotation, case, out, method)
            kept.append((annotation, case))
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[annotation.case] = printable(str(error))
    for line in failed.values():
        _log.error(line)
    if kept:
        _write_classes(out / "classes.yaml")
        effort = _effort_of(annotation for annotation, _ in kept)
        before, entries = collected_before(out, cases)
        if before:
            lines.append(f"collected earlier, and kept: {', '.join(sorted(before))}")
        entries += [annotation.as_dict() for annotation, _ in kept]
        every = before | cases
        total = total_effort([Effort.from_dict(entry["effort"]) for entry in every.values()])
        content = {"schema": SCHEMA, "effort": total.as_dict(), "cases": every, "annotations": entries}
        write_json(out / RECORD, content)
        lines += [
            printable(f"{one.case}: no cell was ticked, so all judged slices ({one.seen}) are background")
            for one, _ in kept
            if not one.ticked
        ]
        lines.append(_summary(kept, effort, out))
    if kept and patches:
        counts = write_patches(out / "patches", _patches(kept, method))
        lines.append(f"patches in {out / 'patches'}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    return {"lines": lines, "cases": cases, "failed": failed}


def _effort_of(annotations: Iterable[Annotation]) -> Effort:
    return total_effort([Effort({"cells": one.ticked}, one.seconds / 60) for one in annotations])


def _volume(case: Case) -> Path:
    if is_picture(case.image):
        raise MedsegError(
            f"{case.image} must be a volume in which vessels are bright, got a picture; of pictures (liver ultrasound, "
            "too) only clusters are named and masks corrected: medseg name, medseg review"
        )
    return case.image


def _found(downloads: Path) -> tuple[list[Annotation], dict[str, str]]:
    """Annotations below a folder, and a line for each that cannot be used; links are not followed."""
    if downloads.is_file():
        paths = [downloads]
    else:
        paths = [
            path
            for path in sorted(downloads.rglob("*.json"))
            if is_annotation_file(path) and path.is_file() and not path.is_symlink()
        ]
    if not paths:
        raise MedsegError(
            f"{downloads} must hold medseg_annotation.json, got none; download it from the annotation page"
        )
    annotations, failed = list[Annotation](), dict[str, str]()
    for path in paths:
        try:
            read, wrong = read_annotations(path)
        except (MedsegError, OSError) as error:
            failed[str(path)] = printable(str(error))
            continue
        annotations += read
        failed |= wrong
    return annotations, failed


def _latest(annotations: list[Annotation]) -> tuple[list[Annotation], list[str]]:
    """The last annotation of each case, and a line where another one is passed over."""
    last: dict[str, Annotation] = {}
    others: dict[str, set[str]] = {}
    for annotation in sorted(annotations, key=lambda one: one.time):
        before = last.get(annotation.case)
        if before is not None and before.as_dict() != annotation.as_dict():
            others.setdefault(annotation.case, set()).add(before.annotator)
        last[annotation.case] = annotation
    lines = [
        printable(f"{case}: the annotation of {last[case].annotator} counts, being later than that of {names}")
        for case, who in others.items()
        for names in [" and ".join(sorted(who))]
    ]
    return [last[case] for case in sorted(last)], lines


def _case_of(annotation: Annotation, known: Mapping[str, Case]) -> Case:
    """The scan of an annotation, whose content and grid are those that were annotated."""
    case = known.get(annotation.case)
    if case is None:
        raise MedsegError(
            f"the annotation of {annotation.case} must be about a case of the scans, got none of that name; give the "
            "scans that were annotated"
        )
    require_scan(annotation, read_grid(_volume(case), case.pick), hash_scan(case.image, case.pick))
    return case


def _file_mask(annotation: Annotation, case: Case, out: Path, method: str) -> dict[str, Any]:
    image, _ = read_values(case.image, case.pick)
    labels = rough_labels(image, annotation, method)
    name = f"{annotation.case}_rough.nii.gz"
    write_labels(out / name, file_values(labels), source=case.image, pick=case.pick)
    return {
        "mask": name,
        "method": method,
        "annotator": annotation.annotator,
        "effort": _effort_of([annotation]).as_dict(),
        "seen_slices": annotation.seen,
        "vessel_voxels": int((labels == VESSEL).sum()),
        "background_voxels": int((labels == NO_VESSEL).sum()),
    }


def _write_classes(path: Path) -> None:
    entries = (
        ClassEntry(FILE_VESSEL, "vessel", colour_of(0)),
        ClassEntry(FILE_BACKGROUND, "no vessel", colour_of(1), background=True),
    )
    write_classes(path, Naming(entries, "clicks"))
    write_text(path, _CLASSES_HEAD + path.read_text(encoding="utf-8"))


def _patches(kept: list[tuple[Annotation, Case]], method: str) -> Iterator[CasePatches]:
    for annotation, case in kept:
        image, _ = read_values(case.image, case.pick)
        found = patches_of(image, rough_labels(image, annotation, method), annotation)
        yield CasePatches(annotation.case, annotation.cell, case.split in ("val", "test"), found)


def _summary(kept: list[tuple[Annotation, Case]], effort: Effort, out: Path) -> str:
    seen = sum(annotation.seen for annotation, _ in kept)
    return f"rough masks in {out}: {len(kept)}, from {in_words('clicks', effort)}; slices judged: {seen}"
