"""This file segments scans with one command and without labels: by a student, or by the rule that teaches it.

Vessels have a student that comes with medseg; `adapt` trains it further on the scans. For the liver none is shipped, so
one is trained on the frames that are given, unless they are too few for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.config import Config, as_plain, change_config, load_config
from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.reconstruction.refine import require_steps
from medseg.runs import DIRECT_METHODS
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.sources import hash_scan
from medseg.workflows import parts
from medseg.workflows.checking import usable
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.naming import require_naming
from medseg.workflows.predictors import predictor_without_run
from medseg.workflows.recognition import config_for
from medseg.workflows.reconstruction import CaseWriter, require_apart, write_cases
from medseg.workflows.students import needs_student, starting_student, student_of_run

_log = logging.getLogger(__name__)

LEAST_FRAMES = 12
"""Frames below which a student that starts from scratch learns less than its teacher knows."""


def segment_scans(
    scans: Sequence[Path],
    out: Path,
    *,
    config: str | None = None,
    modality: str | None = None,
    method: str | None = None,
    adapt: bool = False,
    pixel_mm: float | None = None,
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Write masks of all scans.

    Args:
        scans: folders, datalists, CSVs or single scans.
        out: result folder.
        config: path or shipped name; its sections for training STEGO are not used. None takes the one for the modality.
        modality: what the scans are, `prepare.modality`; None looks at them.
        method: `student`, or the rule alone, `flux` for vessels and `teacher` for the liver; None takes the student
            where the config builds on it, which are those for scans like the ones it was trained on.
        adapt: train the student on these scans first; one without weights always is.
        pixel_mm: millimetres a pixel of pictures.
        overrides: `section.key=value`.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, `done`, `skipped` and `failed` cases.

    Raises:
        MedsegError: nothing can be segmented so, or an argument is wrong.
    """
    if config is not None and modality is not None:
        raise MedsegError(f"--modality must go without --config, got {modality} and {config}; give one of them")
    require_folder(out, "-o")
    listing = intake.cases(scans, skip=(out,))
    require_apart(listing, out)
    chosen = config or config_for(listing.cases, modality)
    spacing = [] if pixel_mm is None else [f"prepare.pixel_mm={pixel_mm}"]
    resolved = load_config(chosen, [*overrides, *spacing])
    method = _method_for(method, adapt, resolved, listing.cases)
    resolved = change_config(resolved, [f"reconstruct.method={method}"], sections=("reconstruct",))
    require_steps(resolved.reconstruct.refine)
    require_naming(resolved.naming)
    training = out / "student"
    fabric = parts.start_fabric(resolved.run)
    if fabric.is_global_zero:
        parts.say_listing(listing)
        parts.say_estimate(listing.cases, resolved, training=False)
    failed = dict(listing.problems)
    cases = listing.cases
    student, adapted_to = None, list[str]()
    learns = method == "student" and (adapt or resolved.student.start == "scratch")
    if learns:
        cases, unfit = usable(cases)
        student, unused = student_of_run(cases, training, training / "volumes", resolved, fabric)
        unused |= unfit
        for problem in unused.values():
            _log.error(problem)
        failed |= unused
        cases = tuple(case for case in cases if case.case_id not in unused)
        adapted_to = [hash_scan(case.image, case.pick) for case in cases]
    elif method == "student":
        student = starting_student(resolved, fabric.device)
    predictor = predictor_without_run(
        method, student, resolved, fabric.device, adapted_to=adapted_to, rounds=training if learns else None
    )
    writer = CaseWriter(predictor, resolved, _root(scans), out, fabric.device, intake)
    answer = write_cases(writer, cases, fabric, failed=failed, model=f"{method} {predictor.model_hash[:16]}")
    return answer | {"config": as_plain(resolved)}


def _method_for(method: str | None, adapt: bool, config: Config, cases: Sequence[Case]) -> str:
    """The method that was asked for, else the best that these scans allow."""
    direct = DIRECT_METHODS[config.prepare.modality]
    if method is not None and method not in direct:
        raise MedsegError(
            f"--method must be one of {', '.join(direct) or 'none for pictures'}, got {method}; "
            "for the other methods train a run with `medseg run`"
        )
    if adapt and method not in (None, "student"):
        raise MedsegError(f"--adapt must go with --method student, got {method}; the rule learns nothing")
    if method is not None:
        return method
    if not direct:
        raise MedsegError("segment must have a modality with a rule, got pictures; train a run with `medseg run`")
    if not needs_student(config):
        return direct[-1]
    if config.student.start == "scratch" and not adapt and (frames := _frames(cases)) < LEAST_FRAMES:
        _log.warning(
            "%d %s too few to train a student on (%d), so the rule that would teach it answers alone; "
            "--method student trains one all the same, student.start takes one that was trained before",
            frames,
            "frame is" if frames == 1 else "frames are",
            LEAST_FRAMES,
        )
        return direct[-1]
    return "student"


def _frames(cases: Sequence[Case]) -> int:
    """How many frames or slices there are; a file that cannot be read has none, and is reported in its turn."""
    count = 0
    for case in cases:
        try:
            count += 1 if case.pick.frame is not None else read_grid(case.image, case.pick).shape[2]
        except MedsegError:
            continue
    return count


def _root(scans: Sequence[Path]) -> Path:
    """The folder that all scans lie in."""
    if len(scans) == 1:
        return scans[0]
    return Path(os.path.commonpath([path.resolve() if path.is_dir() else path.resolve().parent for path in scans]))
