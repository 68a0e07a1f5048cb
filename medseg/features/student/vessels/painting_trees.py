"""This file draws the shapes of painted vessels: trees of bent, tapering tubes in mm, without a voxel.

Its words: a *tube* is a chain of short straight *pieces* along its centre line; a *tree* is a trunk that passes through
the window and the tubes that leave it; a *ball* on a tube is an aneurysm; the *section* says how a tube looks across.
The corner of the window lies at 0 mm, and the centre of voxel (0, 0, 0) half a voxel from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

TREES_MAX = 4
"""Most trees in a window: beside the scan's own vessels more would no longer look like a brain."""
RADIUS_MM = (0.35, 2.5)
"""Radii of trunks, log-uniform: distal branches to the carotid."""
RADIUS_MIN_MM = 0.2
"""Thinnest branch; below it nothing is seen in a TOF."""
TAPER_PER_MM = 0.01
"""Share of its radius that a tube loses per mm."""
BRANCHES_MAX = 4
"""Most branches of a tree; they may branch again."""
BRANCH_RADIUS = (0.4, 0.95)
"""Radius of a branch over that of its parent at the place where it leaves."""
BRANCH_ANGLE_DEG = (25.0, 90.0)
"""Angle between a branch and its parent: from a fork to a perforator."""
BRANCH_LENGTH_MM = (4.0, 40.0)
"""Lengths of branches, log-uniform; the shortest end within most windows."""
CURVATURE_PER_MM = (0.04, 0.5)
"""Strongest curvature of a tube, log-uniform; its rms is about .4 of it: nearly straight to the carotid siphon."""
TRUNK_LENGTH = (0.8, 1.8)
"""Length of a trunk over the window's diagonal: most leave the window at both ends, as vessels do."""
CURVATURE_RADII = 0.6
"""Curvature x radius of a tube at most, so that it does not run into itself."""
BEND_MM = (5.0, 40.0)
"""Wavelengths of the bends."""
PIECE_RADII, PIECE_MM = 0.6, (0.3, 1.5)
"""Length of a piece over the tube's radius, and its bounds: a chord that short leaves the arc by 3 % of the radius."""
CONTRAST = (0.3, 1.4)
"""Brightness of a tree over the scan's C, log-uniform: below it nothing is learnt that can be seen, above it nothing
that is hard."""
THIN_DIMMER = 0.5
"""Share of its brightness that a thin tube may lack (slow flow)."""
THIN_MM = (0.35, 1.2)
"""Radii between which that share falls to nothing."""
NOISE_SD_MIN = 4.0
"""Least brightness of a tube in sd of the scan's noise."""
LAMINAR_MAX = 0.6
"""How far the flow signal may fall from axis to wall."""
POWER = (2.0, 8.0)
"""Exponent of that fall: 2 is laminar flow, more is blunt (plug flow)."""
HOLLOW_MAX, HOLLOW_SHARE, HOLLOW_RADIUS_MM = 0.45, 0.2, 0.8
"""Depth of a signal loss on the axis (turbulence), the share of trees that have it, and the least radius for it."""
FLATNESS_MAX, FLAT_SHARE = 1.8, 0.3
"""Longest axis of an elliptic section over its shortest, and the share of trees that are elliptic."""
BALL_SHARE = 0.08
"""Share of trees that carry an aneurysm."""
BALL_RADII, BALL_MM = (1.2, 3.0), (1.0, 4.5)
"""Radius of an aneurysm over that of its vessel, and its bounds."""


@dataclass(frozen=True)
class Section:
    """How a tube looks across, at r = 0 on its axis to 1 at its wall: 1 - laminar r^power - hollow exp(-(r / .45)^2).

    Attributes:
        laminar: fall of the signal at the wall.
        power: how blunt it is.
        hollow: loss on the axis.
        flatness: longest over shortest axis of the ellipse, 1 for a circle; its area is the circle's.
        across: unit vector that the shortest axis is closest to.
    """

    laminar: float
    power: float
    hollow: float
    flatness: float
    across: Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class Tube:
    """One tube.

    Attributes:
        points_mm: middle of each piece.
        tangents: unit vector along each piece.
        radii_mm: of each piece.
        half_mm: half of a piece's length, 0 for a ball.
        brightness: on the axis of a wide tube, above its surroundings, in tissue medians.
        section: how it looks across.
    """

    points_mm: Float[np.ndarray, "n 3"]
    tangents: Float[np.ndarray, "n 3"]
    radii_mm: Float[np.ndarray, " n"]
    half_mm: float
    brightness: float
    section: Section


def draw_trees(
    rng: np.random.Generator, size_mm: Float[np.ndarray, " 3"], *, contrast_scale: float, noise_sd: float
) -> list[Tube]:
    """Draw 1-4 trees that pass through a window of `size_mm`; the tubes that miss it are left out."""
    tubes: list[Tube] = []
    for _ in range(rng.integers(1, TREES_MAX + 1)):
        tubes += _draw_tree(rng, size_mm, contrast_scale, noise_sd)
    return tubes


def _draw_tree(rng: np.random.Generator, size_mm: np.ndarray, contrast_scale: float, noise_sd: float) -> list[Tube]:
    """One trunk with its branches and, now and then, an aneurysm."""
    radius = _log_uniform(rng, RADIUS_MM)
    tree_brightness = contrast_scale * _log_uniform(rng, CONTRAST)
    dimmer = rng.uniform(0, THIN_DIMMER)
    section = _draw_section(rng, radius)

    def dressed(tube: Tube) -> Tube:
        thin = float(np.interp(tube.radii_mm[0], THIN_MM, (1, 0)))
        brightness = max(tree_brightness * (1 - dimmer * thin), NOISE_SD_MIN * noise_sd)
        hollow = section.hollow if tube.radii_mm[0] > HOLLOW_RADIUS_MM else 0.0
        return replace(tube, brightness=brightness, section=replace(section, hollow=hollow))

    length = float(np.linalg.norm(size_mm)) * rng.uniform(*TRUNK_LENGTH)
    through = rng.uniform(0, 1, 3) * size_mm
    trunk = _draw_course(rng, through, _unit(rng.normal(size=3)), length, radius, section)
    middle = trunk.points_mm[int(len(trunk.points_mm) * rng.uniform(0.3, 0.7))]
    tubes = [reaching_into(dressed(replace(trunk, points_mm=trunk.points_mm - middle + through)), size_mm)]
    for _ in range(rng.integers(0, BRANCHES_MAX + 1)):
        parent = tubes[rng.integers(len(tubes))]
        at = rng.integers(len(parent.points_mm))
        angle = np.deg2rad(rng.uniform(*BRANCH_ANGLE_DEG))
        along = parent.tangents[at]
        direction = np.cos(angle) * along + np.sin(angle) * _unit(np.cross(along, rng.normal(size=3)))
        branch_radius = max(parent.radii_mm[at] * rng.uniform(*BRANCH_RADIUS), RADIUS_MIN_MM)
        branch = _draw_course(
            rng, parent.points_mm[at], direction, _log_uniform(rng, BRANCH_LENGTH_MM), branch_radius, section
        )
        branch = reaching_into(dressed(branch), size_mm)
        if len(branch.points_mm):
            tubes.append(branch)
    if rng.uniform() < BALL_SHARE:
        tubes.append(_draw_ball(rng, tubes[rng.integers(len(tubes))]))
    return tubes


def _draw_course(
    rng: np.random.Generator,
    start_mm: np.ndarray,
    direction: np.ndarray,
    length_mm: float,
    radius_mm: float,
    section: Section,
) -> Tube:
    """A tube from a point in a direction, turning smoothly; its brightness is set later."""
    piece_mm = float(np.clip(PIECE_RADII * radius_mm, *PIECE_MM))
    along = np.arange(max(2, int(length_mm / piece_mm))) * piece_mm
    strongest = min(_log_uniform(rng, CURVATURE_PER_MM), CURVATURE_RADII / radius_mm)
    # Two angles, each the integral of a smooth curvature, so that the curve may turn back but never kinks.
    yaw, pitch = (strongest / np.sqrt(2) * _integrated_waves(rng, along) for _ in range(2))
    sideways = _unit(np.cross(direction, rng.normal(size=3)))
    upwards = np.cross(direction, sideways)
    frame = np.stack([direction, sideways, upwards])
    tangents = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1) @ frame
    points = start_mm + np.cumsum(tangents, axis=0) * piece_mm - tangents * (piece_mm / 2)
    return Tube(points, tangents, radius_mm * np.exp(-TAPER_PER_MM * along), piece_mm / 2, 0.0, section)


def _integrated_waves(rng: np.random.Generator, along_mm: np.ndarray) -> np.ndarray:
    """Integral from 0 of the mean of three waves, which nowhere exceeds 1."""
    shortest, longest = np.log(BEND_MM)
    waves = 2 * np.pi / np.exp(rng.uniform(shortest, longest, size=(3, 1)))
    phases = rng.uniform(0, 2 * np.pi, size=(3, 1))
    return np.mean((np.sin(waves * along_mm + phases) - np.sin(phases)) / waves, axis=0)


def _draw_section(rng: np.random.Generator, radius_mm: float) -> Section:
    """How the tubes of a tree look across."""
    hollow = rng.uniform(0, HOLLOW_MAX) if rng.uniform() < HOLLOW_SHARE and radius_mm > HOLLOW_RADIUS_MM else 0.0
    return Section(
        laminar=rng.uniform(0, LAMINAR_MAX),
        power=_log_uniform(rng, POWER),
        hollow=hollow,
        flatness=rng.uniform(1, FLATNESS_MAX) if rng.uniform() < FLAT_SHARE else 1.0,
        across=_unit(rng.normal(size=3)),
    )


def _draw_ball(rng: np.random.Generator, tube: Tube) -> Tube:
    """An aneurysm whose neck sits on the tube."""
    at = rng.integers(len(tube.points_mm))
    radius = float(np.clip(tube.radii_mm[at] * rng.uniform(*BALL_RADII), *BALL_MM))
    outwards = _unit(np.cross(tube.tangents[at], rng.normal(size=3)))
    centre = tube.points_mm[at] + outwards * (radius * 0.8 + tube.radii_mm[at] * 0.5)
    brightness = tube.brightness * rng.uniform(0.6, 1)  # slow flow
    return Tube(centre[None], tube.tangents[at][None], np.array([radius]), 0.0, brightness, tube.section)


def reaching_into(tube: Tube, size_mm: np.ndarray) -> Tube:
    """The tube with only the pieces that reach into a window of `size_mm`."""
    reach = tube.radii_mm[:, None] * np.sqrt(tube.section.flatness) + tube.half_mm
    near = np.all((tube.points_mm > -reach) & (tube.points_mm < size_mm + reach), axis=1)
    return replace(tube, points_mm=tube.points_mm[near], tangents=tube.tangents[near], radii_mm=tube.radii_mm[near])


def _log_uniform(rng: np.random.Generator, between: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(between))))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
