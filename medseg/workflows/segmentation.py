"""This file segments scans with one command and without labels: by the shipped student, or by the flux rule."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import as_plain, change_config, load_config
from medseg.errors import MedsegError
from medseg.files import hash_file, require_folder
from medseg.reconstruction.refine import require_steps
from medseg.runs import DIRECT_METHODS
from medseg.scans.folders import find_cases
from medseg.workflows import parts
from medseg.workflows.naming import require_naming
from medseg.workflows.predictors import predictor_without_run
from medseg.workflows.reconstruction import CaseWriter, require_apart, write_cases
from medseg.workflows.students import starting_student, student_of_run

_log = logging.getLogger(__name__)


def segment_scans(
    scans: Sequence[Path],
    out: Path,
    *,
    config: str = "tof_mra",
    method: str | None = None,
    adapt: bool = False,
    overrides: Sequence[str] = (),
    frame: int | None = None,
) -> dict[str, Any]:
    """Write masks of all scans.

    Args:
        scans: folders, datalists, CSVs or single scans.
        out: result folder.
        config: path or shipped name; its sections for training STEGO are not used.
        method: `student` (gated by the flux rule) or `flux` (the rule alone); None takes the student where the config
            builds on it, which are those for scans like the ones it was trained on.
        adapt: train the student on these scans first.
        overrides: `section.key=value`.
        frame: which frame of scans that hold several.

    Returns:
        `lines` for the terminal, `done`, `skipped` and `failed` cases.

    Raises:
        MedsegError: nothing can be segmented so, or an argument is wrong.
    """
    resolved = load_config(config, overrides)
    if method is None:
        method = "student" if "student" in resolved.features.backbone else "flux"
    if method not in DIRECT_METHODS:
        raise MedsegError(
            f"--method must be one of {', '.join(DIRECT_METHODS)}, got {method}; "
            "for the other methods train a run with `medseg run`"
        )
    if adapt and method == "flux":
        raise MedsegError("--adapt must go with --method student, got flux; the rule learns nothing")
    resolved = change_config(resolved, [f"reconstruct.method={method}"], sections=("reconstruct",))
    require_steps(resolved.reconstruct.refine)
    require_naming(resolved.naming)
    require_folder(out, "-o")
    training = out / "student"
    listing = find_cases(scans, frame=frame, skip=(out,))
    require_apart(listing, out)
    fabric = parts.start_fabric(resolved.run)
    if fabric.is_global_zero:
        parts.say_listing(listing)
        parts.say_estimate(listing.cases, resolved, training=False)
    failed = dict(listing.problems)
    cases = listing.cases
    student, adapted_to = None, list[str]()
    if method == "student" and adapt:
        student, unused = student_of_run(cases, training, training / "volumes", resolved, fabric)
        for problem in unused.values():
            _log.error(problem)
        failed |= unused
        cases = tuple(case for case in cases if case.case_id not in unused)
        adapted_to = [hash_file(case.image) for case in cases]
    elif method == "student":
        student = starting_student(resolved.student)
        if student is None:
            raise MedsegError("student.start must be shipped or a folder, got scratch; add --adapt to train it here")
    predictor = predictor_without_run(
        method, student, resolved, adapted_to=adapted_to, rounds=training if adapt else None
    )
    writer = CaseWriter(predictor, resolved, _root(scans), out, fabric.device)
    answer = write_cases(writer, cases, fabric, failed=failed, model=f"{method} {predictor.model_hash[:16]}")
    return answer | {"config": as_plain(resolved)}


def _root(scans: Sequence[Path]) -> Path:
    """The folder that all scans lie in."""
    if len(scans) == 1:
        return scans[0]
    return Path(os.path.commonpath([path.resolve() if path.is_dir() else path.resolve().parent for path in scans]))
