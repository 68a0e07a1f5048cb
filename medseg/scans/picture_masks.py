"""This file writes masks and maps as PNG pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import replacing

_BITS = {8: np.uint8, 16: np.uint16}


def write_index_png(path: Path, labels: UInt8[np.ndarray, "h w"], colours: Mapping[int, str]) -> None:
    """Write labels as the indices of a palette: a viewer shows colours, `np.asarray(Image.open(path))` gives labels.

    Args:
        path: where to.
        labels: the class of each pixel.
        colours: `#rrggbb` of each class; what has none is black.
    """
    height, width = labels.shape
    picture = Image.frombytes("P", (width, height), np.ascontiguousarray(labels).tobytes())
    # All 256 entries: a shorter palette makes Pillow store fewer bits than the labels may need.
    picture.putpalette(_table(colours).tobytes())
    _save(path, picture)


def write_colour_png(path: Path, labels: UInt8[np.ndarray, "h w"], colours: Mapping[int, str]) -> None:
    """Write each label as its colour, `#rrggbb`; what has none is black."""
    _save(path, Image.fromarray(_table(colours)[labels]))


def write_grey_png(path: Path, values: Float[np.ndarray, "h w"], bits: int = 8) -> None:
    """Write values from 0 to 1 as grey of 8 or 16 bits; beyond, they are cut off.

    Raises:
        MedsegError: another number of bits is asked for.
    """
    if bits not in _BITS:
        raise MedsegError(f"{path} must have 8 or 16 bits, got {bits}; choose one of them")
    largest = (1 << bits) - 1
    _save(path, Image.fromarray(np.rint(np.clip(values, 0, 1).astype(np.float64) * largest).astype(_BITS[bits])))


def _table(colours: Mapping[int, str]) -> UInt8[np.ndarray, "256 3"]:
    table = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        table[value] = list(bytes.fromhex(colour.removeprefix("#")))
    return table


def _save(path: Path, picture: Image.Image) -> None:
    with replacing(path) as beside:
        picture.save(beside, format="PNG")
