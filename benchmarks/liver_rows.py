"""This file lists the rows of the liver benchmark, and puts finished ones into a Markdown table and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from liver_baselines import (
    clusters_of_position,
    fixed_ellipse,
    mean_shape_of_boxes,
    mean_shape_of_pictures,
    mean_shape_of_sectors,
    whole_sector,
)
from liver_cases import Masks, Picture, Plan
from liver_labelled import labelled_student
from liver_network import labelled_probe, teacher, walked_prior
from liver_runs import PICTURE_RUNS, RUNS, Run, by_labels, by_rule
from liver_scores import BOOTSTRAP_SEED, LIVER, MASS, markdown, summary

from medseg.files import read_json, write_json, write_text
from medseg.naming.effort import Effort, in_words
from medseg.scoring.overlap import dice
from medseg.scoring.tables import without_nan

BASELINE = "mean_shape_sectors"
"""The row that the others are compared with."""
RULE, BY_LABELS, ORACLE = "rule", "labels", "oracle"
"""Where names of clusters come from: no label, the training labels, or the labels that are scored (no result)."""
NO_NAMES = "-"
SEEDS_BY_LABELS = 2
"""Seeds of rows whose clusters are named by labels."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        key: names its cells.
        group: part of the command line that asks for it.
        title: in the table.
        names: where names of clusters come from; `NO_NAMES` without clusters.
        labelled: whether labels of the learn pictures were used for more than names.
        random: whether seeds change it.
        compute: its masks, with a seed.
    """

    key: str
    group: str
    title: str
    names: str
    labelled: bool
    random: bool
    compute: Callable[[Plan, int], Masks]

    def effort(self, labelled: int) -> str:
        """In words, with so many labelled pictures to learn from."""
        if self.names == ORACLE:
            return in_words("oracle")
        if self.labelled or self.names == BY_LABELS:
            return in_words("training_labels", Effort({"cases": labelled}))
        return in_words("none" if self.names == NO_NAMES else "rules")

    def seeds(self, count: int) -> range:
        """The seeds to compute it with; names by labels take masks of all learn pictures, and so fewer seeds."""
        most = SEEDS_BY_LABELS if self.names in (BY_LABELS, ORACLE) else count
        return range(min(count, most) if self.random else 1)


def all_rows() -> list[Row]:
    """Every row, in the order of the table."""
    rows = [
        _fixed("whole_sector", "whole sector", whole_sector),
        _fixed("ellipse", "ellipse in the sector", fixed_ellipse),
        _fixed("mean_shape_pictures", "mean shape, resized pictures", mean_shape_of_pictures, labelled=True),
        _fixed("mean_shape_boxes", "mean shape, boxes of the sectors", mean_shape_of_boxes, labelled=True),
        _fixed(BASELINE, "mean shape, sector coordinates", mean_shape_of_sectors, labelled=True),
    ]
    rows += [
        Row(f"position_{by}", "shapes", "k-means of grey and position", by, False, True, partial(_position, by))
        for by in (RULE, BY_LABELS, ORACLE)
    ]
    rows += [
        _fixed("walked_prior", "prior, walker on network edges", walked_prior, group="teacher"),
        _fixed("teacher_bare", "teacher, no weights", partial(teacher, edges=False), group="teacher"),
        _fixed("teacher_edges", "teacher, network edges", partial(teacher, edges=True), group="teacher"),
        _fixed(
            "teacher_context", "teacher, edges and context", partial(teacher, edges=True, context=True), group="teacher"
        ),
    ]
    for run in (*PICTURE_RUNS, *RUNS):
        rows += rows_of_run(run)
    return [
        *rows,
        Row("probe", "probe", "linear probe of network features", NO_NAMES, True, True, labelled_probe),
        Row("labelled_student", "labelled", "the same student, by labels", NO_NAMES, True, True, labelled_student),
    ]


def rows_of_run(run: Run) -> list[Row]:
    """What one run of the application adds."""
    rows = [
        Row(
            f"{run.name}_{method}", run.name, _DIRECT[method, run.name], NO_NAMES, False, True,
            partial(_direct, run, method),
        )
        for method in run.direct
    ]  # fmt: skip
    for method in run.clusterings:
        words = f"{'STEGO' if method == 'stego' else 'k-means'}, {run.title}"
        names = (BY_LABELS, ORACLE) if run in PICTURE_RUNS else (RULE, BY_LABELS, ORACLE)
        rows += [
            Row(f"{run.name}_{method}_{by}", run.name, words, by, False, True, partial(_clustered, run, method, by))
            for by in names
        ]
    return rows


_DIRECT = {
    ("teacher", "student"): "teacher, as the application draws it",
    ("student", "student"): "student",
    ("student", "bare"): "student, no weights",
}


def groups() -> list[str]:
    """Parts of the command line, in the order of the table."""
    return list(dict.fromkeys(row.group for row in all_rows()))


def fill(plan: Plan, asked: Sequence[str], seeds: int) -> None:
    """Compute the missing cells of the groups that were asked for, and of the row all are compared with."""
    for row in all_rows():
        if row.group in asked or row.key == BASELINE:
            for seed in row.seeds(seeds):
                plan.cell(row.key, seed, partial(row.compute, plan, seed))


def report(plan: Plan, seeds: int) -> None:
    """Print and write the table of all finished rows."""
    finished = {}
    for row in all_rows():
        paths = [plan.work / "cells" / row.key / f"{seed}.json" for seed in row.seeds(seeds)]
        if cells := [read_json(path) for path in paths if path.is_file()]:
            finished[row.key] = (row, cells)
    baseline = finished[BASELINE][1]
    summaries = [(row, summary(cells, None if row.key == BASELINE else baseline)) for row, cells in finished.values()]
    of = facts(plan)
    lines = [
        f"{of['learn']} pictures to learn from, {of['report']} scored, {of['with_mass']} of them with a mass. Sector "
        f"found in {of['sectors']}, IoU with the labelled outline median {of['outline_median']:.3f}, least "
        f"{of['outline_least']:.3f}; Dice of the true union inside the sector {of['best_inside']:.3f}.",
        "Dice is of each picture, then the mean; in brackets 95 % intervals of a bootstrap over pictures (2000 draws). "
        "mIoU (tissue, liver, mass) and accuracy: inside the labelled outline, all pixels together. Rows in italics "
        "learnt from labels. Names: by a rule without labels, by the training labels, or by the scored ones (oracle: "
        "no result).",
        "",
        *markdown([(row.title, row.names, row.effort(of["learn"]), found) for row, found in summaries]),
    ]
    write_text(plan.work / "liver.md", "\n".join(lines) + "\n")
    rows = {
        row.key: {"title": row.title, "names": row.names, "effort": row.effort(of["learn"])} | found
        for row, found in summaries
    }
    content = {"facts": of, "interval": {"level": 0.95, "resamples": 2000, "seed": BOOTSTRAP_SEED}, "rows": rows}
    write_json(plan.work / "liver.json", without_nan(content))
    print("\n".join(lines))
    print(f"\n{plan.work}/liver.md and liver.json")


def facts(plan: Plan) -> dict[str, Any]:
    """What the pictures are, and how well their sectors were found."""
    overlaps = []
    for picture in plan.report:
        outline, mask = picture.label > 0, picture.frame.mask
        overlaps.append((outline & mask).sum() / max((outline | mask).sum(), 1))
    return {
        "learn": len(plan.learn),
        "report": len(plan.report),
        "with_mass": sum(bool((picture.label == MASS).any()) for picture in plan.report),
        "sectors": sum(picture.frame.sector is not None for picture in plan.report),
        "outline_median": float(np.median(overlaps)),
        "outline_least": float(np.min(overlaps)),
        "best_inside": float(np.mean([_best_inside(picture) for picture in plan.report])),
    }


def _best_inside(picture: Picture) -> float:
    """Dice of the label itself, cut to the found sector, which no mask inside it exceeds."""
    union = picture.label >= LIVER
    return dice(union & picture.frame.mask, union)


def _fixed(
    key: str, title: str, compute: Callable[[Plan], Masks], *, labelled: bool = False, group: str = "shapes"
) -> Row:
    return Row(key, group, title, NO_NAMES, labelled, False, lambda plan, _: compute(plan))


def _position(names: str, plan: Plan, seed: int) -> Masks:
    return clusters_of_position(plan, seed)[names]


def _direct(run: Run, method: str, plan: Plan, seed: int) -> Masks:
    return by_rule(plan, run, seed, method)


def _clustered(run: Run, method: str, names: str, plan: Plan, seed: int) -> Masks:
    if names == RULE:
        return by_rule(plan, run, seed, method)
    return by_labels(plan, run, seed, method, oracle=names == ORACLE)
