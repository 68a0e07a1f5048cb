"""This file holds the geometry of simulated ultrasound pictures: which probe looks where, and which pixel shows what.

A *beam* runs from the probe's face into the body; its *range* (mm) counts from the face. Positions in the body are x
(mm, to the right of the probe's middle) and z (mm, downwards from the lowest point of its face). A *view* is a probe
together with the picture that shows its *sector*. A linear probe is a curved one whose radius is very large.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

ProbeKind = Literal["curved", "phased", "linear"]
PROBES: tuple[ProbeKind, ...] = ("curved", "phased", "linear")

_LINEAR_RADIUS_MM = 4000.0
"""Radius of a linear probe: its outer beams are parallel to within a degree."""
_RADIUS_MM = {"curved": (42.0, 64.0), "phased": (5.0, 12.0)}
"""Radius of the probe's face: of a convex abdominal one, and of the small window of a cardiac one."""
_HALF_ANGLE_DEG = {"curved": (27.0, 37.0), "phased": (36.0, 44.0)}
"""Angle between the middle and the outer beams."""
_DEPTH_MM = {"curved": (115.0, 185.0), "phased": (120.0, 180.0), "linear": (45.0, 80.0)}
"""Range of the beams' ends."""
_LINEAR_HALF_WIDTH_MM = (19.0, 27.0)
_CUT_CHANCE = 0.15
"""Share of pictures whose sector is larger than the picture and cut at its bottom."""


@dataclass(frozen=True)
class View:
    """A probe, and the picture in which its sector is shown.

    Attributes:
        kind: of the probe.
        shape: rows and columns of the picture.
        apex_row: row of the point in which all beams would meet (px; pixel centres are whole numbers).
        apex_col: its column.
        px_per_mm: scale of the picture.
        radius_mm: from the apex to the face.
        depth_mm: range of the beams' ends.
        half_angle: of the outer beams (radians from straight down).
    """

    kind: ProbeKind
    shape: tuple[int, int]
    apex_row: float
    apex_col: float
    px_per_mm: float
    radius_mm: float
    depth_mm: float
    half_angle: float

    def sector(self) -> dict[str, float]:
        """Apex, radii (px) and angles (radians) of the sector."""
        return {
            "apex_row": self.apex_row,
            "apex_col": self.apex_col,
            "near": self.radius_mm * self.px_per_mm,
            "far": (self.radius_mm + self.depth_mm) * self.px_per_mm,
            "left": -self.half_angle,
            "right": self.half_angle,
        }

    def beam_grid(self, samples: int, lines: int) -> Float32[np.ndarray, "2 r l"]:
        """Range (mm) and angle (radians) of each sample of each beam."""
        ranges = np.linspace(0, self.depth_mm, samples, dtype=np.float32)
        angles = np.linspace(-self.half_angle, self.half_angle, lines, dtype=np.float32)
        return np.stack(np.meshgrid(ranges, angles, indexing="ij"))

    def positions(self, polar: Float32[np.ndarray, "2 ..."]) -> Float32[np.ndarray, "2 ..."]:
        """x and z (mm) of ranges and angles."""
        # The sagitta is computed by itself: a linear probe's radius would swallow the digits of z.
        radius = self.radius_mm + polar[0]
        sagitta = 2 * radius * np.sin(polar[1] / 2) ** 2
        return np.stack([radius * np.sin(polar[1]), polar[0] - sagitta]).astype(np.float32)

    @cached_property
    def polar(self) -> Float32[np.ndarray, "2 h w"]:
        """Range (mm) and angle (radians) of each pixel, also of those outside the sector."""
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        down, across = rows - self.apex_row, columns - self.apex_col
        ranges = np.hypot(down, across) / self.px_per_mm - self.radius_mm
        return np.stack([ranges, np.broadcast_to(np.arctan2(across, down), ranges.shape)]).astype(np.float32)

    @cached_property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Which pixels lie within the sector."""
        ranges, angles = self.polar
        return (ranges >= 0) & (ranges <= self.depth_mm) & (np.abs(angles) <= self.half_angle)


def draw_view(rng: np.random.Generator, kind: ProbeKind, shape: tuple[int, int]) -> View:
    """A probe of a kind, its depth setting, and where its sector lies in a picture of this shape."""
    depth = float(rng.uniform(*_DEPTH_MM[kind]))
    if kind == "linear":
        radius = _LINEAR_RADIUS_MM
        half_angle = float(rng.uniform(*_LINEAR_HALF_WIDTH_MM)) / radius
    else:
        radius = float(rng.uniform(*_RADIUS_MM[kind]))
        half_angle = float(np.deg2rad(rng.uniform(*_HALF_ANGLE_DEG[kind])))
    height, width = shape
    tall_mm = radius + depth - radius * np.cos(half_angle)
    wide_mm = 2 * (radius + depth) * np.sin(half_angle)
    is_cut = rng.random() < _CUT_CHANCE
    share = float(rng.uniform(1.02, 1.12) if is_cut else rng.uniform(0.78, 0.94))
    px_per_mm = share * min(height / tall_mm, width / wide_mm)
    top = float(rng.uniform(0.02, 0.05)) * height if is_cut else (height - tall_mm * px_per_mm) * rng.uniform(0.25, 0.7)
    apex_row = float(top - radius * np.cos(half_angle) * px_per_mm)
    apex_col = width / 2 + float(rng.uniform(-0.04, 0.04)) * width
    return View(kind, shape, apex_row, apex_col, float(px_per_mm), radius, depth, half_angle)
