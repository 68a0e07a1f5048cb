"""This file reads what somebody ticked on the annotation page, and says which voxels that means.

An axial slice of the scan's own stored grid is one index along its *slice axis*, the stored axis that lies nearest to
head and feet. Its *rows* and *columns* are the two other stored axes in their order. A *cell* is a square of `cell` x
`cell` voxels of a slice, called by its row and column from 0; the last ones may be cut off. *Ticked*: it holds a
vessel. *Seen*: the whole slice was judged, so its other cells hold none. Downloads are anybody's files: every value is
checked, and an annotation that breaks the schema is left out with a line while the others go on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Shaped

from medseg.errors import MedsegError
from medseg.files import printable, read_json
from medseg.scans.grids import Grid, require_same_grid

SCHEMA = "medseg-annotation/1"
PLANE = "axial"
"""The only plane in which cells are ticked."""
CELLS = (4, 128)
"""Smallest and largest side of a cell in voxels: below, one could draw as well; above, a tick says next to nothing."""
LARGEST_FILE = 50_000_000
"""Bytes of a file; a thousand cases with every cell ticked have less."""
LONGEST_NAME = 1_000
"""Letters of a text."""
MOST_SLICES = 10_000
"""Slices of one case."""
UNNAMED = "unnamed"
"""What an annotator is called who gave no name."""
_AGAIN = "download it again from the page"


@dataclass(frozen=True)
class AnnotatedSlice:
    """One slice.

    Attributes:
        index: along the slice axis.
        ticked: row and column of each ticked cell, in order.
        seen: whether its other cells hold no vessel; else nothing is known of them.
    """

    index: int
    ticked: tuple[tuple[int, int], ...]
    seen: bool


@dataclass(frozen=True)
class Annotation:
    """What one annotator ticked in one case; every index lies within the shape.

    Attributes:
        case: its name.
        source_sha256: of the scan.
        grid: of the scan.
        cell: side of a cell in voxels.
        slices: in the order of their indices.
        seconds: of work, pauses left out.
        annotator: as the name was typed, spaces at the ends aside.
        time: of the last change.
    """

    case: str
    source_sha256: str
    grid: Grid
    cell: int
    slices: tuple[AnnotatedSlice, ...]
    seconds: float
    annotator: str
    time: datetime

    @property
    def ticked(self) -> int:
        """Number of ticked cells."""
        return sum(len(part.ticked) for part in self.slices)

    @property
    def seen(self) -> int:
        """Number of slices that were judged as a whole."""
        return sum(part.seen for part in self.slices)

    def as_dict(self) -> dict[str, Any]:
        """Plain values with the keys of the schema."""
        return {
            "case": self.case,
            "source_sha256": self.source_sha256,
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "plane": PLANE,
            "cell": self.cell,
            "slices": [
                {"index": part.index, "ticked": [list(place) for place in part.ticked], "seen": part.seen}
                for part in self.slices
            ],
            "seconds": self.seconds,
            "annotator": self.annotator,
            "time": self.time.isoformat(),
        }


def slice_axis(affine: Float[np.ndarray, "4 4"]) -> int:
    """The stored axis that lies nearest to head and feet.

    Example:
        >>> (
        ...     slice_axis(np.diag([1.0, 1, 1, 1])),
        ...     slice_axis(np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])),
        ... )
        (2, 1)
    """
    return int(np.flatnonzero(nibabel.io_orientation(affine)[:, 0] == 2)[0])


def cells_along(shape: Sequence[int], axis: int, cell: int) -> tuple[int, int]:
    """Rows and columns of cells of a slice; cells that are cut off count.

    Example:
        >>> cells_along((33, 40, 16), 1, 16)
        (3, 1)
    """
    rows, columns = (length for other, length in enumerate(shape) if other != axis)
    return -(-rows // cell), -(-columns // cell)


def cut_cell(
    values: Shaped[np.ndarray, "rows columns"], place: tuple[int, int], cell: int
) -> Shaped[np.ndarray, "h w"]:
    """The voxels of a cell, as a view into those of its slice; at the far ends it may be smaller."""
    row, column = place
    return values[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]


def require_cell(cell: Any, where: str) -> None:
    """Check the side of a cell.

    Raises:
        MedsegError: it is no whole number of voxels within `CELLS`.
    """
    if type(cell) is not int or not CELLS[0] <= cell <= CELLS[1]:
        raise MedsegError(f"{where} must be {CELLS[0]} to {CELLS[1]} voxels, got {_short(cell)}; 16 is a good start")


def require_scan(annotation: Annotation, grid: Grid, sha256: str) -> None:
    """Check that an annotation is about this scan.

    Raises:
        MedsegError: it is about one with another content, shape or place.
    """
    where = f"the annotation of {printable(annotation.case)}"
    if annotation.source_sha256 != sha256:
        raise MedsegError(
            f"{where} must be about {grid.name} as it is now, got another scan of that name; annotate it again"
        )
    require_same_grid(grid, Grid(where, annotation.grid.shape, annotation.grid.affine))


def is_annotation_file(path: Path) -> bool:
    """Whether a file is called as the page calls its download, or as browsers do where there is one already."""
    return re.fullmatch(r"medseg_annotation\b.*\.json", path.name, re.IGNORECASE) is not None


def read_annotations(path: Path) -> tuple[list[Annotation], dict[str, str]]:
    """The annotations of a file, and a line for each that breaks the schema or says nothing.

    Raises:
        MedsegError: the file is no annotation file at all.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise MedsegError(f"{path} must have at most {LARGEST_FILE // 1_000_000} MB, got more; {_AGAIN}")
    content = read_json(path, advice=_AGAIN)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema", "none") if isinstance(content, dict) else type(content).__name__
        raise MedsegError(f"{path} must have the schema {SCHEMA}, got {_short(got)}; {_AGAIN}")
    entries = content.get("annotations")
    if not isinstance(entries, list):
        raise MedsegError(f"{path} must hold a list of annotations, got {type(entries).__name__}; {_AGAIN}")
    if not entries:
        raise MedsegError(f"{path} must hold at least one annotation, got none; judge a slice on the page first")
    annotations, failed = [], {}
    for number, entry in enumerate(entries, start=1):
        where = f"annotation {number} in {path}"
        try:
            annotations.append(_annotation(entry, where))
        except MedsegError as error:
            failed[where] = printable(str(error))
    return annotations, failed


def _annotation(entry: Any, where: str) -> Annotation:
    if not isinstance(entry, dict):
        raise _wrong(where, "an object with case, shape, slices ...", entry)
    texts = {key: _text(entry, key, where) for key in ("case", "source_sha256", "plane", "annotator")}
    if not texts["case"]:
        raise _wrong(where, "the name of a case", "none")
    if texts["plane"] != PLANE:
        raise _wrong(where, f"the plane {PLANE}", texts["plane"])
    shape: Any = entry.get("shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n < 1 << 31 for n in shape):
        raise _wrong(where, "three numbers of voxels for shape", shape)
    affine: Any = entry.get("affine")
    rows = affine if isinstance(affine, list) and len(affine) == 4 else []
    if not rows or not all(isinstance(row, list) and len(row) == 4 and all(map(_is_number, row)) for row in rows):
        raise _wrong(where, "four rows of four numbers for affine", affine)
    cell: Any = entry.get("cell")
    require_cell(cell, f"cell of {printable(where)}")
    seconds: Any = entry.get("seconds")
    if not _is_number(seconds) or seconds < 0:
        raise _wrong(where, "seconds that are a number from 0", seconds)
    grid = Grid(where, (shape[0], shape[1], shape[2]), np.array(affine, np.float64))
    slices = _slices(entry.get("slices"), grid, cell, where)
    found = Annotation(
        texts["case"],
        texts["source_sha256"],
        grid,
        cell,
        slices,
        float(seconds),
        " ".join(texts["annotator"].split()) or UNNAMED,
        _time(entry.get("time"), where),
    )
    if not found.ticked and not found.seen:
        raise MedsegError(
            f"{printable(where)} ({printable(found.case)}) must have a ticked cell or a judged slice, got none in "
            f"{len(slices)} slices; tick the cells that hold a vessel, or say that there is none"
        )
    return found


def _slices(value: Any, grid: Grid, cell: int, where: str) -> tuple[AnnotatedSlice, ...]:
    if not isinstance(value, list) or len(value) > MOST_SLICES:
        raise _wrong(where, f"a list of at most {MOST_SLICES} slices", type(value).__name__)
    axis = slice_axis(grid.affine)
    limits = cells_along(grid.shape, axis, cell)
    found: dict[int, AnnotatedSlice] = {}
    for entry in value:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < grid.shape[axis] or index in found:
            raise _wrong(where, f"slices with different indices from 0 to {grid.shape[axis] - 1}", index)
        ticked, seen = entry.get("ticked"), entry.get("seen")
        if type(seen) is not bool:
            raise _wrong(where, f"true or false for seen of slice {index}", seen)
        if not isinstance(ticked, list):
            raise _wrong(where, f"a list of ticked cells of slice {index}", ticked)
        cells = sorted(_place(place, limits, index, where) for place in ticked)
        if len(set(cells)) < len(cells):
            raise _wrong(where, f"each ticked cell of slice {index} once", "one of them twice")
        found[index] = AnnotatedSlice(index, tuple(cells), seen)
    return tuple(found[index] for index in sorted(found))


def _place(value: Any, limits: tuple[int, int], index: int, where: str) -> tuple[int, int]:
    is_pair = isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
    if not is_pair or not all(0 <= number < limit for number, limit in zip(value, limits, strict=True)):
        wanted = f"cells of slice {index} in rows 0 to {limits[0] - 1} and columns 0 to {limits[1] - 1}"
        raise _wrong(where, wanted, value)
    return value[0], value[1]


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    try:
        if isinstance(value, str) and len(value) <= LONGEST_NAME and value.encode() is not None:
            return value
    except UnicodeEncodeError:  # JSON may hold halves of letters
        pass
    raise _wrong(where, f"a text of at most {LONGEST_NAME} letters for {key}", value)


def _time(value: Any, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(where, "a time as 2026-11-30T12:00:00Z", value) from error


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value)


def _wrong(where: str, wanted: str, got: Any) -> MedsegError:
    return MedsegError(f"{printable(where)} must have {wanted}, got {_short(got)}; {_AGAIN}")


def _short(value: Any) -> str:
    """A value as one short word of a message, whatever it is."""
    text = printable(str(value))
    return f"{text[:60]}..." if len(text) > 60 else text or "an empty text"
