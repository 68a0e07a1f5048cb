"""This file holds the patches that the gallery shows, and says where their places lie.

A *place* is a cell of the code map of a patch, counted row by row from the top left as it is shown. The *prepared grid*
is what the run looked at: the scan turned to R, A, S, the picture in the run's size, the sector as depths and rays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from medseg.patches.planes import PLANE_AXES

Unit = Literal["mm", "px", "sector"]
"""What a place is told in: mm of the scanner, pixels of the stored picture, or depths and rays of a sector."""


@dataclass(frozen=True)
class ShownPatch:
    """Where a patch comes from.

    Attributes:
        case: its name.
        location: slice, row and column of its first voxel in its plane of the prepared grid.
        affine: from a voxel of the prepared grid to the unit; None where the store does not say.
        unit: of its places.
        several: whether the case has more than one slice.
    """

    case: str
    location: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"] | None
    unit: Unit
    several: bool


@dataclass(frozen=True)
class Patches:
    """The patches of the page, as they are shown.

    Attributes:
        sources: where each comes from.
        images: grey or red, green and blue.
        codes: of each cell.
        inside: cells in the region that is looked at.
        plane: of the patches.
        size: side of a patch in voxels.
        turned: whether rows and columns are turned into the view of radiologists.
    """

    sources: Sequence[ShownPatch]
    images: UInt8[np.ndarray, "n y x c"]
    codes: Float[np.ndarray, "n e h w"]
    inside: Bool[np.ndarray, "n h w"]
    plane: str
    size: int
    turned: bool

    def stored_place(self, patch: int, cell: int) -> tuple[int, int, int]:
        """Slice, row and column of the middle of a cell in its plane of the prepared grid, counted from 0."""
        height, width = self.codes.shape[2:]
        y, x = divmod(cell, width)
        row, rows, column, columns = (width - 1 - x, width, height - 1 - y, height) if self.turned else (
            y, height, x, width
        )  # fmt: skip
        index, first_row, first_column = self.sources[patch].location
        middle = (int((row + 0.5) * self.size / rows), int((column + 0.5) * self.size / columns))
        return index, first_row + middle[0], first_column + middle[1]

    def position(self, patch: int, cell: int) -> list[float] | None:
        """The place in the unit of its patch; None where the store does not say, or for a sector."""
        source = self.sources[patch]
        if source.affine is None or source.unit == "sector":
            return None
        index, *others = self.stored_place(patch, cell)
        voxel = list(others)
        voxel.insert(PLANE_AXES[self.plane], index)
        return [float(value) for value in (source.affine @ [*voxel, 1])[:3]]
