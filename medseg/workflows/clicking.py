"""This file makes the method `clicks` of a trained run: its clusters, named, merged and split by a person's clicks.

Each voter of the run gets its own; the words are those of `medseg.naming.clicks` and `medseg.naming.splitting`. A
cluster without a click keeps the name it had by the run's own naming. Nothing is trained again, and no label is read.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medseg.errors import MedsegError
from medseg.files import printable, read_record, write_text
from medseg.naming.classes import ClassEntry, Naming, class_entry, require_distinct, write_classes
from medseg.naming.clicks import (
    BACKGROUND,
    Click,
    read_clicks,
    read_minutes,
    require_consistent,
    require_known,
    voxel_of,
)
from medseg.naming.effort import Effort, in_words, write_effort
from medseg.naming.rulebook import load_rules
from medseg.naming.splitting import Clicked, clusters_of_clicks, same_codes
from medseg.patches.datasets import PatchDataset
from medseg.runs import OWN_CLASSES, TRAINED_METHODS, RunRecord, open_run
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.grids import Grid
from medseg.scans.names import is_picture
from medseg.stego.clustering import PointSample, sample_points
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel
from medseg.workflows import parts
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.naming import name_method, write_cards
from medseg.workflows.point_measures import measure_points
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.students import needs_student, trained_student
from medseg.workflows.training import stego_settings
from medseg.workflows.voxel_features import features_at

_log = logging.getLogger(__name__)
METHOD = "clicks"
"""What the method is called."""
SOURCES = tuple(name for name in TRAINED_METHODS if name not in OWN_CLASSES)
"""Methods whose clusters can be clicked."""


@dataclass(frozen=True)
class _Voter:
    """One voter: its clusters and names after the clicks, and the class values by cluster before them."""

    model: ClusterModel
    naming: Naming
    before: Mapping[int, int]
    clicked: Clicked
    seed: int


def name_by_clicks(
    run: Path,
    clicks: Sequence[Click] = (),
    *,
    decisions: Path | None = None,
    scans: Path | None = None,
    method: str = "stego",
    new_classes: Sequence[str] = (),
    minutes: float | None = None,
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Make the method `clicks` of a run; one that was there before is replaced.

    Args:
        run: a trained run.
        clicks: named places.
        decisions: file or folder of the review page, whose clicks and times are added.
        scans: where the scans are; None: where training read them.
        method: whose clusters are clicked, one of `SOURCES`.
        new_classes: `NAME` or `NAME=VALUE` of classes that the run does not know.
        minutes: that the clicks took; None: those of the decisions, where all clicks come from them.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, and what each clicked cluster of the first voter became.

    Raises:
        MedsegError: a click cannot be used, or the run, method or scans; nothing is written then.
    """
    record = open_run(run)
    if method not in SOURCES:
        raise MedsegError(f"--method must be one of {', '.join(SOURCES)}, got {method}; choose one")
    if not record.has_method(method):
        raise MedsegError(
            f"{run} must be trained to the end, got no method {method}; run the same `medseg train` again"
        )
    given = [*clicks, *(read_clicks(decisions) if decisions else ())]
    if not given:
        raise MedsegError("a click must be given, got none; write --click CASE x y z CLASS, or name --decisions")
    if minutes is None and decisions is not None and not clicks:
        minutes = read_minutes(decisions, {click.case for click in given})
    effort = Effort({"clicks": len(dict.fromkeys(given))}, minutes)
    known = _classes(record, method, new_classes)
    require_known(given, [entry.name for entry in known])
    for click in given:
        if inside := next((entry.inside for entry in known if entry.name == click.name), None):
            raise MedsegError(
                f"{click} must name a class of clusters, got one that a refine step finds inside {inside}; leave it out"
            )
    cases = _cases_of(given, record, scans, intake)
    voxels = [voxel_of(click, _grid_of(cases[click.case])) for click in given]
    require_consistent(given, voxels)
    device = torch.device("cpu")
    student = trained_student(record.student, record.config, device) if needs_student(record.config) else None
    backbones = parts.load_backbones(record.config.features, device, student=student)
    geometry = parts.patch_geometry(record.config.patches)
    models: list[ClusterModel] = []
    for folder in record.method_folders(method):
        model = parts.load_clusterer(folder, backbones, geometry, device)
        assert isinstance(model, ClusterModel)  # as all SOURCES are
        models.append(model)
    codes = _codes_of(given, voxels, cases, models, record, backbones)
    stored = _Stored(record)
    voters = [
        _click_voter(number, model, at_clicks, given, known, method, record, stored)
        for number, (model, at_clicks) in enumerate(zip(models, codes, strict=True))
    ]
    folders = record.method_folders(METHOD)
    for folder in folders:
        (folder / "classes.yaml").unlink(missing_ok=True)  # the method is there when the last one is written
    for voter, folder, source in zip(voters, folders, record.method_folders(method), strict=True):
        _write(voter, folder, source, stored, backbones, effort)
    where = scans or record.scans
    return {
        "lines": [
            *_changes(voters[0], record.method_folders(method)[0]),
            f"{run} has the method clicks now ({in_words('clicks', effort)}); its masks: medseg reconstruct {run} "
            f"{where} -o OUT --set reconstruct.method=clicks",
        ],
        "run": str(run),
        "effort": effort.as_dict(),
        "classes": parts.plain_classes(voters[0].naming),
        "split": sorted({k for k in voters[0].clicked.parent if voters[0].clicked.parent.count(k) > 1}),
    }


class _Stored:
    """Codes of the stored points that the clusters of a run were fitted to; read when they are first asked for."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._dataset: PatchDataset | None = None
        self._points: dict[int, PointSample] = {}

    def points(self, seed: int) -> PointSample:
        """The points of a voter."""
        if self._dataset is None:
            self._dataset = kept_patches(self._record)
        if seed not in self._points:
            asked = stego_settings(self._record.config)
            self._points[seed] = sample_points(
                self._dataset, asked.fit_points, asked.fit_salient_share, seed, salient_top=asked.salient_top
            )
        return self._points[seed]

    def codes(self, model: ClusterModel, seed: int) -> Float[Tensor, "n e"]:
        """Their codes by a voter's model."""
        points = self.points(seed)
        assert self._dataset is not None
        return points.features if model.head is None else codes_at(model.head, self._dataset, points)

    def measured(self, seed: int, backbones: Sequence[Any]) -> tuple[PointSample, dict[str, np.ndarray]]:
        """The points and what rules may ask of them."""
        points = self.points(seed)
        assert self._dataset is not None
        return points, measure_points(points, self._dataset, self._record.config, backbones)


def _classes(record: RunRecord, method: str, new_classes: Sequence[str]) -> list[ClassEntry]:
    """What clicks may name: the classes of the run's own naming, else of its rules, and new ones."""
    naming = record.config.naming
    entries: list[ClassEntry] = []
    if naming.source != "clusters":
        folder = record.method_folders(method)[0]
        entries = [*name_method(folder, naming, clusters=ClusterModel.load(folder).clusters).classes]
    elif naming.rules is not None:
        entries = [rule.entry for rule in load_rules(naming.rules)]
    for text in new_classes:
        name, equals, value = text.partition("=")
        if equals and not value.isdecimal():
            raise MedsegError(f"--new-class must be NAME or NAME=VALUE with a whole number, got {text}; correct it")
        number = int(value) if equals else 1 + max((entry.value for entry in entries), default=0)
        if name.strip() == BACKGROUND:
            raise MedsegError(f"--new-class must be another name than {BACKGROUND}, got it; it is known already")
        plain = {"value": number, "name": name.strip()}
        entries.append(class_entry(plain, position=len(entries), where=f"--new-class {text}"))
    require_distinct([replace(entry, clusters=()) for entry in entries], where="the classes of the run and --new-class")
    return [replace(entry, clusters=()) for entry in entries]


def _cases_of(clicks: Sequence[Click], record: RunRecord, scans: Path | None, intake: Intake) -> dict[str, Case]:
    """The scans that were clicked, by the names of their cases."""
    place = scans or record.scans
    if place is None or not place.exists():
        raise MedsegError(
            f"the scans of {record.folder} must be in reach, got {place or 'no place'}; name them with --scans"
        )
    found = {case.case_id: case for case in intake.cases(place, skip=(record.folder,)).cases}
    for click in clicks:
        if click.case not in found:
            near = difflib.get_close_matches(click.case, found, n=1, cutoff=0.4)
            raise MedsegError(
                f"case of a click must be one of the {len(found)} in {place}, got {printable(click.case)}; "
                f"{f'did you mean {near[0]}?' if near else 'correct it, or name other --scans'}"
            )
    return {click.case: found[click.case] for click in clicks}


def _grid_of(case: Case) -> Grid:
    """The grid of a case, of one frame where one was picked."""
    grid = read_grid(case.image, case.pick)
    one = is_picture(case.image) and case.pick.frame is not None
    return Grid(grid.name, (*grid.shape[:2], 1), grid.affine) if one else grid


def _codes_of(
    clicks: Sequence[Click],
    voxels: Sequence[tuple[int, int, int]],
    cases: Mapping[str, Case],
    models: Sequence[ClusterModel],
    record: RunRecord,
    backbones: Sequence[Any],
) -> list[Float[Tensor, "n e"]]:
    """The codes of clicks by each voter."""
    found = [torch.empty(len(clicks), model.prototypes.shape[1]) for model in models]
    for case_id, case in cases.items():
        mine = [n for n, click in enumerate(clicks) if click.case == case_id]
        _log.info("%s: %d click%s", case_id, len(mine), "s" if len(mine) > 1 else "")
        codes = features_at(
            case,
            np.array([voxels[n] for n in mine]),
            record,
            backbones,
            torch.device("cpu"),
            read=lambda features: torch.cat([model.codes(features) for model in models], dim=1),
        )
        for of_model, part in zip(found, codes.split([model.prototypes.shape[1] for model in models], 1), strict=True):
            of_model[mine] = part
    return found


def _click_voter(
    number: int,
    model: ClusterModel,
    codes: Float[Tensor, "n e"],
    clicks: Sequence[Click],
    known: Sequence[ClassEntry],
    method: str,
    record: RunRecord,
    stored: _Stored,
) -> _Voter:
    """The clusters of one voter after the clicks.

    Raises:
        MedsegError: two clicks with different classes look the same to the voter.
    """
    names = [click.name for click in clicks]
    if pair := same_codes(codes, names, model.metric):
        one, other = (clicks[n] for n in pair)
        raise MedsegError(f"{other} must look different from {one}, got the same code at both; leave one out")
    seed = record.config.run.seed + number
    clicked = clusters_of_clicks(codes, names, model.prototypes, model.metric, lambda: stored.codes(model, seed))
    own = record.config.naming
    before: dict[int, int] = {}
    if own.source != "clusters":  # where each cluster is a class of its own nobody has named one
        named = name_method(record.method_folders(method)[number], own, clusters=model.clusters)
        before = dict(named.class_of_cluster)
    value_of = {entry.name: entry.value for entry in known}
    value_of[BACKGROUND] = next((entry.value for entry in known if entry.background), 0)
    values = [
        before.get(parent, 0) if name is None else value_of[name]
        for parent, name in zip(clicked.parent, clicked.name, strict=True)
    ]
    entries = [
        replace(entry, clusters=tuple(n for n, value in enumerate(values) if value == entry.value)) for entry in known
    ]
    return _Voter(model, Naming(tuple(entries), "clicks"), before, clicked, seed)


def _write(
    voter: _Voter, folder: Path, source: Path, stored: _Stored, backbones: Sequence[Any], effort: Effort
) -> None:
    """Write the method of one voter; `classes.yaml`, written last, makes it whole."""
    model = voter.model
    clicked = ClusterModel(METHOD, model.head, voter.clicked.prototypes, model.metric, model.sharpness)
    clicked.save(folder)
    for name in ("features.json", "cards.json"):
        if (source / name).is_file():  # an imported checkpoint has no cards
            write_text(folder / name, (source / name).read_text(encoding="utf-8"))
    if voter.clicked.is_split:
        points, measured = stored.measured(voter.seed, backbones)
        assignments = clicked.assign_codes(stored.codes(model, voter.seed)).numpy()
        write_cards(folder, assignments, measured, points.case, clusters=clicked.clusters, labels=None)
    write_effort(folder, effort)
    write_classes(folder / "classes.yaml", voter.naming)


def _changes(voter: _Voter, source: Path) -> list[str]:
    """A line for each cluster of the first voter that was clicked, and one for the others."""
    name_of = {entry.value: entry.name for entry in voter.naming.classes} | {0: BACKGROUND}
    cards = read_record(source / "cards.json", "cards")["cards"] if (source / "cards.json").is_file() else []
    now = voter.naming.class_of_cluster
    lines = []
    for parent in sorted({k for k, name in zip(voter.clicked.parent, voter.clicked.name, strict=True) if name}):
        rows = [n for n, k in enumerate(voter.clicked.parent) if k == parent]
        share = f" ({cards[parent]['facts']['share']:.1%} of the sampled voxels)" if cards else ""
        was = name_of[voter.before.get(parent, 0)] if voter.before else "without a name"
        became = [name_of[now.get(n, 0)] for n in rows]
        if len(rows) > 1:
            numbers = ", ".join(f"{n} {name}" for n, name in zip(rows, became, strict=True))
            lines.append(f"cluster {parent}{share}, {was}, is split: now clusters {numbers}")
        elif became[0] == was:
            lines.append(f"cluster {parent}{share} is {was}, as it was")
        else:
            lines.append(f"cluster {parent}{share} was {was} and is {became[0]}")
    return [*lines, *(f"{entry.name}: {_listed(entry.clusters)}" for entry in voter.naming.classes if not entry.inside)]


def _listed(clusters: Sequence[int]) -> str:
    return f"cluster{'s' if len(clusters) > 1 else ''} {', '.join(map(str, clusters))}" if clusters else "no cluster"
