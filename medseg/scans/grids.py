"""This file describes where the voxels of a scan lie, and checks that two files share a grid.

A *grid* is a shape in voxels and an affine that takes voxel indices i j k to positions x y z in mm,
RAS+. The *spacing* is the length of an affine column in mm, the *orientation* its axis letters.
Sizes that a header claims are checked here before any memory is asked for.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float

from medseg.errors import MedsegError

_log = logging.getLogger(__name__)
_DEFLATE_BEST_RATIO = 1040  # deflate cannot shrink by more than 1032, headers of its blocks aside
_MEMORY_WHERE_UNKNOWN = 32 << 30  # Windows does not say through the standard library
_LEAST_INDEPENDENCE = 1e-4  # volume spanned by the three unit axes; 1 for orthogonal ones, 0 for singular
_UNSAID_VOXELS = 1e-5


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of one file lie; a constructed grid is valid.

    Args:
        name: the file, for messages.
        shape: number of voxels along i, j, k.
        affine: voxel index to mm, RAS+.

    Raises:
        MedsegError: the affine is not finite or two of its axes point the same way.
    """

    name: str
    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        """Refuse what cannot be turned round."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        if not np.isfinite(self.affine).all() or not (spacing > 0).all():
            raise MedsegError(
                f"{self.name} must have finite voxel sizes above 0 mm, got {_numbers(spacing)}; mend its header"
            )
        if abs(np.linalg.det(self.affine[:3, :3] / spacing)) < _LEAST_INDEPENDENCE:
            raise MedsegError(f"{self.name} must have three different voxel axes, got a singular affine; mend it")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Axis letters, e.g. `RAS`: the way each index grows."""
        return "".join(nibabel.aff2axcodes(self.affine))

    def corners(self) -> Float[np.ndarray, "8 3"]:
        """Positions x y z in mm of the centres of the eight corner voxels, k fastest."""
        indices = np.array(list(product(*((0, length - 1) for length in self.shape))), dtype=float)
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]


def require_same_grid(image: Grid, other: Grid, tolerance_voxels: float = 1e-3) -> None:
    """Check that two files have the same shape and that their corners lie at the same positions.

    A difference within the tolerance is logged, because it is real although harmless.

    Args:
        image: the grid that counts.
        other: the grid to compare, e.g. of a label.
        tolerance_voxels: how far a corner may be off along any axis, in voxels of `image`.

    Raises:
        MedsegError: the grids differ by more.
    """
    if image.shape != other.shape:
        raise MedsegError(
            f"{other.name} must have the {_shape(image.shape)} voxels of {image.name}, got {_shape(other.shape)}"
            f"{_reach(image, other)}; resample it onto the image"
        )
    offset = np.linalg.solve(image.affine[:3, :3], (other.corners() - image.corners()).T)
    worst = float(np.abs(offset).max())
    if worst > tolerance_voxels:
        difference, advice = _difference(image, other, tolerance_voxels)
        raise MedsegError(
            f"{other.name} must lie on the grid of {image.name}, got {difference} (corners up to {worst:.3g} voxels "
            f"off); {advice}"
        )
    if worst > _UNSAID_VOXELS:
        _log.info("%s is %.2g voxels off the grid of %s, which is tolerated", other.name, worst, image.name)


def _reach(image: Grid, other: Grid) -> str:
    """Whether a grid of another shape covers the image: then it can be cropped."""
    inside = np.linalg.solve(other.affine[:3, :3], (image.corners() - other.affine[:3, 3]).T).T
    covers = (inside > -0.5).all() and (inside < np.array(other.shape) - 0.5).all()
    return ", which cover the image and more" if covers else ""


def _difference(image: Grid, other: Grid, tolerance_voxels: float) -> tuple[str, str]:
    """In which way a grid of the same shape differs, and what to do."""
    ours, theirs = image.affine[:3, :3], other.affine[:3, :3]
    allowed = tolerance_voxels * np.linalg.norm(ours, axis=0) / np.array(image.shape)

    def is_same(columns: Float[np.ndarray, "3 3"]) -> bool:
        return bool((np.abs(columns - ours) <= allowed).all())

    # Either somebody changed the sign of a position, or the voxels run the other way along an axis.
    for names, mirrors in (("xyz", lambda signs: signs[:, None] * theirs), ("ijk", lambda signs: theirs * signs)):
        for signs in product((1, -1), repeat=3):
            if min(signs) < 0 and is_same(mirrors(np.array(signs))):
                axes = " and ".join(name for name, sign in zip(names, signs, strict=True) if sign < 0)
                noun = "axis" if signs.count(-1) == 1 else "axes"
                letters = f"({other.orientation} against {image.orientation})"
                found = f"the same shape with the {axes} {noun} mirrored {letters}"
                return found, "mend its header, or export it again from the image"
    if is_same(theirs):
        shift = ", ".join(f"{length:.4g}" for length in other.affine[:3, 3] - image.affine[:3, 3] + 0.0)
        return f"the same voxels shifted by ({shift}) mm", "mend its origin, or resample it onto the image"
    if not np.allclose(image.spacing, other.spacing, rtol=1e-4):
        found = f"another spacing, {_numbers(other.spacing)} mm against {_numbers(image.spacing)} mm"
        return found, "resample it onto the image"
    found = f"axes that point another way ({other.orientation} against {image.orientation})"
    return found, "resample it onto the image"


def require_same_size(path: Path, picture: tuple[int, ...], label: tuple[int, ...]) -> None:
    """Check that a label has the rows, columns and frames of its picture.

    Raises:
        MedsegError: it has others.
    """
    if picture != label:
        raise MedsegError(
            f"{path} must have the rows, columns and frames of its picture, {_shape(picture)}, got {_shape(label)}; "
            "export it again"
        )


def require_plausible_size(path: Path, shape: tuple[int, ...], itemsize: int, stored: int, *, compressed: bool) -> None:
    """Check what a header claims against the file and the machine, before memory is asked for.

    Args:
        path: the file, for messages.
        shape: every stored dimension, frames included.
        itemsize: bytes of one voxel.
        stored: bytes of the file that can hold voxels.
        compressed: whether they are deflated.

    Raises:
        MedsegError: a dimension is below 1, the file is too short, or the volume cannot fit in memory.
    """
    if not shape or min(shape) < 1:
        raise MedsegError(f"{path} must have at least one voxel along each axis, got {_shape(shape)}; export it again")
    claimed = math.prod(shape) * itemsize
    if claimed > stored * (_DEFLATE_BEST_RATIO if compressed else 1):
        raise MedsegError(
            f"{path} must hold the {_shape(shape)} voxels ({_bytes(claimed)}) its header claims, "
            f"got a file with {_bytes(stored)} for them; it is cut or damaged, copy it again"
        )
    needed = math.prod(shape[:3]) * (itemsize + 4)  # as stored, and as float32
    if needed > memory_bytes():
        raise MedsegError(
            f"{path} must fit in the memory of this machine ({_bytes(memory_bytes())}), "
            f"got {_shape(shape)} voxels that need {_bytes(needed)}; crop it or use a larger machine"
        )


def memory_bytes() -> int:
    """What this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _MEMORY_WHERE_UNKNOWN


def spread_slices(count: int, wanted: int) -> list[int]:
    """Indices of slices at equal distances, the middle of as many equal parts.

    Example:
        >>> spread_slices(120, 3), spread_slices(2, 3)
        ([20, 60, 100], [0, 1])
    """
    parts = min(wanted, count)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "none"


def _numbers(values: np.ndarray | tuple[float, ...]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _bytes(count: int) -> str:
    power = min(int(math.log(max(count, 1), 1000)), 5)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
