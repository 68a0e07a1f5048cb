"""Train on a folder of images with the options of the published STEGO program.

    python scripts/train_segmentation.py pytorch_data_dir=data dir_dataset_name=suim dir_dataset_n_classes=8
    python scripts/train_segmentation.py --config_file train_config.yml --config pictures stego.steps=300

An interrupted training goes on when the same command is run again.
"""

from __future__ import annotations

import sys

from medseg.cli import guarded
from medseg.errors import MedsegError


def main(arguments: list[str]) -> int:
    """Translate the options and train; 1 when a case failed."""
    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.published_commands import read_request

    start_logging(quiet=False, verbose=False)
    asked = read_request(arguments, "train", __doc__ or "")
    if asked.run is None:
        raise MedsegError("a run folder must be given, got none; write --run FOLDER")

    from medseg.workflows.training import train_run

    # Labels reach reported probes only; has_labels=false leaves them unread.
    unread = {} if asked.actions.get("labels", True) else {"labels": False}
    answer = train_run(
        asked.config, asked.required_scans(), asked.run, overrides=asked.overrides, intake=asked.intake, **unread
    )
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
