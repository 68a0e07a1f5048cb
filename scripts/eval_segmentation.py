"""Score trained runs or published STEGO checkpoints on labelled images, with the options of the published program.

    python scripts/eval_segmentation.py model_paths=runs/mine --scans data/suim
    python scripts/eval_segmentation.py model_paths=[a.ckpt,b.ckpt] --config_file eval_config.yml

As published, codes are averaged over each image and its mirror image, masks are sharpened by the dense CRF (run_crf,
in num_workers processes), every image's masks are written, and of a run that held images out only those are scored.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medseg.cli import guarded
from medseg.errors import MedsegError


def main(arguments: list[str]) -> int:
    """Translate the options and evaluate each model; 1 when a case failed."""
    from medseg.cli.answers import start_logging
    from medseg.workflows.published_commands import later_overrides, read_request, run_of

    start_logging(quiet=False, verbose=False)
    asked = read_request(arguments, "eval", __doc__ or "")
    actions = asked.actions
    models: list[Path] = actions.get("models") or ([asked.run] if asked.run else [])
    if not models:
        raise MedsegError("model_paths must name a run folder or a STEGO checkpoint, got none; write --run FOLDER")
    scans, out = asked.required_scans(), asked.out or Path("results")

    from medseg.runs import open_run
    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.evaluation import evaluate_run

    failed = False
    chosen = {name: actions[name] for name in ("crf", "dark", "panels", "processes") if name in actions}
    if asked.scheme:
        chosen["scheme"] = load_scheme(asked.scheme)
    for model in models:
        run = run_of(model, asked)
        held_out = any(entry["split"] == "held_out" for entry in open_run(run).inputs.values())
        answer = evaluate_run(
            run,
            scans,
            out / run.name if len(models) > 1 else out,
            export=True,
            held_out=held_out,
            intake=asked.intake,
            overrides=later_overrides(asked),
            **chosen,
        )
        print("\n".join([f"{model}:", *answer["lines"]]))
        failed |= bool(answer["failed"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
