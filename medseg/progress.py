"""This file shows how far a loop is, with the time left, on a terminal or as plain lines.

On a terminal a bar appears once a loop has run for two seconds; elsewhere a line is logged at most
every ten seconds. Stages call `track`; only the command line decides whether anything is shown.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_log = logging.getLogger("medseg.progress")
_QUIET_SECONDS = 2.0
_LINE_SECONDS = 10.0


def track(items: Iterable[_Item], description: str, total: int | None = None) -> Iterator[_Item]:
    """Yield the items while showing `description`, the share that is done and the time left.

    Args:
        items: what the loop goes over.
        description: a few words, e.g. `training`.
        total: the number of items where `items` has no length.
    """
    if total is None:
        total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    if not _log.isEnabledFor(logging.INFO):
        yield from items
    elif sys.stderr.isatty():
        yield from _with_bar(items, description, total)
    else:
        yield from _with_lines(items, description, total)


def _with_bar(items: Iterable[_Item], description: str, total: int | None) -> Iterator[_Item]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    start = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total)
    shown = False
    try:
        for item in items:
            if not shown and time.monotonic() - start > _QUIET_SECONDS:
                bar.start()
                shown = True
            yield item
            bar.advance(task)
    finally:
        if shown:
            bar.stop()


def _with_lines(items: Iterable[_Item], description: str, total: int | None) -> Iterator[_Item]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _LINE_SECONDS:
            last = now
            left = f", about {(now - start) / done * (total - done):.0f} s left" if total else ""
            _log.info("%s %d%s%s", description, done, f" of {total}" if total else "", left)
