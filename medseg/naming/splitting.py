"""This file moves prototypes so that every clicked code lies in a cluster of its class.

*Clicked code*: the code of a voxel that a person named. A cluster with clicks of one class stays as it is and carries
that class. A cluster with clicks of several is *split*: a prototype for each clicked code takes the place of its own,
and they are fitted to the points of that cluster (k-means that starts at the clicks) as long as no click leaves its
class. The same arguments give the same clusters.

References:
    Basu, Banerjee and Mooney, Semi-supervised clustering by seeding, ICML 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medseg.stego.model import Metric, nearness, unit

ROUNDS = 20
"""Most rounds of k-means in a split cluster; it settles in fewer."""
SAME = 2e-3
"""Distance of two codes, in lengths of the longest, up to which they coincide: stored features are rounded to 5e-4, and
float32 has 1e-7 for the square of it."""


@dataclass(frozen=True)
class Clicked:
    """Clusters after the clicks.

    Attributes:
        prototypes: those that stay, in their order, then those of split clusters.
        parent: the cluster that each was, or was split off.
        name: of the class that clicks gave each; None where there was no click in it.
    """

    prototypes: Float[Tensor, "k e"]
    parent: tuple[int, ...]
    name: tuple[str | None, ...]

    @property
    def is_split(self) -> bool:
        """Whether the prototypes are others than before."""
        return len(set(self.parent)) < len(self.parent)


def same_codes(codes: Float[Tensor, "n e"], names: Sequence[str], metric: Metric) -> tuple[int, int] | None:
    """The first two codes that coincide although their names differ."""
    values = unit(codes) if metric == "cosine" else codes
    near = torch.cdist(values, values) <= SAME * values.norm(dim=1).max()
    for one, other in near.triu(1).nonzero().tolist():
        if names[one] != names[other]:
            return one, other
    return None


def clusters_of_clicks(
    codes: Float[Tensor, "n e"],
    names: Sequence[str],
    prototypes: Float[Tensor, "k e"],
    metric: Metric,
    points: Callable[[], Float[Tensor, "m e"]],
) -> Clicked:
    """Name clusters by the classes of clicked codes, and split those that hold several.

    Args:
        codes: of the clicks; no two of different classes may coincide (`same_codes`).
        names: class of each click.
        prototypes: of the clusters.
        metric: of the clusters.
        points: gives codes to fit split clusters to; it is asked only if one is split.
    """
    home = _nearest(codes, prototypes, metric).tolist()
    split = {k for k in home if len({name for name, at in zip(names, home, strict=True) if at == k}) > 1}
    found = _started(codes, names, home, prototypes, split)
    # A new prototype may take a click from a cluster beside it: that one gets prototypes at its clicks too. In the end
    # each clicked code has one, and none can stray.
    while drawn := {home[click] for click in _strayed(codes, names, found, metric)} - split:
        split |= drawn
        found = _started(codes, names, home, prototypes, split)
    return _fitted(codes, names, found, prototypes, metric, points()) if split else found


def _started(
    codes: Tensor, names: Sequence[str], home: Sequence[int], prototypes: Tensor, split: Collection[int]
) -> Clicked:
    """Clusters with a prototype at each clicked code of those to split; where all clicks agree, beside the old one."""
    said = {k: {name for name, at in zip(names, home, strict=True) if at == k} for k in range(len(prototypes))}
    old = [k for k in range(len(prototypes)) if k not in split or len(said[k]) == 1]
    new = [n for n, at in enumerate(home) if at in split]
    return Clicked(
        torch.cat([prototypes[old], codes[new]]),
        (*old, *(home[n] for n in new)),
        (*(next(iter(said[k]), None) for k in old), *(names[n] for n in new)),
    )


def _fitted(
    codes: Tensor, names: Sequence[str], start: Clicked, prototypes: Tensor, metric: Metric, points: Tensor
) -> Clicked:
    """Split clusters with prototypes moved to the means of their points; the last state in which no click strays."""
    parents = torch.tensor(start.parent)
    shared = torch.tensor([start.parent.count(parent) > 1 for parent in start.parent])
    home = _nearest(points, prototypes, metric)
    values = unit(points) if metric == "cosine" else points
    best = start
    for _ in range(ROUNDS):
        moved = best.prototypes.clone()
        for parent in parents[shared].unique().tolist():
            rows, mine = (parents == parent).nonzero().flatten(), values[home == parent]
            nearest = _nearest(mine, best.prototypes[rows], metric)
            for n, row in enumerate(rows.tolist()):
                if (nearest == n).any():
                    moved[row] = mine[nearest == n].mean(0)
        if torch.equal(moved, best.prototypes):
            break
        found = Clicked(moved, start.parent, start.name)
        if _strayed(codes, names, found, metric):
            break
        best = found
    return best


def _strayed(codes: Tensor, names: Sequence[str], found: Clicked, metric: Metric) -> list[int]:
    """The clicks whose nearest prototype carries another class."""
    at = _nearest(codes, found.prototypes, metric).tolist()
    return [n for n, (name, k) in enumerate(zip(names, at, strict=True)) if found.name[k] != name]


def _nearest(codes: Float[Tensor, "n e"], prototypes: Float[Tensor, "k e"], metric: Metric) -> Int[Tensor, " n"]:
    return nearness(codes, prototypes, metric).argmax(1)
