"""How good liver masks of B-mode pictures are, against plain shapes, clusterings, and rows that learnt from labels.

    python benchmarks/liver.py DATA --work DIR [--seeds 5] [--only GROUP ...]
    python benchmarks/liver.py DATA --work DIR --check [--only GROUP ...]
    python benchmarks/liver.py DATA --work DIR --worst student_student
    python benchmarks/liver.py DATA --work DIR --time

DATA holds `imgs/train`, `imgs/val`, `labels/train` and `labels/val`. Rows learn from the training pictures, without
labels but where a row says so, and are scored on the others. `--check` is for development: it learns from every second
training picture and scores the rest of them. A group holds the rows of one run of the application, or is one of
`shapes`, `teacher`, `probe` and `labelled`. Finished rows are kept in DIR, and the table always shows all
of them; they know nothing of changes of the code, which want a new DIR. `--worst` draws the best and the worst pictures
of a finished row; `--time` runs the whole chain on 100 pictures and says where the minutes go. `--trial` uses a few
pictures and steps, to see it run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import liver_figures
import liver_rows
import liver_times
from liver_cases import Plan

from medseg.cli import guarded
from medseg.cli.answers import start_logging


def main() -> int:
    """Fill what is missing, and print the table, or do the one thing that was asked for."""
    groups = liver_rows.groups()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with imgs/ and labels/")
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, metavar="GROUP", help=", ".join(groups))
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, masks, cells and tables")
    parser.add_argument("--seeds", type=int, default=5, help="of rows that chance decides (default 5)")
    parser.add_argument("--check", action="store_true", help="learn from half of the training pictures, score the rest")
    parser.add_argument("--trial", action="store_true", help="few pictures and steps; the figures mean nothing")
    parser.add_argument("--worst", metavar="ROW", help="draw the best and worst pictures of a finished row")
    parser.add_argument("--seed", type=int, default=0, help="which masks --worst draws (default 0)")
    parser.add_argument("--time", action="store_true", help="minutes of each stage for 100 pictures")
    asked = parser.parse_args()
    start_logging(quiet=True, verbose=False)
    name = "trial" if asked.trial else "check" if asked.check else "val"
    plan = Plan.of_set(asked.data, asked.work.resolve(), name)
    if asked.time:
        liver_times.report(plan)
    elif asked.worst:
        path = plan.work / f"worst_{asked.worst}_{asked.seed}.png"
        liver_figures.draw_extremes(plan, asked.worst, asked.seed, path)
        print(path)
    else:
        liver_rows.fill(plan, asked.only, asked.seeds)
        liver_rows.report(plan, asked.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
