"""This file tests tables of scores: what is averaged, who is marked best, and what the files hold."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medseg.errors import MedsegError
from medseg.naming.effort import Effort
from medseg.scoring.tables import (
    METRICS,
    ScoreRow,
    aggregate,
    best,
    bootstrap_interval,
    class_table,
    score_table,
    write_evaluation_results,
    write_scores_csv,
    write_scores_json,
)

NAN = float("nan")


def row(
    case_id: str, method: str = "STEGO", *, dice: float = 0.5, cldice: float = 0.5, hd95: float = 1.0, **more
) -> ScoreRow:
    of_volumes = [metric for metric in METRICS if not metric.endswith("_px")]
    scores = dict.fromkeys(of_volumes, 0.0) | {"dice": dice, "cldice": cldice, "hd95_mm": hd95}
    return ScoreRow(case_id, method, scores, **more)


def test_mean_and_population_sd_by_hand() -> None:
    found = aggregate([row("a", dice=0.2), row("b", dice=0.4), row("c", dice=0.9)])[0].spreads["dice"]
    assert found.mean == pytest.approx(0.5)
    assert found.sd == pytest.approx(math.sqrt((0.09 + 0.01 + 0.16) / 3))
    assert found.worst == 0.2
    assert (found.defined, found.undefined) == (3, 0)


def test_undefined_scores_are_counted_beside_the_mean() -> None:
    found = aggregate([row("a", dice=0.2), row("b", dice=NAN), row("c", dice=0.6)])[0].spreads["dice"]
    assert found.mean == pytest.approx(0.4)
    assert (found.defined, found.undefined) == (2, 1)


def test_a_method_without_any_defined_score_has_no_mean() -> None:
    found = aggregate([row("a", dice=NAN)])[0].spreads["dice"]
    assert math.isnan(found.mean) and math.isnan(found.sd) and math.isnan(found.worst)


def test_the_bootstrap_interval_is_seeded_and_holds_the_mean() -> None:
    values = [0.1, 0.53, 0.7, 0.92, 0.234, 0.61, 0.777]
    low, high = bootstrap_interval(values, seed=3)
    assert (low, high) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert min(values) <= low < np.mean(values) < high <= max(values)


def test_the_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, size=200).tolist()
    low, high = bootstrap_interval(values)
    half = 1.96 * np.std(values) / math.sqrt(200)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.002)


def test_one_case_has_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([0.5]))


def test_methods_structures_and_naming_sources_are_not_mixed() -> None:
    rows = [row("a", naming="rules"), row("a", naming="oracle"), row("a", "Otsu"), row("a", "Otsu", structure="vein")]
    assert [entry.cases for entry in aggregate(rows)] == [1, 1, 1, 1]


def test_different_efforts_are_not_one_mean() -> None:
    some, more = ({"naming": "clicks", "effort": Effort({"clicks": count}, 1.0)} for count in (5, 10))
    found = aggregate([row("a", **some), row("b", **more), row("c", **some)])
    assert [(entry.cases, entry.effort.counts) for entry in found] == [(2, {"clicks": 5}), (1, {"clicks": 10})]


def test_the_best_row_wins_whoever_it_is() -> None:
    aggregates = aggregate([row("a", "STEGO", dice=0.5, hd95=3.0), row("a", "Otsu", dice=0.8, hd95=2.0)])
    assert best(aggregates, "dice") == {1}
    assert best(aggregates, "hd95_mm") == {1}
    assert best(aggregates, "components") == set()


def test_equal_rows_are_best_together() -> None:
    assert best(aggregate([row("a", "STEGO"), row("a", "Otsu")]), "dice") == {0, 1}


def test_drawing_nothing_does_not_win_a_distance() -> None:
    rows = [
        row("a", "empty", hd95=0.5),
        row("b", "empty", hd95=NAN),
        row("a", "full", hd95=4.0),
        row("b", "full", hd95=5.0),
    ]
    assert best(aggregate(rows), "hd95_mm") == {1}


def test_an_unknown_naming_source_is_refused() -> None:
    with pytest.raises(MedsegError, match="naming source of a score row must be one of none, rules"):
        row("a", naming="guess")


def test_evaluation_results_has_the_fixed_format(tmp_path: Path) -> None:
    path = tmp_path / "evaluation_results.txt"
    rows = [row("002", dice=0.871, cldice=0.904), row("002", "Otsu", dice=0.1), row("002", structure="vein", dice=0.1)]
    write_evaluation_results(path, rows, dataset="NAME", method="STEGO")
    assert path.read_text(encoding="utf-8") == (
        "Results for NAME dataset\n"
        "|  ID  |  DICE  | CLDICE |\n"
        "| 002  |   0.87 |   0.90 |\n"
        "|  AVG |   0.87 |   0.90 |\n"
        "|  STD |   0.00 |   0.00 |\n"
    )


def test_evaluation_results_stays_a_table_for_awkward_names(tmp_path: Path) -> None:
    path = tmp_path / "evaluation_results.txt"
    write_evaluation_results(path, [row("a|b\nlong name"), row("c", dice=NAN)], dataset="x\ny", method="STEGO")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    assert {len(line) for line in lines[1:]} == {len(lines[1])}
    assert all(line.count("|") == 4 for line in lines[1:])
    assert "|    nan |" in lines[3]
    assert "|   0.50 |" in lines[4]


def test_the_csv_holds_every_row_and_says_which_are_label_free(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = [
        row("=cmd()", dice=0.25, naming="rules", trained_on_this_case=True),
        row('b,"c"', "Otsu", hd95=NAN, naming="clicks", effort=Effort({"clicks": 5}, 0.5)),
        row("d", naming="oracle"),
    ]
    write_scores_csv(path, rows)
    read = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [line["case"] for line in read] == ["'=cmd()", 'b,"c"', "d"]
    assert [line["naming"] for line in read] == ["rules", "clicks", "oracle"]
    assert [line["effort"] for line in read] == ["label-free (rules)", "5 clicks, 0.5 min", "oracle"]
    assert [line["label_free"] for line in read] == ["yes", "no", "no"]
    assert [line["trained_on_this_case"] for line in read] == ["yes", "", ""]
    assert float(read[0]["dice"]) == 0.25
    assert math.isnan(float(read[1]["hd95_mm"]))


def test_the_json_is_strict_and_holds_rows_and_aggregates(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_scores_json(path, [row("a", dice=0.2), row("b", hd95=NAN)], facts={"run": "abc"})
    content = json.loads(
        path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    assert content["run"] == "abc"
    assert content["rows"][1]["scores"]["hd95_mm"] is None
    assert content["rows"][0]["effort_in_words"] == content["aggregates"][0]["effort_in_words"] == "label-free"
    assert content["rows"][0]["effort"] == {"counts": {}, "minutes": None}
    assert content["aggregates"][0]["spreads"]["hd95_mm"]["undefined"] == 1
    assert content["aggregates"][0]["spreads"]["dice"]["mean"] == pytest.approx(0.35)


def test_the_terminal_table_shows_whole_rows_in_80_columns() -> None:
    rows = [row(case, method, dice=value) for case in "ab" for method, value in (("STEGO [x]", 0.5), ("Otsu", 0.75))]
    rows += [row(case, "matched", naming="oracle", dice=0.6) for case in "ab"]
    stream = io.StringIO()
    Console(file=stream, width=80).print(score_table(rows))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert ".750 ± .000*" in text and ".500 ± .000*" not in text.split("clDice")[0]
    assert "STEGO [x]" in text
    assert "2 cases" in text and "label-free" in text and "oracle †" in text
    assert "names matched to the labels that are scored: no result" in " ".join(text.split())


def test_classes_stand_below_each_other_and_methods_side_by_side() -> None:
    taught = {"naming": "training_labels", "effort": Effort({"cases": 1})}
    rows = [
        row("a", "stego", dice=0.9),
        row("a", "stego", dice=0.25, structure="liver", **taught),
        row("b", "stego", dice=0.75, structure="liver", **taught),
        row("a", "stego", dice=NAN, structure="mass", **taught),
        row("a", "kmeans", dice=0.125, structure="mass"),
    ]
    table = class_table(rows)
    assert table is not None
    assert [column.header for column in table.columns] == ["class", "stego", "kmeans"]
    assert [list(column.cells) for column in table.columns] == [
        ["effort", "liver", "mass"],
        ["1 labelled case, time not measured", ".500", "–"],
        ["label-free", "–", ".125"],
    ]
    assert class_table(rows[:1]) is None
