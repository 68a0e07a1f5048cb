"""This file reads images and labels as `MetaTensor`s with an affine in mm, RAS+.

An *image* has grey values, a *label file* whole numbers. The reader is a MONAI `ImageReader`, so it
also serves `LoadImage`. A *frame* counts from 0 over everything beyond the third dimension. Pictures,
arrays and videos are volumes too: their third axis is the frame, their unit the pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Num
from monai.data import ImageReader, MetaTensor
from monai.utils import ensure_tuple

from medseg.errors import MedsegError
from medseg.scans import itk_formats, nifti
from medseg.scans.grids import Grid
from medseg.scans.names import EXTENSIONS, KINDS, is_picture, split_extension
from medseg.scans.picture_labels import read_picture_labels
from medseg.scans.pictures import picture_grid, picture_metadata, read_picture
from medseg.scans.schemes import LabelScheme
from medseg.scans.values import mend_non_finite

_log = logging.getLogger(__name__)
_SLICES_AT_ONCE = 16
_LARGEST_LABEL = 255


@dataclass(frozen=True)
class _Request:
    """A file that will be read by `ScanReader.get_data`."""

    path: Path
    frame: int | None


class ScanReader(ImageReader):
    """MONAI reader of one frame of a scan, float32 [i, j, k], or of a picture, [c, h, w, n], and its metadata.

    Nothing is opened before `get_data`: `LoadImage` would answer an error of `read` by trying its
    other readers, which accept what is refused here.

    Args:
        frame: which frame to take, from 0; none refuses scans with more than one, and takes all of a picture.
    """

    def __init__(self, frame: int | None = None) -> None:
        self.frame = frame

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Whether every name has an extension that is read here."""
        return all(_is_known(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[Any] | Any, **_: Any) -> _Request:
        """Note which file is wanted.

        Raises:
            MedsegError: more than one file is given.
        """
        paths = [Path(name) for name in ensure_tuple(data)]
        if len(paths) != 1:
            raise MedsegError(f"a scan must be one file, got {len(paths)}; give one")
        return _Request(paths[0], self.frame)

    def get_data(self, img: _Request) -> tuple[Float[np.ndarray, "*c i j k"], dict[str, Any]]:
        """Values as float32 and metadata with the affine (RAS+, mm; pixels in a picture).

        Raises:
            MedsegError: the file is missing, broken, too large, coloured, or has several frames.
        """
        path = img.path
        if is_picture(path):
            picture = read_picture(path, frame=img.frame)
            return picture.numpy(), picture_metadata(path, picture.shape[1:])
        _require_known(path)
        if itk_formats.is_itk_format(path):
            itk_header = itk_formats.read_header(path)
            if itk_header.is_colour:
                raise MedsegError(f"{path} must hold grey values, got colours; convert it to grey")
            grid, frames = itk_header.grid, (*itk_header.shape[3:], itk_header.channels)
            frame = _require_frame(path, grid.shape, frames, img.frame)
            values = _to_float32(itk_formats.read_voxels(path, itk_header, frame), 1.0, 0.0)
        else:
            header = nifti.read_header(path)
            grid, frames = nifti.read_grid(path, header), nifti.stored_shape(header)[3:]
            frame = _require_frame(path, grid.shape, frames, img.frame)
            values = _to_float32(*nifti.read_voxels(path, header, frame))
        metadata = {
            "affine": grid.affine,
            "original_affine": grid.affine.copy(),
            "spatial_shape": np.array(grid.shape),
            "space": "RAS",
            "original_channel_dim": "no_channel",
        }
        return values, metadata


def read_grid(path: Path) -> Grid:
    """Shape and affine of a scan from its header alone.

    Raises:
        MedsegError: the header is missing or broken.
    """
    if is_picture(path):
        return picture_grid(path)
    _require_known(path)
    if itk_formats.is_itk_format(path):
        return itk_formats.read_header(path).grid
    return nifti.read_grid(path, nifti.read_header(path))


def grid_of(volume: MetaTensor) -> Grid:
    """The grid of a volume [c, i, j, k] that was read here, named after its file."""
    i, j, k = volume.shape[-3:]
    return Grid(str(volume.meta["filename_or_obj"]), (i, j, k), np.asarray(volume.affine, dtype=np.float64))


def read_image(path: Path, *, frame: int | None = None) -> MetaTensor:
    """Read the grey values of a scan, float32 [1, i, j, k] with a float64 affine (RAS+, mm).

    A picture is [c, h, w, n] from 0 to 1, see `read_picture`. A few values that are not finite
    (under 1 %) become the least finite value, and that is logged.

    Args:
        path: the scan.
        frame: which frame, from 0, of a file that has several.

    Raises:
        MedsegError: the file cannot be read safely, or its values carry no image.
    """
    if is_picture(path):
        image = read_picture(path, frame=frame)
    else:
        image = _load(path, frame)
        mend_non_finite(path, image.as_tensor())
    if image.min() == image.max():
        value = image.max().item()
        if not is_picture(path):
            raise MedsegError(f"{path} must show something, got {value:g} in every voxel; choose another scan")
        _log.warning("%s shows nothing: %g in every pixel", path, value)  # one black tile or frame spoils no folder
    return image


def read_labels(path: Path, scheme: LabelScheme | None = None) -> MetaTensor:
    """Read whole-number labels, uint8 [1, i, j, k] with a float64 affine (RAS+, mm).

    Those of a picture are int16 [1, h, w, n] with -1 where nothing is labelled, see `read_picture_labels`.

    Values 0 and 255 alone are read as 0 and 1, and float files of whole numbers are read; both are
    logged. A label without foreground is allowed.

    Args:
        path: the label file.
        scheme: which colour or stored value means which class, for pictures.

    Raises:
        MedsegError: the file cannot be read safely, or holds anything but whole numbers from 0 to 255.
    """
    if is_picture(path):
        return read_picture_labels(path, scheme)
    values = _load(path, None)
    broken = values.as_tensor()[~torch.isfinite(values) | (values != values.round())]
    if len(broken):
        raise MedsegError(f"{path} must hold whole-number labels, got {broken[0].item():g}; threshold it first")
    lowest, highest = values.min().item(), values.max().item()
    if lowest < 0 or highest > _LARGEST_LABEL:
        strange = lowest if lowest < 0 else highest
        raise MedsegError(f"{path} must hold labels from 0 to {_LARGEST_LABEL}, got {strange:g}; renumber them")
    labels = cast(MetaTensor, values.to(torch.uint8))
    if highest == _LARGEST_LABEL and not ((labels > 0) & (labels < _LARGEST_LABEL)).any():
        _log.info("%s holds 0 and 255, read as 0 and 1", path)
        labels = cast(MetaTensor, labels // _LARGEST_LABEL)
    if _stores_floats(path):
        _log.info("%s holds whole numbers stored as floats, read as labels", path)
    return labels


def _load(path: Path, frame: int | None) -> MetaTensor:
    """One volume by our reader alone: `LoadImage` would set up all of MONAI's, some of which warn."""
    reader = ScanReader(frame)
    values, metadata = reader.get_data(reader.read(path))
    return MetaTensor(torch.from_numpy(values)[None], meta={**metadata, "filename_or_obj": str(path)})


def _is_known(path: Path) -> bool:
    return is_picture(path) or split_extension(path.name)[1] in (*EXTENSIONS, ".img")


def _require_known(path: Path) -> None:
    if not _is_known(path):
        raise MedsegError(f"{path} must be {KINDS}, got {path.suffix or 'no extension'}; convert it")
    if not path.is_file():
        raise MedsegError(f"{path} must be a file, got {'a folder' if path.is_dir() else 'none'}; check the name")


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
    if itk_formats.is_itk_format(path):
        return itk_formats.read_header(path).is_float
    return nifti.read_header(path).get_data_dtype().kind == "f"
