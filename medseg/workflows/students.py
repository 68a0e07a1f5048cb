"""This file trains the student of a run on the run's own scans, with the flux rule as its teacher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from medseg import config as sections
from medseg.config import Config
from medseg.errors import MedsegError
from medseg.features.student.student import Student, load_student, shipped_student
from medseg.features.student.training import StudentSettings, train_student
from medseg.features.student.volumes import StudentVolume, open_volume, store_volume
from medseg.features.teachers.vessels import UNKNOWN, teach
from medseg.files import CannotWriteError, hash_content
from medseg.prepare.vesselness import ALARM_MADS, NOISE_MADS
from medseg.scans.cases import Case
from medseg.workflows import parts

_log = logging.getLogger(__name__)


def needs_student(config: Config) -> bool:
    """Whether the config's features or its method come from a student."""
    return "student" in config.features.backbone or config.reconstruct.method == "student"


def student_of_run(
    cases: Sequence[Case], folder: Path, store: Path, config: Config, fabric: Fabric
) -> tuple[Student, dict[str, str]]:
    """Train a student, go on with one that was interrupted, or take the one that is there.

    Args:
        cases: scans to learn from; no label is read.
        folder: receives the student.
        store: for prepared scans and the volumes that training reads.
        config: of the run.
        fabric: device and processes.

    Returns:
        The student, and for each scan that could not be used why.

    Raises:
        MedsegError: no scan can be used, or `student.start` is no student.
    """
    start = starting_student(config.student)
    if config.student.steps == 0:
        assert start is not None  # the config section made sure of it
        if fabric.is_global_zero:
            start.save(folder, start.card)
        fabric.barrier()
        return start, {}
    keys = {case.case_id: hash_content([parts.case_hash(case, config.prepare), case.case_id]) for case in cases}
    asked = hash_content(
        [config.student.model_dump(), start.fingerprint if start else None, keys, config.run.seed, config.run.precision]
    )
    if (folder / "student.json").is_file() and (trained := load_student(folder)).card.get("asked") == asked:
        return trained, {}
    stored, failed = _store_volumes(cases, keys, store, config, fabric)
    volumes = [volume for volume in stored if _teaches(volume)]
    if not volumes and start is not None:
        _log.warning("no scan can teach the student; it stays as student.start has it")
        if fabric.is_global_zero:
            start.save(folder, start.card | {"asked": asked})
        fabric.barrier()
        return start, failed
    settings = StudentSettings(
        widths=StudentSettings.widths if start is None else start.net.widths,
        rounds=config.student.rounds,
        steps=config.student.steps,
        batch=config.student.batch,
        window=config.student.window,
        learning_rate=config.student.learning_rate,
        later_learning_rate=config.student.learning_rate / 2,
        painted=config.student.painted,
        checkpoint_every=config.run.checkpoint_every,
    )
    _log.info("the student learns on %d %s", len(volumes), "case" if len(volumes) == 1 else "cases")
    student = train_student(
        volumes, settings, run_dir=folder, fabric=fabric, seed=config.run.seed, start=start, identity=asked
    )
    if fabric.is_global_zero:
        student.save(folder, student.card | {"asked": asked})
    fabric.barrier()
    return student, failed


def starting_student(student: sections.Student) -> Student | None:
    """The weights that training starts from; None starts from scratch.

    Raises:
        MedsegError: the folder holds no student.
    """
    if student.start == "scratch":
        return None
    return shipped_student() if student.start == "shipped" else load_student(Path(student.start))


def earlier_rounds(folder: Path) -> tuple[Student, ...]:
    """The students of the rounds before the last, which show how far the answer depends on the round."""
    rounds = sorted(folder.glob("round_*"), key=lambda path: int(path.name.removeprefix("round_")))
    return tuple(load_student(path) for path in rounds[:-1])


def _store_volumes(
    cases: Sequence[Case], keys: dict[str, str], store: Path, config: Config, fabric: Fabric
) -> tuple[list[StudentVolume], dict[str, str]]:
    """What the student learns from, each process preparing its share; a bad case is left out and said."""
    failed: dict[str, str] = {}
    folders = {case_id: store / f"student_{key[:16]}" for case_id, key in keys.items()}
    for number, case in enumerate(cases):
        if number % fabric.world_size != fabric.global_rank or open_volume(folders[case.case_id], keys[case.case_id]):
            continue
        _log.info("%s: preparing", case.case_id)
        try:
            with parts.prepared(case, config.prepare, store / "prepared", keep=True) as sample:
                store_volume(folders[case.case_id], sample, _taught(sample), key=keys[case.case_id])
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[case.case_id] = str(error)
    fabric.barrier()
    failed = parts.gathered(fabric, failed)
    volumes = [open_volume(folders[case.case_id], keys[case.case_id]) for case in cases if case.case_id not in failed]
    if not volumes:
        raise parts.none_usable(failed)
    return [volume for volume in volumes if volume is not None], failed


def _taught(sample: dict[str, Any]) -> np.ndarray:
    """The teacher's labels; all unknown where the rule is silent for another reason than noise."""
    volume = parts.refinement_volume(sample)
    # Between pure noise and the rule's alarm vessels are there: the teacher's doubts say more than the alarm.
    is_noisy = NOISE_MADS < volume.signal <= ALARM_MADS
    if volume.alarm is not None and volume.signal > ALARM_MADS:
        return np.full(volume.region.shape, UNKNOWN, np.uint8)
    alarm = None if is_noisy else volume.alarm
    return teach(volume.image, volume.region, volume.salience, volume.tubularity, volume.spacing, alarm=alarm)


def _teaches(volume: StudentVolume) -> bool:
    """Whether there is something to learn: vessels, or the certainty that there are none."""
    if len(volume.positives) or not volume.has_unknown:
        return True
    _log.info("%s: the flux rule believes no vessel there; the student learns from the others", volume.case_id)
    return False
