"""This file says how large classes are in the frames of a picture: in pixels, and in cm2 where a pixel's size is known.

The *area* of a cine is the mean over its frames. Frames are numbered from 1, as in the names of their files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from medseg.files import csv_text, replacing

_MM2_A_CM2 = 100.0


@dataclass(frozen=True)
class Areas:
    """Areas of the classes in each frame.

    Args:
        names: of the classes.
        pixels: how many pixels of each frame each class has.
        pixel_mm: height and width of a pixel in mm, where they are known.
    """

    names: tuple[str, ...]
    pixels: Integer[np.ndarray, "n c"]
    pixel_mm: tuple[float, float] | None = None

    @property
    def cm2(self) -> Float[np.ndarray, "n c"] | None:
        """Areas in cm2, where the size of a pixel is known."""
        if self.pixel_mm is None:
            return None
        return self.pixels * (self.pixel_mm[0] * self.pixel_mm[1] / _MM2_A_CM2)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the frames of each class: `area_px`, and `area_cm2` where it is known."""
        means = {"area_px": self._mean(self.pixels, 1)}
        return means if self.cm2 is None else {**means, "area_cm2": self._mean(self.cm2, 3)}

    def _mean(self, areas: np.ndarray, digits: int) -> dict[str, float]:
        means = areas.mean(0) if len(areas) > 1 else areas[0]  # the pixels of a single frame stay a whole number
        return {name: round(mean.item(), digits) for name, mean in zip(self.names, means, strict=True)}


def count_pixels(labels: UInt8[np.ndarray, "*grid"], values: Sequence[int]) -> Integer[np.ndarray, " c"]:
    """Pixels, or voxels, of each class value."""
    return np.array([np.count_nonzero(labels == value) for value in values], np.int64)


def write_areas(path: Path, areas: Areas) -> None:
    """Write one row for each frame and class; cm2 stays empty where the size of a pixel is not known."""
    cm2 = areas.cm2
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("frame", "class", "pixels", "cm2"))
        for frame, counts in enumerate(areas.pixels):
            for c, name in enumerate(areas.names):
                table.writerow((frame + 1, csv_text(name), counts[c], "" if cm2 is None else f"{cm2[frame, c]:.3f}"))
