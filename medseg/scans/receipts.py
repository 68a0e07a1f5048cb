"""This file writes and checks geometry receipts: plain numbers by which anyone can prove where a mask lies.

A *receipt* stands in the manifest of a case. Of a volume it holds, in mm:

    unit, shape, spacing, orientation, affine (RAS+), corners_ras, corners_lps (centres of the eight corner voxels)
    mask: file, sha256, sform_code, qform_code, voxels and centroid_ras by class value
    software

Pictures state no millimetres. Of a picture it holds, in px, `unit`, `shape`, `corners_px` (row, column, frame), and of
its mask `file`, `sha256`, `voxels` and `centroid_px`. The centroid of a class without a voxel is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image

from medseg import __version__
from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.scans import nifti
from medseg.scans.arrays import read_grid
from medseg.scans.grids import Grid, require_same_grid, require_same_size
from medseg.scans.names import is_picture
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.stacks import STACK_AFFINE, as_frames

SOFTWARE = f"medseg {__version__}"
"""What receipts and other records say that they were written by."""
TOLERANCE_MM = 1e-3
"""How far a position may be off, of a scan or a picture (px): what a header of 32-bit numbers can say of a body."""

_LPS = np.array([-1.0, -1.0, 1.0])
_FORMS: tuple[str, ...] = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "xyzt_units")
_FORMS += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")
"""What a mask takes from the header of a NIfTI scan, bit for bit."""
_VALUES = 256
"""Masks are uint8."""
_ADVICE = "restore it, or reconstruct the case again"

Labels = Integer[np.ndarray, "i j k"]


def geometry_receipt(source: Path, mask: Path, values: Sequence[int], pick: Pick = WHOLE) -> dict[str, Any]:
    """Write down where a mask lies, from the files as they are on the disk.

    Args:
        source: the scan or picture.
        mask: what was written for it: NIfTI on the grid of a scan, a PNG or a stack of frames for a picture.
        values: of the classes, those included that found no voxel.
        pick: what was taken of the source.

    Raises:
        MedsegError: a file cannot be read, or the mask does not lie on the grid of the source.
    """
    grid = _grid(source, pick)
    receipt: dict[str, Any]
    if is_picture(source):
        receipt = {"unit": "px", "shape": list(grid.shape), "corners_px": _corners(grid.shape).tolist()}
    else:
        corners = grid.corners()
        receipt = {
            "unit": "mm",
            "shape": list(grid.shape),
            "spacing": list(grid.spacing),
            "orientation": grid.orientation,
            "affine": grid.affine.tolist(),
            "corners_ras": corners.tolist(),
            "corners_lps": (corners * _LPS).tolist(),
        }
    receipt["mask"] = _of_mask(mask, receipt, values)
    return {**receipt, "software": SOFTWARE}


def require_consistent(name: str, receipt: Mapping[str, Any]) -> None:
    """Check that the numbers of a receipt follow from each other.

    Args:
        name: of the file it stands in, for messages.
        receipt: what `geometry_receipt` gave.

    Raises:
        MedsegError: they do not, or one is missing.
    """
    try:
        shape = tuple(map(int, receipt["shape"]))
        if receipt["unit"] == "px":
            wanted = {"corners_px": _corners(shape)}
        else:
            grid = Grid(name, shape, np.array(receipt["affine"], np.float64))  # type: ignore[arg-type]
            corners = grid.corners()
            wanted = {"spacing": np.array(grid.spacing), "corners_ras": corners, "corners_lps": corners * _LPS}
            if receipt["orientation"] != grid.orientation:
                raise MedsegError(
                    f"{name} must have the orientation {grid.orientation} of its affine, "
                    f"got {receipt['orientation']}; {_ADVICE}"
                )
        given = {key: np.array(receipt[key], np.float64) for key in wanted}
        noted = receipt["mask"]
        counted = {key: noted[key] for key in ("file", "sha256", "voxels", _centroid_key(receipt))}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, MedsegError):
            raise
        raise MedsegError(f"{name} must hold a whole geometry receipt, got {_line(error)}; {_ADVICE}") from error
    for key, numbers in wanted.items():
        if given[key].shape != numbers.shape or not np.allclose(given[key], numbers, rtol=0, atol=TOLERANCE_MM):
            raise MedsegError(f"{name} must have {key} that follow from its affine and shape, got others; {_ADVICE}")
    if counted["voxels"].keys() != counted[_centroid_key(receipt)].keys():
        raise MedsegError(f"{name} must have a centroid for each class it counts, got others; {_ADVICE}")


def require_mask(mask: Path, receipt: Mapping[str, Any], manifest: str) -> None:
    """Check that a mask lies and is what its receipt says.

    Args:
        mask: the file.
        receipt: a consistent one.
        manifest: the file it stands in, for messages.

    Raises:
        MedsegError: grid, codes, voxels, centroids or content differ; the first of these that does.
    """
    noted = receipt["mask"]
    found = _of_mask(mask, receipt, [int(value) for value in noted["voxels"]], manifest)
    for codes in ("sform_code", "qform_code"):
        before, now = noted.get(codes), found.get(codes)
        if before != now:
            raise MedsegError(f"{mask} must have the {codes} {before} that {manifest} names, got {now}; {_ADVICE}")
    for value in found["voxels"]:
        before, now = noted["voxels"].get(value, 0), found["voxels"][value]
        if before != now:
            raise MedsegError(
                f"{mask} must hold the {before} voxels of class {value} that {manifest} names, got {now}; {_ADVICE}"
            )
    key = _centroid_key(receipt)
    for value, place in found[key].items():
        if place is not None and not np.allclose(place, noted[key][value], rtol=0, atol=TOLERANCE_MM):
            raise MedsegError(
                f"{mask} must have class {value} around {_place(noted[key][value])} {receipt['unit']}, as {manifest} "
                f"says, got {_place(place)}; {_ADVICE}"
            )
    if found["sha256"] != noted["sha256"]:
        raise MedsegError(
            f"{mask} must have the SHA-256 {noted['sha256'][:12]} that {manifest} names, "
            f"got {found['sha256'][:12]}; {_ADVICE}"
        )


def require_scan(source: Path, mask: Path, receipt: Mapping[str, Any], pick: Pick = WHOLE) -> None:
    """Check that a mask lies on the grid of its scan: of a NIfTI scan it has the very bits of the header.

    Args:
        source: the scan or picture.
        mask: its mask.
        receipt: of both.
        pick: what was taken of the source.

    Raises:
        MedsegError: the source cannot be read, or its grid is another.
    """
    grid = _grid(source, pick)
    if receipt["unit"] == "px":
        require_same_size(mask, grid.shape, tuple(receipt["shape"]))
        return
    require_same_grid(grid, read_grid(mask))
    if not nifti.is_nifti(source):
        return
    ours, theirs = (nifti.read_header(path).as_byteswapped("<") for path in (source, mask))
    for field in _FORMS:
        if ours[field].tobytes() != theirs[field].tobytes():
            raise MedsegError(
                f"{mask} must have the {field} of {source}, got {theirs[field]} for {ours[field]}; {_ADVICE}"
            )


def read_labels_back(mask: Path, unit: str) -> Labels:
    """A mask as it was written: voxels of a scan, or rows, columns and frames of a picture.

    Raises:
        MedsegError: it is missing or broken.
    """
    if unit == "px" and mask.suffix.lower() == ".png":
        try:
            with Image.open(mask) as picture:
                return np.atleast_3d(np.asarray(picture))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises the last one for damaged chunks
            raise MedsegError(f"{mask} must be a readable PNG, got {_line(error)}; {_ADVICE}") from error
    header = nifti.read_header(mask)
    if header.get_data_dtype() != np.uint8:
        raise MedsegError(f"{mask} must hold labels as uint8, got {header.get_data_dtype()}; {_ADVICE}")
    voxels = np.asarray(nifti.read_voxels(mask, header, 0)[0])
    return as_frames(voxels) if unit == "px" else voxels


def _of_mask(
    mask: Path, receipt: Mapping[str, Any], values: Sequence[int], manifest: str | None = None
) -> dict[str, Any]:
    """What a receipt notes of a mask, which has to lie where the receipt says."""
    shape, unit = tuple(receipt["shape"]), receipt["unit"]
    codes: dict[str, int] = {}
    affine = np.eye(4) if unit == "px" else np.array(receipt["affine"], np.float64)
    if mask.suffix.lower() != ".png":
        header = nifti.read_header(mask)
        codes = {name: int(header[name]) for name in ("sform_code", "qform_code")}
        height, width, frames = shape
        stored = (STACK_AFFINE, (width, height, frames)) if unit == "px" else (affine, shape)
        try:
            require_same_grid(Grid(manifest or str(mask), stored[1], stored[0]), nifti.read_grid(mask, header))
        except MedsegError as error:  # the advice for labels, to resample them, would make it worse
            raise MedsegError(f"{str(error).rpartition(';')[0]}; {_ADVICE}") from error
    labels = read_labels_back(mask, unit)
    require_same_size(mask, shape, labels.shape)
    counts, centroids = _census(labels)
    kept = sorted({*values, *np.flatnonzero(counts).tolist()} - {0})
    places: dict[str, list[float] | None] = dict.fromkeys(map(str, kept))
    for value in kept:
        if counts[value]:
            places[str(value)] = (affine[:3, :3] @ centroids[value] + affine[:3, 3]).tolist()
    return {
        "file": mask.name,
        "sha256": hash_file(mask),
        **codes,
        "voxels": {str(value): int(counts[value]) for value in kept},
        _centroid_key(receipt): places,
    }


def _census(labels: Labels) -> tuple[Integer[np.ndarray, "256"], Float[np.ndarray, "256 3"]]:
    """How many voxels each value has, and the mean of their indices (NaN without one), slice by slice."""
    rows, columns = (np.arange(length) for length in labels.shape[:2])
    counts, sums = np.zeros(_VALUES, np.int64), np.zeros((_VALUES, 3))
    for k in range(labels.shape[2]):
        values = labels[:, :, k].astype(np.intp)
        if not values.any():
            counts[0] += values.size
            continue
        by_row, by_column = (
            np.bincount((values * len(indices) + along).ravel(), minlength=_VALUES * len(indices)).reshape(_VALUES, -1)
            for indices, along in ((rows, rows[:, None]), (columns, columns))
        )
        number = by_row.sum(1)
        counts += number
        sums += np.stack([by_row @ rows, by_column @ columns, number * k], axis=1)
    return counts, sums / np.where(counts, counts, 1)[:, None]


def _grid(source: Path, pick: Pick) -> Grid:
    """The grid of what was taken; of a picture, which is read one frame or whole, that is one frame or all."""
    grid = read_grid(source, pick)
    if not is_picture(source) or pick.frame is None:
        return grid
    return Grid(grid.name, (*grid.shape[:2], 1), grid.affine)


def _corners(shape: tuple[int, ...]) -> Float[np.ndarray, "8 3"]:
    return np.array(list(product(*((0, length - 1) for length in shape))), dtype=float)


def _centroid_key(receipt: Mapping[str, Any]) -> str:
    return "centroid_px" if receipt["unit"] == "px" else "centroid_ras"


def _place(position: Sequence[float]) -> str:
    return "(" + ", ".join(f"{coordinate:.4g}" for coordinate in position) + ")"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
