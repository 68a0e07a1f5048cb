"""This file reads scans and labels of every kind as NumPy arrays, with their grid.

Neither torch nor MONAI is needed here, so that checks, scores, proofs and exports start at once and stay small;
`readers` wraps the same arrays for the stages that compute with MONAI.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from medseg.scans.grids import Grid
from medseg.scans.names import is_picture
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.picture_labels import read_label_frames
from medseg.scans.pictures import picture_grid
from medseg.scans.schemes import LabelScheme
from medseg.scans.values import mend_non_finite, require_contrast
from medseg.scans.volumes import read_volume, read_volume_grid, read_volume_labels


def read_grid(path: Path, pick: Pick = WHOLE) -> Grid:
    """Shape and affine of a scan from its header alone.

    Args:
        path: the scan.
        pick: what to take of it, where that changes the grid.

    Raises:
        MedsegError: the header is missing or broken.
    """
    return picture_grid(path) if is_picture(path) else read_volume_grid(path, pick)


def read_values(path: Path, pick: Pick = WHOLE) -> tuple[Float[np.ndarray, "i j k"], Grid]:
    """The grey values of a volume as float32, and their grid.

    A few values that are NaN (under 1 %) become the least finite value, and that is logged.

    Raises:
        MedsegError: the file cannot be read safely, or its values carry no image.
    """
    values, grid = read_volume(path, pick)
    mend_non_finite(path, values)
    require_contrast(path, float(values.min()), float(values.max()))
    return values, grid


def read_label_values(path: Path, scheme: LabelScheme | None = None) -> tuple[Integer[np.ndarray, "i j k"], Grid]:
    """The class of each voxel, and the grid: uint8 of a volume; of a picture int16 [h, w, n], -1 where unlabelled.

    Values 0 and 255 alone are read as 0 and 1, and float files of whole numbers are read; both are logged. A label
    without foreground is allowed.

    Args:
        path: the label file.
        scheme: which colour or stored value means which class, for pictures.

    Raises:
        MedsegError: the file cannot be read safely, or holds anything but whole numbers from 0 to 255.
    """
    if not is_picture(path):
        return read_volume_labels(path)
    labels = np.ascontiguousarray(np.moveaxis(read_label_frames(path, scheme), 0, -1))
    height, width, frames = labels.shape
    return labels, Grid(str(path), (height, width, frames), np.eye(4))
