"""This file reads what came of ticked cells back for another use: rough masks, and what they cost.

A *rough mask* lies on the scan's own grid and holds 1 for vessel, 2 for background and 0 where nothing is known; see
`annotating`, which writes it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8, UInt8

from medseg.errors import MedsegError
from medseg.files import read_record
from medseg.naming.effort import Effort
from medseg.naming.rough_masks import NO_VESSEL, UNKNOWN, VESSEL
from medseg.scans.arrays import read_label_values
from medseg.scans.grids import Grid, require_same_grid

RECORD = "annotations.json"
FILE_UNKNOWN, FILE_VESSEL, FILE_BACKGROUND = 0, 1, 2
"""Values of a rough mask in its file."""
_COLLECT = "collect annotations with `medseg annotate SCANS -o OUT --collect DOWNLOADS`"


def rough_label_files(folder: Path) -> dict[str, Path]:
    """The rough mask of each case that was collected.

    Args:
        folder: of `collect_annotations`.

    Raises:
        MedsegError: nothing was collected there, or a mask is missing.
    """
    files = {case: folder / str(entry["mask"]) for case, entry in _collected(folder).items()}
    if missing := [path for path in files.values() if not path.is_file()]:
        raise MedsegError(f"{missing[0]} must be a rough mask, got no such file; {_COLLECT}")
    return files


def effort_of_annotations(folder: Path, cases: Collection[str] | None = None) -> Effort:
    """How many cells were ticked, and in how many minutes.

    Args:
        folder: of `collect_annotations`.
        cases: those that count; all when None.

    Raises:
        MedsegError: nothing was collected there.
    """
    efforts = [
        Effort.from_dict(entry["effort"])
        for case, entry in _collected(folder).items()
        if cases is None or case in cases
    ]
    return total_effort(efforts)


def read_rough_labels(path: Path, grid: Grid) -> Int8[np.ndarray, "i j k"]:
    """The rough labels of a file.

    Args:
        path: a rough mask.
        grid: of the scan, on which it must lie.

    Raises:
        MedsegError: it is no rough mask, or that of another scan.
    """
    values, found = read_label_values(path)
    require_same_grid(grid, found)
    if strange := set(np.unique(values).tolist()) - {FILE_UNKNOWN, FILE_VESSEL, FILE_BACKGROUND}:
        raise MedsegError(
            f"{path} must be a rough mask (0 unknown, 1 vessel, 2 no vessel), got the value {min(strange)}; {_COLLECT}"
        )
    if not (values == FILE_BACKGROUND).any():
        raise MedsegError(
            f"{path} must be a rough mask with 2 where there is no vessel, got no 2, as in a full mask; {_COLLECT}"
        )
    return np.array([UNKNOWN, VESSEL, NO_VESSEL], np.int8)[values]


def collected_before(folder: Path, anew: Collection[str]) -> tuple[dict[str, dict[str, Any]], list[Any]]:
    """What came of other cases when they were collected into this folder, and what was ticked in them.

    Args:
        folder: of `collect_annotations`; it may be new.
        anew: the cases that are collected now.

    Raises:
        MedsegError: the record there is damaged.
    """
    if not (folder / RECORD).is_file():
        return {}, []
    cases = {
        case: entry
        for case, entry in _collected(folder).items()
        if case not in anew and (folder / str(entry["mask"])).is_file()
    }
    entries = read_record(folder / RECORD, "annotations", advice=_COLLECT)["annotations"]
    return cases, [entry for entry in entries if isinstance(entry, dict) and entry.get("case") in cases]


def total_effort(efforts: Sequence[Effort]) -> Effort:
    """Of cells; minutes only where all of them were measured."""
    minutes = [effort.minutes for effort in efforts if effort.minutes is not None]
    cells = sum(effort.counts.get("cells", 0) for effort in efforts)
    return Effort({"cells": cells}, round(sum(minutes), 2) if len(minutes) == len(efforts) else None)


def file_values(labels: Int8[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "i j k"]:
    """Rough labels as their file holds them, in which 0 must be the unknown."""
    table = np.zeros(3, np.uint8)
    table[NO_VESSEL], table[VESSEL], table[-1] = FILE_BACKGROUND, FILE_VESSEL, FILE_UNKNOWN
    return table[labels]  # -1 is the last entry


def _collected(folder: Path) -> dict[str, dict[str, Any]]:
    """What came of each case."""
    if not (folder / RECORD).is_file():
        raise MedsegError(f"{folder} must hold {RECORD} and rough masks, got none; {_COLLECT}")
    cases = read_record(folder / RECORD, "cases", advice=_COLLECT)["cases"]
    keys = {"mask", "effort"}
    if not isinstance(cases, dict) or not all(
        isinstance(entry, dict) and entry.keys() >= keys for entry in cases.values()
    ):
        raise MedsegError(f"{folder / RECORD} must hold mask and effort of each case, got others; {_COLLECT}")
    return cases
