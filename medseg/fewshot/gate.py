"""This file holds the gate: a small classifier that says which patches can hold a vessel, before a network sees them.

It sees grey value and salience of a square *patch* of an axial slice, which every prepared scan has; so a patch that it
leaves out costs nothing. It is a logistic regression on each channel's mean and largest value. Its threshold keeps a
wanted share of the patches with a vessel, its *recall*, among *left-out* ones: each fifth of the labelled patches is
judged by a gate that the other four taught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.optimize import minimize
from scipy.special import expit

from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.patches.slicing import PatchGeometry, cut_all, grid_locations

SIDE = 16
"""Voxels along a patch, as along a cell of the annotation page: many times a vessel's width."""
OVERLAP = 0.5
"""Of neighbouring patches: a voxel is looked at if any of its four patches is kept, so no vessel ends at a border."""
RECALL = 0.98
"""Share of left-out patches with a vessel that are kept."""
FOLDS = 5
"""Parts of the labelled patches, each left out once."""
PENALTY = 1.0
"""Of a squared weight, in patches: means and largest values have sd 1."""
_FILE = "gate.json"


@dataclass(frozen=True)
class Gate:
    """A classifier of patches.

    Attributes:
        mean, sd: of each pooled number.
        weight: of each pooled number; the last is the constant.
        threshold: least score that is kept.
        recall: share of left-out patches with a vessel that were kept.
        skipped: share of left-out patches without one that were not.
        patches: labelled ones that it was trained on.
    """

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    weight: tuple[float, ...]
    threshold: float
    recall: float
    skipped: float
    patches: int

    def scores(self, features: Float[np.ndarray, "n d h w"]) -> Float[np.ndarray, " n"]:
        """Log-odds that a patch holds a vessel, before the threshold."""
        return _score(_pooled(features), np.array(self.mean), np.array(self.sd), np.array(self.weight))

    def keeps(self, features: Float[np.ndarray, "n d h w"]) -> Bool[np.ndarray, " n"]:
        """Which patches may hold a vessel."""
        return self.scores(features) >= self.threshold

    def describe(self) -> str:
        """What is known of it, in words."""
        return (
            f"gate taught by {self.patches} patches: of left-out ones it keeps {self.recall:.1%} of those with a vessel"
            f" and skips {self.skipped:.0%} of the others"
        )

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the gate beside a method, if there is one."""
        (folder / _FILE).unlink(missing_ok=True)

    def save(self, folder: Path) -> None:
        """Write the gate beside a method."""
        write_json(
            folder / _FILE,
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()},
        )

    @classmethod
    def load(cls, folder: Path) -> Gate | None:
        """The gate beside a method; None where there is none.

        Raises:
            MedsegError: it is damaged.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        content = read_record(path, *cls.__dataclass_fields__, advice="teach the probe again")
        values = {key: content[key] for key in cls.__dataclass_fields__}
        try:
            values |= {key: tuple(map(float, values[key])) for key in ("mean", "sd", "weight")}
        except (TypeError, ValueError) as error:
            raise MedsegError(f"{path} must hold numbers, got {error}; teach the probe again") from error
        return cls(**values)


def train_gate(
    features: Float[np.ndarray, "n d h w"],
    holds: Bool[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    *,
    recall: float = RECALL,
) -> Gate:
    """Train a gate.

    Args:
        features: of labelled patches.
        holds: whether a patch holds a vessel.
        groups: patches of one group, a slice or a case, are alike, and left out together.
        recall: wanted of left-out patches.

    Raises:
        MedsegError: there are no patches of one kind, or all patches of one kind are in one group.
    """
    pooled = _pooled(features)
    left_out = np.full(len(holds), np.nan)
    names = np.unique(groups)
    for part in np.array_split(names, min(FOLDS, len(names))):
        out = np.isin(groups, part)
        if holds[~out].any() and not holds[~out].all():
            left_out[out] = _score(pooled[out], *_fit(pooled[~out], holds[~out]))
    judged = ~np.isnan(left_out)
    if not (judged & holds).any() or not (judged & ~holds).any():
        raise MedsegError(
            f"the gate must learn from patches with and without a vessel in several slices, got {holds.sum()} and "
            f"{(~holds).sum()} in {len(names)}; label more slices"
        )
    with_vessel, empty = np.sort(left_out[judged & holds]), left_out[judged & ~holds]
    threshold = with_vessel[int((1 - recall) * len(with_vessel))]
    if (skipped := empty[empty < threshold]).size:
        # As low as skips the same empty patches, and half-way to the next one with a vessel.
        threshold = (skipped.max() + with_vessel[with_vessel > skipped.max()].min()) / 2
    mean, sd, weight = _fit(pooled, holds)
    return Gate(
        tuple(mean.tolist()),
        tuple(sd.tolist()),
        tuple(weight.tolist()),
        float(threshold),
        float((with_vessel >= threshold).mean()),
        float((empty < threshold).mean()),
        len(holds),
    )


def labelled_patches(
    channels: Float[np.ndarray, "d i j k"], labels: Integer[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"]
) -> tuple[Float[np.ndarray, "n d h w"], Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Patches of a scan of which labels say whether they hold a vessel, and the slice of each.

    Args:
        channels: grey value and salience.
        labels: class of each voxel, 0 for background, -1 for unknown. A patch without a known vessel counts as empty if
            all of it is known.
        region: where to look.
    """
    places = grid_locations(region.shape, _GRID, region)
    known = cut_all(np.where(region, labels, 0)[None], places, _WINDOW)[:, 0]
    holds = np.asarray((known > 0).any((1, 2)))
    chosen = holds | (known == 0).all((1, 2))
    nothing = np.zeros((0, len(channels), SIDE, SIDE), channels.dtype)
    features = cut_all(channels, places[chosen], _WINDOW) if chosen.any() else nothing
    return features, holds[chosen], places[chosen, 0]


def open_voxels(
    gate: Gate, channels: Float[np.ndarray, "d i j k"], region: Bool[np.ndarray, "i j k"]
) -> Bool[np.ndarray, "i j k"]:
    """The voxels of the region that lie in a patch which is kept."""
    found = np.zeros(region.shape, dtype=bool)
    for places in _by_slice(grid_locations(region.shape, _GRID, region)):
        for number, row, column in places[gate.keeps(cut_all(channels, places, _WINDOW))].tolist():
            found[row : row + SIDE, column : column + SIDE, number] = True
    return found & region


_GRID = PatchGeometry("axial", SIDE, OVERLAP)
_WINDOW = PatchGeometry("axial", SIDE)


def _by_slice(places: Int[np.ndarray, "n 3"]) -> Iterator[Int[np.ndarray, "_ 3"]]:
    """Places of one slice after another, so that the patches of a scan are never all in memory."""
    edges = np.flatnonzero(np.diff(places[:, 0])) + 1
    return iter(np.split(places, edges)) if len(places) else iter(())


def _pooled(features: Float[np.ndarray, "n d h w"]) -> Float[np.ndarray, "n p"]:
    """Mean and largest value of each channel."""
    return np.concatenate([features.mean((2, 3)), features.max((2, 3))], axis=1, dtype=np.float64)


def _fit(
    pooled: Float[np.ndarray, "n p"], holds: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"], Float[np.ndarray, " p1"]]:
    """Moments and weights of a logistic regression in which both kinds of patches count alike."""
    mean, sd = pooled.mean(0), pooled.std(0)
    sd = np.where(sd > 1e-6, sd, 1.0)
    inputs = np.column_stack([(pooled - mean) / sd, np.ones(len(pooled))])
    sign = np.where(holds, 1.0, -1.0)
    share = len(holds) / 2 / np.where(holds, holds.sum(), (~holds).sum())

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (inputs @ weight)
        slope = -share * sign * expit(-margin)
        held = np.append(weight[:-1], 0.0)
        value = (share * np.logaddexp(0, -margin)).sum() + PENALTY / 2 * (held**2).sum()
        return float(value), inputs.T @ slope + PENALTY * held

    return mean, sd, minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x


def _score(
    pooled: Float[np.ndarray, "n p"],
    mean: Float[np.ndarray, " p"],
    sd: Float[np.ndarray, " p"],
    weight: Float[np.ndarray, " p1"],
) -> Float[np.ndarray, " n"]:
    return (pooled - mean) / sd @ weight[:-1] + weight[-1]
