"""This file writes what the review page shows of a case as *blobs*: gzipped NIfTI files on the grid of the mask.

All blobs of a case carry the header of its mask but for what describes the values, so that they lie on each other bit
for bit. Grey values are stored as small as the screen allows: whole numbers as they are, others in steps that no window
of the page can tell from the true value. Probabilities and uncertainties are 255ths.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num, Shaped, UInt8

from medseg.files import replacing
from medseg.scans import nifti

SHARE_STEPS = 255
"""Steps from 0 to 1 of a probability or an uncertainty: more cannot be told apart on a screen."""
SCREEN_LEVELS = 256
"""Greys of a screen."""
FINEST_WINDOW = 1 / 16
"""Share of the first window that the narrowest one may have which a reader sets by hand."""
_COMPRESSION = 5
"""Of gzip: a volume in a second or two; more takes twice as long and spares 1 %."""
_TEXTS = ("descrip", "aux_file", "db_name", "intent_name")
"""Fields of a header in which names of patients may stand."""
_INT16 = np.iinfo(np.int16)


class Stored(NamedTuple):
    """Values as they are stored, and the line that takes them back: `slope * stored + intercept`."""

    values: Num[np.ndarray, "i j k"]
    slope: float
    intercept: float


def stored_grey(image: Float[np.ndarray, "i j k"], window: tuple[float, float]) -> Stored:
    """Choose the smallest kind of number that shows an image without a loss that can be seen.

    Args:
        image: finite values.
        window: that is shown first; a reader may narrow it to `FINEST_WINDOW` of it.

    Returns:
        uint8 or int16 for whole numbers that fit; int16 with a slope where its steps are finer than a screen shows;
        else the float32 values.
    """
    low, high = float(image.min()), float(image.max())
    if _INT16.min <= low and high <= _INT16.max and _is_whole(image):
        return Stored(image.astype(np.uint8 if low >= 0 and high <= 255 else np.int16), 1.0, 0.0)
    step = (high - low) / (_INT16.max - _INT16.min)
    finest = (window[1] - window[0]) * FINEST_WINDOW / SCREEN_LEVELS
    if not 0 < step <= finest:
        return Stored(image.astype(np.float32), 1.0, 0.0)
    stored = np.empty(image.shape, np.int16)
    for k in range(image.shape[2]):  # in float64, a slice at a time
        stored[:, :, k] = np.rint((image[:, :, k].astype(np.float64) - low) / step) + _INT16.min
    return Stored(stored, step, low - _INT16.min * step)


def stored_share(share: Float[np.ndarray, "i j k"]) -> Stored:
    """Values from 0 to 1 as 255ths; beyond, they are cut off."""
    return Stored(np.rint(np.clip(share, 0, 1) * SHARE_STEPS).astype(np.uint8), 1 / SHARE_STEPS, 0.0)


def write_blob(path: Path, stored: Stored, header: nifti.Header, *, window: tuple[float, float] = (0.0, 0.0)) -> None:
    """Write values on the grid that a header describes.

    Args:
        path: where to.
        stored: the values.
        header: of the mask, little-endian; it stays as it is.
        window: that a viewer shows first; none when both ends are 0.
    """
    own = header.copy()
    own.set_data_dtype(stored.values.dtype.newbyteorder("<"))
    own["scl_slope"], own["scl_inter"] = stored.slope, stored.intercept
    own["cal_min"], own["cal_max"] = window
    for text in _TEXTS:
        if text in own:
            own[text] = b""
    write_voxels(path, stored.values, own)


def write_voxels(path: Path, values: Shaped[np.ndarray, "i j k"], header: nifti.Header) -> None:
    """Write voxels under a header that already describes them, slice by slice; equal ones give equal files."""
    dtype = header.get_data_dtype()
    with (
        replacing(path) as beside,
        beside.open("wb") as stream,
        # Neither name nor time goes into the gzip header, so that equal volumes are equal files.
        gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0) as deflated,
    ):
        deflated.write(header.binaryblock + bytes(4))  # four zeros: no extensions
        for k in range(values.shape[2]):
            deflated.write(values[:, :, k].astype(dtype).tobytes(order="F"))


def read_mask(path: Path) -> tuple[UInt8[np.ndarray, "i j k"], nifti.Header]:
    """The labels of a mask that medseg wrote, and its header.

    Raises:
        MedsegError: it is missing or damaged.
    """
    header = nifti.read_header(path)
    labels, _, _ = nifti.read_voxels(path, header, 0)
    return np.asarray(labels).astype(np.uint8), header


def read_share(path: Path, frames: int = 1) -> Float[np.ndarray, "i j k"]:
    """A probability or uncertainty that medseg wrote; of several classes the largest in each voxel.

    Raises:
        MedsegError: it is missing or damaged.
    """
    header = nifti.read_header(path)
    largest: np.ndarray | None = None
    for frame in range(frames):
        values, _, _ = nifti.read_voxels(path, header, frame)
        largest = np.array(values) if largest is None else np.maximum(largest, values)
    assert largest is not None
    return largest.astype(np.float32)


def _is_whole(image: Float[np.ndarray, "i j k"]) -> bool:
    return all(bool((image[:, :, k] == np.rint(image[:, :, k])).all()) for k in range(image.shape[2]))
