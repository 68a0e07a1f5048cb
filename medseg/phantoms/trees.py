"""This file grows artery trees: a circle of Willis that is fed from below and branches outwards.

Words: a *branch* is an unbranched piece of tube, a centre line (mm, the ring at the origin; x to the right, y to the
front, z up) with a radius at each point. At a *junction* branches end and others start. Murray's law holds at every
junction: the cubes of the radii that arrive sum to the cubes of those that leave. A *style* sets how trees differ as a
family; with another exponent the law holds for that power instead of the cube.

References:
    C. D. Murray, The physiological principle of minimum work, PNAS 1926: flow, and so the radius cubed, is conserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

SMALLEST_RADIUS_MM = 0.3
LARGEST_RADIUS_MM = 2.5
_STEP_MM = 0.6
_TAPER_PER_MM = 0.002
_LANDMARK_SD_MM = 1.2
_OUTSIDE_MARGIN_MM = 4.0
Vector = Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class Branch:
    """One unbranched tube: `points_mm` along its axis and the radius at each of them."""

    name: str
    points_mm: Float[np.ndarray, "n 3"]
    radii_mm: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Junction:
    """Indices of the branches that end (`inflow`) and start (`outflow`) at one place."""

    inflow: tuple[int, ...]
    outflow: tuple[int, ...]


@dataclass(frozen=True)
class Envelope:
    """The brain as an ellipsoid (mm) that arteries stay in, and the box (mm) beyond which none is grown."""

    centre_mm: Vector
    semi_axes_mm: Vector
    box_low_mm: Vector
    box_high_mm: Vector

    def relative_radius(self, point_mm: Vector) -> float:
        """0 at the centre, 1 on the surface."""
        return float(np.linalg.norm((point_mm - self.centre_mm) / self.semi_axes_mm))

    def outward(self, point_mm: Vector) -> Vector:
        """The unit normal of the ellipsoid through the point."""
        return _unit((point_mm - self.centre_mm) / self.semi_axes_mm**2)

    def is_in_box(self, point_mm: Vector) -> bool:
        margin = _OUTSIDE_MARGIN_MM
        return bool(np.all(point_mm > self.box_low_mm - margin) and np.all(point_mm < self.box_high_mm + margin))


@dataclass(frozen=True)
class TreeStyle:
    """How a family of trees grows.

    Attributes:
        murray: the power of the radius that is conserved at a junction; 3 is Murray's law.
        tortuosity: factor on how much centre lines wave and turn.
        twig_length: factor on the length from fork to fork beyond the named arteries.
        looseness: factor on the scatter of the landmarks.
    """

    murray: float = 3.0
    tortuosity: float = 1.0
    twig_length: float = 1.0
    looseness: float = 1.0


@dataclass
class Tree:
    """Branches and the junctions between them."""

    branches: list[Branch] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    style: TreeStyle = TreeStyle()

    def murray_errors(self) -> list[float]:
        """Relative difference of the summed cubed radii (or the style's power) before and after each junction."""
        errors = []
        power = self.style.murray
        for junction in self.junctions:
            before = sum(self.branches[index].radii_mm[-1] ** power for index in junction.inflow)
            after = sum(self.branches[index].radii_mm[0] ** power for index in junction.outflow)
            errors.append(abs(float(after / before) - 1.0))
        return errors

    def _add(self, name: str, points_mm: np.ndarray, radius_mm: float, end_radius_mm: float | None = None) -> int:
        """Append a branch that tapers from `radius_mm`; return its index."""
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_mm, axis=0), axis=1))])
        if end_radius_mm is None:
            end_radius_mm = max(radius_mm * (1 - _TAPER_PER_MM * along[-1]), SMALLEST_RADIUS_MM)
        radii = radius_mm + (end_radius_mm - radius_mm) * along / along[-1]
        self.branches.append(Branch(name, points_mm, radii))
        return len(self.branches) - 1

    def _join(self, inflow: Sequence[int], outflow: Sequence[int]) -> None:
        self.junctions.append(Junction(tuple(inflow), tuple(outflow)))

    def _near(self, rng: np.random.Generator, landmark_mm: Sequence[float], sd_mm: float = _LANDMARK_SD_MM) -> Vector:
        """A place near the landmark."""
        return np.asarray(landmark_mm, dtype=float) + rng.normal(size=3) * (sd_mm * self.style.looseness)

    def _curve(self, rng: np.random.Generator, landmarks_mm: Sequence[Vector]) -> Float[np.ndarray, "n 3"]:
        """A spline through the landmarks in even steps, with a slight random waviness that vanishes at both ends."""
        landmarks = np.stack(landmarks_mm)
        knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(landmarks, axis=0), axis=1))])
        along = np.linspace(0, knots[-1], max(int(np.ceil(knots[-1] / _STEP_MM)), 5) + 1)
        points = CubicSpline(knots, landmarks)(along)
        share = along / along[-1]
        waves = np.stack([np.sin(np.pi * order * share) / order for order in range(2, 6)], axis=1)
        height = 0.03 * min(knots[-1], 25) * self.style.tortuosity
        return points + height * np.sin(np.pi * share)[:, None] * (waves @ rng.normal(size=(4, 3)))

    def _merged(self, *radii_mm: float) -> float:
        """The radius that carries the flow of all of them."""
        power = self.style.murray
        return sum(radius**power for radius in radii_mm) ** (1 / power)

    def _left_over(self, radius_mm: float, leaving_mm: float) -> float:
        """The radius that is left when another artery has left."""
        power = self.style.murray
        return (radius_mm**power - leaving_mm**power) ** (1 / power)

    def _end(self, index: int) -> tuple[Vector, float]:
        """Last point and last radius of a branch."""
        return self.branches[index].points_mm[-1], float(self.branches[index].radii_mm[-1])


def split_radius(radius_mm: float, share: float, murray: float = 3.0) -> tuple[float, float]:
    """Radii of two daughters of which the first takes `share` of the flow (Murray's law, or another power)."""
    return radius_mm * share ** (1 / murray), radius_mm * (1 - share) ** (1 / murray)


def grow_circle_of_willis(
    rng: np.random.Generator, envelope: Envelope, *, smallest_mm: float = 0.36, style: TreeStyle | None = None
) -> Tree:
    """Grow carotids, vertebrals, the arterial circle and the branches that leave it.

    Args:
        rng: the source of every random choice.
        envelope: what the arteries stay in.
        smallest_mm: branches thinner than this are not grown; at least `SMALLEST_RADIUS_MM`.
        style: what sets this family of trees apart; None for Murray's law and the usual courses.

    Returns:
        A tree with radii between `SMALLEST_RADIUS_MM` and `LARGEST_RADIUS_MM`. Either posterior communicating artery is
        missing in a quarter of the seeds, as in people.
    """
    tree = Tree(style=style or TreeStyle())
    power = tree.style.murray
    low = float(envelope.box_low_mm[2]) - _OUTSIDE_MARGIN_MM
    basilar = _grow_basilar(tree, rng, low)
    top, basilar_radius = tree._end(basilar)
    posterior_radii = split_radius(basilar_radius, rng.uniform(0.42, 0.58), power)
    carotid = {side: _grow_carotid(tree, rng, low, side) for side in (-1, 1)}
    first_posterior: list[int] = []
    anterior: dict[int, int] = {}
    for side, posterior_radius in zip((-1, 1), posterior_radii, strict=True):
        joint = tree._near(rng, (side * 10, -13, 1.5))
        p1 = tree._add(
            "posterior, first part",
            tree._curve(rng, [top, tree._near(rng, (side * 5, -14, 1)), joint]),
            posterior_radius,
        )
        first_posterior.append(p1)
        fork, fork_radius = tree._end(carotid[side])
        joint_radius = tree._end(p1)[1]
        communicating = float(rng.uniform(0.4, 0.8)) if rng.random() > 0.25 else 0.0
        leaving: list[int] = []
        if communicating:
            middle = tree._near(rng, (side * 11, -4, 0))
            link = tree._add(
                "posterior communicating", tree._curve(rng, [fork, middle, joint]), communicating, communicating
            )
            leaving.append(link)
        p2_radius = tree._merged(joint_radius, communicating)
        ambient = [joint, tree._near(rng, (side * 17, -22, 5)), tree._near(rng, (side * 15, -34, 10))]
        p2 = tree._add("posterior, second part", tree._curve(rng, ambient), p2_radius)
        tree._join([p1, *leaving], [p2])
        _grow_beyond(tree, rng, envelope, p2, np.array([side * 0.35, -1, 0.35]), smallest_mm)
        middle_radius, anterior_radius = split_radius(
            tree._left_over(fork_radius, communicating), rng.uniform(0.6, 0.7), power
        )
        lateral = [fork, tree._near(rng, (side * 19, 6, 2)), tree._near(rng, (side * 29, 3, 3))]
        m1 = tree._add("middle", tree._curve(rng, lateral), middle_radius)
        forward = [fork, tree._near(rng, (side * 7, 9, 3)), tree._near(rng, (side * 1.8, 13, 3), 0.4)]
        anterior[side] = tree._add("anterior, first part", tree._curve(rng, forward), anterior_radius)
        tree._join([carotid[side]], [m1, anterior[side], *leaving])
        _grow_beyond(tree, rng, envelope, m1, np.array([side * 0.6, -0.25, 0.6]), smallest_mm)
    tree._join([basilar], first_posterior)
    _grow_anterior(tree, rng, envelope, anterior, smallest_mm)
    return tree


def _grow_carotid(tree: Tree, rng: np.random.Generator, low_mm: float, side: int) -> int:
    """An internal carotid: up the neck, through the skull base, the siphon's S, to the fork at the ring."""
    siphon = [(24, -16, -38), (22, -10, -27), (13, -6, -21), (10, 1, -16), (9, 9, -11), (10, 6, -5), (11.5, 2, 0)]
    landmarks = [tree._near(rng, (side * x, y, z)) for x, y, z in siphon]
    neck = [tree._near(rng, (side * 25, -17, z)) for z in np.arange(-50, low_mm, -12)[::-1]]
    start = float(rng.uniform(2.1, 2.45))
    return tree._add(
        "internal carotid", tree._curve(rng, [*neck, *landmarks]), start, start * float(rng.uniform(0.76, 0.86))
    )


def _grow_basilar(tree: Tree, rng: np.random.Generator, low_mm: float) -> int:
    """Two vertebrals that run together into the basilar, which ends behind the ring."""
    confluence = tree._near(rng, (0, -22, -30))
    vertebrals = []
    for side in (-1, 1):
        neck = [tree._near(rng, (side * 13, -27, z)) for z in np.arange(-50, low_mm, -12)[::-1]]
        landmarks = [*neck, tree._near(rng, (side * 10, -28, -42)), tree._near(rng, (side * 5, -24, -35)), confluence]
        radius = float(rng.uniform(1.15, 1.5))
        vertebrals.append(tree._add("vertebral", tree._curve(rng, landmarks), radius, radius * 0.94))
    radius = tree._merged(*(tree._end(index)[1] for index in vertebrals))
    landmarks = [
        confluence,
        tree._near(rng, (0, -19, -18)),
        tree._near(rng, (0, -16, -8)),
        tree._near(rng, (0, -14, -1)),
    ]
    basilar = tree._add("basilar", tree._curve(rng, landmarks), radius, radius * 0.94)
    tree._join(vertebrals, [basilar])
    return basilar


def _grow_anterior(
    tree: Tree, rng: np.random.Generator, envelope: Envelope, anterior: dict[int, int], smallest_mm: float
) -> None:
    """The anterior communicating artery, which gives from the left to the right, and both arteries beyond it."""
    (left, left_radius), (right, right_radius) = tree._end(anterior[-1]), tree._end(anterior[1])
    bridge_radius = float(rng.uniform(0.4, 0.65))
    bridge = tree._add("anterior communicating", np.linspace(left, right, 6), bridge_radius, bridge_radius)
    beyond = {-1: tree._left_over(left_radius, bridge_radius), 1: tree._merged(right_radius, bridge_radius)}
    second = {}
    for side, start in ((-1, left), (1, right)):
        knee = [start, tree._near(rng, (side * 1.8, 17, 10), 0.5), tree._near(rng, (side * 2, 24, 20), 0.6)]
        second[side] = tree._add("anterior, second part", tree._curve(rng, knee), beyond[side])
        _grow_beyond(tree, rng, envelope, second[side], np.array([side * 0.04, -0.2, 1.0]), smallest_mm)
    tree._join([anterior[-1]], [second[-1], bridge])
    tree._join([anterior[1], bridge], [second[1]])


def _grow_beyond(
    tree: Tree, rng: np.random.Generator, envelope: Envelope, first: int, heading: Vector, smallest_mm: float
) -> None:
    """Fork the tree from the end of branch `first` until branches are too thin or leave the box."""
    smallest_mm = max(smallest_mm, SMALLEST_RADIUS_MM)
    waiting = [(first, _unit(heading))]
    while waiting:
        parent, heading = waiting.pop()
        end, radius = tree._end(parent)
        # A fork is grown whole or not at all: a trunk that lost a daughter silently would break Murray's law.
        largest_share = 1 - (smallest_mm / radius) ** tree.style.murray
        if largest_share < 0.5 or not envelope.is_in_box(end):
            continue
        daughters = split_radius(radius, rng.uniform(0.5, min(largest_share, 0.94)), tree.style.murray)
        points = tree.branches[parent].points_mm
        direction = _unit(points[-1] - points[-3])
        axis = _unit(np.cross(direction, rng.normal(size=3)))
        children = []
        for radius, angle_deg in zip(daughters, (rng.uniform(5, 30), -rng.uniform(30, 75)), strict=True):
            turned = direction * np.cos(np.deg2rad(angle_deg)) + axis * np.sin(np.deg2rad(angle_deg))
            length = tree.style.twig_length * float(np.clip(radius * rng.uniform(12, 26), 7, 30))
            drift = _unit(heading + 0.45 * rng.normal(size=3))
            child = tree._add(
                "distal", _wander(rng, envelope, end, turned, drift, length, tree.style.tortuosity), radius
            )
            children.append(child)
            waiting.append((child, drift))
        tree._join([parent], children)


def _wander(
    rng: np.random.Generator,
    envelope: Envelope,
    start: Vector,
    direction: Vector,
    heading: Vector,
    length_mm: float,
    tortuosity: float = 1.0,
) -> Float[np.ndarray, "n 3"]:
    """A smooth random walk that leans towards `heading` and slides along the inside of the envelope."""
    points = [start]
    direction, turn = _unit(direction), np.zeros(3)
    for _ in range(max(int(length_mm / _STEP_MM), 4)):
        turn = 0.85 * turn + 0.075 * tortuosity * rng.normal(size=3)
        direction = direction + turn + 0.05 * heading
        outward = envelope.outward(points[-1])
        excess = envelope.relative_radius(points[-1]) - 0.9
        if excess > 0 and direction @ outward > -0.1:
            direction = direction - (direction @ outward + min(4 * excess, 0.5)) * outward
        direction = _unit(direction)
        points.append(points[-1] + _STEP_MM * direction)
    return np.stack(points)


def _unit(vector: Vector) -> Vector:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
