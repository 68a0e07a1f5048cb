"""This file checks scans, masks and labels before they are used, and shows what was found out.

Files are read in a worker (`scans.contained`): one that its reader dies of is one line, and the others go on. What has
been checked in this process is not read again while its time and size stay the same.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import printable
from medseg.progress import track
from medseg.scans.cases import Case, Listing
from medseg.scans.check import check_pair, require_image_content, scan_facts
from medseg.scans.contained import Contained
from medseg.scans.folders import find_cases
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.schemes import LabelScheme

_COLUMNS = ("case", "format", "shape", "spacing", "axes", "values", "beside", "notes")
_Key = tuple[Any, ...]
_known: dict[_Key, Any] = {}
"""Answers and refusals by function, files (with time and size) and arguments."""


def facts(path: Path, pick: Pick) -> dict[str, Any]:
    """What `check_scan` finds out.

    Raises:
        MedsegError: the scan cannot be used.
    """
    return _asked(scan_facts, (path,), path, pick)


def pair(path: Path, image: Path, pick: Pick, scheme: LabelScheme | None = None, *, is_mask: bool = False) -> list[str]:
    """The notes of `check_pair`.

    Raises:
        MedsegError: label and image do not fit.
    """
    function = _pair_of_mask if is_mask else check_pair
    arguments = (image, pick) if is_mask else (image, pick, scheme)
    return _asked(function, (path, image), path, *arguments)


def _asked(function: Callable[..., Any], files: Sequence[Path], path: Path, *arguments: Any) -> Any:
    key = (function.__qualname__, *map(_state, files), repr(arguments))
    if key not in _known:
        try:
            _known[key] = _worker().call(function, path, *arguments)
        except MedsegError as error:
            _known[key] = error
    if isinstance(_known[key], MedsegError):
        raise _known[key]
    return _known[key]


@cache
def _worker() -> Contained:
    """The worker of this process: while it waits it holds nothing but what it has imported."""
    worker = Contained(modules=("medseg.scans.check",))
    atexit.register(worker.close)
    return worker


def usable(
    cases: Sequence[Case], labels: Mapping[str, Path] | None = None, scheme: LabelScheme | None = None
) -> tuple[tuple[Case, ...], dict[str, str]]:
    """The cases whose files can be used, and one line for each other one.

    Args:
        cases: what will be read, with the brain masks.
        labels: labels by case, where they will be read.
        scheme: what the values and colours of label pictures mean.
    """
    kept, failed = [], {}
    for case in track(cases, "checking files"):
        try:
            facts(case.image, case.pick)
            if case.mask is not None:
                pair(case.mask, case.image, case.pick, is_mask=True)
            if labels and case.case_id in labels:
                pair(labels[case.case_id], case.image, case.pick, scheme)
        except MedsegError as error:
            failed[case.case_id] = str(error)
        else:
            kept.append(case)
    return tuple(kept), failed


def check_path(what: Path | Sequence[Path], *, image: Path | None = None, pick: Pick = WHOLE) -> dict[str, Any]:
    """Check folders, lists, files, or a label with its image.

    Args:
        what: what `find_cases` takes, or several of these; with `image` one label.
        image: the image that `what` is the label of; of DICOM also the folder of its series.
        pick: what to take of files that hold several volumes.

    Returns:
        `lines`: a row for each case; `cases`: the same as plain values; `failed`: a line by case.

    Raises:
        MedsegError: there is nothing to check.
    """
    given = [what] if isinstance(what, Path) else list(what)
    if image is not None:
        if len(given) > 1:
            raise MedsegError(f"--for must go with one label, got {len(given)}; check them one by one")
        rows, notes = [_check_label(given[0], image, pick)], list[str]()
    else:
        rows, notes = _rows(given, pick)
    failed = {row["case"]: row["problem"] for row in rows if row.get("problem")}
    if image is not None and not failed:
        notes.append(f"{given[0]} fits {image}")
    count = f"{len(rows) - len(failed)} of {len(rows)} can be used"
    return {"lines": [*_table(rows), *notes, *([count] if len(rows) > 1 else [])], "cases": rows, "failed": failed}


def _rows(given: Sequence[Path], pick: Pick) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each case of what was given, and notes."""
    for path in given:
        if path.is_file() and path.suffix.lower() not in (".csv", ".json"):
            require_image_content(path)
    listing = find_cases(given[0] if len(given) == 1 else given, pick=pick)
    rows = [_check_case(case, listing) for case in track(listing.cases, "checking files")]
    rows += [{"case": name, "problem": problem} for name, problem in listing.problems]
    if len(given) == len(rows) == 1 and given[0].is_file() and rows[0].get("is_dark"):
        rows[0]["problem"] = (
            f"{given[0]} must show something, got nothing brighter than {rows[0]['highest']:g}, which is black to "
            "the eye; check a label with --for IMAGE"
        )
    return rows, list(listing.notes)


def _check_case(case: Case, listing: Listing) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case.case_id, "image": str(case.image), "beside": {}, "problem": None}
    problems = []
    try:
        row |= facts(case.image, case.pick)
    except MedsegError as error:
        problems.append(str(error))
    partners = {"mask": case.mask, "label": listing.labels.get(case.case_id)}
    for role, path in partners.items():
        if path is None:
            continue
        beside: dict[str, Any] = {"file": str(path), "notes": [], "problem": None}
        row["beside"][role] = beside
        try:
            is_mask = role == "mask"
            scheme = None if is_mask else listing.scheme
            beside["notes"] = pair(path, case.image, case.pick, scheme, is_mask=is_mask)
        except MedsegError as error:
            beside["problem"] = str(error)
            if not problems:  # else the image is to blame
                problems.append(str(error))
    row["problem"] = "; ".join(problems) or None
    return row


def _check_label(label: Path, image: Path, pick: Pick) -> dict[str, Any]:
    if image.is_dir():
        cases = find_cases(image, pick=pick).cases
        if len(cases) > 1:
            raise MedsegError(f"--for must be one scan, got a folder with {len(cases)}; give one of them")
        image = cases[0].image
    row: dict[str, Any] = {"case": image.name, "image": str(image), "beside": {}, "problem": None}
    try:
        row |= facts(image, pick)
        row["beside"] = {"label": {"file": str(label), "notes": pair(label, image, pick), "problem": None}}
    except MedsegError as error:
        row["problem"] = str(error)
    return row


def _pair_of_mask(path: Path, image: Path, pick: Pick) -> list[str]:
    return check_pair(path, image, pick, is_mask=True)


def _state(path: Path) -> tuple[str, int, int]:
    """A file as it is now; a DICOM series has one of its files here, and its folder changes with the others."""
    try:
        stat, folder = path.stat(), path.parent.stat()
        return str(path.resolve()), stat.st_mtime_ns + folder.st_mtime_ns, stat.st_size
    except OSError:
        return str(path), 0, -1


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Aligned columns; problems and notes come last, because they are long."""
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(_COLUMNS) - 1)]
    padded = [[*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]] for row in cells]
    return ["  ".join(row).rstrip() for row in padded]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    beside = row.get("beside", {})
    said = [*row.get("notes", ()), *_said_of(beside)]
    last = f"cannot be used: {row['problem']}" if row["problem"] else "; ".join(said)
    name, last = printable(row["case"]), printable(last)
    if "format" not in row:
        return name, "-", "-", "-", "-", "-", ", ".join(beside) or "-", last
    frames = f" of {row['stored_frames']}" if row["stored_frames"] > row["shape"][-1] and row["unit"] == "px" else ""
    shape = " x ".join(map(str, row["shape"])) + frames
    spacing = " x ".join(f"{mm:.4g}" for mm in row["spacing"]) + " mm" if row["spacing"] else "px"
    values = f"{row['lowest']:.6g} to {row['highest']:.6g}" + (f" ({row['dtype']})" if row["dtype"] else "")
    return name, row["format"], shape, spacing, row["orientation"] or "-", values, ", ".join(beside) or "-", last


def _said_of(beside: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{role} {note}" for role, partner in beside.items() for note in partner["notes"]]
