"""Compute the features of a folder of images and the partners of its patches, with the options of the training.

    python scripts/precompute_knns.py pytorch_data_dir=data dir_dataset_name=suim

Training with the same options goes on from the stored features. The partners themselves take seconds, so training
finds them again and no file of them is kept.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded
from medseg.errors import MedsegError


def main(arguments: list[str]) -> int:
    """Translate the options and compute; 1 when a case failed."""
    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.published_commands import read_request

    start_logging(quiet=False, verbose=False)
    asked = read_request(arguments, "knns", __doc__ or "")
    if asked.run is None:
        raise MedsegError("a run folder must be given, got none; write --run FOLDER")

    from medseg.workflows.precomputing import precompute_pairs

    answer = precompute_pairs(
        asked.config, asked.required_scans(), asked.run, overrides=asked.overrides, intake=asked.intake
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
