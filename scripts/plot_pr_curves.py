"""Draw how well features, a run's codes and a CRF predict that two places have the same label (precision-recall).

    python scripts/plot_pr_curves.py image_dir=photos model_path=run output_root=plots

The folder needs labels; nothing is trained on them. Options are written `--name value` or `name=value`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.cli.arguments import as_options


def main(arguments: list[str]) -> int:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_dir", "--images", type=Path, required=True, help="folder with images and labels")
    parser.add_argument("--output_root", type=Path, default=Path("results/precision_recall"))
    parser.add_argument("--config", default="pictures", help="config file or shipped name; says which backbone")
    parser.add_argument("--model_path", "--run", type=Path, metavar="RUN", help="a trained run, for codes as well")
    parser.add_argument("--points", type=int, default=100, help="drawn in each picture")
    parser.add_argument("--res", type=int, metavar="PIXELS", help="shorter side at which the backbone looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="section.key=value")
    asked = parser.parse_args(as_options(arguments))

    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.precision_recall import plot_precision_recall

    start_logging(quiet=False, verbose=False)
    answer = plot_precision_recall(
        asked.image_dir,
        asked.output_root,
        config=asked.config,
        run=asked.model_path,
        points=asked.points,
        resolution=asked.res,
        seed=asked.seed,
        overrides=asked.overrides,
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
