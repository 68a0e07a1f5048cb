"""This file measures clusters, without labels: one card a cluster, on which rules then decide.

*Measurement*: a number per sampled voxel, such as its brightness. *Fact*: a number per cluster, named
`STATISTIC_MEASUREMENT` (`median_salience`), or one of `SHARES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from medseg.errors import MedsegError

MEASUREMENTS = {
    "brightness": "brightness, in medians of the tissue; of pictures and ultrasound 0 black to 1 white",
    "contrast": "brightness above the mean of a square around, same unit",
    "texture": "standard deviation of the brightness in a small square, same unit",
    "salience": "vesselness q of the flux rule, in units of the volume's own scale",
    "tubularity": "oriented flux over contrast",
    "depth": "distance from the rim of the region, mm",
    "answer": "probability that the student gives, 0 to 1",
    "sector_depth": "depth in the sector, from the probe (0) to the far end (1)",
    "height": "position from the lowest (0) to the highest (1) slice of the region, or row of a picture",
    "left_right": "position from the left (0) to the right (1) end of the region: the patient's, or the picture's",
    "back_front": "position from the back (0) to the front (1) end of the region",
}
"""What can be measured of a voxel, in words with the unit. Which of them there are depends on the modality."""

VOLUME = "mm3"
"""What each sampled voxel stands for is summed up, where the others are described by statistics."""

STATISTICS = {
    "mean": lambda values: np.mean(values),
    "median": lambda values: np.median(values),
    "p10": lambda values: np.percentile(values, 10),
    "p90": lambda values: np.percentile(values, 90),
}
"""What is said of a cluster's voxels."""

SHARES = {
    "share": "share of all sampled voxels",
    "cases": "share of the cases in which the cluster occurs",
    VOLUME: "volume in a case, mm3, mean over the cases: an estimate from the sampled voxels",
    "symmetry": "voxels on the side of the region with fewer of them over those on the other: 1 alike, 0 one side only",
}
"""What is said of a cluster as a whole; the last two only where the region and its sides are known."""

FACTS = {
    **SHARES,
    **{
        f"{statistic}_{name}": f"{statistic} {words}"
        for name, words in MEASUREMENTS.items()
        for statistic in STATISTICS
    },
}
"""Every fact a rule may ask for, in words."""


@dataclass(frozen=True)
class ClusterCard:
    """What was measured of one cluster.

    Attributes:
        cluster: its number.
        voxels: how many sampled voxels fell into it; 0 for an unused one, which has no facts but its shares.
        facts: numbers by the keys of `FACTS`.
    """

    cluster: int
    voxels: int
    facts: Mapping[str, float]


def measure_clusters(
    assignments: Integer[np.ndarray, " n"],
    measurements: Mapping[str, Float[np.ndarray, " n"]],
    cases: Integer[np.ndarray, " n"],
    *,
    clusters: int,
) -> list[ClusterCard]:
    """Measure every cluster over the sampled voxels of all training cases.

    Args:
        assignments: cluster of each sampled voxel, `0 .. clusters - 1`.
        measurements: numbers of each sampled voxel, by the keys of `MEASUREMENTS`; those at hand are enough. Also
            `mm3`, which each voxel stands for.
        cases: index of the case each voxel comes from.
        clusters: how many clusters there are, used or not.

    Returns:
        One card a cluster, in their order.

    Raises:
        MedsegError: an unknown measurement, arrays of unequal length, no voxel, or a cluster out of range.
    """
    if not len(assignments):
        raise MedsegError("naming must have sampled voxels to measure, got none; check region and patches")
    if assignments.min() < 0 or assignments.max() >= clusters:
        raise MedsegError(
            f"cluster numbers must lie in 0..{clusters - 1}, got {assignments.min()}..{assignments.max()}; "
            "the clusters and their voxels come from different models"
        )
    for name, values in {**measurements, "cases": cases}.items():
        if name not in ("cases", VOLUME, *MEASUREMENTS):
            raise MedsegError(f"measurement must be one of {', '.join(MEASUREMENTS)}, got {name!r}; correct its name")
        if len(values) != len(assignments):
            raise MedsegError(
                f"measurement {name} must have one value per sampled voxel ({len(assignments)}), got {len(values)}; "
                "sample all measurements at the same voxels"
            )
    case_count = len(np.unique(cases))
    cards = []
    for cluster in range(clusters):
        mine = assignments == cluster
        facts = {
            "share": float(mine.mean()),
            "cases": len(np.unique(cases[mine])) / case_count,
        }
        if VOLUME in measurements:
            facts[VOLUME] = float(measurements[VOLUME][mine].sum()) / case_count
        if mine.any() and "left_right" in measurements:
            facts["symmetry"] = _symmetry(np.asarray(measurements["left_right"])[mine], cases[mine])
        if mine.any():
            for name, values in measurements.items():
                if name == VOLUME:
                    continue
                for statistic, take in STATISTICS.items():
                    facts[f"{statistic}_{name}"] = float(take(np.asarray(values[mine], dtype=np.float64)))
        cards.append(ClusterCard(cluster=cluster, voxels=int(np.count_nonzero(mine)), facts=facts))
    return cards


def _symmetry(places: Float[np.ndarray, " n"], cases: Integer[np.ndarray, " n"]) -> float:
    """Voxels of the sides that have fewer over those of the sides that have more, each case by itself."""
    _, case = np.unique(cases, return_inverse=True)
    right = np.bincount(case, weights=places > 0.5)
    left = np.bincount(case) - right
    return float(np.minimum(left, right).sum() / np.maximum(left, right).sum())
