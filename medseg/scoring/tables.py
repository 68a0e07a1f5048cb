"""This file gathers scores into tables: aggregates, CSV, JSON, `evaluation_results.txt`, the terminal.

A *row* is one case by one method for one structure (all foreground, or one class). An *aggregate* is one method
over all its cases. Whole rows are shown, never the better of two methods case by case. *Undefined* scores
(NaN, see `overlap`) are left out of a mean and counted beside it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from medseg.errors import MedsegError
from medseg.files import csv_text, write_json, write_text
from medseg.naming.effort import LABEL_FREE, NO_EFFORT, Effort, in_words
from medseg.scoring.layout import table_of_classes, table_of_methods
from medseg.scoring.overlap import UNION

METRICS = {
    "dice": "Dice",
    "cldice": "clDice",
    "precision": "prec.",
    "recall": "recall",
    "hd95_mm": "HD95 mm",
    "hd95_px": "HD95 px",
    "surface_dice_1voxel": "surf. Dice",
    "components": "pieces",
    "centreline_mm": "centre line mm",
    "centreline_px": "centre line px",
    "volume_difference_ml": "volume error ml",
}
"""Every score by its key, with the words a table's head has for it."""

NAMING_SOURCES = ("none", "rules", "clusters", "hand", "clicks", "training_labels", "oracle")
"""Where cluster names came from; the rows of the first three saw no label and no person."""

SHOWN = ("dice", "cldice", "precision", "recall", "hd95_mm", "hd95_px")
"""What fits a terminal of 80 columns; files hold everything."""

_DETAILED = ("dice", "cldice")
_RATIOS = ("precision", "recall", "surface_dice_1voxel")
_DIGITS = {"components": 0, "centreline_mm": 0, "centreline_px": 0, "volume_difference_ml": 1}
_HIGHER_IS_BETTER = {"dice", "cldice", "precision", "recall", "surface_dice_1voxel"}
_LOWER_IS_BETTER = {"hd95_mm", "hd95_px"}
_RESAMPLES = 2000


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one case by one method for one structure.

    Attributes:
        case_id: the case.
        method: the method's name as tables show it.
        scores: numbers by the keys of `METRICS`.
        naming: how the method's clusters got their names, one of `NAMING_SOURCES`; `none` for a rule without clusters.
        structure: `union` or a class name.
        region: where masks and reference were compared, `all` or `brain`.
        trained_on_this_case: whether the model saw this scan (never its label) in training; None where nothing trains.
        effort: what people gave for the method.
    """

    case_id: str
    method: str
    scores: Mapping[str, float]
    naming: str = "none"
    structure: str = UNION
    region: str = "all"
    trained_on_this_case: bool | None = None
    effort: Effort = NO_EFFORT

    def __post_init__(self) -> None:
        if self.naming not in NAMING_SOURCES:
            raise MedsegError(
                f"naming source of a score row must be one of {', '.join(NAMING_SOURCES)}, got {self.naming!r}; "
                "correct `named_by` in classes.yaml"
            )


@dataclass(frozen=True)
class Spread:
    """One score over cases.

    Attributes:
        mean: mean of the defined values; NaN without any.
        sd: population standard deviation.
        low: lower end of the 95 % bootstrap interval of the mean; NaN for fewer than two values.
        high: its upper end.
        worst: the worst case: smallest or largest value, whichever the score's direction says; NaN without a direction.
        defined: number of values that entered.
        undefined: number of NaNs that did not.
    """

    mean: float
    sd: float
    low: float
    high: float
    worst: float
    defined: int
    undefined: int


@dataclass(frozen=True)
class Aggregate:
    """One method over its cases for one structure; `spreads` by the keys of `METRICS`."""

    method: str
    structure: str
    naming: str
    effort: Effort
    region: str
    cases: int
    spreads: Mapping[str, Spread]


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over resampled cases.

    The same seed and number of values draw the same cases, so methods scored on the same cases are compared fairly.

    Returns:
        Lower and upper end; NaN for fewer than two values, whose spread nobody knows.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(np.asarray(values, dtype=float)[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def spread(values: Iterable[float], metric: str, *, seed: int = 0) -> Spread:
    """Mean, population SD, bootstrap interval and worst of one score's values."""
    everything = [float(value) for value in values]
    defined = [value for value in everything if not math.isnan(value)]
    low, high = bootstrap_interval(defined, seed=seed)
    worst = float("nan")
    if defined and metric in _HIGHER_IS_BETTER | _LOWER_IS_BETTER:
        worst = min(defined) if metric in _HIGHER_IS_BETTER else max(defined)
    return Spread(
        mean=float(np.mean(defined)) if defined else float("nan"),
        sd=float(np.std(defined)) if defined else float("nan"),
        low=low,
        high=high,
        worst=worst,
        defined=len(defined),
        undefined=len(everything) - len(defined),
    )


def aggregate(rows: Sequence[ScoreRow], *, seed: int = 0) -> list[Aggregate]:
    """One entry per method, structure, naming source, effort and region, in the order of first appearance."""
    groups: dict[tuple[str, str, str, str, str], list[ScoreRow]] = {}
    for row in rows:
        effort = in_words(row.naming, row.effort)
        groups.setdefault((row.method, row.structure, row.naming, effort, row.region), []).append(row)
    return [
        Aggregate(
            method=method,
            structure=structure,
            naming=naming,
            effort=members[0].effort,
            region=region,
            cases=len(members),
            spreads={
                metric: spread((row.scores[metric] for row in members), metric, seed=seed)
                for metric in METRICS
                if all(metric in row.scores for row in members)
            },
        )
        for (method, structure, naming, _, region), members in groups.items()
    ]


def best(aggregates: Sequence[Aggregate], metric: str) -> set[int]:
    """Indices of the best rows by mean, whoever they are; several when they tie.

    Only rows with the fewest undefined values compete: a method does not win a distance by drawing nothing. Pieces,
    lengths and volume errors have no better end, so nobody wins them.
    """
    if metric not in _HIGHER_IS_BETTER | _LOWER_IS_BETTER:
        return set()
    spreads = {
        index: entry.spreads[metric]
        for index, entry in enumerate(aggregates)
        if metric in entry.spreads and entry.spreads[metric].defined
    }
    if not spreads:
        return set()
    fewest = min(found.undefined for found in spreads.values())
    means = {index: found.mean for index, found in spreads.items() if found.undefined == fewest}
    winner = (max if metric in _HIGHER_IS_BETTER else min)(means.values())
    return {index for index, mean in means.items() if math.isclose(mean, winner, rel_tol=1e-9, abs_tol=1e-12)}


def score_table(
    rows: Sequence[ScoreRow],
    *,
    metrics: Sequence[str] = SHOWN,
    structure: str = UNION,
    title: str = "Scores",
    seed: int = 0,
) -> Table:
    """A table for the terminal: one whole row a method with its effort, `*` at the best mean of each score.

    Below mean and SD of Dice and clDice stand the 95 % interval of the mean and the worst case; below the method the
    number of cases.
    """
    aggregates = [entry for entry in aggregate(rows, seed=seed) if entry.structure == structure]
    shown = [metric for metric in metrics if any(metric in entry.spreads for entry in aggregates)]
    winners = {metric: best(aggregates, metric) for metric in shown}
    lines = []
    for index, entry in enumerate(aggregates):
        name = f"{escape(entry.method)}\n[dim]{entry.cases} case{'s' if entry.cases > 1 else ''}[/dim]"
        cells = [_cell(entry.spreads.get(metric), metric, best=index in winners[metric]) for metric in shown]
        lines.append((entry, name, cells))
    heads = [METRICS[metric].replace(" ", "\n") for metric in shown]
    caption = "mean ± SD, 95 % interval of the mean (worst case); * best"
    return table_of_methods(lines, heads, title=title, caption=caption)


def class_table(rows: Sequence[ScoreRow], *, seed: int = 0) -> Table | None:
    """A table for the terminal with the mean Dice of each class by each method; None where there is one class only."""
    aggregates = [entry for entry in aggregate(rows, seed=seed) if entry.structure != UNION]
    if not aggregates:
        return None
    methods: dict[tuple[str, str], Aggregate] = {}
    means: dict[str, dict[tuple[str, str], float]] = {}
    for entry in aggregates:
        key = (entry.method, in_words(entry.naming, entry.effort))
        methods.setdefault(key, entry)
        means.setdefault(entry.structure, {})[key] = entry.spreads["dice"].mean
    lines = [
        (structure, ["–" if math.isnan(mean := of.get(key, math.nan)) else _ratio(mean, 3) for key in methods])
        for structure, of in means.items()
    ]
    columns = [(entry, entry.method) for entry in methods.values()]
    return table_of_classes(columns, lines, title="Dice of each class")


def write_scores_csv(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write one line a row; names that a spreadsheet would run as a formula are made harmless."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heads = ["case", "method", "structure", "naming", "label_free", "effort", "region", "trained_on_this_case"]
    writer.writerow([*heads, *METRICS])
    for row in rows:
        seen = "" if row.trained_on_this_case is None else _yes_no(row.trained_on_this_case)
        words = [
            row.case_id,
            row.method,
            row.structure,
            row.naming,
            _yes_no(row.naming in LABEL_FREE),
            in_words(row.naming, row.effort),
            row.region,
            seen,
        ]
        numbers = [f"{row.scores[metric]:.6g}" if metric in row.scores else "" for metric in METRICS]
        writer.writerow([*(csv_text(word) for word in words), *numbers])
    write_text(path, stream.getvalue())


def write_scores_json(path: Path, rows: Sequence[ScoreRow], *, seed: int = 0, facts: Mapping[str, Any] = {}) -> None:
    """Write rows and aggregates; an undefined number is `null`, for JSON knows no NaN.

    Args:
        path: the file.
        rows: the score rows.
        seed: of the bootstrap.
        facts: what else belongs to these scores (versions, run hash), put at the top.
    """
    content = {
        "schema": "medseg-scores/1",
        **facts,
        "interval": {"level": 0.95, "method": "percentile bootstrap over cases", "resamples": _RESAMPLES, "seed": seed},
        "rows": [_plain(row) for row in rows],
        "aggregates": [_plain(entry) for entry in aggregate(rows, seed=seed)],
    }
    write_json(path, without_nan(content))


def write_evaluation_results(path: Path, rows: Sequence[ScoreRow], *, dataset: str, method: str) -> None:
    """Write the table that the vessel fork's scripts read: Dice and clDice of one method, mean and population SD.

    Args:
        path: the file.
        rows: score rows of any methods and structures; those of `method` for all foreground are written.
        dataset: the name in the head line.
        method: our own method.
    """
    own = [row for row in rows if row.method == method and row.structure == UNION]
    columns = {metric: spread((row.scores[metric] for row in own), metric) for metric in ("dice", "cldice")}
    lines = [(_one_line(row.case_id), row.scores["dice"], row.scores["cldice"]) for row in own]
    width = max([4, *(len(name) for name, _, _ in lines)])
    text = [f"Results for {_one_line(dataset)} dataset", f"| {'ID':^{width}} |  DICE  | CLDICE |"]
    text += [_result_line(f"{name:<{width}}", dice, cldice) for name, dice, cldice in lines]
    text.append(_result_line(f"{'AVG':>{width}}", columns["dice"].mean, columns["cldice"].mean))
    text.append(_result_line(f"{'STD':>{width}}", columns["dice"].sd, columns["cldice"].sd))
    write_text(path, "\n".join(text) + "\n")


def _plain(scored: ScoreRow | Aggregate) -> dict[str, Any]:
    """Plain values of a row, with its effort in words too."""
    said = {"label_free": scored.naming in LABEL_FREE, "effort_in_words": in_words(scored.naming, scored.effort)}
    return {**asdict(scored), **said}


def _cell(found: Spread | None, metric: str, *, best: bool) -> str:
    """What one method shows for one score."""
    if found is None:
        return ""
    if not found.defined:
        return f"– \n{found.undefined} NaN"
    text = f"{found.mean:.{_DIGITS.get(metric, 2)}f}" if metric not in _RATIOS else _ratio(found.mean)
    if metric in _DETAILED:
        text = f"{_ratio(found.mean, 3)} ± {_ratio(found.sd, 3)}"
    lines = [f"[bold]{text}*[/bold]" if best else f"{text} "]
    if metric in _DETAILED and found.defined > 1:
        lines.append(f"{_ratio(found.low)}–{_ratio(found.high)} ({_ratio(found.worst)})")
    if found.undefined:
        lines.append(f"{found.undefined} NaN")
    return "\n".join(lines)


def _ratio(number: float, digits: int = 2) -> str:
    """A number from 0 to 1 without its leading zero, so that a table fits 80 columns."""
    return f"{number:.{digits}f}".removeprefix("0")


def _result_line(name: str, dice: float, cldice: float) -> str:
    return f"| {name} | {dice:6.2f} | {cldice:6.2f} |"


def _one_line(word: str) -> str:
    """A name that cannot break the table it stands in."""
    return " ".join(word.split()).replace("|", "_")


def _yes_no(answer: bool) -> str:
    return "yes" if answer else "no"


def without_nan(content: Any) -> Any:
    """The same content with None for every number that is not finite."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
