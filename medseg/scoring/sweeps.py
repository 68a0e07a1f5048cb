"""This file compares the sampling schemes of a sweep: means over seeds, paired tests, one table.

A *cell* is one training; its score is the mean over the held-out patients. Mean and SD of a scheme at a size are over
its seeds. A *test* pairs a scheme with one other, the *base* (random picks where the sweep has them), at one size. All
pairs of schemes would be 15 tests, of which Holm's correction lets none be significant with 8 seeds, so only the base
is compared.

The *unit* of a test is the seed where at least six were trained: then it says whether the difference outlasts another
training, for these very patients. With fewer seeds the unit is the patient, with the mean over seeds: then it says
whether the difference holds from patient to patient. Pairs of patient and seed are no unit, because they repeat both.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from medseg.errors import MedsegError
from medseg.files import csv_text, write_text
from medseg.naming.effort import NO_EFFORT, Effort, in_words
from medseg.scoring.statistics import LEAST_PAIRS, PairedTest, corrected, paired_test

SCORES = {"dice": "Dice", "cldice": "clDice"}
"""What a sweep compares."""
EVERYTHING = "all"
"""The scheme that takes every patch; it is compared with the base at every size."""
_BASE = "R"


@dataclass(frozen=True)
class CellScores:
    """What one training of a sweep reached.

    Attributes:
        scheme: how patches were picked.
        size: the share of them that was picked.
        seed: of the training.
        patches: how many were trained on, of all cases.
        cases: `dice` and `cldice` of each held-out case; NaN where undefined.
        patients: whose case it is.
        naming: where the names of the clusters came from.
        effort: what people gave.
        steps: of the training.
        seconds: of the process that finished the cell, masks and scores included.
        checkpoint: SHA-256 of the trained weights.
    """

    scheme: str
    size: float
    seed: int
    patches: int
    cases: Mapping[str, Mapping[str, float]]
    patients: Mapping[str, str]
    naming: str
    effort: Effort
    steps: int
    seconds: float
    checkpoint: str

    def mean(self, score: str) -> float:
        """Mean over the held-out cases where it is defined; NaN where it is nowhere."""
        return _mean([scores[score] for scores in self.cases.values()])

    def as_dict(self) -> dict[str, Any]:
        """Plain values; an undefined score is None, for JSON knows no NaN."""
        cases = {
            case: {score: None if math.isnan(value) else value for score, value in scores.items()}
            for case, scores in self.cases.items()
        }
        return {**asdict(self), "cases": cases, "effort": self.effort.as_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CellScores:
        """The cell of plain values, which may hold more.

        Raises:
            MedsegError: something is missing.
        """
        try:
            cases = {
                case: {score: math.nan if scores[score] is None else float(scores[score]) for score in SCORES}
                for case, scores in content["cases"].items()
            }
            values = {key: content[key] for key in cls.__dataclass_fields__}
            return cls(**{**values, "cases": cases, "effort": Effort.from_dict(content["effort"])})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MedsegError(f"a cell of a sweep must hold {error}, got none; run the sweep again") from error


@dataclass(frozen=True)
class SchemeAtSize:
    """A scheme at a size over its seeds.

    Attributes:
        scheme: how patches were picked.
        size: the share of them.
        patches: mean number that was trained on.
        seeds: that were trained.
        mean: mean over seeds, by score.
        sd: their sample standard deviation; NaN for one seed.
        naming: where names came from.
        effort: what people gave.
    """

    scheme: str
    size: float
    patches: float
    seeds: tuple[int, ...]
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    naming: str = "rules"
    effort: Effort = NO_EFFORT


@dataclass(frozen=True)
class SweepTest:
    """A scheme against the base at one size.

    Attributes:
        size: at which both picked; `all` keeps its own.
        score: `dice` or `cldice`.
        unit: `seeds` or `patients`.
        test: the result, corrected for all tests of this size and score.
    """

    size: float
    score: str
    unit: str
    test: PairedTest


def summarise(cells: Sequence[CellScores]) -> list[SchemeAtSize]:
    """Each scheme at each of its sizes, in the order of first appearance, sizes rising."""
    groups: dict[tuple[str, float], list[CellScores]] = {}
    for cell in cells:
        groups.setdefault((cell.scheme, cell.size), []).append(cell)
    order = list(dict.fromkeys(cell.scheme for cell in cells))
    return [
        SchemeAtSize(
            scheme,
            size,
            float(np.mean([cell.patches for cell in members])),
            tuple(cell.seed for cell in members),
            {score: _mean([cell.mean(score) for cell in members]) for score in SCORES},
            {score: _sd([cell.mean(score) for cell in members]) for score in SCORES},
            members[0].naming,
            members[0].effort,
        )
        for (scheme, size), members in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def sweep_tests(cells: Sequence[CellScores]) -> list[SweepTest]:
    """Every scheme against the base at every size, `all` too; Holm's correction within one size and score.

    Returns:
        Nothing where one scheme was trained.
    """
    everything = [cell for cell in cells if cell.scheme == EVERYTHING]
    found: list[SweepTest] = []
    for size in sorted({cell.size for cell in cells}):
        at_size = [cell for cell in cells if cell.size == size]
        present = list(dict.fromkeys(cell.scheme for cell in at_size))
        base = _BASE if _BASE in present else present[0]
        rivals = {name: [cell for cell in at_size if cell.scheme == name] for name in present if name != base}
        if size < 1 and everything:
            rivals[EVERYTHING] = everything
        mine = [cell for cell in at_size if cell.scheme == base]
        for score in SCORES:
            made = [_paired(name, base, theirs, mine, score) for name, theirs in rivals.items()]
            tests = corrected([test for _, test in made])
            found += [SweepTest(size, score, unit, test) for (unit, _), test in zip(made, tests, strict=True)]
    return found


def _paired(
    first: str, second: str, a: Sequence[CellScores], b: Sequence[CellScores], score: str
) -> tuple[str, PairedTest]:
    """The unit, and the test of two schemes on the seeds that both have."""
    seeds = [cell.seed for cell in a if cell.seed in {other.seed for other in b}]
    pairs = [({cell.seed: cell for cell in a}[seed], {cell.seed: cell for cell in b}[seed]) for seed in seeds]
    if len(seeds) >= LEAST_PAIRS:
        return "seeds", paired_test(first, second, *([cells[n].mean(score) for cells in pairs] for n in (0, 1)))
    patients = sorted({patient for cell, _ in pairs for patient in cell.patients.values()})
    means = ([_mean([_of_patient(cells[n], one, score) for cells in pairs]) for one in patients] for n in (0, 1))
    return "patients", paired_test(first, second, *means)


def _of_patient(cell: CellScores, patient: str, score: str) -> float:
    return _mean([scores[score] for case, scores in cell.cases.items() if cell.patients[case] == patient])


def sweep_table(summaries: Sequence[SchemeAtSize], tests: Sequence[SweepTest], title: str) -> Table:
    """A table for the terminal, one row a scheme and size, with p beside each score and the effort behind it."""
    p_of = {}
    for found in tests:
        scheme = found.test.second if found.test.first == EVERYTHING and found.size < 1 else found.test.first
        p_of[scheme, found.size, found.score] = found.test.p_holm
    counts = {len(row.seeds) for row in summaries}
    same = len(counts) == 1  # then the title says it, and the column's room lets each row be one line
    if same:
        (count,) = counts
        title = f"{title}, {count} {'seed' if count == 1 else 'seeds'}"
    table = Table(title=title, caption=_caption(tests), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("scheme")
    heads = ["size", "patches", *([] if same else ["seeds"])]
    for name in (*heads, *(column for score in SCORES.values() for column in (score, "p"))):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("effort")
    for number, row in enumerate(summaries):
        last = number + 1 == len(summaries) or summaries[number + 1].scheme != row.scheme
        cells = [percent(row.size), f"{row.patches:.0f}", *([] if same else [str(len(row.seeds))])]
        for score in SCORES:
            p = p_of.get((row.scheme, row.size, score), math.nan)
            cells += [_with_sd(row.mean[score], row.sd[score]), _small(p)]
        table.add_row(row.scheme, *cells, in_words(row.naming, row.effort), end_section=last)
    return table


def _caption(tests: Sequence[SweepTest]) -> str:
    """What the numbers are, and what p is of."""
    words = "mean ± SD over seeds of the mean over held-out cases"
    if not tests:
        return words
    base = tests[0].test.second
    units = " or ".join(dict.fromkeys(found.unit for found in tests))
    against = f"against {base} at the same size"
    if any(found.test.first == EVERYTHING for found in tests):
        against += f" ({base}: against {EVERYTHING})"
    words += f"; p: {against}, signed-rank test over {units}, Holm within a size and score"
    if any(math.isnan(found.test.p) for found in tests):
        words += f"; –: under {LEAST_PAIRS} pairs differ, so no test can be significant"
    return words


def write_sweep_csv(path: Path, cells: Sequence[CellScores]) -> None:
    """Write one line a cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    before = ("scheme", "size", "seed", "patches", "cases")
    writer.writerow([*before, *SCORES, "effort", "steps", "seconds", "checkpoint_sha256"])
    for cell in cells:
        cut = [cell.scheme, f"{cell.size:g}", cell.seed, cell.patches, len(cell.cases)]
        reached = [_cell(cell.mean(score)) for score in SCORES]
        rest = [in_words(cell.naming, cell.effort), cell.steps, cell.seconds, cell.checkpoint]
        writer.writerow([csv_text(value) for value in (*cut, *reached, *rest)])
    write_text(path, stream.getvalue())


def percent(size: float) -> str:
    """A share as tables show it.

    >>> percent(0.005)
    '0.5%'
    """
    return f"{100 * size:g}%"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _with_sd(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "–"
    return _ratio(mean) if math.isnan(sd) else f"{_ratio(mean)} ± {_ratio(sd)}"


def _small(p: float) -> str:
    return "–" if math.isnan(p) else "<.001" if p < 0.001 else _ratio(p)


def _ratio(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.2f}"


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _sd(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
