"""Store the feature of each segment's masked crop as a second network sees it: MoCo's ResNet-50 in the published DatUS.

    python scripts/feat_extractor.py --crop_checkpoint MoCov2.pth --split train --device cpu

Options that are not given are those of the last step in the same --out.
Without --crop_checkpoint and --crop_backbone the network of the segments sees the crops.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the arguments and run DatUS; 1 when a case failed."""
    from medseg.cli.datus_scripts import run_command

    return run_command(arguments, __doc__ or "", until="crops")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
