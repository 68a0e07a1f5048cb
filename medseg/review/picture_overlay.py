"""This file draws a mask over its picture, at the picture's own size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_rgb
from PIL import Image
from skimage.segmentation import find_boundaries

from medseg.files import replacing

TINT = 0.25
"""Share of the class colour inside a class; borders have it whole, so that texture stays visible between them."""

_COMPRESSION = 3
"""Of PNG: as small as the usual 6 where there is speckle, in a third of the time."""


def draw_overlay(
    picture: Float[np.ndarray, "h w c"], labels: UInt8[np.ndarray, "h w"], path: Path, *, colours: Mapping[int, str]
) -> None:
    """Write a PNG of the picture with every class tinted and outlined in its colour.

    Args:
        picture: values 0 to 1, one or three channels.
        labels: class values; 0 is left as it is.
        path: where to.
        colours: `#rrggbb` by class value; classes without one are left as they are.
    """
    shown = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture.copy()
    borders = find_boundaries(labels, mode="inner")
    for value, colour in colours.items():
        inside = labels == value
        shown[inside] = (1 - TINT) * shown[inside] + TINT * np.array(to_rgb(colour))
        shown[inside & borders] = to_rgb(colour)
    with replacing(path) as beside:
        Image.fromarray(np.round(shown * 255).astype(np.uint8)).save(beside, format="PNG", compress_level=_COMPRESSION)
