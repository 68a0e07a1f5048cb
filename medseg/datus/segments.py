"""This file cuts a picture into segments: communities of its tied cells, and their connected pieces.

Words: a *community* is a group of cells that are tied more often than their number of ties lets expect, found by the
Louvain method, which raises *modularity* step by step; cells are visited in reading order, so that nothing is left to
chance. Its *resolution* (gamma) above 1 gives more and smaller communities. A *segment* is a piece of a community that
hangs together, corners included (8-connected).

References:
    Blondel, Guillaume, Lambiotte and Lefebvre, Fast unfolding of communities in large networks, 2008.
    Kumar, Sur and Baruah, DatUS, 2024, section III.
"""

from __future__ import annotations

import cc3d
import numpy as np
from jaxtyping import Bool, Integer
from scipy.sparse import csr_matrix
from sknetwork.clustering import Louvain

OUTSIDE = -1
"""The segment of cells that are not looked at."""
RESOLUTION = 1.0
"""Of the communities, as published."""


def communities(ties: Bool[np.ndarray, "n n"], *, resolution: float = RESOLUTION) -> Integer[np.ndarray, " n"]:
    """The community of each cell, numbered in the order of their first cells.

    Cells that are tied to none, as all are where a picture is even, make one community together.

    Args:
        ties: which cells are tied, see `affinity.tied`.
        resolution: more than 1 gives more communities, less than 1 fewer.
    """
    numbers = np.zeros(len(ties), dtype=np.int64)
    tied = np.flatnonzero(ties.any(axis=0))
    if len(tied):
        found = Louvain(resolution=resolution).fit_predict(csr_matrix(ties[np.ix_(tied, tied)]))
        numbers[tied] = 1 + found
    return in_order(numbers)


def connected_segments(groups: Integer[np.ndarray, "hc wc"]) -> Integer[np.ndarray, "hc wc"]:
    """The 8-connected pieces of each group, numbered in reading order; cells of group `OUTSIDE` stay outside."""
    pieces = cc3d.connected_components((groups + 1).astype(np.uint32), connectivity=8).astype(np.int64)
    segments = np.full(groups.shape, OUTSIDE, dtype=np.int64)
    inside = groups != OUTSIDE
    segments[inside] = in_order(pieces[inside])
    return segments


def in_order(numbers: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " n"]:
    """The same groups with the numbers 0, 1, 2 ... in the order in which they first come."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place]
