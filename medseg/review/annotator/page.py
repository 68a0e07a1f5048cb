"""This file makes the annotation page: slices of scans become data in one HTML file that needs no network.

The slices that are offered of a case lie in the page as one small stack on the scan's own stored axes; the page only
turns and mirrors what it draws, so a cell is called by the same row and column however it is shown. *Across* and *down*
are the axes of the screen; as radiologists look from the feet, the patient's right is on the left, the front on top.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float

from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.naming.annotations import PLANE, SCHEMA, slice_axis
from medseg.review.blobs import stored_grey
from medseg.review.page import SOFTWARE, as_script_json, page_around
from medseg.review.windows import windows_of
from medseg.scans.grids import Grid, spread_slices

MOST_MB = 300.0
"""MB (10^6 bytes) of a page that browsers still open on a small computer."""
PAUSE_S = 20
"""Seconds without a key or the mouse that still count as work; a longer pause is none."""
_PACKAGE = "medseg.review.annotator"
_SHARED_SCRIPTS = ("elements.js", "nifti.js", "store.js", "history.js")
"""Of the review page, which this one needs, too."""
_BYTES_A_MB = 1e6


def case_data(
    case_id: str,
    source_sha256: str,
    image: Float[np.ndarray, "i j k"],
    grid: Grid,
    *,
    slices: int,
    modality: str | None,
) -> dict[str, Any]:
    """What the page holds of a case.

    Args:
        case_id: its name.
        source_sha256: of the scan.
        image: grey values.
        grid: of the scan.
        slices: how many are offered, spread evenly.
        modality: one of the names of `prepare.modality`, which chooses the windows; None where it is not known.
    """
    axis = slice_axis(grid.affine)
    letters = nibabel.io_orientation(grid.affine)
    inside = [other for other in range(3) if other != axis]
    across = 0 if letters[inside[0], 0] == 0 else 1
    grows = {int(world): bool(sign > 0) for world, sign in letters}  # towards right, front, head
    indices = sorted(spread_slices(grid.shape[axis], slices), reverse=not grows[2])  # from the feet
    shown = np.ascontiguousarray(np.moveaxis(np.moveaxis(image, axis, 0)[indices], 0, -1))
    windows = windows_of(image, modality, None, is_picture=False)
    return {
        "case": case_id,
        "source_sha256": source_sha256,
        "shape": list(grid.shape),
        "affine": grid.affine.tolist(),
        "plane": PLANE,
        "indices": indices,
        "count": grid.shape[axis],
        "size": [grid.shape[n] for n in inside],
        "spacing": [grid.spacing[n] for n in inside],
        "across": across,
        "mirrored": [grows[0], grows[1]],
        "stack": base64.b64encode(_packed(shown, (windows[0].low, windows[0].high))).decode(),
        "presets": [{"name": window.name, "low": window.low, "high": window.high} for window in windows],
    }


def write_annotation_page(
    path: Path, cases: Sequence[Mapping[str, Any]], *, title: str, created: str, cell: int, max_mb: float = MOST_MB
) -> None:
    """Write the page.

    Args:
        path: where to.
        cases: of `case_data`.
        title: of the page.
        created: when, ISO.
        cell: side of a cell in voxels.
        max_mb: largest page in MB.

    Raises:
        MedsegError: it would be larger.
    """
    head = {"schema": SCHEMA, "title": title, "created": created, "software": SOFTWARE, "cell": cell, "pause": PAUSE_S}
    content = page_around(as_script_json({**head, "cases": list(cases)}), _PACKAGE, _SHARED_SCRIPTS).encode()
    if len(content) > max_mb * _BYTES_A_MB:
        raise MedsegError(
            f"the annotation page must have at most {max_mb:g} MB, got {len(content) / _BYTES_A_MB:.0f} MB for "
            f"{len(cases)} cases; give fewer scans or fewer slices, or raise --max-mb"
        )
    with replacing(path) as beside:
        beside.write_bytes(content)


def _packed(stack: Float[np.ndarray, "rows columns n"], window: tuple[float, float]) -> bytes:
    """A stack as a gzipped NIfTI file, as small as a screen allows; equal ones give equal bytes."""
    stored = stored_grey(stack, window)
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_shape(stored.values.shape)
    header.set_data_dtype(stored.values.dtype.newbyteorder("<"))
    header["scl_slope"], header["scl_inter"] = stored.slope, stored.intercept
    header["vox_offset"] = header.single_vox_offset
    voxels = stored.values.astype(header.get_data_dtype()).tobytes(order="F")
    return gzip.compress(header.binaryblock + bytes(4) + voxels, mtime=0)  # four zeros: no extensions
