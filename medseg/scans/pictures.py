"""This file reads pictures, arrays and videos as images with values from 0 to 1.

A picture is a volume of row, column and *frame*, whose affine is one: its unit is the pixel. Values are scaled by
the bit depth of the file and never by what it shows, so that a dark picture stays dark.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from medseg.errors import MedsegError
from medseg.scans.grids import Grid
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.picture_files import iterate_pages, read_frames, read_header
from medseg.scans.values import mend_non_finite

_log = logging.getLogger(__name__)
_DEPTHS = (255, 65535)
"""Largest values of 8 and 16 bits."""
_FIXED = (np.dtype(bool), np.dtype(np.uint8), np.dtype(np.uint16))
"""Kinds of values whose scale is known before any is read."""
_DISPLAY_PERCENT = (0.5, 99.5)
"""Percentiles that become 0 and 1 in an array whose values have no depth: hot pixels do not count."""
_MOST_SAMPLED = 4_000_000
"""Values that percentiles are taken from; more change nothing that can be seen, and sorting them takes long."""


def iterate_frames(path: Path, pick: Pick = WHOLE) -> Iterator[Float[np.ndarray, "h w c"]]:
    """Give the frames that `read_picture_values` reads, one after the other: float32 from 0 to 1, on the same scale.

    One frame is in memory at a time, so a long cine needs no more of it than a short one. Only where the values have no
    bit depth (floats, wide integers) all are read first, because their scale is that of all frames.

    Args:
        path: the picture, array or video.
        pick: which frame and which colour; all without it.

    Raises:
        MedsegError: the file cannot be read; in a damaged one that may be found out at a later frame.
    """
    is_first = True
    for page in iterate_pages(path, pick.frame):
        if page.values.dtype not in _FIXED:
            yield from read_picture_values(path, pick)
            return
        if is_first and read_header(path).is_reduced:
            _log.info("%s has 16 bits a colour, read as 8", path)
        is_first = False
        values = _channel(path, _scaled(path, page.values[None])[0], pick)
        yield values if page.alpha is None else values * (page.alpha[..., None] / np.float32(255))


def picture_grid(path: Path) -> Grid:
    """Rows, columns and frames of a picture, from its header alone.

    Raises:
        MedsegError: the header is missing or broken.
    """
    header = read_header(path)
    return Grid(str(path), (header.height, header.width, header.frames), np.eye(4))


def read_picture_values(path: Path, pick: Pick = WHOLE) -> Float[np.ndarray, "n h w c"]:
    """Read grey values or colours, float32 from 0 to 1; c is 1 or 3.

    Whole numbers of 8 and 16 bits are divided by 255 and 65535; wider ones by whichever holds them.
    Other arrays go from their 0.5 to their 99.5 percentile, and that is logged, unless they lie in 0..1.
    What is transparent lies on black. A few values that are NaN become the least one.

    Args:
        path: the picture, array or video.
        pick: which frame and which colour; all without it.

    Raises:
        MedsegError: the file cannot be read.
    """
    frames = read_frames(path, pick.frame)
    if frames.header.is_reduced:
        _log.info("%s has 16 bits a colour, read as 8", path)
    values = _scaled(path, frames.values)
    if frames.alpha is not None:
        _log.info("%s is transparent in places; it is laid on black", path)
        values *= frames.alpha[..., None] / np.float32(255)
    return _channel(path, values, pick)


def _channel(path: Path, values: Float[np.ndarray, "*n h w c"], pick: Pick) -> Float[np.ndarray, "*n h w c2"]:
    """The colour that was picked, as grey; all without one."""
    if pick.channel is None:
        return values
    if not 0 <= pick.channel < values.shape[-1]:
        raise MedsegError(
            f"{path} must have channel {pick.channel} (0 is the first), got {values.shape[-1]} in all; choose another"
        )
    return np.ascontiguousarray(values[..., pick.channel : pick.channel + 1])


def _scaled(path: Path, values: Shaped[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n h w c"]:
    """Values from 0 to 1 by the number of bits they are stored in."""
    if values.dtype == bool:
        return values.astype(np.float32)
    depth = np.iinfo(values.dtype).max if values.dtype in _FIXED else None
    if values.dtype.kind in "iu" and depth is None and values.min() >= 0:
        # Arrays are 64 bits wide by habit, not because their picture is.
        depth = next((largest for largest in _DEPTHS if values.max() <= largest), None)
    with np.errstate(over="ignore"):  # what leaves the range becomes infinite and is counted next
        scaled = values.astype(np.float32)
    if depth:
        scaled /= depth
        return scaled
    mend_non_finite(path, scaled, "pixels")
    if scaled.min() >= 0 and scaled.max() <= 1:
        return scaled
    sampled = scaled.reshape(-1)[:: -(-scaled.size // _MOST_SAMPLED)]
    low, high = np.percentile(sampled, _DISPLAY_PERCENT)
    if low == high:
        low, high = scaled.min(), scaled.max()
    _log.info("%s has values from %g to %g; %g to %g become 0 to 1", path, scaled.min(), scaled.max(), low, high)
    return np.clip((scaled - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1).astype(np.float32)
