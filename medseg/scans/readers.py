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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from monai.data import ImageReader, MetaTensor
from monai.utils import ensure_tuple

from medseg.errors import MedsegError
from medseg.scans.arrays import read_label_values, read_values
from medseg.scans.grids import Grid
from medseg.scans.names import is_picture
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.pictures import read_picture_values
from medseg.scans.schemes import LabelScheme
from medseg.scans.volumes import is_known, read_volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    """A file that will be read by `ScanReader.get_data`."""

    path: Path
    pick: Pick


class ScanReader(ImageReader):
    """MONAI reader of one frame of a scan, float32 [i, j, k], or of a picture, [c, h, w, n], and its metadata.

    Nothing is opened before `get_data`: `LoadImage` would answer an error of `read` by trying its
    other readers, which accept what is refused here.

    Args:
        pick: what to take; no frame refuses scans with more than one, and takes all of a picture.
    """

    def __init__(self, pick: Pick = WHOLE) -> None:
        self.pick = pick

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Whether every name has an extension that is read here."""
        return all(is_known(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[Any] | Any, **_: Any) -> _Request:
        """Note which file is wanted.

        Raises:
            MedsegError: more than one file is given.
        """
        paths = [Path(name) for name in ensure_tuple(data)]
        if len(paths) != 1:
            raise MedsegError(f"a scan must be one file, got {len(paths)}; give one")
        return _Request(paths[0], self.pick)

    def get_data(self, img: _Request) -> tuple[Float[np.ndarray, "*c i j k"], dict[str, Any]]:
        """Values as float32 and metadata with the affine (RAS+, mm; pixels in a picture).

        Raises:
            MedsegError: the file is missing, broken, too large, coloured, or has several frames.
        """
        if is_picture(img.path):
            picture = read_picture(img.path, img.pick)
            return picture.numpy(), dict(picture.meta)
        values, grid = read_volume(img.path, img.pick)
        return values, _metadata(grid)


def grid_of(volume: MetaTensor) -> Grid:
    """The grid of a volume [c, i, j, k] that was read here, named after its file."""
    i, j, k = volume.shape[-3:]
    return Grid(str(volume.meta["filename_or_obj"]), (i, j, k), np.asarray(volume.affine, dtype=np.float64))


def read_image(path: Path, pick: Pick = WHOLE) -> MetaTensor:
    """Read the grey values of a scan, float32 [1, i, j, k] with a float64 affine (RAS+, mm).

    A picture is [c, h, w, n] from 0 to 1, see `read_picture`. A few values that are NaN
    (under 1 %) become the least finite value, and that is logged.

    Args:
        path: the scan.
        pick: what to take of a file that holds several volumes.

    Raises:
        MedsegError: the file cannot be read safely, or its values carry no image.
    """
    if not is_picture(path):
        return _volume(*read_values(path, pick))
    image = read_picture(path, pick)
    if image.min() == image.max():  # one black tile or frame spoils no folder
        _log.warning("%s shows nothing: %g in every pixel", path, image.max().item())
    return image


def read_picture(path: Path, pick: Pick = WHOLE) -> MetaTensor:
    """Read grey values or colours, float32 [c, h, w, n] from 0 to 1, see `read_picture_values`; the affine is one.

    Raises:
        MedsegError: the file cannot be read.
    """
    volume = torch.from_numpy(read_picture_values(path, pick)).permute(3, 1, 2, 0).contiguous()
    height, width, frames = volume.shape[1:]
    grid = Grid(str(path), (height, width, frames), np.eye(4))
    return MetaTensor(volume, meta=_metadata(grid) | {"original_channel_dim": 0, "filename_or_obj": str(path)})


def read_labels(path: Path, scheme: LabelScheme | None = None) -> MetaTensor:
    """Read whole-number labels, uint8 [1, i, j, k] with a float64 affine (RAS+, mm).

    Those of a picture are int16 [1, h, w, n] with -1 where nothing is labelled, see `read_label_frames`.

    Values 0 and 255 alone are read as 0 and 1, and float files of whole numbers are read; both are
    logged. A label without foreground is allowed.

    Args:
        path: the label file.
        scheme: which colour or stored value means which class, for pictures.

    Raises:
        MedsegError: the file cannot be read safely, or holds anything but whole numbers from 0 to 255.
    """
    return _volume(*read_label_values(path, scheme))


def _volume(values: Shaped[np.ndarray, "i j k"], grid: Grid) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values)[None], meta=_metadata(grid) | {"filename_or_obj": grid.name})


def _metadata(grid: Grid) -> dict[str, Any]:
    return {
        "affine": grid.affine,
        "original_affine": grid.affine.copy(),
        "spatial_shape": np.array(grid.shape),
        "space": "RAS",
        "original_channel_dim": "no_channel",
    }
