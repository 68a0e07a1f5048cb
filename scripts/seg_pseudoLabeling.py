"""Group the segments of all pictures into classes, as the published DatUS does: principal components and k-means.

    python scripts/seg_pseudoLabeling.py --n_clusters 6

Options that are not given are those of the last step in the same --out.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the arguments and run DatUS; 1 when a case failed."""
    from medseg.cli.datus_scripts import run_command

    return run_command(arguments, __doc__ or "", until="labels")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
