"""This file reads clicks: places that a person named, by which clusters get their names.

*Click*: a case, a place in it and the name of a class there; `background` is a name too, and takes names away. *Place*:
x y z in mm (RAS+, of the scanner), or i j k, the indices of a voxel in the scan's file. Of a picture i j k are row from
the top, column from the left, and frame (0 in one picture); its mm are those of its NIfTI stack, where the review page
shows it, in pixels (`medseg.scans.stacks`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.errors import MedsegError
from medseg.files import printable, read_json
from medseg.scans.grids import Grid
from medseg.scans.names import is_picture
from medseg.scans.stacks import STACK_AFFINE

Space = Literal["mm", "voxel"]

BACKGROUND = "background"
"""The class name that means value 0: no class."""
SCHEMA = "medseg-decisions/1"
"""Of the files in which the review page keeps clicks."""


@dataclass(frozen=True)
class Click:
    """One named place.

    Attributes:
        case: name of the case.
        place: x y z in mm, or i j k.
        space: which of them.
        name: of the class, or `background`.
    """

    case: str
    place: tuple[float, float, float]
    space: Space
    name: str

    def __str__(self) -> str:
        numbers = " ".join(f"{number:g}" for number in self.place)
        return printable(f"click {self.case} {numbers} {self.name} ({self.space})")


def parse_click(words: Sequence[str], space: str) -> Click:
    """A click from the words of a command line: CASE x y z CLASS.

    Raises:
        MedsegError: the place is no three numbers, a name is empty, or the space is unknown.
    """
    if space not in ("mm", "voxel"):
        raise MedsegError(f"--space must be mm or voxel, got {space}; choose one")
    if len(words) != 5 or not words[0].strip() or not words[4].strip():
        raise MedsegError(f"--click must be CASE x y z CLASS, got {' '.join(words) or 'nothing'}; write all five")
    case, *numbers, name = words
    try:
        x, y, z = (float(number) for number in numbers)
    except ValueError:
        x = y = z = math.nan
    if not all(map(math.isfinite, (x, y, z))):
        raise MedsegError(f"--click must have three numbers after the case, got {' '.join(numbers)}; correct them")
    return Click(case, (x, y, z), "mm" if space == "mm" else "voxel", name.strip())


def read_clicks(path: Path) -> list[Click]:
    """The clicks in a decisions file, or in all of a folder: of each reviewer those of the last word on a case.

    Raises:
        MedsegError: there is no such file, one is no decisions file, or a click in it breaks the schema.
    """
    return [click for entry, where in _decisions(path) for click in _clicks(entry, where)]


def read_minutes(path: Path, cases: Collection[str]) -> float:
    """Minutes that were spent on these cases, where they were clicked, as the page measured them.

    Raises:
        MedsegError: see `read_clicks`.
    """
    counted = [pair for pair in _decisions(path) if pair[0].get("case") in cases and _clicks(*pair)]
    return sum(_seconds(entry, where) for entry, where in counted) / 60


def voxel_of(click: Click, grid: Grid) -> tuple[int, int, int]:
    """The voxel of the scan's file that a click lies in.

    Args:
        click: a place in the scan.
        grid: of the scan's file, as `medseg.scans.arrays.read_grid` gives it.

    Raises:
        MedsegError: the click lies outside the volume.
    """
    place = np.array(click.place)
    if click.space == "mm" and is_picture(Path(grid.name)):
        column, from_below, frame = np.linalg.solve(STACK_AFFINE, [*place, 1.0])[:3]
        place = np.array([grid.shape[0] - 1 - from_below, column, frame])
    elif click.space == "mm":
        place = np.linalg.solve(grid.affine, [*place, 1.0])[:3]
    i, j, k = (math.floor(number + 0.5) for number in place)
    if not all(0 <= index < length for index, length in zip((i, j, k), grid.shape, strict=True)):
        shape = " x ".join(map(str, grid.shape))
        raise MedsegError(
            f"{click} must lie in the volume, got voxel {i} {j} {k} of {shape}; is --space {click.space} right?"
        )
    return i, j, k


def require_consistent(clicks: Sequence[Click], voxels: Sequence[tuple[int, int, int]]) -> None:
    """Check that no voxel was given two classes.

    Args:
        clicks: of all cases.
        voxels: the voxel of each.

    Raises:
        MedsegError: one was.
    """
    named: dict[tuple[Any, ...], str] = {}
    for click, voxel in zip(clicks, voxels, strict=True):
        before = named.setdefault((click.case, *voxel), click.name)
        if before != click.name:
            raise MedsegError(
                f"clicks must give each voxel one class, got {before} and {click.name} at voxel "
                f"{' '.join(map(str, voxel))} of {click.case}; leave one out"
            )


def require_known(clicks: Sequence[Click], names: Collection[str]) -> None:
    """Check that the clicks name classes that are there.

    Raises:
        MedsegError: one does not; the nearest right name is told.
    """
    known = [*names, BACKGROUND]
    for click in clicks:
        if click.name not in known:
            near = difflib.get_close_matches(click.name, known, n=1, cutoff=0.4)
            advice = f"did you mean {near[0]}? Else" if near else "else"
            raise MedsegError(
                f"class of a click must be one of {', '.join(known)}, got {printable(click.name)}; "
                f"{advice} make it with --new-class"
            )


def _decisions(path: Path) -> list[tuple[Mapping[str, Any], str]]:
    """The last decision of each reviewer on each case, and what errors call it: a later download holds it all again."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        content = read_json(file, advice="download it again")
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            if path.is_dir():
                continue  # another file of a download folder
            raise MedsegError(f"{file} must have the schema {SCHEMA}, got another; name a file of the review page")
        entries = content.get("decisions")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise MedsegError(f"{file} must hold a list of decisions, got something else; download it again")
        found += [(entry, f"decision {number} in {file}") for number, entry in enumerate(entries, start=1)]
    if not found:
        raise MedsegError(f"{path} must hold decisions of the review page, got none; download them again")
    last: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {}
    for entry, where in sorted(found, key=lambda one: str(one[0].get("time", ""))):
        last[str(entry.get("case")), str(entry.get("reviewer", ""))] = (entry, where)
    return list(last.values())


def _clicks(entry: Mapping[str, Any], where: str) -> list[Click]:
    case, clicks = entry.get("case"), entry.get("clicks", [])
    if not isinstance(case, str) or not isinstance(clicks, list):
        raise MedsegError(f"{where} must have a case and a list of clicks, got {case!r}; download it again")
    found = []
    for click in clicks:
        place, name = (click.get("xyz_mm"), click.get("class")) if isinstance(click, dict) else (None, None)
        if not isinstance(place, list) or not isinstance(name, str):
            raise MedsegError(f"a click of {where} must have xyz_mm and class, got {click!r}; download it again")
        found.append(parse_click([case, *map(str, place), name], "mm"))
    return found


def _seconds(entry: Mapping[str, Any], where: str) -> float:
    seconds = entry.get("seconds", 0)
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise MedsegError(f"{where} must have seconds from 0, got {seconds!r}; download it again")
    return float(seconds)
