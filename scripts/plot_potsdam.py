"""Stitch segmented tiles back to maps of the whole areas: image, label and prediction side by side.

    python scripts/plot_potsdam.py results=out image_dir=tiles output_root=maps
    python scripts/plot_potsdam.py --results out --image_dir tiles --grid 30x30 --numbering number
    python scripts/plot_potsdam.py results=evaluation/export method=stego image_dir=tiles

Names say the place: 2_10_0_3 is area 2_10, row 0, column 3; town_17 is tile 17 in reading order, from 0.
Options are written `--name value` or `name=value`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.cli.arguments import as_options
from medseg.errors import MedsegError


def grid(text: str) -> tuple[int, int]:
    """`30x30` as rows and columns."""
    found = re.fullmatch(r"([1-9]\d*)[x,]([1-9]\d*)", text)
    if found is None:
        raise MedsegError(f"--grid must be rows x columns, got {text}; write it as 30x30")
    return int(found[1]), int(found[2])


def main(arguments: list[str]) -> int:
    """Parse the arguments and stitch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="of the demo, or export/ of an evaluation")
    parser.add_argument("--image_dir", "--images", type=Path, help="the tiles, with or without labels")
    parser.add_argument("--output_root", type=Path, default=Path("results/maps"))
    parser.add_argument("--grid", metavar="ROWSxCOLUMNS", help="of an area; without it as the names say")
    parser.add_argument("--numbering", default="auto", choices=("auto", "row_column", "number"))
    parser.add_argument("--method", help="whose masks of an evaluation: stego, kmeans, untrained or linear")
    asked = parser.parse_args(as_options(arguments))
    shape = None if asked.grid is None else grid(asked.grid)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.mosaic import stitch_tiles

    start_logging(quiet=False, verbose=False)
    answer = stitch_tiles(
        asked.results,
        asked.output_root,
        images=asked.image_dir,
        grid=shape,
        numbering=asked.numbering,
        method=asked.method,
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
