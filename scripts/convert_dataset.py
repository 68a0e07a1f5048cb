"""Copy a folder of pictures into another format: png, jpg, tif, mat or npy, in any direction.

    python scripts/convert_dataset.py --source data/potsdam --out data/potsdam_png --to png

Nothing is deleted or overwritten, folders and names are kept. What a folder or a name calls a label keeps
its values, and never becomes a JPEG.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded

_FORMATS = ("png", "jpg", "tif", "mat", "npy")


def main(arguments: list[str]) -> int:
    """Convert, and print what was done; 1 when a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the copies; may be the source")
    parser.add_argument("--to", required=True, choices=_FORMATS)
    parser.add_argument("--labels", action="store_true", help="all of them are labels")
    asked = parser.parse_args(arguments)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.scans.conversion import convert_dataset

    start_logging(quiet=False, verbose=False)
    report = convert_dataset(asked.source, asked.out, to=asked.to, labels=asked.labels)
    return answer_with(report, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
