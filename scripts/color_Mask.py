"""Write the coloured masks of DatUS (CASE_colour.png) and lay them over the pictures (CASE_overlay.png).

    python scripts/color_Mask.py --n_clusters 6 --t_clusters 6 --split train

Options that are not given are those of the last step in the same --out.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the arguments and run DatUS; 1 when a case failed."""
    from medseg.cli.datus_scripts import run_command

    return run_command(arguments, __doc__ or "", labels=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
