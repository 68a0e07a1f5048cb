"""This file teaches a probe of a trained run by a few labels, in minutes.

    RUN/methods/probe/weights.safetensors, method.json   the head
    RUN/methods/probe/probe.json                         its prior, and the scans whose labels taught it
    RUN/methods/probe/gate.json                          which patches need no look, where a gate was wanted
    RUN/methods/probe/features.json, classes.yaml, effort.json

No other method of the run changes. Labels are read of the cases that are named, and of no other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8

from medseg.config import SEEN, Config, as_plain, change_config
from medseg.errors import MedsegError
from medseg.features.windows import is_volume_backbone
from medseg.fewshot.gate import Gate, labelled_patches, train_gate
from medseg.fewshot.growing import grow_labels
from medseg.fewshot.linear import WHOLE_CASE, Anchors, LabelledPoints, fit_linear
from medseg.fewshot.losses import POINT_LOSSES
from medseg.fewshot.places import UNKNOWN, draw_anchors, draw_points, draw_windows, hard_places
from medseg.fewshot.probe import ProbeCard
from medseg.fewshot.volume import (
    MOST_CHANNELS,
    SIDE,
    WINDOWS,
    LabelledWindows,
    VolumeHead,
    cut_windows,
    fit_volume,
)
from medseg.naming.classes import ClassEntry, Naming, write_classes
from medseg.naming.effort import Effort, in_words, write_effort
from medseg.runs import RunRecord, open_run
from medseg.scans.sources import hash_scan
from medseg.stego.model import LinearModel
from medseg.workflows import parts
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.predictors import prior_of_run
from medseg.workflows.probing import Prior, TaughtProbe, gate_channels
from medseg.workflows.taught_labels import Gathered, Sources, gather_labels
from medseg.workflows.voxel_features import features_at_places

_log = logging.getLogger(__name__)

METHOD = "probe"
"""What the method is called."""
HEADS = ("linear", "volume")
"""Kinds of heads."""
POINTS = 40_000
"""Drawn from all labelled cases for a linear head; with 384 features each they take 60 MB."""
ANCHOR_POINTS = 2000
"""Drawn from all labelled cases where nobody labelled anything; more say the same."""
_WINDOW_LOSS = "cross_entropy + dice + cldice"


@dataclass
class _Lesson:
    """What the head is taught by, case after case."""

    points: list[LabelledPoints] = field(default_factory=list)
    anchors: list[Anchors] = field(default_factory=list)
    windows: list[LabelledWindows] = field(default_factory=list)
    patches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    slices: int = 0


def teach_run(
    run: Path,
    scans: Path,
    sources: Sources,
    *,
    cases: Collection[str] | None = None,
    head: str = "linear",
    loss: str = "cross_entropy",
    gate: bool = False,
    rounds: int = 1,
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Teach the probe of a run; one that was there before is replaced.

    Args:
        run: a trained run.
        scans: where the labelled scans are; others are not opened.
        sources: the labels.
        cases: whose labels may be read; None: all that have one, without those that the run holds out.
        head: `linear` or `volume`.
        loss: of a linear head, one of `POINT_LOSSES`.
        gate: whether a gate learns which patches of an angiogram need no look.
        rounds: how often the head is taught; from the second on also by labels that grew, see `fewshot/growing.py`.
        overrides: `section.key=value` for the prior (reconstruct, naming) and for run.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, `cases`, `effort`, `seconds` of the training and of all.

    Raises:
        MedsegError: a label cannot be used, or the run; nothing is written then.
    """
    start = time.monotonic()
    if head not in HEADS:
        raise MedsegError(f"--head must be one of {', '.join(HEADS)}, got {head}; choose one")
    if loss not in POINT_LOSSES:
        raise MedsegError(f"--loss must be one of {', '.join(POINT_LOSSES)}, got {loss}; choose one")
    if loss != "cross_entropy" and head != "linear":
        raise MedsegError(f"--loss must go with --head linear, got {loss} with {head}; leave it out")
    if rounds < 1:
        raise MedsegError(f"--rounds must be at least 1, got {rounds}; 1 teaches by the given labels only")
    record = open_run(run)
    config = change_config(record.config, overrides, sections=("reconstruct", "naming", "run"))
    if gate and config.prepare.modality in SEEN:
        raise MedsegError(f"--gate must be for vessels in angiograms, got {config.prepare.modality}; leave it out")
    listing = intake.cases(scans, skip=(run,))
    device = parts.start_fabric(config.run).device
    prior, backbones = prior_of_run(record, config, device)
    gathered = gather_labels(sources, record, listing, prior.naming, wanted=cases)
    _require_head(head, backbones)
    naming = Naming(_entries(gathered.classes, prior.naming), gathered.named_by)
    geometry = parts.patch_geometry(config.patches)
    probe: TaughtProbe | None = None
    found_gate: Gate | None = None
    seconds = 0.0
    for number in range(1, rounds + 1):
        lesson = _Lesson()
        for case in gathered.cases:
            _log.info("%s: reading scan and labels", case.case_id)
            with parts.prepared(case, config.prepare, record.store / "prepared", keep=number < rounds) as sample:
                labels, slices = gathered.labels(case, sample, config.prepare)
                lesson.slices += slices
                region = np.asarray(sample["region"][0]) > 0
                if gate and number == 1:
                    lesson.patches.append(labelled_patches(gate_channels(sample), labels, region))
                sample = parts.add_maps(sample, backbones, device)
                if probe is not None:
                    values = [entry.value for entry in probe.taught]
                    labels = grow_labels(labels, probe.probabilities(sample, config, values, device), region)
                if not (labels != UNKNOWN).any():
                    _log.warning("%s: none of its labels lies where one looks; it teaches nothing", case.case_id)
                    continue
                _learn_case(lesson, sample, labels, prior, backbones, gathered, head, config, device)
        _require_classes(lesson, gathered)
        if gate and number == 1:
            found_gate = _taught_gate(lesson)
        began = time.monotonic()
        model, prior_weight = _taught_head(lesson, head, loss, len(gathered.classes), config, device)
        seconds += time.monotonic() - began
        card = ProbeCard(
            head=head,  # type: ignore[arg-type]
            prior_weight=prior_weight,
            prior=as_plain(config)["reconstruct"],
            taught={case.case_id: hash_scan(case.image, case.pick) for case in gathered.cases},
            loss=loss if head == "linear" else _WINDOW_LOSS,
            seconds=round(seconds, 1),
        )
        probe = TaughtProbe(card, model, naming, prior, backbones, geometry)
    assert probe is not None
    effort = _with_slices(gathered.effort, lesson.slices) if sources.slices is not None else gathered.effort
    _write(record, replace(probe, gate=found_gate), parts.feature_facts(backbones, geometry), effort)
    given = in_words(naming.named_by, effort)
    return {
        "lines": [
            f"probe taught: {given}; {head} head, {seconds:.0f} s, with scans and features "
            f"{time.monotonic() - start:.0f} s; weight of the prior {probe.card.prior_weight:.2f}",
            *([] if found_gate is None else [found_gate.describe()]),
            f"masks: medseg reconstruct {run} {scans} -o OUT --set reconstruct.method={METHOD}",
        ],
        "cases": [case.case_id for case in gathered.cases],
        "effort": effort.as_dict(),
        "head": head,
        "prior_weight": probe.card.prior_weight,
        "gate": None if found_gate is None else {"recall": found_gate.recall, "skipped": found_gate.skipped},
        "seconds": {"training": round(seconds, 1), "all": round(time.monotonic() - start, 1)},
    }


def _require_head(head: str, backbones: Sequence[Any]) -> None:
    if head == "linear":
        return
    if strange := [backbone.name for backbone in backbones if not is_volume_backbone(backbone)]:
        raise MedsegError(f"--head must be linear on features of slices, got volume on {strange[0]}; leave it out")
    if _channels(backbones) > MOST_CHANNELS:
        raise MedsegError(
            f"--head must be linear on more than {MOST_CHANNELS} features, got volume on {_channels(backbones)}; "
            "leave it out"
        )


def _channels(backbones: Sequence[Any]) -> int:
    return sum(backbone.dim for backbone in backbones)


def _learn_case(
    lesson: _Lesson,
    sample: dict[str, Any],
    labels: Int8[np.ndarray, "i j k"],
    prior: Prior,
    backbones: Sequence[Any],
    gathered: Gathered,
    head: str,
    config: Config,
    device: torch.device,
) -> None:
    """Draw labelled places of a case, and keep what the head sees there."""
    odds = prior.odds(sample, gathered.classes, device)
    salience = np.asarray(sample["salience"][0])
    believed = np.where((odds > 0).any(0), odds.argmax(0) + 1, 0)
    hard = hard_places(labels, believed, salience)
    rng = np.random.default_rng(config.run.seed)
    if head == "volume":
        count = -(-WINDOWS // len(gathered.cases))
        starts = draw_windows(labels, hard, side=SIDE, count=count, rng=rng)
        lesson.windows.append(cut_windows(sample, backbones, odds, labels, starts))
        return
    cases = len(gathered.cases)
    points = draw_points(labels, hard, most=POINTS // cases, rng=rng)
    is_anchored = bool(odds.any())  # else the prior knows none of these classes
    most = ANCHOR_POINTS // cases if is_anchored else 0
    anchors = draw_anchors(labels, believed, np.asarray(sample["region"][0]) > 0, most=most, rng=rng)
    places = np.concatenate([points.places, anchors])
    features = features_at_places(
        sample, places, parts.patch_geometry(config.patches), backbones, device, config.reconstruct.batch
    )
    prior_there = torch.from_numpy(np.ascontiguousarray(odds[(slice(None), *places.T)].T))
    count = len(points.places)
    target = torch.from_numpy(labels[tuple(points.places.T)].astype(np.int64))
    weight = torch.from_numpy(points.weight)
    if is_anchored and not len(anchors):
        weight *= min(1.0, WHOLE_CASE / float(weight.sum()))
    lesson.points.append(LabelledPoints(features[:count], prior_there[:count], target, weight))
    lesson.anchors.append(Anchors(features[count:], prior_there[count:]))


def _taught_head(
    lesson: _Lesson, head: str, loss: str, classes: int, config: Config, device: torch.device
) -> tuple[LinearModel | VolumeHead, float]:
    """The head and the weight of the prior."""
    if head == "linear":
        points = LabelledPoints(*(torch.cat(part) for part in zip(*lesson.points, strict=True)))
        anchors = Anchors(*(torch.cat(part) for part in zip(*lesson.anchors, strict=True)))
        return fit_linear(points, anchors, loss=loss)
    windows = LabelledWindows(*(torch.cat(part) for part in zip(*lesson.windows, strict=True)))
    return fit_volume(windows, classes=classes, seed=config.run.seed, device=device)


def _taught_gate(lesson: _Lesson) -> Gate:
    """The gate; of several cases one is left out at a time, of one case some slices."""
    known = [patches for patches in lesson.patches if len(patches[1])] or lesson.patches[:1]
    features, holds, slices = (np.concatenate(part) for part in zip(*known, strict=True))
    cases = np.repeat(np.arange(len(known)), [len(part[1]) for part in known])
    return train_gate(features, holds, cases if len(known) > 1 else slices)


def _require_classes(lesson: _Lesson, gathered: Gathered) -> None:
    """Check that the labels that count hold something."""
    targets = [points.target for points in lesson.points] + [windows.target for windows in lesson.windows]
    if any((target > 0).any() for target in targets) or (targets and not (gathered.files or gathered.rough)):
        return
    raise MedsegError(
        "labels must hold a class where one looks, got background only; label other slices, or look at CASE_region"
    )


def _with_slices(effort: Effort, slices: int) -> Effort:
    """Slices instead of whole cases."""
    others = {unit: count for unit, count in effort.counts.items() if unit != "cases"}
    return Effort({"slices": slices, **others}, effort.minutes)


def _entries(taught: Sequence[ClassEntry], naming: Naming) -> tuple[ClassEntry, ...]:
    """Taught classes with the head's channel, and those that a refine step finds inside them."""
    entries = [replace(entry, clusters=(number,), inside=None) for number, entry in enumerate(taught, start=1)]
    names, values = {entry.name for entry in taught}, {entry.value for entry in taught}
    found = [
        entry
        for entry in naming.classes
        if entry.inside in names and entry.name not in names and entry.value not in values
    ]
    return (*entries, *found)


def _write(record: RunRecord, probe: TaughtProbe, facts: dict[str, Any], effort: Effort) -> None:
    """Write the method; `classes.yaml`, removed first and written last, makes it complete."""
    folder = record.method_folders(METHOD)[0]
    (folder / "classes.yaml").unlink(missing_ok=True)
    probe.head.save(folder)
    parts.write_facts(folder, facts)
    probe.card.write(folder)
    Gate.remove(folder)
    if probe.gate is not None:
        probe.gate.save(folder)
    write_effort(folder, effort)
    write_classes(folder / "classes.yaml", probe.naming)
