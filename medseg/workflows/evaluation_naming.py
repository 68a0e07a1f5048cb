"""This file names the clusters of every method by what is known of the labels, in every way that there is.

*Label-free* names come from rules, or a person's list; names by *training labels* from the classes that each cluster
met in training, see `naming.matching`; the *oracle* matches clusters one-to-one to the very labels that are scored, as
published; that is no result. A *column* is the place of a class in the tables; a cluster without one counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from medseg.config import Config
from medseg.files import read_record
from medseg.naming.classes import Naming, colour_of, read_classes
from medseg.naming.effort import NO_EFFORT, Effort
from medseg.naming.matching import EXTRA, confusion, hungarian
from medseg.runs import OWN_CLASSES
from medseg.scans.schemes import LabelScheme
from medseg.workflows.naming import effort_of_method, name_method

MOST_FREQUENT = "most frequent class"
"""The row of a method that gives every pixel the class that most of these pixels have."""
LABEL_FREE_NAMES, TRAINING_LABELS, ORACLE = "label-free", "training_labels", "oracle"
"""Where names of clusters come from; label-free ones go by `rules` or `hand` where there are any."""


@dataclass(frozen=True)
class PictureTables:
    """Pixels of one picture by cluster and class value, by method."""

    case_id: str
    patient: str
    tables: Mapping[str, Integer[np.ndarray, "_ classes"]]


@dataclass(frozen=True)
class LabelClasses:
    """The classes that are scored, in the order of the columns.

    Attributes:
        values: their values; background (0) is one of them where labels hold it.
        names: by value.
        colours: `#rrggbb` by value.
    """

    values: tuple[int, ...]
    names: Mapping[int, str]
    colours: Mapping[int, str]

    def column(self, value: int) -> int:
        """Column of a class value; `EXTRA` for one that is not scored."""
        return self.values.index(value) if value in self.values else EXTRA

    @property
    def ordered_names(self) -> tuple[str, ...]:
        """Names in the order of the columns."""
        return tuple(self.names[value] for value in self.values)


@dataclass(frozen=True)
class NamedMethod:
    """A method with one naming: its tables, a patient each, and the column of each cluster."""

    name: str
    naming: str
    tables: Integer[np.ndarray, "patients clusters classes"]
    columns: Integer[np.ndarray, " clusters"]
    effort: Effort = NO_EFFORT

    @property
    def confusions(self) -> Integer[np.ndarray, "patients rows classes"]:
        """The confusion of each patient."""
        return np.stack([confusion(table, self.columns) for table in self.tables])


def label_classes(pictures: Sequence[PictureTables], scheme: LabelScheme | None) -> LabelClasses:
    """The classes of the scheme and of the labels; the background only where a pixel is labelled so."""
    width = max(table.shape[1] for picture in pictures for table in picture.tables.values())
    held = np.zeros(width, dtype=np.int64)
    for picture in pictures:
        table = next(iter(picture.tables.values()))
        held[: table.shape[1]] += table.sum(axis=0)
    listed = {value: (name, colour) for value, name, colour in scheme.classes} if scheme else {}
    ignored = scheme.ignored if scheme else frozenset()
    values = {*np.flatnonzero(held).tolist(), *(value for value in listed if value > 0)} - ignored
    unnamed = {value: (f"class {value}", colour_of(value - 1)) for value in values if value > 0}
    known = {0: ("background", "#000000"), **unnamed, **listed}
    ordered = tuple(sorted(values))
    names, colours = ({value: known[value][n] for value in ordered} for n in (0, 1))
    return LabelClasses(ordered, names, colours)


def name_methods(
    pictures: Sequence[PictureTables],
    classes: LabelClasses,
    folders: Mapping[str, Path],
    config: Config,
    has_names: bool,
) -> tuple[list[NamedMethod], list[tuple[str, str]]]:
    """Each method with each naming that there is, and the method and naming of those that there are not.

    Args:
        pictures: the tables.
        classes: their columns.
        folders: of the methods.
        config: of the run; its naming is the label-free one, unless it is by labels or leaves clusters unnamed.
        has_names: whether the labels' classes have names of their own, which a rule's class must then equal.
    """
    found: list[NamedMethod] = []
    absent: list[tuple[str, str]] = []
    for name, folder in folders.items():
        tables = patient_tables(pictures, name, classes)
        clusters = tables.shape[1]
        if name in OWN_CLASSES:
            own = read_classes(folder / "classes.yaml")
            columns = _columns_by(own, clusters, classes, by_name=has_names and name != "linear")
            if columns is None:
                absent.append((name, own.named_by))
            else:
                found.append(NamedMethod(name, own.named_by, tables, columns, effort_of_method(folder, own)))
            continue
        source = config.naming.source
        namings: dict[str, Integer[np.ndarray, " clusters"] | None] = {LABEL_FREE_NAMES: None}
        effort = {ORACLE: NO_EFFORT}
        if source in ("rules", "hand"):
            named = name_method(folder, config.naming, clusters=clusters)
            namings = {source: _columns_by(named, clusters, classes, by_name=has_names)}
            effort[source] = effort_of_method(folder, named)
        namings[TRAINING_LABELS] = None
        if (by_training := _named_by_training(folder, config, clusters)) is not None:
            namings[TRAINING_LABELS] = _columns_by(by_training, clusters, classes, by_name=False)
            effort[TRAINING_LABELS] = effort_of_method(folder, by_training)
        namings[ORACLE] = hungarian(tables.sum(axis=0))
        for naming, columns_or_none in namings.items():
            if columns_or_none is None:
                absent.append((name, naming))
            else:
                found.append(NamedMethod(name, naming, tables, columns_or_none, effort[naming]))
    anyone = next(method for method in found).tables.sum(axis=1, keepdims=True)
    most = np.array([int(anyone.sum(axis=(0, 1)).argmax())])
    found.append(NamedMethod(MOST_FREQUENT, ORACLE, anyone, most))
    return found, absent


def patient_tables(
    pictures: Sequence[PictureTables], method: str, classes: LabelClasses
) -> Integer[np.ndarray, "patients clusters classes"]:
    """The tables of a method, those of a patient's pictures added, in the order of the patients' names."""
    patients = sorted({picture.patient for picture in pictures})
    clusters = pictures[0].tables[method].shape[0]
    summed = np.zeros((len(patients), clusters, 1 + max(classes.values)), dtype=np.int64)
    for picture in pictures:
        table = picture.tables[method][:, : summed.shape[2]]
        summed[patients.index(picture.patient), :, : table.shape[1]] += table
    return summed[:, :, list(classes.values)]


def _columns_by(
    naming: Naming, clusters: int, classes: LabelClasses, *, by_name: bool
) -> Integer[np.ndarray, " clusters"] | None:
    """Column of each cluster by a naming, the rest being background; None where the labels hold none of its classes."""
    value_of = {classes.names[value].casefold(): value for value in classes.values}
    columns = np.full(clusters, classes.column(0))
    known = False
    for entry in naming.classes:
        value = value_of.get(entry.name.casefold(), EXTRA) if by_name else entry.value
        columns[list(entry.clusters)] = classes.column(value)
        known |= classes.column(value) != EXTRA
    return columns if known else None


def _named_by_training(folder: Path, config: Config, clusters: int) -> Naming | None:
    """The names by the training labels; None where there were none."""
    cards = folder / "cards.json"  # the run of an imported checkpoint has none
    if not cards.is_file() or "label_table" not in read_record(cards, "cards"):
        return None
    return name_method(folder, config.naming.model_copy(update={"source": TRAINING_LABELS}), clusters=clusters)
