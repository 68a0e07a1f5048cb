"""This file turns the named tables of an evaluation into scores: numbers, tests, pictures and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from rich.markup import escape
from rich.table import Table

from medseg.config import Config
from medseg.naming.classes import ClassEntry, Naming, write_classes
from medseg.naming.effort import NO_EFFORT, Effort
from medseg.naming.matching import EXTRA
from medseg.progress import track
from medseg.review.panels import confusion_picture, panel_picture
from medseg.scans.cases import Case
from medseg.scans.schemes import LabelScheme
from medseg.scoring.layout import as_lines, table_of_classes, table_of_methods
from medseg.scoring.segmentation import (
    METRICS,
    SegmentationScores,
    mean_dice,
    overall,
    published_names,
    write_segmentation_csv,
    write_segmentation_json,
)
from medseg.scoring.statistics import PairedTest, corrected, paired_test, patient_intervals
from medseg.scoring.tables import without_nan
from medseg.workflows.evaluation_naming import (
    LABEL_FREE_NAMES,
    MOST_FREQUENT,
    ORACLE,
    TRAINING_LABELS,
    LabelClasses,
    NamedMethod,
    PictureTables,
    label_classes,
    name_methods,
)
from medseg.workflows.results import CaseFiles, read_frames


@dataclass(frozen=True)
class Exhibit:
    """A picture to be drawn, with its true classes and each method's clusters."""

    case_id: str
    picture: UInt8[np.ndarray, "h w 3"]
    labels: Integer[np.ndarray, "h w"]
    clusters: Mapping[str, Integer[np.ndarray, "h w"]]


@dataclass(frozen=True)
class Evaluated:
    """What went through the networks.

    Attributes:
        pictures: the tables of each picture.
        exhibits: the pictures to be drawn.
        folders: of the methods.
        config: of the run.
        scheme: what the labels' values mean, where that is known.
        sources: the case of each picture, by its name.
        export: folder with `clusters/`, to which class values are written; None: they are not wanted.
    """

    pictures: Sequence[PictureTables]
    exhibits: Sequence[Exhibit]
    folders: Mapping[str, Path]
    config: Config
    scheme: LabelScheme | None
    sources: Mapping[str, Case]
    export: Path | None


def write_report(found: Evaluated, out: Path, *, facts: Mapping[str, Any], dark: bool) -> dict[str, Any]:
    """Score, write all files of an evaluation, and say the result.

    Args:
        found: what is scored.
        out: result folder.
        facts: what belongs to the scores, for the JSON.
        dark: light letters on dark pages.

    Returns:
        `lines`, `rows`, `published`, and `out`.
    """
    pictures, seed = found.pictures, found.config.run.seed
    classes = label_classes(pictures, found.scheme)
    methods, absent = name_methods(pictures, classes, found.folders, found.config, found.scheme is not None)
    rows = [_scores(method, classes, seed) for method in methods]
    main = found.config.reconstruct.method
    tests = compare_methods(methods, main if main in found.folders else "stego")
    patients = len({picture.patient for picture in pictures})
    facts = {
        **facts,
        "patients": patients,
        "interval": {"level": 0.95, "method": "percentile bootstrap over patients", "seed": seed},
        "tests": {naming: [vars(test) for test in group] for naming, group in tests.items()},
    }
    write_segmentation_csv(out / "evaluation.csv", rows)
    write_segmentation_json(out / "evaluation.json", rows, facts=facts)
    for row in rows:
        title = f"{row.method}, names by {_words(row.naming)}"
        path = out / "confusion" / f"{_file_word(row.method)}_{row.naming}.png"
        confusion_picture(path, row.counts, classes.ordered_names, title=title, dark=dark)
    chosen = _most_honest(methods)
    for exhibit in found.exhibits:
        _draw(exhibit, chosen, classes, out / "panels" / f"{exhibit.case_id}.png", dark=dark)
    if found.export is not None:
        _export(pictures, chosen, classes, found.export, found.sources)
    where = f"{len(pictures)} pictures of {patients} patients, {facts['seen_in_training']} of them seen in training"
    lines = [
        *as_lines(_score_table(rows, absent, title=where)),
        *as_lines(_class_table(rows, chosen)),
        *_test_lines(tests),
        f"tables: {out / 'evaluation.csv'}, pictures: {out / 'panels'}, {out / 'confusion'}",
    ]
    plain = [{"method": row.method, "naming": row.naming, **row.overall} for row in rows]
    return {"lines": lines, "rows": without_nan(plain), "published": published_names(rows), "out": str(out)}


def compare_methods(methods: Sequence[NamedMethod], main: str) -> dict[str, list[PairedTest]]:
    """The main method against each other one with the same naming, on the patients' mean Dice."""
    tests = {}
    for naming in dict.fromkeys(method.naming for method in methods):
        dices = {
            method.name: [mean_dice(counts) for counts in method.confusions]
            for method in methods
            if method.naming == naming and method.name != MOST_FREQUENT
        }
        if main in dices and len(dices) > 1:
            others = [name for name in dices if name != main]
            tests[naming] = corrected([paired_test(main, name, dices[main], dices[name]) for name in others])
    return tests


def _scores(method: NamedMethod, classes: LabelClasses, seed: int) -> SegmentationScores:
    confusions = method.confusions
    intervals = patient_intervals(confusions, overall, seed=seed)
    counts = confusions.sum(axis=0)
    return SegmentationScores(method.name, method.naming, classes.ordered_names, counts, intervals, method.effort)


def _most_honest(methods: Sequence[NamedMethod]) -> dict[str, NamedMethod]:
    """One naming a method for pictures and for the table of classes: by training labels if it can be, else the oracle.

    The linear probe comes first, beside the label.
    """
    chosen: dict[str, NamedMethod] = {}
    for naming in (TRAINING_LABELS, ORACLE):
        for method in methods:
            if method.naming == naming and method.name != MOST_FREQUENT:
                chosen.setdefault(method.name, method)
    return dict(sorted(chosen.items(), key=lambda item: item[0] != "linear"))


def _values(method: NamedMethod, classes: LabelClasses, clusters: Integer[np.ndarray, "*n"]) -> np.ndarray:
    """Class value of each pixel, `EXTRA` (-1) where its cluster has none."""
    return np.array([*classes.values, EXTRA])[method.columns[clusters]]


def _draw(
    exhibit: Exhibit, chosen: Mapping[str, NamedMethod], classes: LabelClasses, path: Path, *, dark: bool
) -> None:
    labels = np.where(np.isin(exhibit.labels, classes.values), exhibit.labels, EXTRA)
    panels = {"label": labels.astype(np.int64)}
    for name, method in chosen.items():
        heading = "linear probe" if name == "linear" else f"{name}\n(names by {_words(method.naming)})"
        panels[heading] = _values(method, classes, exhibit.clusters[name])
    panel_picture(
        path, exhibit.picture, panels,
        names=classes.names, colours=classes.colours, title=exhibit.case_id, dark=dark,
    )  # fmt: skip


def _export(
    pictures: Sequence[PictureTables],
    chosen: Mapping[str, NamedMethod],
    classes: LabelClasses,
    folder: Path,
    sources: Mapping[str, Case],
) -> None:
    """Write class values in place of cluster numbers, and what they mean; a pixel without a class is 0."""
    entries = (ClassEntry(value, classes.names[value], classes.colours[value]) for value in classes.values if value)
    write_classes(folder / "classes.yaml", Naming(tuple(entries), next(iter(chosen.values())).naming))
    for picture in track(pictures, "exporting"):
        case = sources[picture.case_id]
        files = CaseFiles(folder, case.case_id, case.image, case.pick, classes.colours)
        for name, method in chosen.items():
            clusters = read_frames(folder / "clusters", f"{case.case_id}_{name}")
            files.labels(name, np.maximum(_values(method, classes, clusters), 0).astype(np.uint8))


@dataclass(frozen=True)
class _Absent:
    """A naming that a method has not."""

    naming: str
    effort: Effort = NO_EFFORT


def _score_table(rows: Sequence[SegmentationScores], absent: Sequence[tuple[str, str]], *, title: str) -> Table:
    lines: list[tuple[SegmentationScores | _Absent, str, list[str]]] = []
    for method in dict.fromkeys([row.method for row in rows]):
        for naming in (naming for name, naming in absent if name == method):
            scored = _Absent("none" if naming == LABEL_FREE_NAMES else naming)
            lines.append((scored, escape(method), ["–" for _ in METRICS]))
        for row in (row for row in rows if row.method == method):
            low, high = row.intervals["mean_iou"]
            cells = [_ratio(row.overall[key]) for key in METRICS]
            cells[0] += "" if math.isnan(low) else f" ({_ratio(low)}–{_ratio(high)})"
            lines.append((row, escape(method), cells))
    return table_of_methods(lines, list(METRICS.values()), title=title, caption="95 % interval over patients")


def _class_table(rows: Sequence[SegmentationScores], chosen: Mapping[str, NamedMethod]) -> Table:
    """IoU of each class by each method."""
    shown = [row for row in rows if row.method in chosen and row.naming == chosen[row.method].naming]
    pixels = max(sum(entry["pixels"] for entry in shown[0].per_class.values()), 1)
    lines = [
        (name, [f"{100 * entry['pixels'] / pixels:.1f}", *(_ratio(row.per_class[name]["iou"]) for row in shown)])
        for name, entry in shown[0].per_class.items()
    ]
    columns = [(row, row.method) for row in shown]
    return table_of_classes(columns, lines, title="IoU of each class", more=("% of pixels",))


def _test_lines(tests: Mapping[str, Sequence[PairedTest]]) -> list[str]:
    lines = []
    for naming, group in tests.items():
        lines.append(f"mean Dice a patient, names by {_words(naming)}, Wilcoxon's signed-rank test:")
        lines += [f"  {test.describe()}" for test in group]
    return lines


def _ratio(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.3f}"


def _words(naming: str) -> str:
    return naming.replace("_", " ")


def _file_word(name: str) -> str:
    return name.replace(" ", "_")
