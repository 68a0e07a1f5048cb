"""This file matches clusters to labelled classes, and scores such a match.

*Table*: voxels counted by cluster (rows) and class (columns), `[clusters, classes]`, with background as class 0.
A cluster beyond one-to-one matching is *extra*: its voxels count as errors, they are never dropped.

References:
    Kuhn, Naval Research Logistics 2, 1955 (one-to-one assignment). Hamilton et al., STEGO, ICLR 2022, section 4.
    Lipton, Elkan and Naryanaswamy, ECML 2014 (which groups to take for the highest F1, which is Dice).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Integer
from scipy.optimize import linear_sum_assignment

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, Naming

EXTRA = -1
"""The class of a cluster that has none."""


def count_table(
    assignments: Integer[np.ndarray, "*n"], labels: Integer[np.ndarray, "*n"], *, clusters: int, classes: int
) -> Integer[np.ndarray, "clusters classes"]:
    """Count voxels by cluster and class; tables of several cases are added.

    Args:
        assignments: cluster of each voxel, `0 .. clusters - 1`.
        labels: class of each voxel; values outside `0 .. classes - 1` (unlabelled) are not counted.
        clusters: number of rows.
        classes: number of columns, background included.

    Raises:
        MedsegError: a cluster out of range.
    """
    labelled = (labels >= 0) & (labels < classes)
    found, true = assignments[labelled].astype(np.int64), labels[labelled].astype(np.int64)
    if found.size and (found.min() < 0 or found.max() >= clusters):
        raise MedsegError(
            f"cluster numbers must lie in 0..{clusters - 1}, got {found.min()}..{found.max()}; "
            "the clusters and their voxels come from different models"
        )
    return np.bincount(found * classes + true, minlength=clusters * classes).reshape(clusters, classes)


def hungarian(table: Integer[np.ndarray, "clusters classes"]) -> Integer[np.ndarray, " clusters"]:
    """Assign one cluster to each class so that the most voxels agree.

    Returns:
        Class of each cluster; `EXTRA` for the clusters that are left over when there are more of them than classes.
    """
    class_of_cluster = np.full(table.shape[0], EXTRA)
    rows, columns = linear_sum_assignment(table, maximize=True)
    class_of_cluster[rows] = columns
    return class_of_cluster


def match_clusterings(table: Integer[np.ndarray, "clusters others"]) -> Integer[np.ndarray, " others"]:
    """Say which cluster of one clustering each cluster of another is, by the points that they share.

    One-to-one where that goes, so that the most points agree; what is left over goes to the cluster with which it
    shares most.

    Args:
        table: points counted by the clusters of the one (rows) and of the other.
    """
    of_other = np.argmax(table, axis=0)
    rows, columns = linear_sum_assignment(table, maximize=True)
    of_other[columns] = rows
    return of_other


def confusion(
    table: Integer[np.ndarray, "clusters classes"], class_of_cluster: Integer[np.ndarray, " clusters"]
) -> Integer[np.ndarray, "rows classes"]:
    """Count voxels by the class they were given (rows) and their true class (columns).

    The last of the `classes + 1` rows holds the extra clusters' voxels.
    """
    classes = table.shape[1]
    counts = np.zeros((classes + 1, classes), dtype=np.int64)
    np.add.at(counts, np.where(class_of_cluster == EXTRA, classes, class_of_cluster), table)
    return counts


def accuracy(counts: Integer[np.ndarray, "rows classes"]) -> float:
    """Share of the labelled voxels with the right class, extra ones being wrong; NaN without any."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def class_iou(counts: Integer[np.ndarray, "rows classes"]) -> Float[np.ndarray, " classes"]:
    """Intersection over union of each class; 0 for an absent class that was predicted, NaN if it was not either."""
    classes = counts.shape[1]
    hits = np.diagonal(counts).astype(np.float64)
    union = counts[:classes].sum(axis=1) + counts.sum(axis=0) - hits
    return np.divide(hits, union, out=np.full(classes, np.nan), where=union > 0)


def mean_iou(counts: Integer[np.ndarray, "rows classes"]) -> float:
    """Mean of the defined intersections over union; NaN without any."""
    ious = class_iou(counts)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else float("nan")


def match_to_labels(
    assignments: Integer[np.ndarray, "*n"],
    labels: Integer[np.ndarray, "*n"],
    classes: Sequence[ClassEntry],
    *,
    clusters: int,
    named_by: str = "training_labels",
) -> Naming:
    """Name clusters by the labels of *training* voxels; see `match_table`.

    Args:
        assignments: cluster of each labelled voxel.
        labels: its class value (0 background); values of no class are left out.
        classes: the classes, without clusters.
        clusters: how many clusters the model has.
        named_by: `oracle` where the labels are those that will be scored.
    """
    values = np.full(256, len(classes) + 1)
    values[[0, *(entry.value for entry in classes)]] = np.arange(len(classes) + 1)
    known = (labels >= 0) & (labels < 256)
    columns = np.where(known, values[np.where(known, labels, 0)], len(classes) + 1)
    table = count_table(assignments, columns, clusters=clusters, classes=len(classes) + 1)
    return match_table(table, classes, named_by=named_by)


def match_table(
    table: Integer[np.ndarray, "clusters classes"], classes: Sequence[ClassEntry], *, named_by: str = "training_labels"
) -> Naming:
    """Name clusters by a table of counts: column 0 is background, column n the n-th class.

    Three ways are tried, and that with the highest mean Dice of background and classes on this table is taken: one
    cluster a class (`hungarian`), the majority in each cluster, and the purest clusters of each class. The first is
    best where classes are few and large, but forces a class upon a cluster that hardly holds it, or throws clusters
    away; the second calls everything background where a class is rare; the third has the highest Dice of a rare class.

    Returns:
        The naming; a class without a voxel in the table, or that no cluster fits, stays empty.
    """
    if table.shape[1] != len(classes) + 1:
        raise MedsegError(f"table must have {len(classes) + 1} columns, got {table.shape[1]}; background is the first")
    ways = (hungarian(table), np.argmax(table, axis=1), match_by_purity(table))
    best = max(ways, key=lambda columns: _mean_dice(table, columns))
    chosen = {
        column: np.flatnonzero((best == column) & (table[:, column] > 0)).tolist()
        for column in range(1, table.shape[1])
    }
    named, reasons = [], []
    for (column, clusters), entry in zip(chosen.items(), classes, strict=True):
        named.append(replace(entry, clusters=tuple(sorted(clusters))))
        reasons.append(_why(table, column, sorted(clusters), entry.name))
    return Naming(classes=tuple(named), named_by=named_by, reasons=tuple(reasons))


def match_by_purity(table: Integer[np.ndarray, "clusters classes"]) -> Integer[np.ndarray, " clusters"]:
    """Column of each cluster where each class takes its purest clusters, up to the highest Dice.

    A cluster is a candidate for the class that it holds most of; no other choice among the candidates of a class has a
    higher Dice. The rest is background.
    """
    columns = np.zeros(len(table), dtype=np.int64)
    favourite = 1 + np.argmax(table[:, 1:], axis=1)
    for column in range(1, table.shape[1]):
        columns[_purest(table, column, np.flatnonzero((favourite == column) & (table[:, column] > 0)))] = column
    return columns


def _mean_dice(table: Integer[np.ndarray, "clusters classes"], columns: Integer[np.ndarray, " clusters"]) -> float:
    """Mean Dice of background and classes, as far as they have a voxel; 0 without any."""
    columns = np.maximum(columns, 0)  # a cluster without a class is background
    labelled = np.flatnonzero(table.any(axis=0))
    dices = [
        2 * table[columns == column, column].sum() / (table[columns == column].sum() + table[:, column].sum())
        for column in labelled
    ]
    return float(np.mean(dices)) if len(dices) else 0.0


def _purest(
    table: Integer[np.ndarray, "clusters classes"], column: int, candidates: Integer[np.ndarray, " n"]
) -> list[int]:
    """The candidates, purest first, up to the highest Dice of their union."""
    sizes, hits = table.sum(axis=1)[candidates], table[candidates, column]
    order = np.argsort(-hits / sizes, kind="stable")
    dices = 2 * np.cumsum(hits[order]) / (np.cumsum(sizes[order]) + table[:, column].sum())
    return candidates[order[: int(np.argmax(dices)) + 1]].tolist() if len(candidates) else []


def _why(table: Integer[np.ndarray, "clusters classes"], column: int, clusters: list[int], name: str) -> str:
    true = int(table[:, column].sum())
    if not clusters:
        return f"no cluster is {name}: {'it has no labelled voxel' if not true else 'none fits its labels'}"
    hits, size = int(table[clusters, column].sum()), int(table[clusters].sum())
    listed = f"cluster{'s' if len(clusters) > 1 else ''} {', '.join(map(str, clusters))}"
    return f"{listed} carr{'y' if len(clusters) > 1 else 'ies'} {name}: {hits} of {true} labelled voxels, {size} in all"
