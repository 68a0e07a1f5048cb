"""Write the pseudo masks of DatUS: CASE_seg.png, with 0 for noise.

    python scripts/generate_PseudoMapV2.py --split train --n_clusters 6

Options that are not given are those of the last step in the same --out.
--crf sharpens the masks by the colours of the pictures; labels are not looked at.
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
