"""Write the coloured labels of SUIM as values, as the published DatUS does: from SPLIT/masks to SPLIT/true_masks.

    python scripts/true_annotations.py --data_dir data --split train --mask_category coarse

coarse: 0 diver, 1 robot, 2 fish, 3 reef, 4 wreck, 5 all else. fine (or all): 5 plants, 6 sea floor, 7 water.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Convert the labels, and print what was done; 1 when a file failed."""
    from medseg.cli.arguments import as_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="holds {train,val}/masks")
    parser.add_argument("--split", default="train", help="the part of it")
    parser.add_argument("--mask_category", default="coarse", choices=["coarse", "fine", "all"], help="which classes")
    asked = parser.parse_args(as_options(arguments))

    from medseg.cli.answers import answer_with, start_logging
    from medseg.scans.conversion import write_ids
    from medseg.scans.shipped_schemes import shipped_scheme

    start_logging(quiet=False, verbose=False)
    folder = asked.data_dir / asked.split
    scheme = shipped_scheme("suim_coarse" if asked.mask_category == "coarse" else "suim_fine")
    return answer_with(write_ids(folder / "masks", folder / "true_masks", scheme=scheme), as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
