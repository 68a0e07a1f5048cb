"""This file cuts the cells of annotated slices out as patches.

They are called CASE_sliceS_rowR_columnC. A patch is [row, column] on the scan's stored axes and is shown in the first
window of its scan; one that the border cuts off is filled up with its outermost values, and counts as no vessel there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int8

from medseg.naming.annotations import Annotation, cells_along, cut_cell, slice_axis
from medseg.naming.rough_masks import UNKNOWN
from medseg.review.exports.patch_folders import Patch
from medseg.review.windows import windows_of


def patches_of(
    image: Float[np.ndarray, "i j k"], labels: Int8[np.ndarray, "i j k"], annotation: Annotation
) -> Iterator[Patch]:
    """All cells of the slices of an annotation.

    Args:
        image: grey values.
        labels: of `naming.rough_masks`.
        annotation: of that scan.
    """
    axis, cell = slice_axis(annotation.grid.affine), annotation.cell
    rows, columns = cells_along(annotation.grid.shape, axis, cell)
    window = windows_of(image, None, None, is_picture=False)[0]
    slices, labelled = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
    for part in annotation.slices:
        for place in np.ndindex(rows, columns):
            values = cut_cell(slices[part.index], place, cell)
            known = cut_cell(labelled[part.index], place, cell)
            missing = [(0, cell - length) for length in values.shape]
            full = np.pad(values, missing, mode="edge").astype(np.float32)
            shown = np.clip((full - window.low) / (window.high - window.low), 0, 1)
            is_known = bool((known != UNKNOWN).all())
            yield Patch(
                f"{annotation.case}_slice{part.index:03d}_row{place[0]:02d}_column{place[1]:02d}",
                full,
                np.rint(shown * 255).astype(np.uint8),
                np.pad(known, missing).astype(np.uint8) if is_known else None,
            )
