"""This file finds the places that show what a cluster is: its typical and its borderline ones.

A place, see `patches`, belongs to the cluster of the nearest prototype; its *distance* is the squared one to that
prototype, its *margin* how much farther the next one is. *Typical* places have the smallest distance, *borderline* ones
the smallest margin. Each patch gives its best place to a strip, unless a better one of the same slice lies close to it:
patches overlap. The page does the same in `clusters.js`, for any number of clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medseg.review.gallery.patches import Patches

STRIP = 8
"""Places of each kind that are shown: as many as one takes in at a glance."""
APART = 1 / 4
"""Sides of a patch that places of one slice are apart, along rows or columns."""


@dataclass(frozen=True)
class Assigned:
    """Where the places of some patches belong.

    Attributes:
        cluster: of the nearest prototype.
        next_cluster: of the second nearest.
        distance: squared, to the nearest.
        margin: squared distance to the second nearest, less `distance`.
    """

    cluster: Int[np.ndarray, "n h w"]
    next_cluster: Int[np.ndarray, "n h w"]
    distance: Float[np.ndarray, "n h w"]
    margin: Float[np.ndarray, "n h w"]


@dataclass(frozen=True)
class Place:
    """One place of a strip: its patch, its cell, the next cluster, and how near both are."""

    patch: int
    cell: int
    next_cluster: int
    distance: float
    margin: float


def assign(codes: Float[np.ndarray, "n e h w"], prototypes: Float[np.ndarray, "k e"]) -> Assigned:
    """The two nearest prototypes of every place; of equal ones those with the lower numbers."""
    shape = (len(codes), len(prototypes), *codes.shape[2:])
    distances = np.empty(shape)
    for number, prototype in enumerate(prototypes):
        distances[:, number] = np.square(codes - prototype[:, None, None]).sum(axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :2]
    near = np.take_along_axis(distances, order, axis=1)
    return Assigned(order[:, 0], order[:, 1], near[:, 0], near[:, 1] - near[:, 0])


def typical_places(found: Assigned, patches: Patches, cluster: int) -> list[Place]:
    """Places nearest to the prototype of a cluster; none where no patch shows it."""
    return _best(found, patches, cluster, found.distance)


def borderline_places(found: Assigned, patches: Patches, cluster: int) -> list[Place]:
    """Places of a cluster that nearly belong to another one."""
    return _best(found, patches, cluster, found.margin)


def _best(found: Assigned, patches: Patches, cluster: int, by: Float[np.ndarray, "n h w"]) -> list[Place]:
    values = np.where((found.cluster == cluster) & patches.inside, by, np.inf).reshape(len(by), -1)
    cells = values.argmin(axis=1)
    least = values[np.arange(len(values)), cells]
    places: list[Place] = []
    for patch in np.argsort(least, kind="stable").tolist():
        cell = int(cells[patch])
        if len(places) == STRIP or not np.isfinite(least[patch]):
            break
        if any(_are_close(patches, (patch, cell), (place.patch, place.cell)) for place in places):
            continue
        next_cluster, distance, margin = (
            part[patch].flat[cell] for part in (found.next_cluster, found.distance, found.margin)
        )
        places.append(Place(patch, cell, int(next_cluster), float(distance), float(margin)))
    return places


def _are_close(patches: Patches, one: tuple[int, int], other: tuple[int, int]) -> bool:
    if patches.sources[one[0]].case != patches.sources[other[0]].case:
        return False
    here, there = patches.stored_place(*one), patches.stored_place(*other)
    steps = [abs(a - b) for a, b in zip(here, there, strict=True)]
    return steps[0] == 0 and max(steps) < APART * patches.size
