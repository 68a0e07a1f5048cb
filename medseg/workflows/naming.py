"""This file gives the clusters of a fitted method their class names, at training and again at reconstruction.

`cards.json` beside a method holds what was measured of each cluster, and, where training labels
were there, how often each cluster met each class; so names can change without the scans.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from medseg import config as sections
from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.naming.cards import ClusterCard, measure_clusters
from medseg.naming.classes import ClassEntry, Naming, class_entry, colour_of, one_class_a_cluster, read_classes
from medseg.naming.effort import NO_EFFORT, Effort, read_effort
from medseg.naming.matching import count_table, match_clusterings, match_table
from medseg.naming.rulebook import load_rules, name_clusters
from medseg.scans.shipped_schemes import load_scheme
from medseg.workflows.labels import meaning_of

_log = logging.getLogger(__name__)
_CARDS = "cards.json"
_STUDENT = "student"
_MATCHES = "matches.json"
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
        content["labelled_cases"] = len(np.unique(cases[labels >= 0]))
        columns = 1 + max(int(labels.max()), *(entry.value for entry in classes), 0)
        content["label_table"] = count_table(assignments, labels, clusters=clusters, classes=columns).tolist()
        content["classes"] = [entry.as_dict() for entry in classes]
    write_json(folder / _CARDS, content)


def write_matches(folder: Path, table: Integer[np.ndarray, "clusters others"]) -> None:
    """Keep beside a later voter's method which cluster of the first voter each of its clusters is.

    Without that the clusters of voters that nobody names, or that a person names for the first voter, could not vote
    together: each training numbers its own.

    Args:
        folder: of the later voter's method.
        table: common points counted by the clusters of the first voter (rows) and of this one.
    """
    write_json(folder / _MATCHES, {"of_first": match_clusterings(table).tolist(), "clusters_of_first": len(table)})


def _as_numbered_here(folder: Path, naming: Naming, clusters: int) -> Naming:
    """Names of the first voter's clusters for those of a later one."""
    of_first = _matches(folder, clusters)[0]
    entries = (
        replace(entry, clusters=tuple(n for n, first in enumerate(of_first) if first in entry.clusters))
        for entry in naming.classes
    )
    return replace(naming, classes=tuple(entries))


def _matches(folder: Path, clusters: int) -> tuple[list[int], int]:
    """Cluster of the first voter by that of this one, and how many the first has; a first voter's are themselves."""
    path = folder / _MATCHES
    if not path.is_file():
        return list(range(clusters)), clusters
    content = read_record(path, "of_first", "clusters_of_first", advice=_ANEW)
    of_first = content["of_first"]
    if not isinstance(of_first, list) or len(of_first) != clusters:
        raise MedsegError(f"{path} must match {clusters} clusters, got {of_first}; {_ANEW}")
    return of_first, content["clusters_of_first"]


def require_naming(naming: sections.Naming, *, backbones: Sequence[str] = (_STUDENT,)) -> None:
    """Check the rules or the hand-written classes before long work.

    Args:
        naming: how clusters get their names.
        backbones: whose features are clustered; the student's answer can be measured on its own features alone.

    Raises:
        MedsegError: the rules or the file are wrong, or ask for what will not be measured.
    """
    if naming.source == "hand":
        assert naming.classes is not None  # the config section made sure of it
        read_classes(naming.classes)
    elif naming.classes is not None:
        load_scheme(naming.classes)
    if naming.rules is None:
        return
    asked = [fact for rule in load_rules(naming.rules) for fact in rule.conditions if fact.endswith("_answer")]
    if naming.source == "rules" and asked and tuple(backbones) != (_STUDENT,):
        raise MedsegError(
            f"rules {naming.rules} must ask for what is measured, got {asked[0]} with features of "
            f"{', '.join(backbones)}, which are not the student's alone; set naming.rules to others, such as tof_mra"
        )


def name_method(folder: Path, naming: sections.Naming, *, clusters: int) -> Naming:
    """Name the clusters of a method, which has so many, as the config says.

    Raises:
        MedsegError: the method has no cards, the rules or the file are wrong, or no training label was there.
    """
    if naming.source in ("hand", "clusters"):
        _, count = _matches(folder, clusters)
        named = one_class_a_cluster(count)
        if naming.source == "hand":
            assert naming.classes is not None
            named = read_classes(naming.classes)
        if strange := [cluster for cluster in named.class_of_cluster if cluster >= count]:
            raise MedsegError(
                f"{naming.classes} must list clusters from 0 to {count - 1}, got {strange[0]}; "
                "write one for this run, beginning with its classes.yaml"
            )
        return _as_numbered_here(folder, named, clusters)
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


def effort_of_method(folder: Path, naming: Naming) -> Effort:
    """What people gave for a method and its names: as its `effort.json` says, else the labelled training cases.

    Raises:
        MedsegError: a file of the method is damaged.
    """
    given = read_effort(folder)
    cards = folder / _CARDS  # the run of an imported checkpoint has none
    if given is not None or naming.named_by != "training_labels" or not cards.is_file():
        return given or NO_EFFORT
    labelled = read_record(cards, "cards", advice=_ANEW).get("labelled_cases")
    return NO_EFFORT if labelled is None else Effort({"cases": labelled})


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
