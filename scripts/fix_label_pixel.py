"""Copy a folder of label pictures with other values, such as 1 for 255.

    python scripts/fix_label_pixel.py --source labels --out labels_fixed --map 255=1 128=2

Without --map, labels that hold 0 and 255 alone get 0 and 1, all others are copied as they are. Nothing
is deleted or overwritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.errors import MedsegError


def parse_map(pairs: list[str]) -> dict[int, int]:
    """`["255=1", "128=2"]` as numbers."""
    found: dict[int, int] = {}
    for pair in pairs:
        old, _, new = pair.partition("=")
        if not (old.isdecimal() and new.isdecimal()) or int(new) > 255:
            raise MedsegError(f"--map must be pairs such as 255=1, new values up to 255, got {pair}; write OLD=NEW")
        if int(old) in found:
            raise MedsegError(f"--map must name each old value once, got {old} twice; remove one")
        found[int(old)] = int(new)
    return found


def main(arguments: list[str]) -> int:
    """Copy the labels, and print what was done; 1 when a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of label pictures")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the copies")
    parser.add_argument("--map", nargs="+", metavar="OLD=NEW", help="values that change")
    asked = parser.parse_args(arguments)
    mapping = parse_map(asked.map) if asked.map else None

    from medseg.cli.answers import answer_with, start_logging
    from medseg.scans.conversion import map_label_values

    start_logging(quiet=False, verbose=False)
    report = map_label_values(asked.source, asked.out, mapping=mapping)
    return answer_with(report, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
