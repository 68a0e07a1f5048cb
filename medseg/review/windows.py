"""This file chooses how bright and how dark the review page shows a scan at first, and which windows it offers.

A *window* is the value shown black and the value shown white. Angiograms by MR have no fixed unit, so their windows are
percentiles; CT has Hounsfield units; display values of pictures and ultrasound are shown as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Window:
    """A window and its name."""

    name: str
    low: float
    high: float


CT_WINDOWS = (
    Window("Vessels", -100, 600),
    Window("Soft tissue", -160, 240),
    Window("Brain", 0, 80),
    Window("Liver", -20, 130),
    Window("Lung", -1350, 150),
    Window("Bone", -500, 1300),
)
"""Usual windows in Hounsfield units; the first one is shown first."""
MR_PERCENTS = (("Vessels", 2.0, 99.9), ("Bright vessels", 60.0, 99.98), ("Tissue", 2.0, 98.0))
"""Percentiles inside the region that was looked at: no single bright voxel decides, and dark vessels stay visible."""
DARK_SHARE = 0.5
"""Share of the range of display values that shows what lies in the dark."""
_MOST_SAMPLED = 4_000_000
"""Values that percentiles are taken from; more change nothing that can be seen."""


def windows_of(
    image: Float[np.ndarray, "i j k"],
    modality: str | None,
    region: Bool[np.ndarray, "i j k"] | None,
    *,
    is_picture: bool,
) -> list[Window]:
    """The windows of a scan; the first is shown first, and in each white is above black.

    Args:
        image: as it is shown.
        modality: one of the names of `prepare.modality`; None where it is not known.
        region: that was looked at.
        is_picture: whether values are display values of 8 bits.
    """
    low, high = float(image.min()), float(image.max())
    everything = Window("Whole range", low, max(high, low + _least_width(low, high)))
    if is_picture:
        return [Window("Whole range", 0, 255), Window("Dark parts", 0, 255 * DARK_SHARE)]
    if modality == "cta":
        return [*CT_WINDOWS, everything]
    if modality == "liver_ultrasound":
        return [everything, Window("Dark parts", low, low + (everything.high - low) * DARK_SHARE)]
    values = image[region] if region is not None and region.any() else image.ravel()
    values = values[:: -(-values.size // _MOST_SAMPLED)]
    found = []
    for name, darkest, brightest in MR_PERCENTS:
        black, white = (float(value) for value in np.percentile(values, [darkest, brightest]))
        found.append(Window(name, black, max(white, black + _least_width(low, high))))
    return [*found, everything]


def _least_width(low: float, high: float) -> float:
    """Where many values are equal, percentiles may be, too."""
    return max((high - low) / 1000, 1e-6)
