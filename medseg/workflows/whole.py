"""This file does the main job in one go: train, reconstruct, and score where references exist."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import SEEN
from medseg.files import require_folder
from medseg.runs import open_run
from medseg.scans.folders import find_cases, find_references
from medseg.workflows.evaluation import evaluate_run
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.scoring import require_region, score_results
from medseg.workflows.training import train_run

_log = logging.getLogger(__name__)


def run_all(
    config: str,
    scans: Path,
    out: Path,
    *,
    run: Path | None = None,
    references: Path | None = None,
    region: str = "all",
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Train on `scans`, write masks of all of them to `out`, score them against references.

    Args:
        config: path or shipped name.
        scans: folder, datalist, CSV or one scan.
        out: result folder.
        run: run folder; `out/run` when None.
        references: labels to score against; None: labels beside the scans, if there are any.
        region: `all` or `brain`, see `score_results`.
        overrides: `section.key=value`.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, and the parts' answers under `train`, `reconstruct` and `score`.
    """
    run = run or out / "run"
    require_folder(out, "-o")
    require_region(region)
    if references is not None:
        find_references(references)  # there is something to score against, or it is said now
    trained = train_run(config, scans, run, overrides=overrides, intake=intake, skip=(out,))
    reconstructed = reconstruct_run(run, scans, out, compare=True, intake=intake, brief=True)
    answer = {
        "train": trained,
        "reconstruct": reconstructed,
        "failed": {**trained["failed"], **reconstructed["failed"]},
    }
    lines = trained["lines"] + reconstructed["lines"]
    if references is None and find_cases(scans, pick=intake.pick, skip=(out, run)).labels:
        references = scans
    modality = open_run(run).config.prepare.modality
    if references is not None and modality == "picture":
        scored = evaluate_run(run, scans, out / "evaluation", intake=intake, brief=True)
        answer |= {"score": scored, "failed": {**answer["failed"], **scored["failed"]}}
        lines += scored["lines"]
    elif references is not None:
        scored = score_results(out, references, scans=scans, region=region, pseudonyms=intake.pseudonyms)
        answer |= {"score": scored, "failed": {**answer["failed"], **scored["failed"]}}
        lines += scored["lines"]
    elif modality in SEEN:
        _log.info("no labels lie beside the images, so nothing is scored; the masks are in %s", out)
    else:
        _log.info(
            "no labels lie beside the scans, so there is no score table: `medseg score %s LABELS`, or look at %s",
            out,
            out / "plots",
        )
    return answer | {"lines": lines}
