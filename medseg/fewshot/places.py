"""This file chooses which labelled places teach a probe, without looking at how the probe answers.

*Labels* are the class of each voxel of a prepared scan, 0 for background and `UNKNOWN` where nobody said anything.
*Prior* is what the label-free method believes, *salience* a label-free map of where something is. A *hard* place is a
labelled one where the prior is wrong, or background that is salient: there a label says something new.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from medseg.patches.sampling import SALIENCE_FLOOR

UNKNOWN = -1
"""Label of voxels that nobody labelled; they have no weight."""
POSITIVE_SHARE, HARD_SHARE = 0.5, 0.25
"""Of the places drawn: on labelled classes, and on hard ones; the rest is drawn from all that is labelled."""


class Points(NamedTuple):
    """Labelled voxels.

    Attributes:
        places: their indices.
        weight: how many labelled voxels each stands for, so that sums are those over all of them.
    """

    places: Int[np.ndarray, "n 3"]
    weight: Float[np.ndarray, " n"]


def choose_slices(
    salience: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"], count: int
) -> Int[np.ndarray, " n"]:
    """Which axial slices somebody should label: spread evenly, and in each stretch the one with the most salience.

    Args:
        salience: of the scan.
        region: where to look.
        count: slices wanted; a scan with fewer gives all it has.
    """
    amount = np.where(region, salience, 0).clip(0).sum(axis=(0, 1))
    shown = np.flatnonzero(region.any(axis=(0, 1)))
    stretches = np.array_split(shown, min(count, len(shown))) if len(shown) else []
    return np.array([stretch[amount[stretch].argmax()] for stretch in stretches], dtype=np.int64)


def hard_places(
    labels: Integer[np.ndarray, "i j k"],
    prior: Integer[np.ndarray, "i j k"],
    salience: Float[np.ndarray, "i j k"],
) -> Bool[np.ndarray, "i j k"]:
    """Where a label contradicts the prior, or calls something salient background."""
    return (labels != UNKNOWN) & ((labels != prior) | ((labels == 0) & (salience > SALIENCE_FLOOR)))


def draw_points(
    labels: Integer[np.ndarray, "i j k"], hard: Bool[np.ndarray, "i j k"], *, most: int, rng: np.random.Generator
) -> Points:
    """Labelled voxels: all of the classes, hard background, and other background, up to `most`."""
    background = labels == 0
    shares = (
        (labels > 0, POSITIVE_SHARE),
        (background & hard, HARD_SHARE),
        (background & ~hard, 1 - POSITIVE_SHARE - HARD_SHARE),
    )
    places, weights = [], []
    for stratum, share in shares:
        found = np.argwhere(stratum)
        drawn = found if len(found) <= share * most else rng.choice(found, int(share * most), replace=False)
        places.append(drawn)
        weights.append(np.full(len(drawn), len(found) / max(len(drawn), 1)))
    return Points(np.concatenate(places), np.concatenate(weights))


def draw_anchors(
    labels: Integer[np.ndarray, "i j k"],
    prior: Integer[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    *,
    most: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "n 3"]:
    """Voxels that nobody labelled, half of them where the prior sees a class: there the prior is to stay."""
    unknown = (labels == UNKNOWN) & region
    drawn = []
    for stratum in (unknown & (prior > 0), unknown & (prior == 0)):
        found = np.argwhere(stratum)
        drawn.append(found if len(found) <= most // 2 else rng.choice(found, most // 2, replace=False))
    return np.concatenate(drawn)


def draw_windows(
    labels: Integer[np.ndarray, "i j k"],
    hard: Bool[np.ndarray, "i j k"],
    *,
    side: int,
    count: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "n 3"]:
    """First voxels of windows around labelled voxels; a volume smaller than a window is padded by who cuts it."""
    centres = []
    wanted = [round(POSITIVE_SHARE * count), round(HARD_SHARE * count)]
    known = labels != UNKNOWN
    for stratum, number in zip((labels > 0, hard, known), (*wanted, count - sum(wanted)), strict=True):
        found = np.flatnonzero(stratum if stratum.any() else known)
        if len(found):
            chosen = rng.choice(found, number, replace=number > len(found))
            centres.append(np.stack(np.unravel_index(chosen, labels.shape), axis=1))
    if not centres:
        return np.zeros((0, 3), np.int64)
    last = np.maximum(np.array(labels.shape) - side, 0)
    return np.clip(np.concatenate(centres) - side // 2, 0, last)
