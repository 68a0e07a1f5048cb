"""This file lays the bright tubes that are no brain arteries: venous sinuses, deep and cortical veins, scalp arteries.

Positions are in mm as in `trees`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline

from medseg.phantoms.trees import Branch, Envelope

_STEP_MM = 0.8
_CONFLUENCE_MM = (0.0, -38.0, 18.0)
"""Where the straight sinus begins and the deep veins end."""
# Landmarks of the right side; the first point is where the blood comes from. Radii in mm.
_DEEP_VEINS: tuple[tuple[str, tuple[tuple[float, float, float], ...], tuple[float, float]], ...] = (
    ("internal cerebral vein", ((2.5, 8, 14), (2, -10, 19), (1.5, -26, 19), _CONFLUENCE_MM), (0.6, 1.0)),
    ("basal vein", ((13, 1, -1), (17, -12, 1), (14, -25, 8), (4, -34, 14), _CONFLUENCE_MM), (0.5, 0.9)),
    ("thalamostriate vein", ((17, -16, 24), (13, 0, 22), (2.5, 8, 14)), (0.4, 0.7)),
    ("septal vein", ((3, 26, 18), (2, 16, 17), (2.5, 8, 14)), (0.35, 0.6)),
    ("Sylvian vein", ((40, -6, 12), (36, 8, 2), (28, 16, -4), (18, 12, -9)), (0.6, 1.1)),
)


def lay_sinuses(rng: np.random.Generator, envelope: Envelope) -> tuple[Branch, ...]:
    """The sagittal sinus along the midline of the surface, the straight sinus, and two transverse sinuses."""
    centre, axes = envelope.centre_mm, envelope.semi_axes_mm
    angle = np.deg2rad(np.linspace(60, 195, 160))
    sagittal = centre + np.stack([0.6 * np.sin(3 * angle), axes[1] * np.cos(angle), axes[2] * np.sin(angle)], 1)
    back = sagittal[-1]
    straight = np.linspace(_CONFLUENCE_MM, back, 80)
    straight = straight + np.array([0, 0, 2.5]) * np.sin(np.linspace(0, np.pi, 80))[:, None]
    veins = [
        _tube("sagittal sinus", sagittal, rng.uniform(2.4, 3.4)),
        _tube("straight sinus", straight, rng.uniform(1.4, 2)),
    ]
    turn = np.deg2rad(np.linspace(0, 75, 100))
    for side in (-1, 1):
        around = np.stack(
            [side * axes[0] * np.sin(turn), centre[1] - axes[1] * np.cos(turn), back[2] - 6 * np.sin(turn)], 1
        )
        veins.append(_tube("transverse sinus", around * [0.97, 0.97, 1], rng.uniform(2, 3)))
    return tuple(veins)


def lay_small_veins(rng: np.random.Generator, envelope: Envelope, number: int) -> tuple[Branch, ...]:
    """The deep veins of both sides first, then cortical ones and ones that wander through the white matter."""
    veins = []
    for name, landmarks, (thin, thick) in _DEEP_VEINS:
        for side in (-1, 1):
            places = np.asarray(landmarks, float) * (side, 1, 1)
            places[:-1] += rng.normal(scale=1.5, size=(len(places) - 1, 3))
            veins.append(_tube(name, _smooth_line(places), rng.uniform(thin, thick)))
    order = rng.permutation(len(veins))
    veins = [veins[index] for index in order][:number]
    while len(veins) < number:
        veins.append(_cortical(rng, envelope) if rng.random() < 0.5 else _wandering(rng, envelope))
    return tuple(veins)


def lay_scalp_arteries(rng: np.random.Generator, envelope: Envelope, out_mm: float) -> tuple[Branch, ...]:
    """Thin wavy arteries that climb in the scalp, `out_mm` outside the brain, at the temple and behind the ear."""
    scale = 1 + out_mm / float(envelope.semi_axes_mm.min())
    arteries = []
    for side in (-1, 1):
        for azimuth_deg in (rng.uniform(15, 40), rng.uniform(-45, -20)):
            height = np.linspace(-0.6, 0.75, 200)
            azimuth = (
                np.deg2rad(azimuth_deg)
                + 0.07 * np.sin(height * rng.uniform(12, 20) + rng.uniform(0, 6))
                + 0.25 * height
            )
            flat = np.sqrt(1 - height**2)
            unit = np.stack([side * flat * np.cos(azimuth), flat * np.sin(azimuth), height], 1)
            points = envelope.centre_mm + envelope.semi_axes_mm * scale * unit
            arteries.append(_tube("scalp artery", points, rng.uniform(0.5, 0.9)))
    return tuple(arteries)


def _cortical(rng: np.random.Generator, envelope: Envelope) -> Branch:
    """A vein that climbs over the surface of the brain to the sagittal sinus."""
    side, along = rng.choice((-1, 1)), np.linspace(0, 1, 6)
    angle = np.deg2rad(rng.uniform(20, 70) + (90 - rng.uniform(20, 70)) * along)
    turned = rng.uniform(-1, 1) + 0.3 * rng.normal(size=6) * (1 - along)
    unit = np.stack([side * np.cos(angle), np.sin(turned) * np.sin(angle), np.cos(turned) * np.sin(angle)], 1)
    return _tube(
        "cortical vein", _smooth_line(envelope.centre_mm + 0.97 * envelope.semi_axes_mm * unit), rng.uniform(0.5, 1.1)
    )


def _wandering(rng: np.random.Generator, envelope: Envelope) -> Branch:
    """A thin vein through the part of the brain that the grid shows."""
    low = np.maximum(envelope.box_low_mm, envelope.centre_mm - 0.7 * envelope.semi_axes_mm)
    high = np.minimum(envelope.box_high_mm, envelope.centre_mm + 0.7 * envelope.semi_axes_mm)
    places = [rng.uniform(low, high)]
    heading = rng.normal(size=3)
    for _ in range(3):
        heading = heading / np.linalg.norm(heading) + 0.5 * rng.normal(size=3)
        places.append(places[-1] + rng.uniform(6, 12) * heading / np.linalg.norm(heading))
    return _tube("medullary vein", _smooth_line(places), rng.uniform(0.3, 0.7))


def _smooth_line(landmarks_mm: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """A spline through the landmarks in even steps."""
    landmarks = np.asarray(landmarks_mm, float)
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(landmarks, axis=0), axis=1))])
    return CubicSpline(knots, landmarks)(np.linspace(0, knots[-1], max(int(knots[-1] / _STEP_MM), 8)))


def _tube(name: str, points_mm: np.ndarray, radius_mm: float) -> Branch:
    return Branch(name, np.asarray(points_mm, float), np.full(len(points_mm), float(radius_mm)))
