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

from medseg.config import SEEN, Config, as_plain, config_from_plain
from medseg.errors import MedsegError
from medseg.features.student.liver.student import LiverStudent
from medseg.features.teachers.liver import frame_cues, teach_from_cues, why_no_liver
from medseg.fewshot.probe import ProbeCard
from medseg.files import hash_content
from medseg.naming.classes import ClassEntry, Naming, read_classes
from medseg.naming.effort import NO_EFFORT, Effort
from medseg.naming.rulebook import load_rules
from medseg.patches.slicing import PatchGeometry
from medseg.reconstruction.direct import flux_probability
from medseg.reconstruction.predict import Method, Prediction, Voter, predict_case, predict_whole
from medseg.reconstruction.uncertainty import Agreement
from medseg.runs import DIRECT_METHODS, LATER_METHODS, METHODS, OWN_CLASSES, RunRecord
from medseg.workflows import parts
from medseg.workflows.naming import effort_of_method, name_method
from medseg.workflows.probing import Prior, TaughtProbe, open_probe
from medseg.workflows.students import Student, earlier_rounds, needs_student, trained_student

_log = logging.getLogger(__name__)

_GO_ON = "run the same `medseg train` again to go on"
_ADVICE = {"clicks": "make it with `medseg name`", "probe": "make it with `medseg teach`"}
"""How to get a method that is not there; the others are trained."""


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
        probe: what was taught by a few labels, where it is asked for; it makes its own prior.
        effort: what people gave for each method; nothing for those that are not in it.
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
    probe: TaughtProbe | None = None
    effort: Mapping[str, Effort] = field(default_factory=dict)

    def source_of(self, method: str) -> dict[str, Any]:
        """Who named a method's classes and what people gave for it, as manifests say it."""
        return {"named_by": self.naming[method].named_by, "effort": self.effort.get(method, NO_EFFORT).as_dict()}

    @property
    def values(self) -> list[int]:
        """All class values, background left out."""
        return sorted({entry.value for naming in self.naming.values() for entry in naming.classes})

    def predict(self, sample: Mapping[str, Any], config: Config, device: torch.device) -> Predicted:
        """What each method says of a prepared scan; slices with an alarm get no class."""
        sample = self._with_maps(sample, device)
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
        if self.probe is not None:
            found["probe"] = self.probe.probabilities(sample, config, values, device)
            if self.main == "probe":
                agreement.add(found["probe"])
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

    def _with_maps(self, sample: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """The sample with the student's maps; the prior of a probe finds them there already."""
        if self.student is None or "student_probability" in sample:
            return dict(sample)
        if isinstance(self.student, LiverStudent):
            seen = bool(self.fitted) or self.probe is not None
            return {**sample, **self.student.maps(sample, device, with_features=seen)}
        return {**sample, **self.student.maps(sample, device)}

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
    student = trained_student(record.student, config, device) if needs_student(record.config) else None
    backbones = parts.load_backbones(config.features, device, student=student)
    return _predictor(record, config, device, student, backbones, compare=compare)


def prior_of_run(record: RunRecord, config: Config, device: torch.device) -> tuple[Prior, Sequence[Any]]:
    """The label-free answer that a probe begins with, and the backbones of the run.

    Raises:
        MedsegError: the run was not trained to the end, or its method is no label-free one.
    """
    student = trained_student(record.student, config, device) if needs_student(record.config) else None
    backbones = parts.load_backbones(config.features, device, student=student)
    return _prior(record, config, device, student, backbones), backbones


def _prior(
    record: RunRecord, config: Config, device: torch.device, student: Student | None, backbones: Sequence[Any]
) -> Prior:
    main = config.reconstruct.method
    if main in OWN_CLASSES:
        raise MedsegError(f"the prior of a probe must be a method without labels, got {main}; take stego or student")
    predictor = replace(_predictor(record, config, device, student, backbones, compare=False), rounds=())

    def shares(sample: Mapping[str, Any], on: torch.device) -> np.ndarray:
        return predictor.predict(sample, config, on).probabilities[main]

    return Prior(config, predictor.naming[main], predictor.values, shares)


def _predictor(
    record: RunRecord,
    config: Config,
    device: torch.device,
    student: Student | None,
    backbones: Sequence[Any],
    *,
    compare: bool,
) -> Predictor:
    main = config.reconstruct.method
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
    geometry = parts.patch_geometry(config.patches)
    probe: TaughtProbe | None = None
    naming: dict[str, Naming] = {}
    effort: dict[str, Effort] = {}
    fitted: dict[str, Method] = {}
    for name in names:
        if name in direct:
            naming[name] = direct_naming(config, name)
            continue
        if not record.has_method(name):
            raise MedsegError(f"{record.folder} must have the method {name}, got none; {_ADVICE.get(name, _GO_ON)}")
        if name == "probe":
            folder = record.method_folders(name)[0]
            before = {**as_plain(config), "reconstruct": dict(ProbeCard.read(folder).prior)}
            prior = _prior(record, config_from_plain(before, str(folder)), device, student, backbones)
            probe = open_probe(folder, prior, backbones, geometry, device)
            naming[name], effort[name] = probe.naming, effort_of_method(folder, probe.naming)
            continue
        voters = []
        for number, folder in enumerate(record.method_folders(name)):
            clusterer = parts.load_clusterer(folder, backbones, geometry, device)
            named = (
                read_classes(folder / "classes.yaml")
                if name in OWN_CLASSES
                else name_method(folder, config.naming, clusters=clusterer.clusters)
            )
            voters.append(Voter(clusterer, named.class_of_cluster, by_strongest=of_pictures))
            if number == 0:
                naming[name] = named
                effort[name] = effort_of_method(folder, named)
            elif named.empty_classes:
                _log.warning("voter %d of %s has no cluster for %s", number + 1, name, ", ".join(named.empty_classes))
        fitted[name] = Method(tuple(voters))
    return Predictor(
        main,
        naming,
        fitted,
        backbones if fitted or probe else [],
        geometry,
        record.run_hash([name for name in names if name in LATER_METHODS]),
        record.trained_on if probe is None else lambda sha256: record.trained_on(sha256) or probe.knows(sha256),
        student if fitted or probe or main == "student" else None,
        earlier_rounds(record.student),
        probe,
        effort,
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
