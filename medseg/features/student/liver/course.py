"""This file is the course on the liver: rounds on frozen features, then one on echoes, each from new weights.

Its words: a *cell round* trains the network on components, an *echo round* the one on echoes. With a trunk all rounds
are cell rounds but the last, the *product round*, in which the echo network learns the answers of the others; without
one all are echo rounds. What a student says of a frame, weighed against the teacher's cues, is the next round's lesson.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.student.channels import mean_and_sd, moments_of
from medseg.features.student.course import NOT_IN_KEY, Batch, LoopSettings, Start
from medseg.features.student.liver.basis import Basis, fit_basis
from medseg.features.student.liver.frames import StudentFrames, store_lessons
from medseg.features.student.liver.looks import Look, Trunk, resized
from medseg.features.student.liver.network import (
    CELL_FEATURES,
    ECHO_WIDTHS,
    CellNet,
    EchoNet,
    first_weights,
    with_weights,
)
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.liver.views import view_of_components, view_of_echoes
from medseg.features.teachers.liver import CELLS, Lesson, final_answer, next_lesson
from medseg.progress import track

_log = logging.getLogger(__name__)

BASIS_CELLS = 40_000
"""Cells of each map that the basis is fitted to, from all frames alike; 440 x 440 covariances need no more."""
MOST_DRIFT, MOST_LIVER = 0.03, 0.55
"""Change of the liver's share of the sector in a round, and the share, from which on something went wrong."""
DOUBTFUL = 0.1
"""Weight of cells on which the teacher's settings do not agree."""


@dataclass(frozen=True, kw_only=True)
class LiverSettings(LoopSettings):
    """The numbers of a training on the liver; those of the loop are in cells and frames.

    Attributes:
        rounds: networks, each on lessons made with the answers of the one before.
        steps: of a round.
        product_steps: of the product round.
        learning_rate: at the start of every round; it falls to 0 along a cosine.
    """

    batch: int = 8
    weight_decay: float = 0.01
    ema: float = 0.98
    bce_weight: float = 2.0
    dice_smoothing: float = 1.0
    rounds: int = 4
    steps: int = 450
    product_steps: int = 900
    learning_rate: float = 2e-3


class LiverCourse:
    """A course on the liver.

    Args:
        frames: the cases to learn from, with the teacher's first lessons.
        settings: the numbers of the run.
        trunk: the frozen network whose maps the frames hold; None where they hold none.

    Raises:
        MedsegError: there is no frame that shows a liver.
    """

    def __init__(self, frames: Sequence[StudentFrames], settings: LiverSettings, *, trunk: Trunk | None) -> None:
        self.frames, self.settings, self.trunk = frames, settings, trunk
        self._taught = [[n for n, alarm in enumerate(case.alarms) if alarm is None] for case in frames]
        if not any(self._taught):
            raise MedsegError("the student must have a frame with a liver to learn from, got none; add frames")
        product = () if trunk is None else (settings.product_steps,)
        self.steps = (settings.steps,) * settings.rounds + product
        self._relearnt = frames
        self._is_cells = trunk is not None
        self._basis: Basis | None = None

    def key(self) -> Any:
        """Rounds count, because the one that is the product round has another network."""
        numbers = dataclasses.asdict(self.settings)
        settings = {name: value for name, value in numbers.items() if name not in NOT_IN_KEY}
        return ["liver", settings, [case.key for case in self.frames], self.trunk and self.trunk.fingerprint]

    def card(self, number: int) -> dict[str, Any]:
        frames = sum(len(taught) for taught in self._taught)
        numbers = dataclasses.asdict(self.settings)
        return {"cases": len(self.frames), "frames": frames, "round": number, "settings": numbers}

    @property
    def basis(self) -> Basis:
        """Of the components, fitted to the training frames when it is first needed."""
        if self._basis is None:
            self._basis = fit_basis(self._sampled_cells())
        return self._basis

    def begin(self, number: int, seed: int, *, before: Path | None, labels: Path | None) -> Start:
        self._relearnt = self.frames
        if labels is not None:
            self._relearnt = [StudentFrames(case.folder, labels / str(n)) for n, case in enumerate(self.frames)]
        self._is_cells = self._is_cell_round(number)
        # Another seed for every round: networks of one seed would repeat each other's mistakes.
        net: CellNet | EchoNet = (
            first_weights(CellNet, self.basis.components, seed + number)
            if self._is_cells
            else first_weights(EchoNet, ECHO_WIDTHS, seed + number)
        )
        return Start(net, self.settings.learning_rate)

    def draw(self, seeds: Sequence[Sequence[int]]) -> Batch:
        items = [self._drawn(np.random.default_rng(list(seed))) for seed in seeds]
        return Batch(*(torch.stack(parts) for parts in zip(*items, strict=True)))

    def picture(self, batch: Batch, probability: Float[Tensor, "b hs ws"], most: int = 4) -> Float[Tensor, "3 h w"]:
        """Up to four frames, one row each: the first input, its lesson (doubtful in blue), the answer."""
        rows = []
        for inputs, target, weight, answer in list(zip(*batch, probability, strict=True))[:most]:
            grey = (inputs[0] - inputs[0].min()) / (inputs[0].max() - inputs[0].min()).clamp(min=1e-6)
            said = torch.stack([target, target, target.maximum((weight < 1).float())])
            rows.append(torch.cat([grey.expand(3, -1, -1), said, answer.expand(3, -1, -1)], dim=2))
        return torch.cat(rows, dim=1).clamp(0, 1)

    def close(
        self, number: int, weights: Mapping[str, Tensor], fabric: Fabric, *, before: Path | None, settled: Path | None
    ) -> LiverStudent:
        trained = self._with_moments(self._student(number, weights, before), fabric)
        if settled is None:
            return trained
        settled.mkdir(parents=True, exist_ok=True)
        for n in track(range(fabric.global_rank, len(self.frames), fabric.world_size), "new lessons"):
            case = self.frames[n]
            lessons = [self._next(trained, case.look(frame), number + 1, fabric) for frame in range(len(case))]
            store_lessons(settled / str(n), lessons)
        self._say_drift(number, settled, fabric)
        return trained

    def _say_drift(self, number: int, settled: Path, fabric: Fabric) -> None:
        """Say where lessons grow or shrink from round to round, which self-training does when it goes wrong."""
        mine = range(fabric.global_rank, len(self.frames), fabric.world_size)
        before = _liver_share([self._relearnt[n] for n in mine])
        after = _liver_share([StudentFrames(self.frames[n].folder, settled / str(n)) for n in mine])
        _log.info("round %d: liver in %.0f%% of the sector, %.0f%% before", number, 100 * after, 100 * before)
        if abs(after - before) > MOST_DRIFT or after > MOST_LIVER:
            _log.warning(
                "the liver takes %.0f%% of the sector after round %d and %.0f%% before; look at some masks, or lower "
                "student.rounds", 100 * after, number, 100 * before,
            )  # fmt: skip

    def load(self, folder: Path) -> LiverStudent:
        return LiverStudent.load(folder, self.trunk)

    def _is_cell_round(self, number: int) -> bool:
        return self.trunk is not None and number <= self.settings.rounds

    def _student(self, number: int, weights: Mapping[str, Tensor], before: Path | None) -> LiverStudent:
        """The snapshot of a round, its features not yet measured; that of the product round keeps the cell network."""
        basis, cells, echo = None, None, None
        if self._is_cell_round(number):
            basis, cells = self.basis, with_weights(CellNet, self.basis.components, weights)
        else:
            echo = with_weights(EchoNet, ECHO_WIDTHS, weights)
        if cells is None and self.trunk is not None and before is not None:
            earlier = self.load(before)
            basis, cells = earlier.basis, earlier.cells
        width = (CELL_FEATURES if cells is not None else 0) + (echo.widths[0] if echo is not None else 0)
        return LiverStudent(basis, cells, echo, torch.zeros(width), torch.ones(width), trunk=self.trunk)

    def _with_moments(self, student: LiverStudent, fabric: Fabric) -> LiverStudent:
        """The student with mean and sd of its features over the cells of the training frames."""
        moments = torch.zeros(3, len(student.mean), dtype=torch.float64)
        places = [(case, n) for case, taught in zip(self.frames, self._taught, strict=True) for n in taught]
        for case, n in places[fabric.global_rank :: fabric.world_size]:
            found = student.answers(case.look(n), fabric.device)
            features = torch.cat([resized(values[None], CELLS)[0] for _, values in found])
            moments += moments_of(features[:, torch.from_numpy(case.region(n))])
        mean, std = mean_and_sd(moments, fabric)
        return LiverStudent(student.basis, student.cells, student.echo, mean, std, trunk=student.trunk)

    def _next(self, student: LiverStudent, look: Look, number: int, fabric: Fabric) -> Lesson:
        """What a frame teaches in the round of this number."""
        probability = student.probability(look, fabric.device)
        if self.trunk is not None and not self._is_cell_round(number):
            final = np.asarray(final_answer(probability, look.cues, look.edges), np.float32)
            return Lesson(final, np.ones(final.shape, bool), 1.0)
        return next_lesson(probability, look.cues, look.edges)

    def _drawn(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, target and weight of one item; every case that shows a liver is as likely as any other."""
        cases = [n for n, taught in enumerate(self._taught) if taught]
        number = cases[int(rng.integers(len(cases)))]
        case, frame = self._relearnt[number], self._taught[number][int(rng.integers(len(self._taught[number])))]
        target = torch.from_numpy(case.probability[frame].astype(np.float32))
        known = np.where(case.certain[frame] > 0, np.float32(1), np.float32(DOUBTFUL))
        weight = torch.from_numpy(np.where(case.region(frame), known, np.float32(0)))
        if self._is_cells:
            components = self.basis([torch.from_numpy(m[frame].astype(np.float32))[None] for m in case.maps])[0]
            return view_of_components(rng, components, target, weight)
        return view_of_echoes(rng, torch.from_numpy(case.echoes[frame].astype(np.float32)), target, weight)

    def _sampled_cells(self) -> list[Float[Tensor, "_ _"]]:
        """Values of every map at evenly spaced cells of the frames that are learnt from."""
        total = sum(len(taught) for taught in self._taught)
        samples = []
        for stage in range(len(self.frames[0].channels)):
            rows = []
            for case, taught in zip(self.frames, self._taught, strict=True):
                maps = case.maps[stage]
                every = max(1, total * maps.shape[-2] * maps.shape[-1] // BASIS_CELLS)
                rows += [maps[n].reshape(maps.shape[1], -1)[:, n % every :: every].T.astype(np.float32) for n in taught]
            samples.append(torch.from_numpy(np.concatenate(rows)))
        return samples


def _liver_share(cases: Sequence[StudentFrames]) -> float:
    """Share of the sectors' cells that the lessons call liver; 0 without a case."""
    if not cases:
        return 0.0
    return float(np.mean([(case.probability[n] > 0.5).mean() for case in cases for n in range(len(case))]))
