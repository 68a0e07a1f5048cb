"""This file turns frames of pictures into a volume that viewers show upright, and back.

*Frames* are `h w n`: row from the top, column from the left, frame. A *stack* is `w h n` with the `STACK_AFFINE`:
its first axis runs from the patient's right to the left and its second upwards, so that ITK-SNAP and 3D Slicer show
each frame as the picture looks. Unit: pixels, because pictures state no millimetres.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Shaped

from medseg.errors import MedsegError
from medseg.files import replacing

STACK_AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])
_NIFTI1_HEADER = 352
"""Bytes before the voxels: the header and four that say that nothing else comes."""
_COMPRESSION = 1
"""Of gzip: uncertainties hardly shrink, and higher levels take many times as long over a cine."""


def as_stack(frames: Shaped[np.ndarray, "h w n"]) -> Shaped[np.ndarray, "w h n"]:
    """Frames as the voxels of a stack."""
    return np.ascontiguousarray(frames[::-1].swapaxes(0, 1))


def as_frames(stack: Shaped[np.ndarray, "w h n"]) -> Shaped[np.ndarray, "h w n"]:
    """Voxels of a stack as frames."""
    return np.ascontiguousarray(stack.swapaxes(0, 1)[::-1])


def write_stack(path: Path, frames: Shaped[np.ndarray, "h w n"]) -> None:
    """Write frames as one `.nii.gz`, atomically."""
    with open_stack(path, frames.shape, frames.dtype) as write:
        for number in range(frames.shape[2]):
            write(frames[:, :, number])


@contextmanager
def open_stack(
    path: Path, shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[Callable[[Shaped[np.ndarray, "h w"]], None]]:
    """Give a function that writes the next frame of one `.nii.gz`, so that no more than one has to be in memory.

    The file appears when the block ends well.

    Args:
        path: where to.
        shape: rows, columns, frames.
        dtype: of the values.

    Raises:
        ValueError: other frames came than were announced.
    """
    height, width, count = shape
    voxels = np.broadcast_to(np.zeros((), dtype), (width, height, count))  # takes no memory
    header = nibabel.Nifti1Image(voxels, STACK_AFFINE).header
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, _NIFTI1_HEADER
    written = 0
    with (
        replacing(path) as beside,
        beside.open("wb") as stream,
        # Neither name nor time goes into the gzip header, so that equal frames are equal files.
        gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0) as deflated,
    ):
        deflated.write(header.binaryblock + bytes(4))  # four zeros: no extensions

        def write(frame: Shaped[np.ndarray, "h w"]) -> None:
            nonlocal written
            if frame.shape != (height, width):
                raise ValueError(f"frames must have the shape {(height, width)}, got {frame.shape}")
            deflated.write(frame[::-1].astype(header.get_data_dtype()).tobytes())  # columns are the faster axis
            written += 1

        yield write
        if written != count:
            raise ValueError(f"{path} must get {count} frames, got {written}")


def read_stack(path: Path) -> Shaped[np.ndarray, "h w n"]:
    """Read frames that `write_stack` wrote.

    Raises:
        MedsegError: the file is missing or broken.
    """
    try:
        return as_frames(np.asarray(nibabel.load(path).dataobj))  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        reason = " ".join(str(error).split())
        raise MedsegError(f"{path} must be a stack of frames, got {reason}; reconstruct it again") from error
