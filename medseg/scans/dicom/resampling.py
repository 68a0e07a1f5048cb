"""This file puts the slices of an irregular DICOM series on a regular grid by linear interpolation.

The grid keeps the pixels' spacing and the planes' directions; its slices lie as far apart as the closest ones of the
series, so that hardly anything that was measured is lost. Slices that are shifted sideways (gantry tilt) are shifted
back, on a grid wide enough for all of them; what no slice covers gets the least value of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from jaxtyping import Float

from medseg.errors import MedsegError
from medseg.scans.dicom.stacks import Stack, axes_of

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MOST_GROWTH = 8
"""How many times more voxels the regular grid may have; beyond it something else is wrong."""
_CLOSE_PERCENT = 10
"""The slices of the grid lie as far apart as the closest tenth of the series: one odd pair does not count."""
_SAME = 1e-6


@dataclass(frozen=True)
class Regular:
    """A regular grid for a stack.

    Args:
        shape: columns, rows, slices.
        affine: voxel index to mm, RAS+.
        depths: of the stack's own slices, in slices of the grid.
        shifts: of the stack's own slices on the grid: columns and rows.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    depths: Float[np.ndarray, " n"]
    shifts: Float[np.ndarray, "n 2"]


def regular_grid(stack: Stack) -> Regular:
    """The grid on which a stack is put.

    Raises:
        MedsegError: it would be far larger than the stack.
    """
    planes = [item.plane for item in stack.frames[0]]
    along, down, normal = axes_of(planes[0])
    rows_mm, columns_mm = planes[0].spacing
    offsets = np.array([plane.position for plane in planes]) - np.array(planes[0].position)
    depths = offsets @ normal
    distance = float(np.percentile(np.diff(depths), _CLOSE_PERCENT, method="lower"))
    shifts = offsets @ np.stack([along / columns_mm, down / rows_mm], axis=1)
    lowest = shifts.min(axis=0)
    shifts = shifts - lowest
    wider = np.ceil(shifts.max(axis=0) - _SAME).astype(int)
    columns, rows = int(stack.shape[0] + wider[0]), int(stack.shape[1] + wider[1])
    slices = int(np.floor(depths[-1] / distance + 1e-3)) + 1
    if columns * rows * slices > _MOST_GROWTH * np.prod(stack.shape):
        raise MedsegError(
            f"{stack.name} must have slices that fit a grid of at most {_MOST_GROWTH} times as many voxels, got "
            f"{columns} x {rows} x {slices} for {' x '.join(map(str, stack.shape))}; export the series again"
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = along * columns_mm, down * rows_mm, normal * distance
    affine[:3, 3] = np.array(planes[0].position) + affine[:3, :2] @ lowest
    return Regular((columns, rows, slices), _LPS_TO_RAS @ affine, depths / distance, shifts)


def resampled(grid: Regular, slices: Iterator[Float[np.ndarray, "i j"]], lowest: float) -> Float[np.ndarray, "i j k"]:
    """Values of a stack's slices, which come in order, on its regular grid; `lowest` is where no slice is."""
    values = np.empty(grid.shape, np.float32)
    placed = (_placed(item, shift, grid.shape[:2], lowest) for item, shift in zip(slices, grid.shifts, strict=True))
    below, above, at = next(placed), None, 0
    for k in range(grid.shape[2]):
        while at + 1 < len(grid.depths) and grid.depths[at + 1] <= k + _SAME:
            below, above, at = next(placed) if above is None else above, None, at + 1
        if at + 1 == len(grid.depths) or abs(grid.depths[at] - k) <= _SAME:
            values[..., k] = below
            continue
        above = next(placed) if above is None else above
        share = (k - grid.depths[at]) / (grid.depths[at + 1] - grid.depths[at])
        values[..., k] = (1 - share) * below + share * above
    return values


def _placed(
    values: Float[np.ndarray, "i j"], shift: Float[np.ndarray, " 2"], shape: tuple[int, ...], lowest: float
) -> Float[np.ndarray, "i2 j2"]:
    """One slice on the wider grid, moved by a part of a pixel."""
    wide = np.full(shape, lowest, np.float32)
    wide[: values.shape[0], : values.shape[1]] = values
    if np.abs(shift).max() < _SAME:
        return wide
    return scipy.ndimage.shift(wide, shift, order=1, mode="constant", cval=lowest)
