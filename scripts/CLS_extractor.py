"""Store the feature of each segment's masked crop, the CLS token of a ViT, as the published DatUS does.

    python scripts/CLS_extractor.py --pretrained_weights dino_vitb8.pth --arch vit_base --patch_size 8 --split train

Options that are not given are those of the last step in the same --out.
Weights that `segment_discovery` was not given make other segments, too: one ViT does both.
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
