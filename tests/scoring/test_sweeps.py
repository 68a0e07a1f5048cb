"""This file tests how the cells of a sweep are compared, against numbers by hand and scipy's tables."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import wilcoxon

from medseg.errors import MedsegError
from medseg.naming.effort import Effort
from medseg.scoring.sweeps import CellScores, summarise, sweep_table, sweep_tests, write_sweep_csv

SEEDS = (1, 42, 97, 123, 256, 333, 555, 666)


def cell(scheme: str, seed: int, dice: float, size: float = 0.05, **others: float) -> CellScores:
    """A cell with the cases a (Dice as given, or as in `others`) and b (.1 more), of two patients."""
    cases = {"a": dice, "b": dice + 0.1} | others
    scores = {case: {"dice": value, "cldice": value / 2} for case, value in cases.items()}
    patients = {case: case.rstrip("2") for case in cases}
    return CellScores(scheme, size, seed, round(1000 * size), scores, patients, "rules", Effort(), 20, 1.5, scheme * 4)


def shown(table: object) -> list[str]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_mean_and_sd_are_over_seeds_of_the_mean_over_cases() -> None:
    values = (0.5, 0.6, 0.75)
    (row,) = summarise([cell("R", seed, value) for seed, value in zip(SEEDS, values, strict=False)])
    assert row.mean["dice"] == pytest.approx(sum(values) / 3 + 0.05)
    assert row.sd["dice"] == pytest.approx(statistics.stdev(values))
    assert row.mean["cldice"] == pytest.approx(row.mean["dice"] / 2)
    assert (row.patches, row.seeds) == (50, (1, 42, 97))


def test_one_seed_has_no_sd_and_an_undefined_case_is_left_out() -> None:
    (row,) = summarise([cell("R", 1, 0.5, c=math.nan)])
    assert row.mean["dice"] == pytest.approx(0.55)
    assert math.isnan(row.sd["dice"])


def test_rows_go_by_scheme_then_by_rising_size() -> None:
    rows = summarise([cell("R", 1, 0.5, 0.5), cell("C", 1, 0.5, 0.5), cell("R", 1, 0.4, 0.05), cell("C", 1, 0.3, 0.05)])
    assert [(row.scheme, row.size) for row in rows] == [("R", 0.05), ("R", 0.5), ("C", 0.05), ("C", 0.5)]


def test_with_eight_seeds_a_seed_is_the_unit_and_cases_are_no_pairs_of_their_own() -> None:
    better = [0.01, 0.04, 0.02, 0.05, 0.03, -0.015, 0.06, 0.07]
    mine = [cell("R", seed, 0.5) for seed in SEEDS]
    theirs = [cell("CFX", seed, 0.5 + gain) for seed, gain in zip(SEEDS, better, strict=True)]
    dice, cldice = sweep_tests([*mine, *theirs])
    assert (dice.score, cldice.score, dice.unit, dice.test.pairs) == ("dice", "cldice", "seeds", 8)
    assert (dice.test.first, dice.test.second) == ("CFX", "R")
    assert dice.test.p == pytest.approx(float(wilcoxon(better, method="exact").pvalue))
    assert dice.test.difference == pytest.approx(statistics.median(better))


def test_with_fewer_seeds_a_patient_is_the_unit_and_all_its_cases_are_one_pair() -> None:
    cells = [cell(scheme, seed, 0.5 + gain, a2=0.9) for scheme, gain in (("R", 0.0), ("C", 0.02)) for seed in (1, 42)]
    dice, _ = sweep_tests(cells)
    assert (dice.unit, dice.test.pairs) == ("patients", 2)  # a and a2 are of one
    assert dice.test.difference == pytest.approx((0.01 + 0.02) / 2)
    assert math.isnan(dice.test.p)


def test_schemes_are_compared_with_random_picks_and_holm_counts_one_size_and_score() -> None:
    gains = {"R": 0.0, "C": 0.01, "CF": 0.02, "CFW": 0.03, "CFX": 0.04, "CFWX": 0.05}
    cells = [cell(name, seed, 0.5 + gain * (1 + seed / 1000)) for name, gain in gains.items() for seed in SEEDS]
    cells += [cell("all", seed, 0.7, 1.0) for seed in SEEDS]
    dice = [found.test for found in sweep_tests(cells) if found.score == "dice"]
    assert [(test.first, test.second) for test in dice] == [(name, "R") for name in (*list(gains)[1:], "all")]
    # All 8 seeds agree: 2 of 256 signs; six such tests still are significant together.
    assert [test.p for test in dice] == pytest.approx([2 / 256] * 6)
    assert [test.p_holm for test in dice] == pytest.approx([6 * 2 / 256] * 6)


def test_without_random_picks_the_first_scheme_is_the_base() -> None:
    found = sweep_tests([cell("CF", 1, 0.5), cell("C", 1, 0.6)])
    assert {(test.test.first, test.test.second) for test in found} == {("C", "CF")}
    assert sweep_tests([cell("CF", seed, 0.5) for seed in SEEDS]) == []


def test_the_table_says_p_and_effort_in_80_columns() -> None:
    cells = [cell("R", seed, 0.5 + seed / 1e4) for seed in SEEDS]
    cells += [cell("CFX", seed, 0.6) for seed in SEEDS] + [cell("all", seed, 0.7, 1.0) for seed in SEEDS]
    lines = shown(sweep_table(summarise(cells), sweep_tests(cells), "Sweep"))
    assert max(map(len, lines)) <= 80
    by_scheme = {line.split()[0]: line.split() for line in lines if line.strip().startswith(("R ", "CFX", "all"))}
    assert "Sweep, 8 seeds" in lines[0]
    assert by_scheme["CFX"][1:7] == ["5%", "50", ".650", "±", ".000", ".016"]  # 2 x 2 / 256
    assert by_scheme["R"][6] == ".016"  # against all
    assert by_scheme["all"][6] == "–"  # nothing else has 100 %
    assert all("label-free" in " ".join(words) for words in by_scheme.values())
    assert "over seeds" in " ".join(lines)


def test_where_seeds_are_missing_each_row_says_how_many_it_has() -> None:
    cells = [cell("R", seed, 0.5) for seed in SEEDS] + [cell("C", 1, 0.6)]
    lines = shown(sweep_table(summarise(cells), sweep_tests(cells), "Sweep"))
    assert any(line.split()[:4] == ["R", "5%", "50", "8"] for line in lines)
    assert any(line.split()[:4] == ["C", "5%", "50", "1"] for line in lines)


def test_few_pairs_are_said_to_prove_nothing() -> None:
    cells = [cell("R", 1, 0.5), cell("C", 1, 0.6)]
    words = " ".join(" ".join(shown(sweep_table(summarise(cells), sweep_tests(cells), "Sweep"))).split())
    assert "under 6 pairs differ" in words
    assert "over patients" in words


def test_the_csv_holds_a_line_a_cell(tmp_path: Path) -> None:
    write_sweep_csv(tmp_path / "sweep.csv", [cell("R", 1, 0.5), cell("C", 1, math.nan, b=math.nan)])
    with (tmp_path / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["dice"] == "0.55"
    assert (first["scheme"], first["size"], first["patches"], first["cases"]) == ("R", "0.05", "50", "2")
    assert (first["effort"], first["checkpoint_sha256"]) == ("label-free (rules)", "RRRR")
    assert second["dice"] == ""


def test_a_cell_comes_back_from_json_and_a_damaged_one_is_refused() -> None:
    there = cell("R", 1, 0.5, c=math.nan)
    back = CellScores.from_dict(json.loads(json.dumps(there.as_dict())))
    assert math.isnan(back.cases["c"]["dice"])
    assert back.as_dict() == there.as_dict()
    content = there.as_dict()
    del content["steps"]
    with pytest.raises(MedsegError, match="steps"):
        CellScores.from_dict(content)
