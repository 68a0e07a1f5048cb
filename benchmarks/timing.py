"""This file times two pieces of work in turns, so that both see the same machine, and prints their ratio."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Spent(NamedTuple):
    """Seconds of one unit: on the clock, and of computing on all cores (which other programs disturb less)."""

    wall: float
    cpu: float


class Work(NamedTuple):
    """What is timed: its name in the printed lines, and the units (steps, volumes) that one call does."""

    name: str
    run: Callable[[], object]
    units: int = 1


def read_repeats(description: str | None, help_text: str) -> int:
    """`--repeats` of the command line; `--help` shows the description."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help=f"{help_text} (default 3)")
    return parser.parse_args().repeats


def load_average() -> float:
    """Mean number of running programs in the last minute; unknown on Windows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def compare(slow: Work, fast: Work, repeats: int, *, unit: str, target: str) -> None:
    """Time both in turns and print their medians and ratio; each must have been warmed up before."""
    before = load_average()
    turns = [(_timed(slow), _timed(fast)) for _ in range(repeats)]
    print(
        f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, {repeats} turns, "
        f"load {before:.1f} before and {load_average():.1f} after"
    )
    for clock in Spent._fields:
        seconds = [[getattr(spent, clock) for spent in spents] for spents in zip(*turns, strict=True)]
        ratios = [a / b for a, b in zip(*seconds, strict=True)]
        print(
            f"{clock:>4} seconds a {unit}: "
            f"{slow.name} {statistics.median(seconds[0]):.3f}, {fast.name} {statistics.median(seconds[1]):.3f}; "
            f"{slow.name} / {fast.name} {statistics.median(ratios):.2f}x ({min(ratios):.2f} - {max(ratios):.2f}), "
            f"target {target}"
        )


def _timed(work: Work) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work.run()
    return Spent((time.perf_counter() - wall) / work.units, (time.process_time() - cpu) / work.units)
