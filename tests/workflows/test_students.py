"""What is said before a student of the liver is trained, and where an earlier one is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from features.student.liver.liver_fakes import stored
from prepare.fans import painted
from workflows.test_recognition import picture

from medseg.config import Config, load_config
from medseg.errors import MedsegError
from medseg.features.student.liver.frames import StudentFrames
from medseg.scans.cases import Case
from medseg.workflows import parts
from medseg.workflows.students import LEAST_LEANING, _kind_of, earlier_rounds, student_of_run

WORDS = "most frames look mirrored"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[StudentFrames]:
    return stored(tmp_path_factory.mktemp("store"), None)


def course(examples: list[StudentFrames], leanings: list[float]) -> None:
    again = [StudentFrames(case.folder) for case in examples]
    again[0].leanings, again[1].leanings = leanings[:1], leanings[1:]
    _kind_of(load_config("liver_ultrasound_bare"), torch.device("cpu")).course(again, None)


@pytest.mark.parametrize(
    ("leanings", "is_said"),
    [
        ([-0.1] * LEAST_LEANING, True),
        ([-0.1] * (LEAST_LEANING - 1), False),  # of a few it says little
        ([0.1] * LEAST_LEANING, False),
        ([-0.1] * 3 + [0.2] * 9, False),  # the mean decides
    ],
)
def test_folders_of_mirrored_frames_are_said(
    examples: list[StudentFrames], leanings: list[float], is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    course(examples, leanings)
    assert (WORDS in caplog.text) == is_said


def test_a_case_whose_frames_all_raise_an_alarm_teaches_nothing(examples: list[StudentFrames]) -> None:
    kind = _kind_of(load_config("liver_ultrasound_bare"), torch.device("cpu"))
    case = StudentFrames(examples[0].folder)
    case.alarms = ["no liver", None]
    assert kind.teaches(case)
    case.alarms = ["no liver", "no liver"]
    assert not kind.teaches(case)


def small(**changes: int) -> Config:
    numbers = {"steps": 2, "rounds": 1, "batch": 2} | changes
    return load_config("liver_ultrasound_bare", [f"student.{name}={value}" for name, value in numbers.items()])


def test_a_student_of_other_scans_or_settings_is_neither_used_nor_replaced(tmp_path: Path) -> None:
    cases: list[Case] = [picture(tmp_path / f"{n}.png", painted(seed=n)) for n in range(2)]
    fabric, folder = parts.start_fabric(small().run), tmp_path / "student"

    def trained(cases: list[Case], config: Config) -> str:
        student, failed = student_of_run(cases, folder, tmp_path / "store", config, fabric)
        assert not failed
        return student.fingerprint

    first = trained(cases, small())
    assert trained(cases, small()) == first
    assert earlier_rounds(folder) == ()
    for other, config in ((cases[:1], small()), (cases, small(steps=3))):
        with pytest.raises(MedsegError, match=r"must hold a student of these scans and settings.*student\.start="):
            trained(other, config)
    used = load_config("liver_ultrasound_bare", [f"student.start={folder}"])
    again = _kind_of(used, fabric.device).starting()
    assert again is not None and again.fingerprint == first
