"""This file reads pictures that are stored as arrays: NumPy `.npy` and MATLAB `.mat` (version 5).

An array is [h w], [h w 3], [n h w] or [n h w 3], rows first. A last length of 3 is colours; of 4
(red, green, blue, and infrared or opacity), the first three are read.
"""

from __future__ import annotations

import logging
import struct
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import Shaped

from medseg.errors import MedsegError
from medseg.scans.grids import require_plausible_size

_log = logging.getLogger(__name__)
MATLAB_IMAGE, MATLAB_LABEL = "img", "imageData"
MATLAB_KEYS = (MATLAB_IMAGE, MATLAB_LABEL, "gt")
"""Names of the array in a `.mat` file, the first that is there; any other name, when it is the only array."""
_COLOURS = (3, 4)
_MATLAB_BYTES = {"logical": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4}
_MATLAB_BYTES |= {"int64": 8, "uint64": 8, "double": 8}
_DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)
# NumPy reads a header as a Python literal, and a nonsense one ends wherever Python's parser gives up.
_NONSENSE = (SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def read_array_header(path: Path) -> tuple[int, int, int]:
    """Frames, rows and columns.

    Raises:
        MedsegError: the file is damaged or holds no picture.
    """
    shape = _open_npy(path).shape if path.suffix.lower() == ".npy" else _choose_matlab(path)[1]
    return _layout(path, shape)[:3]


def read_array(path: Path, frame: int | None = None) -> Shaped[np.ndarray, "n h w c"]:
    """Values as they are stored, of all frames or of one.

    Raises:
        MedsegError: the file is damaged, or holds no picture of real numbers.
    """
    frames = _open_frames(path)
    chosen = frames if frame is None else frames[frame : frame + 1]
    return np.array(chosen, dtype=frames.dtype.newbyteorder("="))


def iterate_array(path: Path, frame: int | None = None) -> Iterator[Shaped[np.ndarray, "h w c"]]:
    """Give all frames, or one, in their order; of a `.npy` file one is in memory at a time.

    Raises:
        MedsegError: the file is damaged, or holds no picture of real numbers.
    """
    frames = _open_frames(path)
    for number in range(len(frames)) if frame is None else (frame,):
        yield np.array(frames[number], dtype=frames.dtype.newbyteorder("="))


def _open_frames(path: Path) -> Shaped[np.ndarray, "n h w c"]:
    """All frames, those of a `.npy` file not yet in memory."""
    values = _open_npy(path) if path.suffix.lower() == ".npy" else _read_matlab(path)
    if values.dtype.kind not in "buif":
        raise MedsegError(f"{path} must hold real numbers, got {values.dtype}; convert it")
    frames, height, width, channels = _layout(path, values.shape)
    if channels == 4:
        _log.info("%s has four channels; the first three are read as red, green and blue", path)
    if frames > 1:
        _log.info("%s has the shape %s, read as %d frames of %d x %d pixels", path, values.shape, frames, height, width)
    return values.reshape(frames, height, width, channels)[..., :3]


def _layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Frames, rows, columns, channels."""
    is_colour = len(shape) in (3, 4) and shape[-1] in _COLOURS
    spatial, channels = (shape[:-1], shape[-1]) if is_colour else (shape, 1)
    if len(spatial) not in (2, 3):
        found = " x ".join(map(str, shape)) or "one number"
        raise MedsegError(f"{path} must have the shape [h w], [h w 3], [n h w] or [n h w 3], got {found}; reshape it")
    if not min(spatial):
        raise MedsegError(f"{path} must have at least one pixel, got {' x '.join(map(str, shape))}; export it again")
    frames, height, width = spatial if len(spatial) == 3 else (1, *spatial)
    return frames, height, width, channels


def _open_npy(path: Path) -> np.ndarray:
    """The array, not yet in memory; a header that claims more than the file holds is refused by NumPy."""
    try:
        # The reader of one array: `np.load` would also open an archive of several, or a pickle.
        with np.errstate(over="ignore"):
            return np.lib.format.open_memmap(path, mode="r")
    except (*_DAMAGE, *_NONSENSE) as error:
        raise MedsegError(
            f"{path} must be a whole NumPy array of plain numbers, got {' '.join(str(error).split())!r}; save it again"
        ) from error


def _choose_matlab(path: Path) -> tuple[str, tuple[int, ...], str]:
    """Name, shape and type of the picture in a `.mat` file."""
    found = {name: (shape, kind) for name, shape, kind in _guarded(path, scipy.io.whosmat) if kind in _MATLAB_BYTES}
    name = next((key for key in MATLAB_KEYS if key in found), next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise MedsegError(
            f"{path} must hold one array, or one of the name {', '.join(MATLAB_KEYS)}, "
            f"got {', '.join(found) or 'none'}; save the picture alone"
        )
    shape, kind = found[name]
    require_plausible_size(path, (*shape, 1)[:3], _MATLAB_BYTES[kind], path.stat().st_size, compressed=True)
    return name, shape, kind


def _read_matlab(path: Path) -> np.ndarray:
    name, _, kind = _choose_matlab(path)
    values = _guarded(path, scipy.io.loadmat, variable_names=[name])[name]
    return values.astype(bool) if kind == "logical" else values


def _guarded(path: Path, read: Any, **options: Any) -> Any:
    """What scipy's reader gives; its errors as one line."""
    try:
        return read(str(path), **options)
    except NotImplementedError as error:
        raise MedsegError(
            f"{path} must be a MATLAB file of version 5, got version 7.3 (HDF5); save it with save(..., '-v7')"
        ) from error
    except (*_DAMAGE, scipy.io.matlab.MatReadError) as error:
        raise MedsegError(
            f"{path} must be a whole MATLAB file, got {' '.join(str(error).split())!r}; save it again"
        ) from error
