"""This file tests that no table of scores lacks the effort behind them, in the package and in its benchmarks."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from medseg.naming.effort import NO_EFFORT, Effort
from medseg.scoring.layout import EFFORT, as_lines, effort_of, table_of_classes, table_of_methods

ROOT = Path(__file__).parents[2]
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for name in ("medseg", "benchmarks")
    for path in sorted((ROOT / name).rglob("*.py"))
}
SCORE = re.compile(r"\b(Dice|clDice|IoU|mIoU)\b")


@dataclass
class Scored:
    naming: str
    effort: Effort = NO_EFFORT


def test_a_row_a_method_says_its_effort() -> None:
    rows = [
        (Scored("rules"), "stego", [".5"]),
        (Scored("clicks", Effort({"clicks": 5}, 0.5)), "clicks", [".6"]),
        (Scored("oracle"), "stego", [".9"]),
    ]
    table = table_of_methods(rows, ["Dice"], title="Scores", caption="mean")
    assert [column.header for column in table.columns] == ["method", "effort", "Dice"]
    assert list(table.columns[1].cells) == ["label-free (rules)", "5 clicks, 0.5 min", "oracle †"]
    assert table.caption == "mean; † names matched to the labels that are scored: no result"
    assert table_of_methods(rows[:2], ["Dice"], title="Scores", caption="mean").caption == "mean"


def test_methods_side_by_side_have_their_effort_in_the_first_line() -> None:
    methods = [(Scored("rules"), "stego"), (Scored("training_labels", Effort({"cases": 3})), "[linear]")]
    table = table_of_classes(methods, [("[liver]", ["7", ".5", ".6"])], title="IoU", more=["%"])
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert cells[0] == ("effort", "", "label-free (rules)", "3 labelled cases, time not measured")
    lines = as_lines(table)
    assert "[linear]" in "\n".join(lines) and "[liver]" in "\n".join(lines)  # no markup of Rich's
    assert max(map(len, lines)) <= 80


def test_an_oracle_is_marked_and_nothing_else_is() -> None:
    assert effort_of(Scored("oracle")) == "oracle †"
    assert "†" not in effort_of(Scored("training_labels"))


def test_tables_for_the_terminal_have_the_column() -> None:
    makers = {
        path.relative_to(ROOT).as_posix(): ast.unparse(node)
        for path, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and re.search(r"\bTable\(", ast.unparse(node))
    }
    # Where rows must bring an effort: all other tables are made there.
    assert makers.pop("medseg/scoring/layout.py")
    assert all(f"add_column({EFFORT!r}" in text or "add_column(EFFORT" in text for text in makers.values())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_head_that_names_a_score_names_the_effort(path: Path) -> None:
    assert [head for head in heads(SOURCES[path]) if "effort" not in head.lower()] == []


def test_a_head_without_effort_is_found() -> None:
    assert heads('print(f"| {name} | Dice | {last} |")') and heads("print(f\"{first:34}{'Dice':^26}\")")
    assert heads('LINE = "| row | Dice |"')
    assert heads('def write(writer):\n    head = ["case", "dice"]\n    writer.writerow(head)')
    assert heads("def write(writer):\n    writer.writerow(['case', *METRICS])")
    assert not heads('raise MedsegError("Dice must be defined")') and not heads("print(f'| {dice:6.2f} |')")


def heads(text: str) -> list[str]:
    """What makes heads of tables of scores in a source: markdown, aligned columns, functions that write CSV."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr | ast.Constant | ast.FunctionDef):
            continue
        words = ast.unparse(node)
        texts = [
            part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        if isinstance(node, ast.FunctionDef):
            is_head = "writerow(" in words and ({"dice", "mean_iou"} & {*texts} or "METRICS" in words)
        elif isinstance(node, ast.JoinedStr):
            is_head = any(SCORE.search(part) for part in texts) and re.search(r"[<>^]\d|\}\d|:\d|\|", words)
        else:
            is_head = texts and texts[0].startswith("|") and SCORE.search(texts[0])
        if is_head:
            found.append(words)
    return found
