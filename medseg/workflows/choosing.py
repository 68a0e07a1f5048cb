"""This file chooses a checkpoint and the number of clusters of a trained run, by signals that need no label.

*Candidate*: one kept checkpoint with one number of clusters K. The chosen one becomes the run's method `stego`;
`methods/stego/choice.json` says what was chosen, and from which candidates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import MedsegError
from medseg.files import hash_file, read_record, write_json
from medseg.naming.classes import class_entry
from medseg.patches.datasets import PatchDataset
from medseg.progress import track
from medseg.records import read_state
from medseg.runs import RunRecord, open_run
from medseg.stego.choice import DEFAULT_SIGNAL, SIGNALS, fit_codes, measure_candidate
from medseg.stego.clustering import PointSample, sample_points
from medseg.stego.health import measure_codes
from medseg.stego.losses import Terms
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel, nearness
from medseg.stego.settings import StegoSettings
from medseg.stego.step import build_parts
from medseg.stego.training import StegoRun
from medseg.workflows import parts
from medseg.workflows.method_names import name_methods
from medseg.workflows.point_measures import measure_points
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.students import needs_student, trained_student
from medseg.workflows.training import stego_settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """One checkpoint with one K.

    Attributes:
        step: training steps behind the checkpoint.
        model: its clustering.
        signals: by the keys of `medseg.stego.choice.SIGNALS`; NaN where one cannot be measured.
        shifts: of its training.
    """

    step: int
    model: ClusterModel
    signals: Mapping[str, float]
    shifts: Terms

    @property
    def clusters(self) -> int:
        """K."""
        return self.model.clusters

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what cannot be measured is null."""
        values = {name: None if math.isnan(value) else value for name, value in self.signals.items()}
        return {"step": self.step, "clusters": self.clusters, "signals": values}


def choose_checkpoint(
    run: Path, *, clusters: Sequence[int] | None = None, signal: str = DEFAULT_SIGNAL, write: bool = True
) -> dict[str, Any]:
    """Choose among the kept checkpoints of a run, and among numbers of clusters; no label is looked at.

    Args:
        run: a run that was trained to the end; every voter chooses for itself.
        clusters: numbers of clusters to try; None: the run's own.
        signal: what to choose by, a key of `medseg.stego.choice.SIGNALS`.
        write: whether the chosen candidate becomes the run's method `stego`.

    Returns:
        `lines` for the terminal, `chosen` (of the first voter) and all `candidates`.

    Raises:
        MedsegError: the run, the signal or a number of clusters cannot be used.
    """
    if signal not in SIGNALS:
        raise MedsegError(f"the signal must be one of {', '.join(SIGNALS)}, got {signal!r}; choose one of them")
    record = open_run(run)
    if not record.has_method("stego"):
        raise MedsegError(f"{run} must be trained to the end, got no method stego; run the same `medseg train` again")
    if write and record.config.naming.source == "hand":
        raise MedsegError(
            f"naming.source of {run} must be another than hand, since a hand-written file names the clusters "
            "of before; train with naming.source=clusters, choose, and write the file then"
        )
    settings = stego_settings(record.config)
    wanted = tuple(dict.fromkeys(clusters or (settings.prototypes,)))
    if min(wanted) < 2:
        raise MedsegError(f"the number of clusters must be at least 2, got {min(wanted)}; try for example 8, 16 and 27")
    dataset = kept_patches(record)
    lines, first = list[str](), dict[str, Any]()
    for number, voter in enumerate(record.voters):
        seed = record.config.run.seed + number
        points = sample_points(
            dataset, settings.fit_points, settings.fit_salient_share, seed, salient_top=settings.salient_top
        )
        found = measure_run(voter, dataset, points, settings, clusters=wanted, seed=seed)
        best = best_of(found, signal)
        of_voter = f" of voter {number + 1}" if number else ""
        lines += [*table(found, best), f"chosen{of_voter} by {signal}: step {best.step}, {best.clusters} clusters"]
        answer = {"signal": signal, "chosen": best.as_dict(), "candidates": [each.as_dict() for each in found]}
        if write:
            make_method(best, points, dataset, voter, record, answer)
        first = first or answer
    if not write:
        lines.append(f"{run} stays as it is")
    return {"lines": lines, "run": str(run), **first}


def measure_run(
    voter: Path,
    dataset: PatchDataset,
    points: PointSample,
    settings: StegoSettings,
    *,
    clusters: Sequence[int],
    seed: int,
) -> list[Candidate]:
    """Fit and measure every candidate of one voter.

    Args:
        voter: its folder, with `checkpoints/`.
        dataset: the run's patches.
        points: on which clusters are fitted.
        settings: of the run.
        clusters: numbers of clusters.
        seed: of the voter.
    """
    found = []
    for state in track(kept_states(voter / "checkpoints"), "measuring checkpoints"):
        head: Any = build_parts(dataset.feature_dim, settings, classes=0, seed=seed).head
        head.load_state_dict(state["head"])
        codes = codes_at(head, dataset, points)
        for count in clusters:
            learnt = state["probes"]["prototypes"]
            model = fit_codes(head, codes, settings, clusters=count, seed=seed, learnt=learnt)
            signals = measure_candidate(model, codes, points, dataset, starts=settings.kmeans_starts, seed=seed)
            found.append(Candidate(state["step"], model, signals, Terms(*state["shifts"])))
    return found


def kept_states(folder: Path) -> list[dict[str, Any]]:
    """The checkpoints of one training, by step: those that were kept, and the last.

    Raises:
        MedsegError: there is none, or one cannot be read.
    """
    paths = [*folder.glob("step_*.pt"), folder / "last.pt"]
    states = {path: _read_state(path) for path in paths if path.is_file()}
    if not (folder / "last.pt").is_file():
        raise MedsegError(f"{folder} must hold last.pt, got none; run the same `medseg train` again")
    key = states[folder / "last.pt"]["key"]
    # A checkpoint with another key was left behind by an earlier training in this folder.
    mine = {int(state["step"]): state for state in states.values() if state["key"] == key}
    return [mine[step] for step in sorted(mine)]


def best_of(candidates: Sequence[Candidate], signal: str) -> Candidate:
    """The candidate with the highest signal; of equal ones the longest trained, then the one with fewest clusters.

    Raises:
        MedsegError: the signal could be measured on none of them.
    """
    measured = [each for each in candidates if not math.isnan(each.signals[signal])]
    if not measured:
        others = ", ".join(name for name in SIGNALS if name != signal)
        raise MedsegError(f"the signal must be measurable on this run, got {signal}; choose one of {others}")
    return max(measured, key=lambda each: (each.signals[signal], each.step, -each.clusters))


def table(candidates: Sequence[Candidate], best: Candidate) -> list[str]:
    """All candidates with their signals, the best one marked."""
    width = max(map(len, SIGNALS))
    lines = [f"{'step':>6}{'K':>5}" + "".join(f"{name:>{width + 2}}" for name in SIGNALS)]
    for each in candidates:
        cells = ("–" if math.isnan(value) else f"{value:.3f}" for value in (each.signals[name] for name in SIGNALS))
        values = "".join(f"{cell:>{width + 2}}" for cell in cells)
        lines.append(f"{each.step:>6}{each.clusters:>5}{values}{' <' if each is best else ''}")
    return lines


def _read_state(path: Path) -> dict[str, Any]:
    needed = {"head", "probes", "step", "shifts", "key"}
    state = read_state(path)
    if not needed <= state.keys():
        raise MedsegError(f"{path} must be a checkpoint of a STEGO training, got another file; remove it")
    return state


def make_method(
    best: Candidate,
    points: PointSample,
    dataset: PatchDataset,
    voter: Path,
    record: RunRecord,
    answer: Mapping[str, Any],
) -> None:
    """Put the candidate in the place of the voter's method `stego`, and name its clusters as a training does.

    Args:
        best: the candidate.
        points: of `sample_points`, on which it was fitted.
        dataset: the run's patches.
        voter: its folder.
        record: of the run.
        answer: why it was chosen, for `choice.json`.
    """
    folder = voter / "methods" / "stego"
    facts = read_record(folder / "features.json", "backbones", "patch", advice="train a new run")
    cards = read_record(folder / "cards.json", "cards", advice="train a new run")
    meaning = [class_entry(entry, position=n, where="cards.json") for n, entry in enumerate(cards.get("classes", ()))]
    head = best.model.head
    assert head is not None
    codes = codes_at(head, dataset, points)
    fitted = StegoRun(
        methods={"stego": best.model},
        points=points,
        assignments={"stego": best.model.assign_codes(codes).numpy()},
        health=measure_codes(codes, nearness(codes, best.model.prototypes, best.model.metric)),
        shifts=best.shifts,
        steps=best.step,
        linear=None,
    )
    (folder / "classes.yaml").unlink(missing_ok=True)  # comes back last: without it, the method is not whole
    best.model.save(folder)
    first = None if voter == record.folder else {"stego": ClusterModel.load(record.method_folders("stego")[0])}
    name_methods(fitted, dataset, voter, record.config, facts, measured(points, record), meaning, first=first)
    write_json(folder / "choice.json", {**answer, "weights": hash_file(folder / "weights.safetensors")})


def measured(points: PointSample, record: RunRecord) -> dict[str, np.ndarray]:
    """What naming rules may ask for at the points of a trained run; see `measure_points`."""
    device = torch.device("cpu")
    student = trained_student(record.student, record.config, device) if needs_student(record.config) else None
    backbones = parts.load_backbones(record.config.features, device, student=student) if student else []
    return measure_points(points, kept_patches(record), record.config, backbones)
