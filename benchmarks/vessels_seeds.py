"""This file measures how far masks depend on seeds: of STEGO on one student, and of students; alone and by vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from vessels_answers import ask_run
from vessels_cases import Plan, Scores, prepared_phantom
from vessels_rows import TRAINING_PHANTOMS, train_student_run

from medseg.naming.effort import in_words
from medseg.reconstruction.refine import refine
from medseg.runs import RunRecord

CASE = "noise_030"
"""The hard phantom: noise of .3 tissue medians, coarse grain, blunt profiles."""
STEGO_SEEDS, STUDENT_SEEDS, VOTERS = 10, 3, 3


def run(plan: Plan) -> None:
    """Train what is missing, measure, and print the spreads."""
    of_stego = plan.cell("seeds/stego", partial(_stego_seeds, plan))["scores"]
    of_students = plan.cell("seeds/students", partial(_student_seeds, plan))["scores"]
    print(f"\nSeeds on {CASE}: mean, sd, smallest, largest")
    _print("STEGO, one student, 1 voter", [of_stego[f"stego {n}"] for n in range(1, STEGO_SEEDS + 1)])
    _print("STEGO, one student, vote of 3", [of_stego[name] for name in _triples()])
    _print("students, gated", [found["student"] for found in of_students["alone"]])
    _print("STEGO on each student, 1 voter", [found["stego 1"] for found in of_students["alone"]])
    _print("vote of the students", [of_students["vote"]["student"]])
    _print("vote of STEGO on the students", [of_students["vote"]["stego 1"]])


def _triples() -> list[str]:
    """Disjoint groups of voters."""
    return [f"stego {first} {first + 1} {first + 2}" for first in range(1, STEGO_SEEDS - VOTERS + 2, VOTERS)]


def _stego_seeds(plan: Plan) -> dict[str, Any]:
    one_student = train_student_run(plan)
    scans = plan.training_scans(TRAINING_PHANTOMS)
    taken = ("student.steps=0", f"student.start={one_student.student}")
    record = plan.trained("seeds_stego", "tof_mra", scans, f"stego.voters={STEGO_SEEDS}", last=taken)
    names = [*(f"stego {n}" for n in range(1, STEGO_SEEDS + 1)), *_triples()]
    case = prepared_phantom(plan, CASE, record.config)
    asked = ask_run(record, case.sample, methods=names)
    steps = record.config.reconstruct.refine
    return {"scores": {name: case.scores(refine(asked.of[name], case.volume, steps)) for name in names}}


def _student_seeds(plan: Plan) -> dict[str, Any]:
    scans = plan.training_scans(TRAINING_PHANTOMS)
    records: list[RunRecord] = [train_student_run(plan)]
    records += [
        plan.trained(f"seeds_student_{seed}", "tof_mra", scans, "stego.voters=1", f"run.seed={seed}")
        for seed in range(1, STUDENT_SEEDS)
    ]
    config = records[0].config
    case = prepared_phantom(plan, CASE, config)
    names, steps = ("student", "stego 1"), config.reconstruct.refine
    answers = [ask_run(record, case.sample, methods=names).of for record in records]

    def scores(answer: np.ndarray) -> Scores:
        return case.scores(refine(answer, case.volume, steps))

    alone = [{name: scores(found[name]) for name in names} for found in answers]
    vote = {name: scores(np.median([found[name] for found in answers], axis=0)) for name in names}
    return {"scores": {"alone": alone, "vote": vote}}


def _print(row: str, found: Sequence[Mapping[str, float]]) -> None:
    cells = []
    for metric in ("dice", "cldice"):
        values = np.array([scores[metric] for scores in found], dtype=float)
        cells.append(f"{values.mean():.3f} sd {values.std():.3f} {values.min():.3f} - {values.max():.3f}")
    print(f"{row:34}{len(found):3d}  effort: {in_words('rules')}  Dice {cells[0]}   clDice {cells[1]}")
