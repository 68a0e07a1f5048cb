"""This file lays out scores for the terminal, and no table of scores leaves it without the effort behind each of them.

A row is *scored* if it says where names came from and what people gave. The tables here write their effort themselves,
so whoever has scores to show cannot leave it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.naming.effort import Effort, in_words

EFFORT = "effort"
"""The head of the column, or of the line, that says what people gave."""
_ORACLE = "† names matched to the labels that are scored: no result"
_EFFORT_WIDTH = 11  # characters; beside it the rest of a row fits a terminal
_COLUMNS = 80  # of a terminal; files hold everything


@runtime_checkable
class Scored(Protocol):
    """What has scores: a row, or one method over its cases."""

    @property
    def naming(self) -> str:
        """Where names came from, one of `medseg.scoring.tables.NAMING_SOURCES`."""

    @property
    def effort(self) -> Effort:
        """What people gave."""


def table_of_methods(
    rows: Sequence[tuple[Scored, str, Sequence[str]]], heads: Sequence[str], *, title: str, caption: str
) -> Table:
    """A table with one row a method: its name, the effort, its scores.

    Args:
        rows: what is scored, the method's name as markup, and a cell for each of `heads`.
        heads: of the scores.
        title: above the table.
        caption: below it.
    """
    if any(scored.naming == "oracle" for scored, _, _ in rows):
        caption += f"; {_ORACLE}"
    table = _empty(title, caption)
    table.add_column("method", min_width=12)
    table.add_column(EFFORT, max_width=_EFFORT_WIDTH)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for scored, name, cells in rows:
        table.add_row(name, effort_of(scored), *cells)
    return table


def table_of_classes(
    methods: Sequence[tuple[Scored, str]],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    title: str,
    more: Sequence[str] = (),
) -> Table:
    """A table with one row a class and methods side by side: the effort of each stands in the first line.

    Args:
        methods: what is scored, and its name.
        rows: the name of a class, and a cell for each of `more`, then for each method.
        title: above the table.
        more: heads of what else is said of a class.
    """
    table = _empty(title, _ORACLE if any(scored.naming == "oracle" for scored, _ in methods) else None)
    table.add_column("class")
    for head in (*more, *(escape(name) for _, name in methods)):
        table.add_column(head, justify="right")
    table.add_row(EFFORT, *("" for _ in more), *(effort_of(scored) for scored, _ in methods), end_section=True)
    for name, cells in rows:
        table.add_row(escape(name), *cells)
    return table


def effort_of(scored: Scored) -> str:
    """The effort behind a score in words; an oracle is marked."""
    words = in_words(scored.naming, scored.effort)
    return f"{words} †" if scored.naming == "oracle" else words


def as_lines(table: Table) -> list[str]:
    """The table as a terminal of 80 columns shows it."""
    console = Console(width=_COLUMNS)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().rstrip().splitlines()]


def _empty(title: str, caption: str | None) -> Table:
    return Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
