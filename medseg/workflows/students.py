"""This file trains the student of a run on the run's own scans, with the rule of its modality as its teacher.

Angiograms have the flux rule and a 3-D network; liver ultrasound has cues along the rays and networks on the sector
grid. What differs between them is a *kind*; the way from cases to a trained student is one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric

from medseg.config import Config
from medseg.errors import MedsegError
from medseg.features.backbones import load_slice_backbone
from medseg.features.student.liver.course import LiverCourse, LiverSettings
from medseg.features.student.liver.frames import StudentFrames, open_frames, store_frames
from medseg.features.student.liver.looks import Trunk
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.storage import CARD, format_of
from medseg.features.student.training import train_student
from medseg.features.student.vessels.course import VesselCourse, VesselSettings
from medseg.features.student.vessels.student import FORMAT, VesselStudent, load_student, shipped_student
from medseg.features.student.vessels.volumes import StudentVolume, open_volume, store_volume
from medseg.features.teachers.vessels import UNKNOWN, teach
from medseg.files import CannotWriteError, hash_content
from medseg.prepare.vesselness import ALARM_MADS, NOISE_MADS
from medseg.scans.cases import Case
from medseg.workflows import parts

_log = logging.getLogger(__name__)

Student = VesselStudent | LiverStudent

LEAST_LEANING = 10
"""Frames from which on their mean says which way they lie: of one alone it is wrong in a quarter of the cases."""


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
        store: for prepared scans and what training reads of them.
        config: of the run.
        fabric: device and processes.

    Returns:
        The student, and for each scan that could not be used why.

    Raises:
        MedsegError: no scan can be used, `student.start` is no student, or the folder holds one of other scans.
    """
    kind = _kind_of(config, fabric.device)
    start = kind.starting()
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
    if (folder / CARD).is_file():
        trained = kind.load(folder)
        if trained.card.get("asked") == asked:
            return trained, {}
        raise MedsegError(
            f"{folder} must hold a student of these scans and settings, got one of others; choose another -o to train "
            f"on these, or use that student for them: --set student.start={folder}"
        )
    stored, failed = _store_examples(kind, cases, keys, store, config, fabric)
    examples = [example for example in stored if kind.teaches(example)]
    if not examples and start is not None:
        _log.warning("no scan can teach the student; it stays as student.start has it")
        if fabric.is_global_zero:
            start.save(folder, start.card | {"asked": asked})
        fabric.barrier()
        return start, failed
    _log.info("the student learns on %d %s", len(examples), "case" if len(examples) == 1 else "cases")
    student = train_student(
        kind.course(examples, start), run_dir=folder, fabric=fabric, seed=config.run.seed, identity=asked
    )
    if fabric.is_global_zero:
        student.save(folder, student.card | {"asked": asked})
    fabric.barrier()
    return student, failed


def starting_student(config: Config, device: torch.device) -> Student | None:
    """The weights that training starts from, or that are used as they are; None starts from scratch.

    Raises:
        MedsegError: the folder holds no such student.
    """
    return _kind_of(config, device).starting()


def trained_student(folder: Path, config: Config, device: torch.device) -> Student | None:
    """The student in a folder; None where there is none.

    Raises:
        MedsegError: it is damaged, or of another modality.
    """
    return _kind_of(config, device).load(folder) if (folder / CARD).is_file() else None


def earlier_rounds(folder: Path) -> tuple[VesselStudent, ...]:
    """The students of the rounds before the last, which show how far the answer depends on the round.

    None for the liver: each would run its frozen network once more.
    """
    rounds = sorted(folder.glob("round_*"), key=lambda path: int(path.name.removeprefix("round_")))
    return tuple(load_student(path) for path in rounds[:-1] if format_of(path) == FORMAT)


@runtime_checkable
class _Kind(Protocol):
    """What the students of one modality have of their own."""

    def starting(self) -> Student | None:
        """The weights to start from."""
        ...

    def load(self, folder: Path) -> Student:
        """Read a student."""
        ...

    def stored(self, folder: Path, key: str) -> Any:
        """What is learnt from a case; None where it has to be stored."""
        ...

    def store(self, folder: Path, sample: dict[str, Any], key: str) -> None:
        """Store what is learnt from a prepared case."""
        ...

    def teaches(self, example: Any) -> bool:
        """Whether there is something to learn from it."""
        ...

    def course(self, examples: Sequence[Any], start: Any) -> Any:
        """The course on what was stored."""
        ...


def _kind_of(config: Config, device: torch.device) -> _Kind:
    return _Liver(config, device) if config.prepare.modality == "liver_ultrasound" else _Vessels(config)


class _Vessels:
    """The flux rule and the 3-D network that it teaches."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def starting(self) -> VesselStudent | None:
        start = self.config.student.start
        if start == "scratch":
            return None
        return shipped_student() if start == "shipped" else self.load(Path(start))

    def load(self, folder: Path) -> VesselStudent:
        return load_student(folder)

    def stored(self, folder: Path, key: str) -> StudentVolume | None:
        return open_volume(folder, key)

    def store(self, folder: Path, sample: dict[str, Any], key: str) -> None:
        store_volume(folder, sample, _taught(sample), key=key)

    def teaches(self, example: StudentVolume) -> bool:
        """Vessels, or the certainty that there are none."""
        if len(example.positives) or not example.has_unknown:
            return True
        _log.info("%s: the flux rule believes no vessel there; the student learns from the others", example.case_id)
        return False

    def course(self, examples: Sequence[StudentVolume], start: VesselStudent | None) -> VesselCourse:
        student = self.config.student
        settings = VesselSettings(
            widths=VesselSettings.widths if start is None else start.net.widths,
            rounds=student.rounds,
            steps=student.steps,
            batch=student.batch,
            window=student.window,
            learning_rate=student.learning_rate,
            later_learning_rate=student.learning_rate / 2,
            painted=student.painted,
            checkpoint_every=self.config.run.checkpoint_every,
        )
        return VesselCourse(examples, settings, start=start)


class _Liver:
    """The cues along the rays and the networks on the sector grid that they teach."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        name, checkpoint = config.student.backbone, config.features.checkpoint
        self.trunk: Trunk | None = None
        if name is not None:
            self.trunk = load_slice_backbone(name, checkpoint=checkpoint).to(device)  # type: ignore[assignment]

    def starting(self) -> LiverStudent | None:
        start = self.config.student.start
        return None if start == "scratch" else self.load(Path(start))

    def load(self, folder: Path) -> LiverStudent:
        return LiverStudent.load(folder, self.trunk)

    def stored(self, folder: Path, key: str) -> StudentFrames | None:
        return open_frames(folder, self._with_trunk(key))

    def store(self, folder: Path, sample: dict[str, Any], key: str) -> None:
        store_frames(folder, sample, self.trunk, key=self._with_trunk(key), device=self.device)

    def teaches(self, example: StudentFrames) -> bool:
        """At least one frame that seems to show a liver."""
        if any(alarm is None for alarm in example.alarms):
            return True
        _log.info("%s: %s; the student learns from the others", example.case_id, example.alarms[0])
        return False

    def course(self, examples: Sequence[StudentFrames], start: LiverStudent | None) -> LiverCourse:
        if start is not None:
            raise MedsegError(
                "student.start must be scratch where a liver student is trained, got a folder; set student.steps=0 to "
                "use that student as it is"
            )
        leanings = np.array([leaning for example in examples for leaning in example.leanings])
        # By more than one standard error: of 10 to 20 frames that lie right, the mean is below 0 in one folder of ten.
        if len(leanings) >= LEAST_LEANING and leanings.mean() < -leanings.std() / len(leanings) ** 0.5:
            _log.warning(
                "most frames look mirrored: the liver is expected to reach deeper at the left, and masks of mirrored "
                "frames are worse; look whether the marker is at the left, and mirror the frames if it is not"
            )
        student = self.config.student
        settings = LiverSettings(
            rounds=student.rounds,
            steps=student.steps,
            product_steps=student.product_steps,
            batch=student.batch,
            learning_rate=student.learning_rate,
            checkpoint_every=self.config.run.checkpoint_every,
        )
        return LiverCourse(examples, settings, trunk=self.trunk)

    def _with_trunk(self, key: str) -> str:
        return hash_content([key, self.trunk.fingerprint if self.trunk else None])


def _store_examples(
    kind: _Kind, cases: Sequence[Case], keys: dict[str, str], store: Path, config: Config, fabric: Fabric
) -> tuple[list[Any], dict[str, str]]:
    """What the student learns from, each process preparing its share; a bad case is left out and said."""
    failed: dict[str, str] = {}
    folders = {case_id: store / f"student_{key[:16]}" for case_id, key in keys.items()}
    for number, case in enumerate(cases):
        if number % fabric.world_size != fabric.global_rank or kind.stored(folders[case.case_id], keys[case.case_id]):
            continue
        _log.info("%s: preparing", case.case_id)
        try:
            with parts.prepared(case, config.prepare, store / "prepared", keep=True) as sample:
                kind.store(folders[case.case_id], sample, keys[case.case_id])
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[case.case_id] = str(error)
    fabric.barrier()
    failed = parts.gathered(fabric, failed)
    examples = [kind.stored(folders[case.case_id], keys[case.case_id]) for case in cases if case.case_id not in failed]
    if not examples:
        raise parts.none_usable(failed)
    return [example for example in examples if example is not None], failed


def _taught(sample: dict[str, Any]) -> np.ndarray:
    """The teacher's labels; all unknown where the rule is silent for another reason than noise."""
    volume = parts.refinement_volume(sample)
    # Between pure noise and the rule's alarm vessels are there: the teacher's doubts say more than the alarm.
    is_noisy = NOISE_MADS < volume.signal <= ALARM_MADS
    if volume.alarm is not None and volume.signal > ALARM_MADS:
        return np.full(volume.region.shape, UNKNOWN, np.uint8)
    alarm = None if is_noisy else volume.alarm
    return teach(volume.image, volume.region, volume.salience, volume.tubularity, volume.spacing, alarm=alarm)
