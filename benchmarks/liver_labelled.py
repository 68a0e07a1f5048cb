"""This file makes the liver benchmark's row of the student that labels teach: the same networks, steps and last walker.

It says what the student could know, were its teacher always right; both its networks learn from labels directly.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from lightning_fabric import Fabric
from liver_cases import Masks, Picture, Plan
from liver_network import TRUNK
from liver_scores import LIVER, as_classes
from skimage.transform import resize
from torch import Tensor

from medseg.config import load_config
from medseg.features.backbones import load_slice_backbone
from medseg.features.student.liver.course import LiverCourse, LiverSettings
from medseg.features.student.liver.frames import StudentFrames, store_frames, store_lessons
from medseg.features.student.liver.looks import Trunk
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.training import train_student
from medseg.features.teachers.liver import CELLS, Lesson
from medseg.workflows.parts import start_fabric

_TRIAL_STEPS = 6


class LabelledCourse(LiverCourse):
    """A course whose lessons are labels in every round.

    Args:
        frames: of one frame each, with the labels as lessons.
        settings: of the training.
        trunk: the frozen network.
        lessons: where those of each case lie.
    """

    def __init__(
        self, frames: Sequence[StudentFrames], settings: LiverSettings, *, trunk: Trunk, lessons: Sequence[Path]
    ) -> None:
        super().__init__(frames, settings, trunk=trunk)
        self._lessons = lessons

    def close(
        self, number: int, weights: Mapping[str, Tensor], fabric: Fabric, *, before: Path | None, settled: Path | None
    ) -> LiverStudent:
        trained = super().close(number, weights, fabric, before=before, settled=None)
        if settled is not None:
            for n, folder in enumerate(self._lessons):
                shutil.copytree(folder, settled / str(n), dirs_exist_ok=True)
        return trained


def labelled_student(plan: Plan, seed: int) -> Masks:
    """Train the student on labels, one round for each of its networks, and ask it."""
    numbers = load_config("liver_ultrasound").student
    steps, product_steps = (_TRIAL_STEPS,) * 2 if plan.trial else (numbers.steps, numbers.product_steps)
    settings = LiverSettings(
        rounds=1,
        steps=steps,
        product_steps=product_steps,
        batch=numbers.batch,
        learning_rate=numbers.learning_rate,
    )
    trunk = load_slice_backbone(TRUNK)
    folder = plan.work / "runs" / "labelled"
    frames, lessons = [], []
    for picture in plan.taught:
        place = folder / "frames" / picture.name
        store_frames(place, _sample(picture), trunk, key=picture.name)
        lessons.append(folder / "labels" / picture.name)
        lessons[-1].mkdir(parents=True, exist_ok=True)
        store_lessons(lessons[-1], [_lesson(picture)])
        frames.append(StudentFrames(place, lessons[-1]))
    course = LabelledCourse(frames, settings, trunk=trunk, lessons=lessons)
    fabric = start_fabric(load_config("liver_ultrasound").run)
    student = train_student(course, run_dir=folder / str(seed), fabric=fabric, seed=seed, identity="labels")
    masks = {}
    for picture in plan.report:
        probability = np.asarray(student.maps(_sample(picture))["student_probability"])[0, :, :, 0]
        masks[picture.name] = as_classes(picture.frame.spread(probability) > 0.5, picture.frame.mask)
    return masks


def _sample(picture: Picture) -> dict[str, object]:
    frame = picture.frame
    return {"image": frame.image[None, :, :, None], "region": frame.region[None, :, :, None], "case_id": picture.name}


def _lesson(picture: Picture) -> Lesson:
    """The label as the teacher would say it: the share of liver or mass in each cell, all of it certain."""
    union = (picture.frame.gathered(picture.label) >= LIVER).astype(np.float32)
    shares: Float[np.ndarray, "48 48"] = resize(union, (CELLS, CELLS), order=1, anti_aliasing=True)
    return Lesson(shares.astype(np.float32), np.ones(shares.shape, bool), 1.0)
