"""This file reads one volume of a NIfTI, MetaImage, NRRD or DICOM file as a NumPy array, with the grid it lies on.

A *frame* counts from 0 over everything beyond the third dimension. Neither torch nor MONAI is needed here, so that
the check of untrusted files, in a process of its own, starts at once and stays small.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num, UInt8

from medseg.errors import MedsegError
from medseg.scans import itk_formats, nifti
from medseg.scans.contents import require_content_of_name
from medseg.scans.grids import Grid
from medseg.scans.names import EXTENSIONS, KINDS, is_dicom, is_picture, split_extension
from medseg.scans.picks import WHOLE, Pick

_log = logging.getLogger(__name__)
_SLICES_AT_ONCE = 16
LARGEST_LABEL = 255
"""Masks and labels are stored as uint8."""


def read_volume_grid(path: Path, pick: Pick = WHOLE) -> Grid:
    """Shape and affine of a volume from its header alone.

    Args:
        path: the scan.
        pick: what to take of it, where that changes the grid.

    Raises:
        MedsegError: the header is missing or broken.
    """
    require_known(path)
    if is_dicom(path):
        from medseg.scans.dicom.volumes import open_volume

        return open_volume(path, pick).grid
    if itk_formats.is_itk_format(path):
        return itk_formats.read_header(path).grid
    return nifti.read_grid(path, nifti.read_header(path))


def read_volume(path: Path, pick: Pick = WHOLE) -> tuple[Float[np.ndarray, "i j k"], Grid]:
    """Values as float32, not yet checked, and their grid.

    Args:
        path: the scan.
        pick: what to take of a file that holds several volumes.

    Raises:
        MedsegError: the file is missing, broken, too large, coloured, or has several frames.
    """
    require_known(path)
    if is_dicom(path):
        from medseg.scans.dicom.volumes import open_volume, read_values

        volume = open_volume(path, pick)
        _require_channel(path, 1, pick.channel)
        frame = _require_frame(path, volume.grid.shape, (volume.frames,), pick.frame)
        return read_values(volume, frame), volume.grid
    if itk_formats.is_itk_format(path):
        itk_header = itk_formats.read_header(path)
        grid, times, channels = itk_header.grid, itk_header.shape[3:], itk_header.channels
        channel = _require_channel(path, channels, pick.channel, is_colour=itk_header.is_colour)
        frame = _require_frame(path, grid.shape, times if channel is not None else (*times, channels), pick.frame)
        if channel is not None:
            frame = frame * channels + channel
        return _to_float32(itk_formats.read_voxels(path, itk_header, frame), 1.0, 0.0), grid
    header = nifti.read_header(path)
    grid, beyond = nifti.read_grid(path, header), nifti.stored_shape(header)[3:]
    if colours := nifti.colours(header):
        channel = _require_channel(path, colours, pick.channel, is_colour=True)
        frame = _require_frame(path, grid.shape, beyond, pick.frame)
        return _to_float32(*nifti.read_voxels(path, header, frame, channel)), grid
    # The standard keeps time in the fourth dimension and several values of a voxel in the fifth.
    times = beyond[:1] or (1,)
    channel = _require_channel(path, int(np.prod(beyond[1:], dtype=np.int64)), pick.channel)
    frame = _require_frame(path, grid.shape, beyond if channel is None else times, pick.frame)
    return _to_float32(*nifti.read_voxels(path, header, frame + (channel or 0) * times[0])), grid


def read_volume_labels(path: Path) -> tuple[UInt8[np.ndarray, "i j k"], Grid]:
    """Whole-number labels and their grid.

    Values 0 and 255 alone are read as 0 and 1, and float files of whole numbers are read; both are logged.

    Raises:
        MedsegError: the file cannot be read safely, or holds anything but whole numbers from 0 to 255.
    """
    values, grid = read_volume(path)
    broken = values[~np.isfinite(values) | (values != np.round(values))]
    if len(broken):
        raise MedsegError(
            f"{path} must hold whole-number labels, got {len(broken)} voxels that are not, such as {broken[0]:g}; "
            "threshold it first"
        )
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > LARGEST_LABEL:
        found = " and ".join(f"{value:g}" for value in (lowest, highest) if not 0 <= value <= LARGEST_LABEL)
        raise MedsegError(f"{path} must hold labels from 0 to {LARGEST_LABEL}, got {found}; renumber them")
    labels = values.astype(np.uint8)
    if highest == LARGEST_LABEL and not ((labels > 0) & (labels < LARGEST_LABEL)).any():
        _log.info("%s holds 0 and 255, read as 0 and 1", path)
        labels //= LARGEST_LABEL
    if _stores_floats(path):
        _log.info("%s holds whole numbers stored as floats, read as labels", path)
    return labels, grid


def is_known(path: Path) -> bool:
    """Whether a file is a volume, a picture or a video, by its name, or DICOM by its content."""
    return is_picture(path) or split_extension(path.name)[1] in (*EXTENSIONS, ".img") or is_dicom(path)


def require_known(path: Path) -> None:
    """Check that there is such a file and that its name is one that is read here.

    Raises:
        MedsegError: it is not.
    """
    if not is_known(path):
        raise MedsegError(f"{path} must be {KINDS}, got {path.suffix or 'no extension'}; convert it")
    if not path.is_file() and not is_dicom(path):
        raise MedsegError(f"{path} must be a file, got {'a folder' if path.is_dir() else 'none'}; check the name")
    require_content_of_name(path)


def _require_frame(path: Path, spatial: Sequence[int], frames: Sequence[int], frame: int | None) -> int:
    count = int(np.prod(frames, dtype=np.int64))
    stored = " x ".join(map(str, (*spatial, *(length for length in frames if length > 1))))
    if frame is None and count > 1:
        raise MedsegError(
            f"{path} must hold one frame, got {count} ({stored}); "
            f"choose one with --frame N, 0 (the first) to {count - 1}"
        )
    if frame is not None and not 0 <= frame < count:
        raise MedsegError(f"{path} must have frame {frame} (0 is the first), got {count} in all; choose another")
    return frame or 0


def _require_channel(path: Path, count: int, channel: int | None, *, is_colour: bool = False) -> int | None:
    """The channel that is asked for, which must be there; colours are no frames, so of them one must be chosen."""
    if channel is None and is_colour:
        raise MedsegError(
            f"{path} must hold grey values, got colours; choose one of them with --channel N, 0 (red) to {count - 1}"
        )
    if channel is not None and not 0 <= channel < count:
        raise MedsegError(f"{path} must have channel {channel} (0 is the first), got {count} in all; choose another")
    return channel


def _to_float32(stored: Num[np.ndarray, "i j k"], slope: float, intercept: float) -> Float[np.ndarray, "i j k"]:
    """Scaled values, computed in float64 for some slices at a time so that no full copy of them exists."""
    values = np.empty(stored.shape, np.float32)
    scaled = (slope, intercept) != (1.0, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range becomes infinite and is counted later
        for first in range(0, stored.shape[2], _SLICES_AT_ONCE):
            slices = stored[..., first : first + _SLICES_AT_ONCE]
            values[..., first : first + _SLICES_AT_ONCE] = slices * np.float64(slope) + intercept if scaled else slices
    return values


def _stores_floats(path: Path) -> bool:
    if is_dicom(path):
        return False
    if itk_formats.is_itk_format(path):
        return itk_formats.read_header(path).is_float
    return nifti.read_header(path).get_data_dtype().kind == "f"
