"""Write training patches of scans as .png, .mat and .npy, as the vessel fork and Vessel-CAPTCHA store them.

    python scripts/load_patches.py --scans scans --out patches --patch_size 96
    python scripts/load_patches.py --scans scans --out patches --patch_size 96 --rough_masks ticks

Grey values are standardised in the brain; half of the 500 patches of a patient are centred where a
label-free salience sees vessels. Labels are those beside the scans, or rough masks that `medseg annotate`
collected. Further settings follow as section.key=value.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded


def main(arguments: list[str]) -> int:
    """Cut the patches, and print how many; 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder, datalist or CSV, best with brain masks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the patches")
    parser.add_argument("--patch_size", type=int, default=180, help="voxels along a side; there: 180, 96 or 32")
    parser.add_argument("--n_patches", type=int, default=500, help="of a patient")
    parser.add_argument("--rough_masks", type=Path, help="folder that `medseg annotate --collect` wrote")
    parser.add_argument("--current_seed", type=int, default=42, help="of the draw")
    parser.add_argument("--config", default="tof_mra", help="config file or shipped name")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    asked = parser.parse_args(arguments)

    from medseg.cli.answers import answer_with, start_logging
    from medseg.config import load_config
    from medseg.workflows.patch_sets import export_patches

    start_logging(quiet=False, verbose=False)
    overrides = [
        f"patches.size={asked.patch_size}",
        f"patches.per_case={asked.n_patches}",
        f"run.seed={asked.current_seed}",
        "patches.empty=keep",
        *asked.overrides,
    ]
    config = load_config(asked.config, overrides)
    return answer_with(export_patches(config, asked.scans, asked.out, rough=asked.rough_masks), as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
