"""This file reads NIfTI-1 and NIfTI-2 headers and voxels, trusting neither before it has checked them.

nibabel interprets the header; the header is kept *raw* (no repairs on the way in), because masks are
written with the very same fields. *Frames* are everything beyond the third dimension.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import nibabel
import numpy as np
from jaxtyping import Num
from nibabel.spatialimages import HeaderDataError

from medseg.errors import MedsegError
from medseg.files import lies_beside
from medseg.scans.grids import Grid, require_plausible_size

_log = logging.getLogger(__name__)

Header = nibabel.Nifti1Header  # Nifti2Header is a subclass

_GZIP_MAGIC = b"\x1f\x8b"
_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}  # of xyzt_units & 7: unknown, metre, millimetre, micrometre
_READ_ERRORS = (EOFError, OSError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI by its name."""
    return path.name.lower().endswith((".nii.gz", ".nii", ".hdr", ".img"))


def read_header(path: Path) -> Header:
    """The header as it is stored, byte order included.

    Args:
        path: `.nii`, `.nii.gz`, or either file of a `.hdr`/`.img` pair.

    Raises:
        MedsegError: the file is not a NIfTI file or cannot be read.
    """
    header_path = _partner(path, ".hdr") if path.suffix.lower() == ".img" else path
    try:
        with _opened(header_path) as stream:
            block = stream.read(540)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error
    for order in "<>":
        size = int.from_bytes(block[:4], "little" if order == "<" else "big")
        if size in _HEADERS and len(block) >= size:
            header = _HEADERS[size](block[:size], endianness=order, check=False)
            if bytes(header["magic"])[:2] in (b"n+", b"ni"):
                return header
            raise MedsegError(
                f"{path} must be a NIfTI file, got Analyze 7.5, which does not tell left from right; convert it"
            )
    raise MedsegError(f"{path} must be a NIfTI file, got other content; export the scan again")


def stored_shape(header: Header) -> tuple[int, ...]:
    """Every dimension the header names, frames and singletons included."""
    return tuple(int(length) for length in header["dim"][1 : int(header["dim"][0]) + 1])


def spatial_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The first three dimensions; what a 2-D file lacks is 1."""
    i, j, k = (*shape, 1, 1, 1)[:3]
    return i, j, k


def read_grid(path: Path, header: Header) -> Grid:
    """Shape and affine in mm: the sform where its code says so, else the qform, else the voxel size alone.

    Raises:
        MedsegError: the geometry is not usable.
    """
    shape = stored_shape(header)
    if not shape or min(shape) < 1:
        raise MedsegError(f"{path} must have at least one voxel along each axis, got {shape}; export it again")
    trusted = header.copy()
    pixdim = trusted["pixdim"]
    if len(shape) < 3 and pixdim[3] == 0:
        pixdim[3] = 1  # a 2-D file need not say how thick it is
    if pixdim[0] not in (-1, 1):
        pixdim[0] = 1  # the standard: 0 means 1
    if int(header["sform_code"]) <= 0 and not (np.isfinite(pixdim[1:4]) & (pixdim[1:4] > 0)).all():
        sizes = " x ".join(f"{size:g}" for size in pixdim[1:4])
        raise MedsegError(f"{path} must have finite voxel sizes above 0, got {sizes} and no sform; mend its header")
    try:
        affine = np.asarray(trusted.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise MedsegError(f"{path} must have a usable affine, got {_line(error)}; mend its header") from error
    affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return Grid(str(path), spatial_shape(shape), affine)


def colours(header: Header) -> int:
    """How many colours a voxel has: 3 or 4, or 0 where it has a number."""
    try:
        return len(header.get_data_dtype().fields or ())
    except (HeaderDataError, KeyError):  # an unknown format is told when the voxels are read
        return 0


def read_voxels(
    path: Path, header: Header, frame: int, colour: int | None = None
) -> tuple[Num[np.ndarray, "i j k"], float, float]:
    """The voxels of one frame as stored, with the slope and the intercept that turn them into values.

    Args:
        path: the file.
        header: of the same file.
        frame: from 0, over everything beyond the third dimension.
        colour: which one to take where a voxel has several, from 0.

    Raises:
        MedsegError: the voxels are coloured or complex, are not all there, or do not fit in memory.
    """
    dtype, slope, intercept = _number_format(path, header, colour)
    shape = stored_shape(header)
    data_path, offset = _data_place(path, header)
    compressed = _is_gzip(data_path)
    if compressed != (data_path.suffix.lower() == ".gz"):
        _log.warning(
            "%s is %s; it is read as what it is",
            data_path,
            "gzip-compressed although its name does not say so"
            if compressed
            else "not gzip-compressed although its name says so",
        )
    stored = data_path.stat().st_size - (0 if compressed else offset)
    require_plausible_size(path, shape, dtype.itemsize, max(stored, 0), compressed=compressed)
    spatial = spatial_shape(shape)
    count = math.prod(spatial)
    start = offset + frame * count * dtype.itemsize
    if not compressed:
        mapped = np.memmap(data_path, dtype, mode="r", offset=start, shape=spatial, order="F")
        return _of_colour(mapped, colour), slope, intercept
    raw = np.empty(count, dtype)
    try:
        with _opened(data_path) as stream:
            stream.seek(start)
            _fill(stream, raw.data.cast("B"))
            if (frame + 1) * count == math.prod(shape):
                stream.read(1)  # reaches the end, where gzip compares the checksum
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error
    return _of_colour(raw.reshape(spatial, order="F"), colour), slope, intercept


def _of_colour(voxels: np.ndarray, colour: int | None) -> np.ndarray:
    names = voxels.dtype.names
    return voxels if names is None or colour is None else voxels[names[colour]]


def _number_format(path: Path, header: Header, colour: int | None) -> tuple[np.dtype, float, float]:
    try:
        dtype = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
    except (HeaderDataError, KeyError) as error:
        raise MedsegError(f"{path} must hold a known number format, got {_line(error)}; export it again") from error
    if dtype.fields is not None:
        if colour is None:
            raise MedsegError(f"{path} must hold grey values, got colours; choose one of them with --channel N")
        return dtype, 1.0, 0.0
    if dtype.kind not in "iuf":
        raise MedsegError(f"{path} must hold real numbers, got {dtype}; convert it, for example to its magnitude")
    return dtype, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _data_place(path: Path, header: Header) -> tuple[Path, int]:
    offset = float(header["vox_offset"])
    if not 0 <= offset < 1 << 40:
        raise MedsegError(f"{path} must say where its voxels begin, got offset {offset:g}; export it again")
    if bytes(header["magic"])[:2] == b"ni":
        return _partner(path, ".img"), int(offset)
    return path, max(int(offset), int(header["sizeof_hdr"]) + 4)


def _partner(path: Path, suffix: str) -> Path:
    for candidate in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
        if candidate.is_file():
            if not lies_beside(path, candidate):
                raise MedsegError(f"{path} must have its partner beside it, got the link {candidate}; copy both")
            return candidate
    raise MedsegError(f"{path} must have its partner {path.with_suffix(suffix).name} beside it, got none; copy both")


def _fill(stream: BinaryIO, buffer: memoryview) -> None:
    done = 0
    while done < len(buffer):
        read = stream.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{len(buffer) - done} of {len(buffer)} bytes are missing")
        done += read


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file, whichever its content is."""
    with path.open("rb") as stream:
        magic = stream.read(2)
        if not magic:
            raise MedsegError(f"{path} must hold an image, got an empty file; copy it again")
        stream.seek(0)
        if magic == _GZIP_MAGIC:
            with gzip.open(stream) as inflated:
                yield cast(BinaryIO, inflated)
        else:
            yield stream


def _damaged(path: Path, error: Exception) -> MedsegError:
    if isinstance(error, FileNotFoundError):
        return MedsegError(f"{path} must exist, got no such file; check the name")
    if isinstance(error, PermissionError):
        return MedsegError(f"{path} must be readable, got {error.strerror}; change its permissions")
    return MedsegError(f"{path} must be whole, got {_line(error)}; it is cut or damaged, copy it again")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
