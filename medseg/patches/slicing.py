"""This file cuts 2-D patches out of a volume and knows where they lie.

A *plane* is the set of parallel slices of an RAS+ volume: sagittal slices have a fixed `i`, coronal
ones a fixed `j`, axial ones a fixed `k`; the rows and columns of a slice are the two remaining axes
in their order. A *window* is a square of `size` x `size` voxels of one slice. Its *location* is
`(slice, row, column)`, the index of its first voxel in that plane. A *patch* is what is cut at a
window: magnified and with neighbouring slices as channels where the geometry asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped

from medseg.errors import MedsegError
from medseg.patches.planes import PLANE_AXES

Volume = TypeVar("Volume", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class PatchGeometry:
    """How patches lie in a volume and how they are shown.

    Attributes:
        plane: axial, coronal or sagittal.
        size: side of a window in voxels.
        overlap: share of a window that the next one covers again, in [0, 1).
        magnification: pixels of the patch per voxel, along each side.
        neighbours: slices on either side that become channels of the patch.

    Raises:
        MedsegError: a value is out of range.
    """

    plane: str = "axial"
    size: int = 56
    overlap: float = 0.5
    magnification: int = 1
    neighbours: int = 0

    def __post_init__(self) -> None:
        if self.plane not in PLANE_AXES:
            raise MedsegError(
                f"patches.plane must be one of {', '.join(PLANE_AXES)}, got {self.plane!r}; choose one of them"
            )
        if not 0 <= self.overlap < 1:
            raise MedsegError(f"patches.overlap must be in [0, 1), got {self.overlap}; 0.5 is a good start")
        for name, value, least in (
            ("size", self.size, 1),
            ("magnification", self.magnification, 1),
            ("neighbours", self.neighbours, 0),
        ):
            if value < least:
                raise MedsegError(f"patches.{name} must be at least {least}, got {value}; choose a larger number")

    @property
    def pixels(self) -> int:
        """Side of a patch in pixels."""
        return self.size * self.magnification


def slices_first(volume: Volume, plane: str) -> Volume:
    """A view `"... s h w"` of a volume `"... i j k"`: its slices, rows and columns in that plane."""
    axis = PLANE_AXES[plane] - 3
    return np.moveaxis(volume, axis, -3) if isinstance(volume, np.ndarray) else torch.movedim(volume, axis, -3)


def plane_shape(shape: Sequence[int], plane: str) -> tuple[int, int, int]:
    """Number of slices, rows and columns of a volume of shape `(i, j, k)` in that plane."""
    axis = PLANE_AXES[plane]
    rows, columns = (length for other, length in enumerate(shape) if other != axis)
    return int(shape[axis]), int(rows), int(columns)


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """First voxels of the windows that cover an axis.

    The last window is moved in, so that it ends with the axis and none is there twice. An axis
    shorter than a window has one window at 0, which is padded when it is cut.

    Example:
        >>> window_starts(10, 4, 0.5)
        [0, 2, 4, 6]
        >>> window_starts(11, 4, 0.0)
        [0, 4, 7]
        >>> window_starts(3, 4, 0.5)
        [0]
    """
    last = max(length - size, 0)
    stride = max(1, round(size * (1 - overlap)))
    return [*range(0, last, stride), last]


def grid_locations(
    shape: Sequence[int], geometry: PatchGeometry, region: Shaped[np.ndarray, "i j k"] | None = None
) -> Int[np.ndarray, "n 3"]:
    """Locations of all windows, or of those that touch the region, ordered by slice, row, column.

    Every voxel of the region lies in at least one of them. An empty region has none.
    """
    slices, height, width = plane_shape(shape, geometry.plane)
    rows = np.array(window_starts(height, geometry.size, geometry.overlap))
    columns = np.array(window_starts(width, geometry.size, geometry.overlap))
    if region is None:
        touched = np.ones((slices, len(rows), len(columns)), dtype=bool)
    else:
        inside = np.ascontiguousarray(slices_first(np.asarray(region) != 0, geometry.plane))
        touched = _any_in_windows(_any_in_windows(inside, rows, geometry.size, 1), columns, geometry.size, 2)
    number, row, column = np.nonzero(touched)
    return np.stack([number, rows[row], columns[column]], axis=1)


def _any_in_windows(
    inside: Bool[np.ndarray, "a b c"], starts: Int[np.ndarray, " n"], size: int, axis: int
) -> Bool[np.ndarray, "a2 b2 c2"]:
    """Replace an axis by its windows: whether anything of the window is inside."""
    return np.stack([inside.take(range(s, min(s + size, inside.shape[axis])), axis).any(axis) for s in starts], axis)


def cut(volume: Shaped[Volume, "c i j k"], location: Any, geometry: PatchGeometry) -> Shaped[Volume, "c2 h w"]:
    """Cut one patch; see `cut_all`."""
    return cut_all(volume, [location], geometry)[0]


def cut_all(volume: Shaped[Volume, "c i j k"], locations: Any, geometry: PatchGeometry) -> Shaped[Volume, "b c2 h w"]:
    """Cut the patches at the locations.

    A volume smaller than a window is padded with its edge voxels. With n neighbours each channel
    becomes 2 n + 1 channels, from the slice n before to the slice n after; beyond the first and the
    last slice these are repeated. Magnification is bilinear for floating values and repeats voxels
    for integers and booleans, because a mean of labels is no label.

    Args:
        volume: array or tensor on the prepared (RAS+) grid.
        locations: `(slice, row, column)` of one or more windows in the geometry's plane.
        geometry: window, magnification and neighbours.

    Returns:
        A copy of the kind given, `h = w = geometry.pixels`.
    """
    view: Any = slices_first(_plain(volume), geometry.plane)
    windows = [_window(view, number, row, column, geometry) for number, row, column in np.asarray(locations).tolist()]
    if isinstance(volume, np.ndarray):
        return magnified(torch.from_numpy(np.stack(windows)), geometry.magnification).numpy()
    return magnified(torch.stack(windows), geometry.magnification)


def magnified(patches: Shaped[torch.Tensor, "b c h w"], factor: int) -> Shaped[torch.Tensor, "b c h2 w2"]:
    """Show each voxel as `factor` x `factor` pixels: bilinear, or repeated where values are not floating."""
    if factor == 1:
        return patches
    if not patches.is_floating_point():
        return patches.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    return torch.nn.functional.interpolate(patches, scale_factor=factor, mode="bilinear", align_corners=False)


def _plain(volume: Any) -> Any:
    """The tensor inside a MetaTensor, whose indexing is slow and drags the affine along."""
    return volume.as_tensor() if hasattr(volume, "as_tensor") else volume


def _window(view: Any, number: int, row: int, column: int, geometry: PatchGeometry) -> Any:
    """One window with its neighbours as channels, padded to full size."""
    channels, slices, height, width = view.shape
    size, reach = geometry.size, geometry.neighbours
    stack = [min(max(number + offset, 0), slices - 1) for offset in range(-reach, reach + 1)]
    window = view[:, stack, row : row + size, column : column + size]
    if height < size:
        window = window[:, :, [min(start, height - 1) for start in range(size)]]
    if width < size:
        window = window[:, :, :, [min(start, width - 1) for start in range(size)]]
    return window.reshape(channels * len(stack), size, size)
