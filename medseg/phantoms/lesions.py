"""This file adds what disease adds: aneurysms on the arteries, and one huge bright object that is no vessel.

Words: a *dome* is the ball of an aneurysm, a *bleb* a smaller ball on it. Positions are in mm as in `trees`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medseg.phantoms.anatomy import smooth_field
from medseg.phantoms.trees import Branch, Envelope, Tree

DOME_MM = (2.0, 5.0)
"""Smallest and largest radius of a dome: most aneurysms that a TOF shows are 4 to 10 mm wide."""
_PARENT_MM = 0.7
"""Radius from which an artery bears aneurysms: they sit on the forks of the circle and its first branches."""
_CANDIDATES = 60
_WRONG_SIDE_COST = 100.0
"""Above any other cost: the lump lies on the wanted side wherever one of the candidates does."""
_CLEAR_MM = 1.2
"""The huge object keeps this far from arteries, as a bleeding pushes them aside."""


def grow_aneurysms(rng: np.random.Generator, tree: Tree, envelope: Envelope, number: int) -> tuple[Branch, ...]:
    """Saccular aneurysms on forks of large arteries that lie in the box.

    Args:
        rng: the source of every random choice.
        tree: what they grow on.
        envelope: the brain and the box.
        number: how many are wanted; where fewer forks fit, fewer are grown.

    Returns:
        A dome with its neck for each aneurysm (the last radius is the dome's), and a bleb on some of them.
    """
    forks = [j for j in tree.junctions if _fits(tree, j.inflow[0], envelope)]
    parts = []
    for index in rng.permutation(len(forks))[:number]:
        parent = tree.branches[forks[index].inflow[0]]
        start, radius = parent.points_mm[-1], float(rng.uniform(*DOME_MM))
        # At a fork the stream hits the wall straight on, so the dome points the way the parent came.
        heading = _unit(_unit(start - parent.points_mm[-4]) + 0.5 * rng.normal(size=3))
        neck = max(float(parent.radii_mm[-1]), 0.45 * radius)
        centre = start + heading * (0.75 * radius + 0.5 * float(parent.radii_mm[-1]))
        points = np.stack([start, 0.5 * (start + centre), centre, centre + 0.1 * heading])
        parts.append(Branch("aneurysm", points, np.array([neck, 0.5 * (neck + radius), radius, radius])))
        if rng.random() < 0.4:
            aside = _unit(heading + rng.normal(size=3))
            bleb = centre + 0.8 * radius * aside
            parts.append(Branch("bleb", np.stack([bleb, bleb + 0.1 * aside]), np.full(2, 0.45 * radius)))
    return tuple(parts)


def huge_object(
    rng: np.random.Generator,
    spacing: tuple[float, float, float],
    arteries: Float[np.ndarray, "i j k"],
    brain: Bool[np.ndarray, "i j k"],
    *,
    radius_mm: float,
    inside: bool,
) -> Float[np.ndarray, "i j k"]:
    """Share of each voxel that one large lump fills, where it meets few arteries; arteries in it are spared.

    Args:
        rng: the source of every random choice.
        spacing: voxel size in mm.
        arteries: share of each voxel inside arteries.
        brain: the brain.
        radius_mm: mean radius of the lump.
        inside: most of it lies in the brain rather than outside.
    """
    shape = brain.shape
    extent = np.asarray(shape) * spacing
    margin = np.minimum(0.7 * radius_mm, 0.4 * extent)
    places = rng.uniform(margin, extent - margin, size=(_CANDIDATES, 3))
    axes = radius_mm * rng.uniform(0.8, 1.2, size=3)
    coarse = tuple(slice(None, None, 3) for _ in range(3))
    grid = np.ix_(*(np.arange(0, n, 3) * h for n, h in zip(shape, spacing, strict=True)))
    in_brain, has_artery = brain[coarse], arteries[coarse] > 0
    best, least = places[0], np.inf
    for place in places:
        lump = sum(((g - p) / a) ** 2 for g, p, a in zip(grid, place, axes, strict=True)) < 1
        wrong_side = np.mean(in_brain[lump] != inside) if lump.any() else 1.0
        cost = float(wrong_side) + 20 * float(has_artery[lump].mean() if lump.any() else 1.0)
        if wrong_side > 0.5:
            cost += _WRONG_SIDE_COST
        if cost < least:
            best, least = place, cost
    xyz = np.ix_(*((np.arange(n) * h).astype(np.float32) for n, h in zip(shape, spacing, strict=True)))
    relative = np.sqrt(sum(((g - p) / a) ** 2 for g, p, a in zip(xyz, best, axes, strict=True)))
    rough = 0.12 * smooth_field(rng, shape, spacing, max(0.4 * radius_mm, 4.0))
    share = np.clip(0.5 + (1 - relative + rough) * radius_mm / 1.0, 0, 1)
    distance_mm = ndimage.distance_transform_edt(arteries <= 0, sampling=spacing) if (arteries > 0).any() else np.inf
    return (share * np.clip((distance_mm - 0.3) / _CLEAR_MM, 0, 1)).astype(np.float32)


def _fits(tree: Tree, index: int, envelope: Envelope) -> bool:
    """Whether a fork at the end of this branch may bear an aneurysm that the box shows whole."""
    branch = tree.branches[index]
    end = branch.points_mm[-1]
    return bool(
        branch.radii_mm[-1] >= _PARENT_MM
        and np.all(end > envelope.box_low_mm + 2 * DOME_MM[1])
        and np.all(end < envelope.box_high_mm - 2 * DOME_MM[1])
    )


def _unit(vector: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
