"""This file holds a mask that is to be exported, with all that the exports need to know of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry
from medseg.scans import nifti
from medseg.scans.grids import Grid

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LEAST_SHEAR = 1e-4
"""Cosine of the angle between two voxel axes from which they are not square; headers round to about 1e-6."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one case; a constructed mask names each of its values.

    Attributes:
        case_id: of the case.
        labels: class values on the grid; the frames of a picture as a stack (see `scans.stacks`).
        grid: where the voxels lie; RAS+, mm, or pixels in a picture.
        header: the NIfTI header with the forms and codes of the mask.
        classes: what the values mean.
        source: the scan, relative to where the scans are, with forward slashes.
        is_picture: whether the source is a picture, so that the unit is the pixel.
        is_reviewed: whether a person has accepted or corrected it.

    Raises:
        MedsegError: a value has no class.
    """

    case_id: str
    labels: UInt8[np.ndarray, "i j k"]
    grid: Grid
    header: nifti.Header
    classes: Sequence[ClassEntry]
    source: str
    is_picture: bool = False
    is_reviewed: bool = False

    def __post_init__(self) -> None:
        """Refuse values without a name."""
        if unnamed := set(self.values) - {entry.value for entry in self.classes}:
            raise MedsegError(f"the mask of {self.case_id} must hold classes only, got {min(unnamed)}; name it")

    @cached_property
    def values(self) -> list[int]:
        """The class values that occur."""
        counts = sum(np.bincount(self.labels[:, :, k].ravel(), minlength=256) for k in range(self.labels.shape[2]))
        return [value for value in np.flatnonzero(counts).tolist() if value]

    @property
    def lps(self) -> np.ndarray:
        """Voxel index to x y z in mm, LPS+, as ITK and 3D Slicer's files count."""
        return _LPS @ self.grid.affine

    @property
    def is_sheared(self) -> bool:
        """Whether two voxel axes are not square to each other."""
        axes = self.grid.affine[:3, :3] / np.linalg.norm(self.grid.affine[:3, :3], axis=0)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _LEAST_SHEAR)


def file_word(name: str) -> str:
    """A class name as a part of a file name: letters, digits, dots and dashes.

    >>> file_word('left "A1"/M1')
    'left_A1_M1'
    """
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "class"
