"""This file asks the methods of a trained run about one prepared scan: everything that the vessel benchmarks compare.

An *answer* is the probability of a vessel in each voxel; *steps* of refinement turn it into a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from medseg.prepare.vesselness import flux_core
from medseg.reconstruction.direct import flux_probability
from medseg.reconstruction.predict import Method, predict_case
from medseg.reconstruction.refine import Volume
from medseg.runs import RunRecord
from medseg.workflows import parts
from medseg.workflows.predictors import Predictor, predictor_of_run

Steps = Sequence[tuple[str, Mapping[str, float]]]
Answer = Float[np.ndarray, "i j k"]

CPU = torch.device("cpu")
"""Where all networks run, so that the figures are those of the machine a newcomer has."""
EDGE_ONLY: Steps = (("region", {}), ("radius_edge", {"q_min": 0.12}), ("region", {}))
"""A network's answer by itself: its mask with the usual wall, and nothing that the flux rule decides."""


def without(steps: Steps, *names: str) -> Steps:
    """The steps but those of some names."""
    return [step for step in steps if step[0] not in names]


@dataclass(frozen=True)
class Answers:
    """What was said about one scan.

    Attributes:
        of: the answer of each method; `stego 1` is the first voter alone.
        stego_mean: mean over the voters of STEGO.
        rounds: the student's answer after each of its rounds.
    """

    of: Mapping[str, Answer]
    stego_mean: Answer
    rounds: Sequence[Answer]


def ask_run(record: RunRecord, sample: Mapping[str, Any], *, methods: Sequence[str], rounds: bool = False) -> Answers:
    """Ask methods of a run about a scan.

    Args:
        record: the run.
        sample: the prepared scan.
        methods: names among `stego`, `stego 1`, `stego N`, `kmeans`, `untrained`, `student` and `flux`.
        rounds: whether to ask the students of earlier rounds too.
    """
    config = record.config
    predictor = predictor_of_run(record, config, CPU, compare=True)
    sample = parts.add_maps(dict(sample), predictor.backbones, CPU)
    fitted = {name: _fitted(predictor, name) for name in methods if name not in ("student", "flux")}
    channel = vessel_channel(predictor)
    found = predict_case(
        sample,
        fitted,
        predictor.backbones,
        values=predictor.values,
        geometry=predictor.geometry,
        planes=config.reconstruct.planes,
        batch=config.reconstruct.batch,
        device=CPU,
    )
    answers = {name: prediction.median[channel] for name, prediction in found.items()}
    if "student" in methods:
        answers["student"] = np.asarray(sample["student_probability"][0])
    if "flux" in methods:
        answers["flux"] = flux_probability(parts.refinement_volume(sample))
    earlier = predictor.rounds if rounds else ()
    students = [np.asarray(student.maps(sample, CPU)["student_probability"][0]) for student in earlier]
    if rounds:
        students.append(np.asarray(sample["student_probability"][0]))
    mean = found["stego"].mean[channel] if "stego" in found else np.zeros(sample["image"].shape[1:], np.float32)
    return Answers(answers, mean, students)


def vessel_channel(predictor: Predictor) -> int:
    """Place of the vessels among the classes of a prediction."""
    return predictor.values.index(predictor.naming[predictor.main].classes[0].value)


def _fitted(predictor: Predictor, name: str) -> Method:
    """The method of this name; a number after it picks one voter, a row of numbers some of them."""
    base, *numbers = name.split()
    voters = predictor.fitted[base].voters
    return Method(tuple(voters[int(number) - 1] for number in numbers) or voters)


def core_mask(volume: Volume) -> Bool[np.ndarray, "i j k"]:
    """The flux rule without its edge."""
    if volume.alarm is not None:
        return np.zeros(volume.region.shape, bool)
    return flux_core(volume.salience, volume.tubularity, volume.spacing) & volume.region
