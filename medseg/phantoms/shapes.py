"""This file holds the shapes of which simulated bodies are made, as signed distances.

A shape answers for many *points* at once how far (mm) each lies from its surface, negative inside. Far away the answer
is `FAR`, and between it only needs to be right near the surface. Points have x (right), y (across the picture) and z
(down) in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

FAR = np.float32(99.0)
"""Distance (mm) of what is not near."""
RIM_MM = 4.0
"""Distances up to here are computed, so that a surface can be drawn."""


class Points(NamedTuple):
    """Where to look (mm); `layer` is the depth below the skin, which a curved probe presses in."""

    x: Float32[np.ndarray, "*n"]
    y: Float32[np.ndarray, "*n"]
    z: Float32[np.ndarray, "*n"]
    layer: Float32[np.ndarray, "*n"]

    def where(self, chosen: Bool[np.ndarray, "*n"]) -> Points:
        """Some of the points, in a row."""
        return Points(*(values[chosen] for values in self))


Shape = Callable[[Points], Float32[np.ndarray, "*n"]]
"""Anything that gives the distance (mm) of each point, negative inside."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, turned in the plane of the picture, with a wavy outline.

    Attributes:
        centre: x, y, z (mm).
        axes: half lengths (mm) along its own two axes in the picture and across it (first, second, across).
        angle: of the first axis (radians from x towards z).
        waves: amplitude (share of the radius) and phase of the outline's third, fourth, ... harmonics.
    """

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    angle: float = 0.0
    waves: tuple[tuple[float, float], ...] = ()

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        reach = max(self.axes[:2]) * (1 + sum(abs(size) for size, _ in self.waves)) + RIM_MM
        near = (np.abs(points.x - self.centre[0]) < reach) & (np.abs(points.z - self.centre[2]) < reach)
        distance = np.full(points.x.shape, FAR, np.float32)
        dx, dy, dz = (values - at for values, at in zip(points.where(near)[:3], self.centre, strict=True))
        along = (np.cos(self.angle) * dx + np.sin(self.angle) * dz) / self.axes[0]
        beside = (np.cos(self.angle) * dz - np.sin(self.angle) * dx) / self.axes[1]
        radius = np.sqrt(along**2 + beside**2 + (dy / self.axes[2]) ** 2)
        limit = np.ones_like(radius)
        if self.waves:
            turned = np.arctan2(beside, along)
            for order, (size, phase) in enumerate(self.waves, start=3):
                limit += np.float32(size) * np.cos(order * turned + np.float32(phase))
        # Near the surface radius - 1 over the length of its gradient is the distance (mm).
        slope = np.sqrt((along / self.axes[0]) ** 2 + (beside / self.axes[1]) ** 2) / np.maximum(radius, 1e-3)
        distance[near] = (radius - limit) / np.maximum(slope, 1e-3)
        return distance


@dataclass(frozen=True)
class Tubes:
    """Round tubes along straight pieces, each from one end to the other with its own radii.

    Attributes:
        pieces: for each piece the x, y, z (mm) of both ends, and the two radii (mm).
    """

    pieces: Sequence[tuple[tuple[float, float, float], tuple[float, float, float], float, float]]

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        distance = np.full(points.x.shape, FAR, np.float32)
        for start, end, first, last in self.pieces:
            margin = max(first, last) + RIM_MM
            near = (points.x > min(start[0], end[0]) - margin) & (points.x < max(start[0], end[0]) + margin)
            near &= (points.z > min(start[2], end[2]) - margin) & (points.z < max(start[2], end[2]) + margin)
            if not near.any():
                continue
            here = points.where(near)
            offsets = [values - np.float32(at) for values, at in zip(here[:3], start, strict=True)]
            piece = np.subtract(end, start).astype(np.float32)
            share = np.clip(sum(o * p for o, p in zip(offsets, piece, strict=True)) / max(piece @ piece, 1e-3), 0, 1)
            square = sum((o - share * p) ** 2 for o, p in zip(offsets, piece, strict=True))
            found = np.sqrt(square) - (first + (last - first) * share)
            distance[near] = np.minimum(distance[near], found.astype(np.float32))
        return distance


@dataclass(frozen=True)
class Slab:
    """A layer of the body wall between two depths (mm below the skin), which waves and slopes a little along x."""

    top: float
    bottom: float
    wave_mm: float = 0.0
    phase: float = 0.0
    slope: float = 0.0

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        wave = np.float32(self.wave_mm) * np.sin(points.x / 23 + np.float32(self.phase))
        waved = points.layer + wave + np.float32(self.slope) * points.x
        return np.maximum(self.top - waved, waved - self.bottom).astype(np.float32)


@dataclass(frozen=True)
class Liver:
    """What lies below the body wall, within the dome of the diaphragm and before the visceral surface.

    Attributes:
        top: depth (mm below the skin) of its upper surface.
        dome: x, y, z of the dome's centre and its radius (mm).
        edge: x and z (mm) of a point of the visceral surface.
        angle: of that surface's normal, which points out of the liver (radians from x towards z).
        bend: how much that surface bulges (1/mm): positive where the liver is hollow.
        ripple: size (mm) and phase of its waves.
        lean: how much the surface moves for each mm across the picture.
    """

    top: float
    dome: tuple[float, float, float, float]
    edge: tuple[float, float]
    angle: float
    bend: float
    ripple: tuple[float, float]
    lean: float

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        above = self.top - points.layer - 1.2 * np.sin(points.x / 37 + np.float32(self.ripple[1]))
        surfaces = (above, self.to_dome(points), self.to_visceral(points))
        # A soft maximum: the edges of a liver are rounded by about 4 mm.
        together = sum(np.exp(np.clip(surface, -60, 60) / 4) for surface in surfaces)
        return (4 * np.log(np.maximum(together, 1e-6))).astype(np.float32)

    def to_dome(self, points: Points) -> Float32[np.ndarray, "*n"]:
        """Distance (mm) beyond the diaphragm."""
        dx, dy, dz = (values - np.float32(at) for values, at in zip(points[:3], self.dome[:3], strict=True))
        turned = np.arctan2(dx, dz)
        wavy = 1 + 0.02 * np.sin(3 * turned + np.float32(self.ripple[1])) + 0.012 * np.sin(7 * turned)
        return (np.sqrt(dx**2 + dy**2 + dz**2) - self.dome[3] * wavy).astype(np.float32)

    def to_visceral(self, points: Points) -> Float32[np.ndarray, "*n"]:
        """Distance (mm) beyond the visceral surface."""
        dx, dz = points.x - np.float32(self.edge[0]), points.z - np.float32(self.edge[1])
        out = np.cos(self.angle) * dx + np.sin(self.angle) * dz
        along = np.cos(self.angle) * dz - np.sin(self.angle) * dx
        wavy = self.ripple[0] * np.sin(along / 11 + self.ripple[1])
        return (out + self.bend * along**2 + wavy + self.lean * points.y).astype(np.float32)


@dataclass(frozen=True)
class Both:
    """The points inside one shape that are inside another, or less than a margin (mm) outside of it."""

    one: Shape
    other: Shape
    margin: float = 0.0

    def __call__(self, points: Points) -> Float32[np.ndarray, "*n"]:
        distance = self.one(points)
        near = distance < RIM_MM
        distance[near] = np.maximum(distance[near], self.other(points.where(near)) - np.float32(self.margin))
        return distance
