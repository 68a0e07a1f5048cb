"""This file measures the clusters of every method that a training or a choice has fitted, names them, and says why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from medseg.config import Config
from medseg.naming.classes import ClassEntry, Naming, colour_of, write_classes
from medseg.naming.effort import Effort, write_effort
from medseg.naming.matching import count_table
from medseg.patches.datasets import PatchDataset
from medseg.stego.clustering import PointSample
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel
from medseg.stego.training import StegoRun
from medseg.workflows import parts
from medseg.workflows.naming import name_method, write_cards, write_matches

_log = logging.getLogger(__name__)


def name_methods(
    found: StegoRun,
    dataset: PatchDataset,
    voter: Path,
    config: Config,
    facts: Mapping[str, Any],
    measurements: Mapping[str, np.ndarray],
    classes: Sequence[ClassEntry],
    *,
    first: Mapping[str, ClusterModel] | None = None,
) -> None:
    """Measure the clusters of every method of a voter, name them, and say why.

    Args:
        found: of the voter.
        dataset: the run's patches.
        voter: folder of the voter.
        config: of the run.
        facts: what the methods depend on.
        measurements: of its points.
        classes: what the values of labels mean.
        first: the first voter's methods, with whose clusters those of a later voter are matched.
    """
    points = found.points
    uniform = ~points.salient
    labels = _labels_at(found, dataset)
    for name, method in found.methods.items():
        folder = voter / "methods" / name
        (folder / "choice.json").unlink(missing_ok=True)  # it told of clusters that are no more
        write_cards(
            folder,
            found.assignments[name],
            measurements,
            points.case,
            clusters=method.clusters,
            labels=None if labels is None else np.where(uniform, labels, -1),
            classes=classes,
        )
        if first is not None:
            write_matches(folder, _common(first[name], method, found.assignments[name], dataset, points))
        parts.write_facts(folder, facts)
        naming = name_method(folder, config.naming, clusters=method.clusters)
        write_classes(folder / "classes.yaml", naming)
        _log.info("%s: names by %s", name, naming.named_by)
        for reason in naming.reasons:
            _log.info("  %s", reason)
        if name == config.reconstruct.method:
            write_classes(voter / "classes.yaml", naming)
    if found.linear is not None:
        folder = voter / "methods" / "linear"
        parts.write_facts(folder, facts)
        write_classes(folder / "classes.yaml", probe_naming(found.linear.clusters, classes))
        if labels is not None:
            write_effort(folder, Effort({"cases": len(np.unique(points.case[labels >= 0]))}))


def _common(
    first: ClusterModel,
    method: ClusterModel,
    assignments: Integer[np.ndarray, " n"],
    dataset: PatchDataset,
    points: PointSample,
) -> Integer[np.ndarray, "clusters others"]:
    """The points of a voter counted by the clusters of the first voter and by its own."""
    codes = points.features if first.head is None else codes_at(first.head, dataset, points)
    of_first = first.assign_codes(codes).numpy()
    return count_table(of_first, assignments, clusters=first.clusters, classes=method.clusters)


def probe_naming(classes: int, meaning: Sequence[ClassEntry]) -> Naming:
    """Names of what the linear probe tells apart: its n-th answer is the class with the value n."""
    known = {entry.value: entry for entry in meaning}
    entries = [
        replace(known.get(n, ClassEntry(n, f"class {n}", colour_of(n - 1))), clusters=(n,)) for n in range(1, classes)
    ]
    return Naming(tuple(entries), "training_labels", ("the linear probe was trained on the labels",))


def _labels_at(found: StegoRun, dataset: PatchDataset) -> np.ndarray | None:
    """Reference label at the sampled points, -1 where there is none; None without any label."""
    if not dataset.classes:
        return None
    points = found.points
    values = np.full(len(points), -1)
    for index, (case, patch, (row, column)) in enumerate(zip(points.case, points.patch, points.cell, strict=True)):
        labels = dataset.reference[case]
        if labels is not None:
            height, width = labels.shape[1:]
            # the pixel in the middle of the point's cell
            i = int((row + 0.5) * height / points.grid[0])
            j = int((column + 0.5) * width / points.grid[1])
            values[index] = labels[patch, i, j]
    return values
