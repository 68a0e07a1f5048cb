"""Train on a share of the patches, reconstruct the held-out patients and score them: one cell of `medseg sweep`.

    python scripts/volume_reconstruction.py --dataset_name CFX --n_size 5% --current_seed 42 --scans scans/

NAME is the scheme by which training patches are picked (R, C, CF, CFW, CFX, CFWX, all); any other
NAME, such as SOTA or IXI, names the data set only and picks at random. SIZE is a share: 0.05 or 5%.
A quarter of the patients is held out, the same for every NAME, SIZE and SEED (run.seed=N draws others).
Further settings follow as section.key=value. The run is kept and used again for the same request.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the old command's arguments and run the cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True, metavar="NAME")
    parser.add_argument("--n_size", required=True, metavar="SIZE")
    parser.add_argument("--current_seed", type=int, default=1, metavar="SEED")
    parser.add_argument("--scans", type=Path, required=True, help="folder, datalist or CSV, with labels for the score")
    parser.add_argument("--config", default="tof_mra", help="config file or shipped name")
    parser.add_argument("--output_root", type=Path, default=Path("results"))
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    asked = parser.parse_args(arguments)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.sweep_plan import SCHEMES, Cell, share_of

    size = share_of(asked.n_size, "--n_size")
    start_logging(quiet=False, verbose=False)
    from medseg.workflows.sweep_cells import find_ground, run_cell

    cell = Cell(asked.dataset_name if asked.dataset_name in SCHEMES else "R", size, asked.current_seed)
    out = asked.output_root / f"{asked.dataset_name}_{size:g}_{asked.current_seed}"
    ground, failed = find_ground(asked.config, asked.scans, asked.output_root, overrides=asked.overrides)
    answer = run_cell(ground, cell, out)
    answer["lines"].append((out / "evaluation_results.txt").read_text(encoding="utf-8"))
    return answer_with({**answer, "failed": failed | answer["failed"]}, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
