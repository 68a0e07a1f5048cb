"""This file gives the clusters of a fitted method their class names, at training and again at reconstruction.

`cards.json` beside a method holds what was measured of each cluster, and, where training labels
were there, how often each cluster met each class; so names can change without the scans.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from medseg import config as sections
from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.naming.cards import ClusterCard, measure_clusters
from medseg.naming.classes import ClassEntry, Naming, class_entry, colour_of, one_class_a_cluster, read_classes
from medseg.naming.matching import count_table, match_table
from medseg.naming.rulebook import load_rules, name_clusters
from medseg.scans.shipped_schemes import load_scheme
from medseg.workflows.labels import meaning_of

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
    classes: Sequence[ClassEntry] = (),
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
        classes: what the label values mean, where the data set says so.
    """
    cards = measure_clusters(assignments, measurements, cases, clusters=clusters)
    content: dict[str, object] = {"cards": [asdict(card) for card in cards]}
    if labels is not None and (labels >= 0).any():
        columns = 1 + max(int(labels.max()), *(entry.value for entry in classes), 0)
        content["label_table"] = count_table(assignments, labels, clusters=clusters, classes=columns).tolist()
        content["classes"] = [entry.as_dict() for entry in classes]
    write_json(folder / _CARDS, content)


def require_naming(naming: sections.Naming) -> None:
    """Check the rules or the hand-written classes before long work.

    Raises:
        MedsegError: the rules or the file are wrong.
    """
    if naming.source == "hand":
        assert naming.classes is not None  # the config section made sure of it
        read_classes(naming.classes)
    elif naming.classes is not None:
        load_scheme(naming.classes)
    if naming.rules is not None:
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
    if naming.source == "clusters":
        return one_class_a_cluster(clusters)
    content, cards = _read_cards(folder / _CARDS, clusters)
    if naming.source == "rules":
        assert naming.rules is not None
        return name_clusters(cards, load_rules(naming.rules))
    if "label_table" not in content:
        raise MedsegError(
            "naming.source training_labels must have labels beside the training scans, got none; "
            "use naming.source=rules or clusters"
        )
    entries = label_classes(content, naming)
    table = np.zeros((clusters, 1 + max(entry.value for entry in entries)), dtype=np.int64)
    counted = np.asarray(content["label_table"])[:, : table.shape[1]]
    table[:, : counted.shape[1]] = counted
    return match_table(table[:, [0, *(entry.value for entry in entries)]], entries)


def label_classes(cards: Mapping[str, Any], naming: sections.Naming) -> list[ClassEntry]:
    """What the values of the training labels mean: by the user's file, the data set, the rules, or by number only."""
    if naming.classes is not None:
        return meaning_of(load_scheme(naming.classes))
    if cards.get("classes"):
        return [class_entry(entry, position=n, where=_CARDS) for n, entry in enumerate(cards["classes"])]
    highest = len(cards["label_table"][0]) - 1
    if naming.rules is not None:
        return [rule.entry for rule in load_rules(naming.rules)]
    return [ClassEntry(value, f"class {value}", colour_of(value - 1)) for value in range(1, highest + 1)]


def _read_cards(path: Path, clusters: int) -> tuple[dict[str, Any], list[ClusterCard]]:
    content = read_record(path, "cards", advice=_ANEW)
    try:
        cards = [ClusterCard(**card) for card in content["cards"]]
    except TypeError as error:
        raise MedsegError(f"{path} must hold the cards of clusters, got {error}; {_ANEW}") from error
    if len(cards) != clusters:
        raise MedsegError(f"{path} must hold the cards of {clusters} clusters, got {len(cards)}; {_ANEW}")
    return content, cards
