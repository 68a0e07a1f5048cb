"""Write the masks of DatUS and score them against labels, with the options of the published program.

    python scripts/evalV2.py --split train --n_clusters 20 --t_clusters 6 --classes suim_coarse --crf

Clusters are merged to `t_clusters` classes without labels (Ward); only then are classes matched to labels (Hungarian),
and such scores are marked as the oracle's. Options that are not given are those of the last step in the same --out.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Parse the arguments and run DatUS; 1 when a case failed."""
    from medseg.cli.datus_scripts import run_command

    return run_command(arguments, __doc__ or "", labels=True)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
