"""This file says what a simulated scene is made of, and what the beams of a probe meet in it.

A *scene* is a list of *parts*, later ones over earlier ones. Brightness is in dB above the liver's speckle, *loss* in
dB a cm (there and back) beyond what the scanner's gain makes up for; negative loss brightens what lies behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from medseg.phantoms.shapes import Liver, Points, Shape

SceneKind = Literal["liver", "thyroid", "muscle", "water"]
TISSUE, LIVER, MASS = 1, 2, 3
"""Values of the labels within the sector."""
_MIRROR_FADE_DB = 2.5
"""What a mirror image loses with each cm beyond the diaphragm."""


@dataclass(frozen=True)
class Part:
    """One piece of anatomy.

    Attributes:
        name: what it is.
        shape: where it lies.
        level_db: brightness of its speckle.
        soft_db: how much its brightness varies slowly.
        strands_db: how bright the strands of connective tissue in it are.
        stripes_db: how much layers along the skin stand out.
        loss: dB a cm.
        rim_db: brightness of its surface where the beam meets it at a right angle; None for no echo.
        label: value in the label; None leaves what lies below.
        is_vessel: counts as a vessel.
        is_gas: sends a dirty shadow.
    """

    name: str
    shape: Shape
    level_db: float
    soft_db: float = 1.0
    strands_db: float = 0.0
    stripes_db: float = 0.0
    loss: float = 0.0
    rim_db: float | None = None
    label: int | None = TISSUE
    is_vessel: bool = False
    is_gas: bool = False


class Maps(NamedTuple):
    """What a scene is made of at each point (see `Part`); `rim` is an amplitude, 1 for the liver's speckle."""

    level_db: Float32[np.ndarray, "*n"]
    soft_db: Float32[np.ndarray, "*n"]
    strands_db: Float32[np.ndarray, "*n"]
    stripes_db: Float32[np.ndarray, "*n"]
    loss: Float32[np.ndarray, "*n"]
    rim: Float32[np.ndarray, "*n"]
    gas: Bool[np.ndarray, "*n"]


@dataclass(frozen=True)
class Scene:
    """All parts, and the liver among them.

    Attributes:
        kind: what is shown.
        parts: later ones lie over earlier ones.
        liver: its shape; None where there is none.
        mirror_db: loss of the mirror image behind the diaphragm.
        facts: what was drawn, as plain values.
    """

    kind: SceneKind
    parts: tuple[Part, ...]
    liver: Liver | None = None
    mirror_db: float = 0.0
    facts: dict[str, object] = field(default_factory=dict)

    def maps(self, points: Points) -> Maps:
        """What the beams meet; the first axis of the points runs along them."""
        background = (3.5, 4.0, 10.0, 0.0, 0.2) if self.kind == "liver" else (-2.0, 2.0, 5.0, 3.0, 0.3)
        if self.kind == "water":
            background = (-42.0, 0.0, 0.0, 0.0, -0.3)
        level, soft, strands, stripes, loss = (np.full(points.x.shape, value, np.float32) for value in background)
        rim, gas = np.zeros(points.x.shape, np.float32), np.zeros(points.x.shape, bool)
        for part in self.parts:
            distance = part.shape(points)
            inside = distance < 0
            if not (inside.any() or part.rim_db is not None):
                continue
            for target, value in zip((level, soft, strands, stripes, loss), _numbers(part), strict=True):
                target[inside] = value
            rim[distance < -0.8] = 0  # what lies below is hidden
            gas[inside] = part.is_gas
            if part.rim_db is not None:
                rim = np.maximum(rim, _echo(distance, points, part.rim_db))
        return Maps(level, soft, strands, stripes, loss, rim, gas)

    def fold(self, points: Points) -> tuple[Points, Float32[np.ndarray, "*n"]]:
        """Where the echoes of each point come from, and how far beyond the diaphragm it lies (mm; 0 before it).

        The diaphragm with the lung behind it is a mirror: the picture shows the liver once more beyond it.
        """
        if self.liver is None:
            return points, np.zeros_like(points.x)
        beyond = self.liver.to_dome(points)
        beyond = np.where((self.liver.to_visceral(points) < 8) & (points.layer > self.liver.top), beyond, 0).clip(0)
        at = self.liver.dome
        shrunk = (at[3] - beyond) / (at[3] + beyond)
        folded = [
            np.float32(c) + (values - np.float32(c)) * shrunk for values, c in zip(points[:3], at[:3], strict=True)
        ]
        x, y, z = (
            np.where(beyond > 0, new, old).astype(np.float32) for new, old in zip(folded, points[:3], strict=True)
        )
        return Points(x, y, z, points.layer + (z - points.z)), beyond.astype(np.float32)

    def mirror_loss_db(self, beyond: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
        """By how much what lies beyond the diaphragm (mm) is darker than what it mirrors."""
        return np.where(beyond > 0, self.mirror_db + _MIRROR_FADE_DB * beyond / 10, 0).astype(np.float32)

    def labels(self, points: Points) -> tuple[UInt8[np.ndarray, "*n"], Bool[np.ndarray, "*n"]]:
        """Label of each point as if nothing cast a shadow, and which lie in vessels of the liver."""
        labels = np.full(points.x.shape, TISSUE, np.uint8)
        vessels = np.zeros(points.x.shape, bool)
        for part in self.parts:
            if part.label is None and not part.is_vessel:
                continue
            inside = part.shape(points) < 0
            vessels[inside] = part.is_vessel
            if part.label is not None:
                labels[inside] = part.label
        return labels, vessels & (labels == LIVER)


def _numbers(part: Part) -> tuple[float, float, float, float, float]:
    return part.level_db, part.soft_db, part.strands_db, part.stripes_db, part.loss


def _echo(distance: Float32[np.ndarray, "*n"], points: Points, rim_db: float) -> Float32[np.ndarray, "*n"]:
    """Amplitude of a surface: a mirror shines only where the beam meets it at a right angle."""
    close = np.exp(-((distance / 0.7) ** 2))
    across = np.gradient(distance, axis=0) / np.maximum(np.abs(np.gradient(points.layer, axis=0)), 1e-3)
    facing = np.clip(np.abs(across), 0, 1) ** 2.5
    return (10 ** (rim_db / 20) * close * (0.1 + 0.9 * facing)).astype(np.float32)


def skin_depth(polar: Float32[np.ndarray, "2 ..."], z: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Depth (mm) of layers of the body: along the probe's face near it, flatter below."""
    flat = 0.6 * np.clip(polar[0] / 45, 0, 1)
    return (polar[0] - flat * (polar[0] - z)).astype(np.float32)
