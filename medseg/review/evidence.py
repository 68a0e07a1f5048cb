"""This file measures what the queue of the review is ranked by: numbers about a mask, its scan and its neighbours.

*Along the mask* means the mask with a rim of one voxel; its *surroundings* are the voxels beyond that rim, up to
`RING_VOXELS` away. Of pictures, whose third axis is the frame, rims lie within the frame.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from medseg.review.queue import UNCERTAIN, Evidence
from medseg.scoring.overlap import components, dice
from medseg.scoring.skeleton import bounding_box

RING_VOXELS = 4
"""How far from a mask its surroundings reach: past what a blurred border covers."""


def measure(
    case_id: str,
    labels: Integer[np.ndarray, "i j k"],
    image: Float[np.ndarray, "i j k"],
    *,
    uncertainty: Float[np.ndarray, "i j k"] | None = None,
    region: Bool[np.ndarray, "i j k"] | None = None,
    others: Mapping[str, Integer[np.ndarray, "i j k"]],
    background: Collection[int] = (),
    by_frame: bool = False,
    amount: float | None = None,
    unit: str = "ml",
    alarms: tuple[str, ...] = (),
) -> Evidence:
    """Measure a case.

    Args:
        case_id: its name.
        labels: the mask, 0 is background.
        image: the scan, in any unit, on the same grid.
        uncertainty: 0 to 1.
        region: that was looked at.
        others: masks of other methods by their names.
        background: values of the mask that are no finding, such as the tissue around an organ.
        by_frame: the third axis is time, not space; organs in such pictures differ little from what lies around them,
            so that contrast says nothing.
        amount: of all that is marked, in `unit`.
        unit: of the amount.
        alarms: what the program said.
    """
    around = [0, *background]
    mask = ~np.isin(labels, around)
    overlaps = {name: dice(mask, ~np.isin(other, around)) for name, other in others.items()}
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return Evidence(case_id, 0, amount, unit, dice=overlaps, alarms=alarms)
    box = _grown_box(mask)
    mask, image = mask[box], image[box]
    looked_at = np.ones_like(mask) if region is None else region[box]
    rim = _neighbours(mask.shape, by_frame)
    along = ndimage.binary_dilation(mask, rim)
    unsure = None if uncertainty is None else uncertainty[box][along]
    # The box ends beyond the mask, or where the volume ends, and with it the region.
    surface = mask & ~ndimage.binary_erosion(mask, rim, border_value=0)
    cut = surface & ~ndimage.binary_erosion(looked_at, rim, border_value=0)
    return Evidence(
        case_id,
        voxels,
        amount,
        unit,
        components=components(mask),
        uncertainty=None if unsure is None else float(unsure.mean()),
        uncertain_share=None if unsure is None else float((unsure > UNCERTAIN).mean()),
        dice=overlaps,
        border_share=None if region is None else float(np.count_nonzero(cut) / np.count_nonzero(surface)),
        contrast=None if by_frame else _contrast(image, mask, _ring(along, rim) & looked_at),
        alarms=alarms,
    )


def _contrast(
    image: Float[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], ring: Bool[np.ndarray, "i j k"]
) -> float | None:
    """Distance of the means in common standard deviations; None where nothing surrounds the mask."""
    if not ring.any():
        return None
    inside, outside = image[mask].astype(np.float64), image[ring].astype(np.float64)
    spread = np.sqrt((inside.var() + outside.var()) / 2)
    difference = abs(inside.mean() - outside.mean())
    return float(difference / spread) if spread > 0 else (0.0 if difference == 0 else float("inf"))


def _ring(along: Bool[np.ndarray, "i j k"], rim: Bool[np.ndarray, "a b c"]) -> Bool[np.ndarray, "i j k"]:
    return ndimage.binary_dilation(along, rim, iterations=RING_VOXELS - 1) & ~along


def _neighbours(shape: tuple[int, ...], by_frame: bool) -> Bool[np.ndarray, "3 3 3"]:
    """Direct neighbours of a voxel; none along an axis of one voxel, and none in time."""
    rim = ndimage.generate_binary_structure(3, 1)
    for axis in range(3):
        if shape[axis] == 1 or (by_frame and axis == 2):
            rim[tuple([0, 2] if axis == other else slice(None) for other in range(3))] = False
    return rim


def _grown_box(mask: Bool[np.ndarray, "i j k"]) -> tuple[slice, slice, slice]:
    """The box of the mask and its surroundings: dilating a whole volume for a small mask takes seconds."""
    grown = [
        slice(max(part.start - RING_VOXELS, 0), min(part.stop + RING_VOXELS, length))
        for part, length in zip(bounding_box(mask), mask.shape, strict=True)
    ]
    return grown[0], grown[1], grown[2]
