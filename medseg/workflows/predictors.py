"""This file gathers what turns a prepared scan into class probabilities: of a trained run, or of methods without one.

*Fitted* methods are clusterings with names; *direct* ones, a student and the rule that taught it, say "vessel" or
"liver" themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from medseg.config import SEEN, Config
from medseg.errors import MedsegError
from medseg.features.student.liver.student import LiverStudent
from medseg.features.teachers.liver import frame_cues, teach_from_cues, why_no_liver
from medseg.files import hash_content
from medseg.naming.classes import ClassEntry, Naming, read_classes
from medseg.naming.rulebook import load_rules
from medseg.patches.slicing import PatchGeometry
from medseg.reconstruction.direct import flux_probability
from medseg.reconstruction.predict import Method, Prediction, Voter, predict_case, predict_whole
from medseg.reconstruction.uncertainty import Agreement
from medseg.runs import DIRECT_METHODS, METHODS, RunRecord
from medseg.workflows import parts
from medseg.workflows.naming import name_method
from medseg.workflows.students import Student, earlier_rounds, needs_student, trained_student

_log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """What was predicted of a scan, on its prepared grid.

    Attributes:
        probabilities: of each class, by each method.
        agreement: how far all that was asked agrees with the main method.
        alarms: why a slice is not what the modality expects, by its number.
    """

    probabilities: dict[str, Float[np.ndarray, "c i j k"]]
    agreement: Agreement
    alarms: dict[int, str]


@dataclass(frozen=True)
class Predictor:
    """Everything that all cases of one call share.

    Attributes:
        main: the method whose masks become the result.
        naming: classes of each method, main first, then those it is compared with.
        fitted: the clusterings among them.
        backbones: what the clusterings see.
        geometry: of the windows.
        model_hash: stands for everything that was trained.
        trained_on: whether a scan with this SHA-256 was trained on.
        student: gives its own answer too, and may be one of the backbones.
        rounds: students of earlier rounds, asked for the uncertainty only.
    """

    main: str
    naming: Mapping[str, Naming]
    fitted: Mapping[str, Method]
    backbones: Sequence[Any]
    geometry: PatchGeometry
    model_hash: str
    trained_on: Callable[[str], bool]
    student: Student | None = None
    rounds: Sequence[Student] = field(default=())

    @property
    def values(self) -> list[int]:
        """All class values, background left out."""
        return sorted({entry.value for naming in self.naming.values() for entry in naming.classes})

    def predict(self, sample: Mapping[str, Any], config: Config, device: torch.device) -> Predicted:
        """What each method says of a prepared scan; slices with an alarm get no class."""
        sample = dict(sample)
        if isinstance(self.student, LiverStudent):
            sample |= self.student.maps(sample, device, with_features=bool(self.fitted))
        elif self.student is not None:
            sample |= self.student.maps(sample, device)
        values = self.values
        fitted: Mapping[str, Prediction] = {}
        if self.fitted and config.reconstruct.windows == "whole":
            fitted = predict_whole(
                sample,
                self.fitted,
                self.backbones,
                values=values,
                flip=config.reconstruct.flip,
                device=device,
                magnification=self.geometry.magnification,
            )
        elif self.fitted:
            fitted = predict_case(
                sample,
                self.fitted,
                self.backbones,
                values=values,
                geometry=self.geometry,
                planes=config.reconstruct.planes,
                batch=config.reconstruct.batch,
                device=device,
            )
        agreement = Agreement((len(values), *sample["image"].shape[1:]))
        if self.main in fitted:
            agreement.add(fitted[self.main].mean, votes=len(self.fitted[self.main].voters))
        found = {name: prediction.median for name, prediction in fitted.items()}
        direct = DIRECT_METHODS[config.prepare.modality]
        if not direct:
            return Predicted({name: found[name] for name in self.naming}, agreement, {})
        sought = self._sought(config)
        for name in direct:
            probability = self._direct(name, sample)
            if probability is None:
                continue
            if sought:
                agreement.add(_spread(probability, sought, values))
            if name in self.naming:
                found[name] = _spread(probability, self.naming[name].classes, values)
        for student in self.rounds if sought else ():
            agreement.add(_spread(np.asarray(student.maps(sample, device)["student_probability"])[0], sought, values))
        alarms = _alarms(sample, config.prepare.modality)
        for values_of in found.values():
            values_of[..., list(alarms)] = 0
        return Predicted({name: found[name] for name in self.naming}, agreement, alarms)

    def _sought(self, config: Config) -> Sequence[ClassEntry]:
        """What direct methods find, as the main method names it: that class, then what remains; none where unknown."""
        classes = self.naming[self.main].classes
        sought = [entry for entry in classes if not entry.background and not entry.inside]
        if len(sought) > 1 and config.naming.rules is not None:
            first = load_rules(config.naming.rules)[0].entry.name
            sought = [entry for entry in sought if entry.name == first]
        return [*sought, *(entry for entry in classes if entry.background)] if len(sought) == 1 else []

    def _direct(self, name: str, sample: Mapping[str, Any]) -> np.ndarray | None:
        """Probability of what the modality looks for; None where there is no student."""
        if name == "student":
            return np.asarray(sample["student_probability"][0]) if "student_probability" in sample else None
        if name == "teacher":
            return np.asarray(sample["salience"][0]).clip(0)
        return flux_probability(parts.refinement_volume(sample))


def _spread(
    probability: Float[np.ndarray, "i j k"], classes: Sequence[ClassEntry], values: Sequence[int]
) -> Float[np.ndarray, "c i j k"]:
    """The probability of the first class as that of all: what remains has the rest."""
    if len(values) == 1:
        return probability[None]  # no copy of a whole volume
    spread = np.zeros((len(values), *probability.shape), np.float32)
    spread[values.index(classes[0].value)] = probability
    for entry in classes[1:]:
        if entry.background:
            spread[values.index(entry.value)] = 1 - probability
    return spread


def _alarms(sample: Mapping[str, Any], modality: str) -> dict[int, str]:
    """Frames of ultrasound that seem to show no liver; the alarms of angiograms are a refine step."""
    if modality != "liver_ultrasound":
        return {}
    said = sample.get("student_alarms")
    if said is None:
        image, region = np.asarray(sample["image"][0]), np.asarray(sample["region"][0]) > 0
        shown = np.flatnonzero(region.any((0, 1)))
        said = [None] * image.shape[2]
        for k in shown:
            cues = frame_cues(image[..., k], region[..., k])
            said[k] = why_no_liver(teach_from_cues(cues, None), cues.region)
    return {k: reason for k, reason in enumerate(said) if reason is not None}


def predictor_of_run(record: RunRecord, config: Config, device: torch.device, *, compare: bool) -> Predictor:
    """The methods of a trained run.

    Args:
        record: the run.
        config: its config, perhaps changed since.
        device: where networks run.
        compare: whether to take the other methods along.

    Raises:
        MedsegError: the run was not trained to the end, or on other features.
    """
    main = config.reconstruct.method
    student = trained_student(record.student, config, device) if needs_student(record.config) else None
    if main == "student" and student is None:
        raise MedsegError(f"{record.folder} must hold a student, got none; train a run with features.backbone=student")
    of_pictures = config.prepare.modality in SEEN
    direct = DIRECT_METHODS[config.prepare.modality]
    available = [name for name in METHODS if record.has_method(name)]
    available += [name for name in direct if name != "student" or student is not None]
    names = [main, *(name for name in available if compare and name != main)]
    if config.naming.source == "hand" and len(names) > 1:
        _log.info("hand-written classes name the clusters of %s only; the other methods are left out", main)
        names = [main]
    backbones = parts.load_backbones(config.features, device, student=student)
    geometry = parts.patch_geometry(config.patches)
    naming: dict[str, Naming] = {}
    fitted: dict[str, Method] = {}
    for name in names:
        if name in direct:
            naming[name] = direct_naming(config, name)
            continue
        if not record.has_method(name):
            raise MedsegError(
                f"{record.folder} must be trained to the end, got no method {name}; "
                "run the same `medseg train` again to go on"
            )
        voters = []
        for number, folder in enumerate(record.method_folders(name)):
            clusterer = parts.load_clusterer(folder, backbones, geometry, device)
            named = (
                read_classes(folder / "classes.yaml")  # its clusters are the classes of the training labels
                if name == "linear"
                else name_method(folder, config.naming, clusters=clusterer.clusters)
            )
            voters.append(Voter(clusterer, named.class_of_cluster, by_strongest=of_pictures))
            if number == 0:
                naming[name] = named
            elif named.empty_classes:
                _log.warning("voter %d of %s has no cluster for %s", number + 1, name, ", ".join(named.empty_classes))
        fitted[name] = Method(tuple(voters))
    return Predictor(
        main,
        naming,
        fitted,
        backbones if fitted else [],
        geometry,
        record.run_hash(),
        record.trained_on,
        student if fitted or main == "student" else None,
        earlier_rounds(record.student),
    )


def predictor_without_run(
    method: str,
    student: Student | None,
    config: Config,
    device: torch.device,
    *,
    adapted_to: Sequence[str] = (),
    rounds: Path | None = None,
) -> Predictor:
    """A direct method by itself.

    Args:
        method: `student`, or the rule by itself.
        student: the network; None with the rule.
        config: says the classes.
        device: where networks run.
        adapted_to: SHA-256 of the scans that the student was trained on.
        rounds: folder of the student's training, if it was trained here.
    """
    model = hash_content([method, student.fingerprint if student else None])
    return Predictor(
        method,
        {method: direct_naming(config, method)},
        {},
        [],
        parts.patch_geometry(config.patches),
        model,
        frozenset(adapted_to).__contains__,
        student,
        earlier_rounds(rounds) if rounds else (),
    )


def direct_naming(config: Config, method: str) -> Naming:
    """The first class of the rules, which a direct method finds without clusters, and what goes with it.

    Raises:
        MedsegError: the config names no rules.
    """
    if config.naming.rules is None:
        raise MedsegError(f"naming.rules must say what {method} finds, got null; name rules, such as tof_mra")
    rules = load_rules(config.naming.rules)
    first = rules[0].entry
    with_it = [rule.entry for rule in rules[1:] if rule.entry.background or rule.entry.inside == first.name]
    reasons = (f"{first.name}: {method} finds it without clusters",)
    return Naming(tuple(replace(entry, clusters=()) for entry in (first, *with_it)), "rules", reasons)
