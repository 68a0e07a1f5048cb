"""This file gives the vessel benchmarks their phantoms, their trained runs, and what is already done.

A *cell* is one finished piece of a benchmark, kept as JSON in the work folder and never computed twice. A *part* is a
table of cells. In a *trial* phantoms are tiny and trainings a few steps: it shows that the benchmark runs, no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from medseg.config import Config, load_config
from medseg.errors import MedsegError
from medseg.features.student.vessels.student import VesselStudent
from medseg.files import read_json, write_json
from medseg.naming.effort import in_words
from medseg.phantoms.hard import TEST_FAMILY, HardCase, hard_case, training_settings
from medseg.phantoms.vessels import VesselPhantom, make_vessel_phantom, write_phantom
from medseg.prepare.chain import prepare_case
from medseg.reconstruction.refine import Volume
from medseg.runs import RunRecord, open_run
from medseg.scans.cases import Case
from medseg.scoring.overlap import components, dice, precision, recall
from medseg.scoring.skeleton import cldice, skeleton
from medseg.scoring.tables import spread
from medseg.workflows import parts
from medseg.workflows.students import starting_student
from medseg.workflows.training import train_run

Scores = dict[str, float]

FIRST_TRAINING_PHANTOM = 1000
"""Number of the first training phantom: the shipped student learns from those below."""
SEED = 0
"""Of the training family; the shipped student's as well, so only the numbers keep the phantoms apart."""
SERIES = 1
"""Trees, heads and noise of the test phantoms. Series 0 was looked at while gate and alarms were made; this was not."""
_TRIAL_CASES = ("noise_005", "noise_030", "spacing_065", "bright_fat", "no_vessels")
_TRIAL_SHAPE = (64, 64, 48)
_TRIAL_TRAINING = (
    "student.steps=3", "student.window=32", "stego.steps=6", "stego.fit_points=2000", "patches.per_case=12",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What the user asked for.

    Attributes:
        work: folder of everything the benchmark writes.
        student: weights that trainings start from: `shipped`, or a folder with a student.
        trial: whether only to see that it runs.
    """

    work: Path
    student: str
    trial: bool

    def cell(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The finished cell of this name, or a new one; it also says how many seconds it took."""
        path = self.work / "cells" / f"{name}.json"
        if path.is_file():
            return read_json(path)
        start = time.monotonic()
        found = _plain(compute())
        write_json(path, found | {"seconds": round(time.monotonic() - start, 1)})
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        return read_json(path)

    def config(self, name: str) -> Config:
        """A shipped config, with the student to start from."""
        return load_config(name, self.overrides())

    def overrides(self, *more: str) -> list[str]:
        """What a training changes in its config; in a trial its own length goes last."""
        return [f"student.start={self.student}", *more, *(_TRIAL_TRAINING if self.trial else ())]

    def starting_student(self) -> VesselStudent:
        """The student without any adaptation."""
        student = starting_student(self.config("tof_mra"), torch.device("cpu"))
        if student is None:
            raise MedsegError("--student must be shipped or a folder with a student, got scratch; train one first")
        return student

    @property
    def test_cases(self) -> tuple[str, ...]:
        """Names of the test phantoms."""
        return _TRIAL_CASES if self.trial else tuple(case.name for case in TEST_FAMILY)

    def test_phantom(self, name: str) -> VesselPhantom:
        """One phantom of the test family."""
        return self._case(name).make(SERIES)

    def _case(self, name: str) -> HardCase:
        case = hard_case(name)
        return replace(case, shape=_TRIAL_SHAPE) if self.trial else case

    def training_scans(self, count: int) -> Path:
        """A folder of training phantoms with their brain masks, and no label in reach of a training."""
        folder = self.work / f"training_{count}"
        for number in range(FIRST_TRAINING_PHANTOM, FIRST_TRAINING_PHANTOM + count):
            name = f"training_{number}"
            if (folder / f"{name}_facts.json").is_file():
                continue
            settings = training_settings(np.random.default_rng([SEED, number]))
            if self.trial:
                settings |= {"shape": _TRIAL_SHAPE, "anatomy": "box"}
            write_phantom(folder, name, make_vessel_phantom(**settings))
        for label in folder.glob("*_label.nii.gz"):
            with suppress(FileNotFoundError):  # another part that runs beside this one was faster
                label.unlink()
        return folder

    def trained(self, name: str, config: str, scans: Path, *overrides: str, last: Sequence[str] = ()) -> RunRecord:
        """A run of this name that is trained to the end; one that was interrupted goes on.

        Args:
            name: of the run.
            config: shipped name.
            scans: to train on.
            overrides: of the config.
            last: overrides that hold in a trial too.
        """
        folder = self.work / "runs" / name
        asked = [*self.overrides(*overrides), *last]

        def train() -> dict[str, Any]:
            train_run(config, scans, folder, overrides=asked)
            return {"overrides": asked}

        self.cell(f"trained/{name}", train)
        return open_run(folder)


@dataclass(frozen=True)
class TestPhantom:
    """A test phantom as the methods see it, and its truth for the scores.

    Attributes:
        name: of the case.
        phantom: what was drawn.
        sample: prepared, with the given brain mask.
    """

    name: str
    phantom: VesselPhantom
    sample: dict[str, Any]

    @cached_property
    def volume(self) -> Volume:
        """The sample as refinement sees it."""
        return parts.refinement_volume(self.sample)

    @cached_property
    def reference(self) -> Bool[np.ndarray, "i j k"]:
        """The arteries inside the brain mask."""
        return (self.phantom.label > 0) & self.volume.region

    @cached_property
    def _reference_line(self) -> np.ndarray:
        return skeleton(self.reference)

    def scores(self, mask: Bool[np.ndarray, "i j k"]) -> Scores:
        """Scores of a mask inside the brain mask; `vein_share` is the share of it that lies in veins."""
        inside = mask & self.volume.region
        found = int(np.count_nonzero(inside))
        return {
            "dice": dice(inside, self.reference),
            "cldice": cldice(inside, self.reference, reference_skeleton=self._reference_line),
            "precision": precision(inside, self.reference),
            "recall": recall(inside, self.reference),
            "pieces": components(inside),
            "voxels": found,
            "vein_share": float((self.phantom.other_vessels[inside] > 0).mean()) if found else math.nan,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What tables and plots say of the case."""
        drawn = self.phantom.facts
        return {
            "case": self.name,
            "vessels": bool(self.reference.any()),
            "alarm": self.volume.alarm,
            "noise_sd": drawn["noise_sd"],
            "spacing_mm": float(np.mean(self.volume.spacing)),
        }


def prepared_phantom(plan: Plan, name: str, config: Config) -> TestPhantom:
    """Make a test phantom and prepare it like a scan, through the same files."""
    phantom = plan.test_phantom(name)
    folder = plan.work / "test"
    image = write_phantom(folder, name, phantom)
    case = Case(name, image, name, mask=folder / f"{name}_mask.nii.gz")
    return TestPhantom(name, phantom, prepare_case(case, parts.preparation(config.prepare)))


def print_scores(title: str, cases: Mapping[str, Mapping[str, Scores]], *, note: str = "") -> None:
    """Print a table: one line a row of the benchmark, over cases with vessels.

    Args:
        title: head line.
        cases: scores by row, by case.
        note: what the reader should know.
    """
    count = len(next(iter(cases.values()), {}))
    print(f"\n{title}: {count} phantoms with vessels, mean [95 % interval] worst")
    print(f"{'':34}{'effort':12}{'Dice':^26}{'clDice':^26}{'prec.':>7}{'recall':>7}{'pieces':>7}{'veins':>7}")
    for row, by_case in cases.items():
        values = list(by_case.values())
        cells = [_spread(values, "dice"), _spread(values, "cldice")]
        means = [_mean(values, key) for key in ("precision", "recall")]
        pieces, veins = _mean(values, "pieces"), _mean(values, "vein_share")
        effort = in_words("oracle" if "oracle" in row else "none")
        print(f"{row:34}{effort:12}{cells[0]:26}{cells[1]:26}{means[0]:7.3f}{means[1]:7.3f}{pieces:7.0f}{veins:7.3f}")
    if note:
        print(note)


def print_grid(title: str, cases: Mapping[str, Mapping[str, Scores]], metric: str) -> None:
    """Print one score of every row in every case."""
    names = list(next(iter(cases.values()), {}))
    width = max([7, *(len(name) + 1 for name in names)])
    print(f"\n{title}\n{'':34}" + "".join(f"{name:>{width}}" for name in names))
    for row, by_case in cases.items():
        print(f"{row:34}" + "".join(f"{_number(by_case[name], metric):{width}.3f}" for name in names))


def _spread(values: Sequence[Scores], metric: str) -> str:
    found = spread([_number(value, metric) for value in values], metric)
    return f"  {found.mean:.3f} [{found.low:.3f} {found.high:.3f}] {found.worst:.3f}"


def _mean(values: Sequence[Scores], metric: str) -> float:
    return spread([_number(value, metric) for value in values], metric).mean


def _number(scores: Mapping[str, float | None], metric: str) -> float:
    value = scores[metric]
    return math.nan if value is None else float(value)


def _plain(content: Any) -> Any:
    """Plain values for JSON, which knows no NaN and no numpy."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.ndarray | np.generic):
        return _plain(content.tolist())
    return None if isinstance(content, float) and not math.isfinite(content) else content
