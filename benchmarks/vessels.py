"""How good the vessel masks are, on phantoms whose arteries are known exactly and that no student was trained on.

    python benchmarks/vessels.py --work DIR train rows calibration seeds
    python benchmarks/vessels.py --work DIR ablation

Parts: `train`, the runs that the next three need; `rows`, every method on all test phantoms; `calibration` of the
uncertainty, from the same cells; `seeds`, how far masks depend on them; `ablation`, what each piece of the recipe is
worth. Each part keeps its finished cells in DIR/cells and goes on where it was stopped; cells know nothing of changes
of the code, which want a new DIR. One process computes on one core: `ablation` can run beside the others, and after
`train` two processes halve the rows by `--share 0/2` and `1/2`. On two cores all of it takes about an hour. `--trial`
uses tiny phantoms and a few steps, to see it run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import vessels_ablation
import vessels_calibration
import vessels_rows
import vessels_seeds
from vessels_cases import Plan

from medseg.cli import guarded
from medseg.cli.answers import start_logging

PARTS = ("train", "rows", "calibration", "seeds", "ablation")


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--work", type=Path, required=True, help="folder for phantoms, runs, cells and plots")
    parser.add_argument("--student", default="shipped", help="weights to start from: shipped, or a folder")
    parser.add_argument("--share", default="0/1", metavar="N/M", help="rows: only every M-th phantom from the N-th on")
    parser.add_argument("--docs", type=Path, help="rows: where the plot is written as well, docs/vessels_noise.png")
    parser.add_argument("--trial", action="store_true", help="tiny phantoms and few steps; the figures mean nothing")
    asked = parser.parse_args()
    start_logging(quiet=True, verbose=False)
    torch.set_num_threads(1)
    plan = Plan(asked.work.resolve(), asked.student, asked.trial)
    first, step = (int(number) for number in asked.share.split("/"))
    for part in asked.parts:
        if part == "train":
            vessels_rows.train_student_run(plan)
            vessels_rows.train_bank_run(plan)
        elif part == "rows":
            vessels_rows.run(plan, (first, step), asked.docs)
        elif part == "calibration":
            vessels_calibration.report(vessels_rows.cells(plan), plan.work / "vessels_calibration.png")
        elif part == "seeds":
            vessels_seeds.run(plan)
        else:
            vessels_ablation.run(plan)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
