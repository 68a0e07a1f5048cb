"""Cut pictures into segments without training, as the published DatUS does: Louvain communities of alike patches.

    python scripts/segment_discovery.py --data_dir data --split train --vit_size vitb --patch_size 8 --device cpu

Without --vit_size the network of the config `pictures` looks, which needs no download.
What was computed before in the same --out is not computed again.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the arguments and run DatUS; 1 when a case failed."""
    from medseg.cli.datus_scripts import run_command

    return run_command(arguments, __doc__ or "", until="segments")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
