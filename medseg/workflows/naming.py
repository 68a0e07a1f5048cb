"""This file gives the clusters of a fitted method their class names, at training and again at reconstruction.

`cards.json` beside a method holds what was measured of each cluster, and, where training labels
were there, how often each cluster met each class; so names can change without the scans.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from medseg import config as sections
from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.naming.cards import ClusterCard, measure_clusters
from medseg.naming.classes import Naming, read_classes
from medseg.naming.matching import count_table, match_table
from medseg.naming.rulebook import load_rules, name_clusters

_log = logging.getLogger(__name__)
_CARDS = "cards.json"
_ANEW = "train the run anew"


def write_cards(
    folder: Path,
    assignments: Integer[np.ndarray, " n"],
    measurements: Mapping[str, Num[np.ndarray, " n"]],
    cases: Integer[np.ndarray, " n"],
    *,
    clusters: int,
    labels: Integer[np.ndarray, " n"] | None,
) -> None:
    """Measure a method's clusters on sampled training voxels and keep the result beside it.

    Args:
        folder: of the method.
        assignments: cluster of each voxel.
        measurements: numbers of each voxel, see `medseg.naming.cards`.
        cases: index of each voxel's case.
        clusters: how many the method has.
        labels: class of each voxel (-1 unknown) where training labels exist; only
            `naming.source: training_labels` ever reads what is kept of them.
    """
    cards = measure_clusters(assignments, measurements, cases, clusters=clusters)
    content: dict[str, object] = {"cards": [asdict(card) for card in cards]}
    if labels is not None and (labels >= 0).any():
        classes = int(labels.max()) + 1
        content["label_table"] = count_table(assignments, labels, clusters=clusters, classes=classes).tolist()
    write_json(folder / _CARDS, content)


def require_naming(naming: sections.Naming) -> None:
    """Check the rules or the hand-written classes before long work.

    Raises:
        MedsegError: the rules or the file are wrong.
    """
    if naming.source == "hand":
        assert naming.classes is not None  # the config section made sure of it
        read_classes(naming.classes)
    else:
        load_rules(naming.rules)


def name_method(folder: Path, naming: sections.Naming, *, clusters: int) -> Naming:
    """Name the clusters of a method, which has so many, as the config says.

    Raises:
        MedsegError: the method has no cards, the rules or the file are wrong, or no training label was there.
    """
    if naming.source == "hand":
        assert naming.classes is not None
        named = read_classes(naming.classes)
        if strange := [cluster for cluster in named.class_of_cluster if cluster >= clusters]:
            raise MedsegError(
                f"{naming.classes} must list clusters from 0 to {clusters - 1}, got {strange[0]}; "
                "write one for this run, beginning with its classes.yaml"
            )
        return named
    content, cards = _read_cards(folder / _CARDS, clusters)
    rules = load_rules(naming.rules)
    if naming.source == "rules":
        return name_clusters(cards, rules)
    if "label_table" not in content:
        raise MedsegError(
            "naming.source training_labels must have labels beside the training scans, got none; "
            "use naming.source=rules"
        )
    table = np.zeros((clusters, 1 + max(rule.entry.value for rule in rules)), dtype=np.int64)
    counted = np.asarray(content["label_table"])[:, : table.shape[1]]
    table[:, : counted.shape[1]] = counted
    columns = [0, *(rule.entry.value for rule in rules)]
    return match_table(table[:, columns], [rule.entry for rule in rules])


def _read_cards(path: Path, clusters: int) -> tuple[dict[str, Any], list[ClusterCard]]:
    content = read_record(path, "cards", advice=_ANEW)
    try:
        cards = [ClusterCard(**card) for card in content["cards"]]
    except TypeError as error:
        raise MedsegError(f"{path} must hold the cards of clusters, got {error}; {_ANEW}") from error
    if len(cards) != clusters:
        raise MedsegError(f"{path} must hold the cards of {clusters} clusters, got {len(cards)}; {_ANEW}")
    return content, cards
