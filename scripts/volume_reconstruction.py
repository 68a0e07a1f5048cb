"""Train on a share of the patches, reconstruct the held-out patients and score them: one cell of a sweep.

    python scripts/volume_reconstruction.py --dataset_name CFX --n_size 5% --current_seed 42 --scans scans/

NAME is the scheme by which training patches are picked (R, C, CF, CFW, CFX, CFWX, all); any other
NAME, such as SOTA or IXI, names the data set only and picks at random. SIZE is a share: 0.05 or 5%.
Further settings follow as section.key=value. The run is kept and used again for the same request.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.errors import MedsegError

_SCHEMES = ("R", "C", "CF", "CFW", "CFX", "CFWX", "all")


def share(text: str) -> float:
    """`0.05` or `5%` as a number in (0, 1]."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise MedsegError(
            f"--n_size must be a share in (0, 1] or a percentage such as 5%, got {text}; write {text}% perhaps"
        )
    return value


def main(arguments: list[str]) -> int:
    """Parse the old command's arguments and run its steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", required=True, metavar="NAME")
    parser.add_argument("--n_size", required=True, metavar="SIZE")
    parser.add_argument("--current_seed", type=int, default=1, metavar="SEED")
    parser.add_argument("--scans", type=Path, required=True, help="folder, datalist or CSV, with labels for the score")
    parser.add_argument("--config", default="tof_mra", help="config file or shipped name")
    parser.add_argument("--output_root", type=Path, default=Path("results"))
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    asked = parser.parse_args(arguments)
    size = share(asked.n_size)

    from medseg.cli.answers import start_logging
    from medseg.workflows.reconstruction import reconstruct_run
    from medseg.workflows.scoring import score_results
    from medseg.workflows.training import train_run

    start_logging(quiet=False, verbose=False)
    out = asked.output_root / f"{asked.dataset_name}_{size:g}_{asked.current_seed}"
    scheme = asked.dataset_name if asked.dataset_name in _SCHEMES else "R"
    overrides = [
        f"patches.scheme={scheme}",
        f"patches.scheme_fraction={size}",
        f"run.seed={asked.current_seed}",
        "run.held_out=0.25",
        *asked.overrides,
    ]
    trained = train_run(asked.config, asked.scans, out / "run", overrides=overrides, skip=(asked.output_root,))
    made = reconstruct_run(out / "run", asked.scans, out, held_out=True)
    scored = score_results(out, asked.scans, scans=asked.scans)
    print("\n".join([*trained["lines"], *made["lines"], *scored["lines"]]))
    print((out / "evaluation_results.txt").read_text(encoding="utf-8"))
    return 1 if trained["failed"] or made["failed"] or scored["failed"] else 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
