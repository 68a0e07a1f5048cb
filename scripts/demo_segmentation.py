"""Segment a folder of images, with a run or a published STEGO checkpoint; masks have the images' own size.

    python scripts/demo_segmentation.py model_path=potsdam_test.ckpt image_dir=photos experiment_name=mine
    python scripts/demo_segmentation.py --run runs/mine --scans photos -o masks reconstruct.method=linear

As published, probabilities are averaged over each image and its mirror image and refined by the dense CRF;
reconstruct.flip=false and reconstruct.refine=[] switch that off.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.errors import MedsegError

_AS_PUBLISHED = ("reconstruct.flip=true", "reconstruct.refine=[crf]")


def main(arguments: list[str]) -> int:
    """Translate the options and write the masks; 1 when an image failed."""
    from medseg.cli.answers import answer_with, start_logging
    from medseg.workflows.published_commands import later_overrides, read_request, run_of

    start_logging(quiet=False, verbose=False)
    asked = read_request(arguments, "demo", __doc__ or "")
    models: list[Path] = asked.actions.get("models") or ([asked.run] if asked.run else [])
    if len(models) != 1:
        raise MedsegError(f"model_path must name one run folder or STEGO checkpoint, got {len(models)}; name one")
    scans, out = asked.required_scans(), asked.out or Path("results")

    from medseg.workflows.reconstruction import reconstruct_run

    run = run_of(models[0], asked)
    overrides = (*_AS_PUBLISHED, *later_overrides(asked))
    answer = reconstruct_run(run, scans, out, overrides=overrides, intake=asked.intake)
    return answer_with(answer, as_json=False)


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
