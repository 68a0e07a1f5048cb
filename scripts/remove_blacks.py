"""Copy the pictures of a folder that are not black, and the labels that belong to them, to a new folder.

    python scripts/remove_blacks.py --source patches --out patches_seen --share 0.95

Nothing is deleted: what is (nearly) black is only left out of the copy, and named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Copy the pictures, and print what was done; 1 when a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of pictures, with or without labels")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the copies")
    parser.add_argument("--share", type=float, default=0.99, help="share of dark pixels that makes a picture black")
    parser.add_argument("--dark", type=float, default=8 / 255, help="largest value of a dark pixel, 0 to 1")
    asked = parser.parse_args(arguments)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.scans.conversion import drop_black

    start_logging(quiet=False, verbose=False)
    report = drop_black(asked.source, asked.out, share=asked.share, dark=asked.dark)
    return answer_with(report, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
