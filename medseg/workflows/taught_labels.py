"""This file gathers the few labels that teach a probe: masks, rough masks and clicks of named cases, and their effort.

A case that the run holds out is never among them. What is gathered is checked before anything long begins.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from medseg.config import Prepare
from medseg.errors import MedsegError
from medseg.fewshot.places import UNKNOWN, choose_slices
from medseg.files import printable
from medseg.naming.classes import ClassEntry, Naming, colour_of
from medseg.naming.clicks import (
    BACKGROUND,
    Click,
    read_clicks,
    read_minutes,
    require_consistent,
    voxel_of,
)
from medseg.naming.effort import Effort
from medseg.review.collect import DECISIONS
from medseg.review.decisions import read_decisions
from medseg.runs import RunRecord
from medseg.scans.arrays import read_grid, read_label_values
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import find_references
from medseg.scans.schemes import LabelScheme
from medseg.scans.sources import hash_scan
from medseg.workflows.checking import usable
from medseg.workflows.labels import labels_of, meaning_of, scheme_of
from medseg.workflows.rough_labels import (
    FILE_BACKGROUND,
    FILE_VESSEL,
    effort_of_annotations,
    read_rough_labels,
    rough_label_files,
)
from medseg.workflows.voxel_features import prepared_voxels

_log = logging.getLogger(__name__)

DRAWN = "drawn"
"""Asks for the slices of a mask in which something is drawn, as of somebody who drew a few slices only."""


@dataclass(frozen=True)
class Sources:
    """Where labels come from.

    Attributes:
        labels: folder, datalist, CSV or one mask.
        slices: how many axial slices of each mask count, or `DRAWN`; None: the whole mask.
        rough: folder of rough masks, by `medseg annotate`.
        clicks: named places.
        decisions: file or folder of the review page, whose clicks and times are added.
        minutes: that everything took; None: what pages measured, where they measured all of it.
    """

    labels: Path | None = None
    slices: int | str | None = None
    rough: Path | None = None
    clicks: Sequence[Click] = ()
    decisions: Path | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Gathered:
    """Labels that were checked.

    Attributes:
        cases: those with a label, without those that the run holds out.
        files: mask of a case.
        rough: rough mask of a case.
        clicks: of a case, with the stored voxel of each.
        scheme: what values of masks mean, where it is said.
        classes: what is taught; class number n has the n-th.
        effort: what people gave.
        slices: see `Sources`.
    """

    cases: tuple[Case, ...]
    files: Mapping[str, Path]
    rough: Mapping[str, Path]
    clicks: Mapping[str, Sequence[tuple[Click, tuple[int, int, int]]]]
    scheme: LabelScheme | None
    classes: tuple[ClassEntry, ...]
    effort: Effort
    slices: int | str | None = field(default=None)

    @property
    def named_by(self) -> str:
        """`training_labels` where there is a mask, else `clicks`."""
        return "training_labels" if self.files else "clicks"

    def labels(self, case: Case, sample: Mapping[str, Any], prepare: Prepare) -> tuple[Int8[np.ndarray, "i j k"], int]:
        """Class number of each voxel of a prepared scan, and how many slices of its mask count.

        A click wins over a mask, and a mask over a rough one.
        """
        shape = sample["image"].shape[1:]
        found, slices = np.full(shape, UNKNOWN, np.int8), 0
        if case.case_id in self.rough:
            stored = labels_of(self.rough[case.case_id], case, prepare, None)
            vessel = self._number_of_name(_first(self.classes).name)
            found[stored == FILE_VESSEL], found[stored == FILE_BACKGROUND] = vessel, 0
        if case.case_id in self.files:
            values = labels_of(self.files[case.case_id], case, prepare, self.scheme)
            numbers = np.full(256, UNKNOWN, np.int8)
            numbers[0] = 0
            for number, entry in enumerate(self.classes, start=1):
                numbers[entry.value] = number
            drawn = np.where(values < 0, UNKNOWN, numbers[values.clip(0)])
            kept = self._kept_slices(drawn, sample)
            slices = len(kept)
            found[..., kept] = np.where(drawn[..., kept] == UNKNOWN, found[..., kept], drawn[..., kept])
        clicks = self.clicks.get(case.case_id, ())
        if clicks:
            places = prepared_voxels(sample, np.array([voxel for _, voxel in clicks]))
            for (click, _), place in zip(clicks, places.tolist(), strict=True):
                if min(place) < 0 or not sample["region"][0][tuple(place)]:
                    raise MedsegError(f"{click} must lie where one looks, got a place outside the region; leave it out")
                found[tuple(place)] = self._number_of_name(click.name)
        found[np.asarray(sample["region"][0]) == 0] = UNKNOWN
        return found, slices

    def _kept_slices(self, drawn: np.ndarray, sample: Mapping[str, Any]) -> np.ndarray:
        if self.slices is None:
            return np.arange(drawn.shape[2])
        if self.slices == DRAWN:
            return np.flatnonzero((drawn > 0).any((0, 1)))
        region = np.asarray(sample["region"][0]) > 0
        chosen = choose_slices(np.asarray(sample["salience"][0]), region, int(self.slices))
        said = ", ".join(str(number + 1) for number in chosen)
        _log.info("%s: axial slices %s are taken, spread evenly, where most stands out", sample["case_id"], said)
        return chosen

    def _number_of_name(self, name: str) -> int:
        names = [entry.name for entry in self.classes]
        return 0 if name == BACKGROUND else names.index(name) + 1


def gather_labels(
    sources: Sources, record: RunRecord, listing: Listing, naming: Naming, *, wanted: Collection[str] | None
) -> Gathered:
    """Find and check the labels of some cases.

    Args:
        sources: where they come from.
        record: of the run.
        listing: the scans.
        naming: the label-free classes.
        wanted: names of cases; None: every case with a label that the run does not hold out.

    Raises:
        MedsegError: no case is left, or a label cannot be used.
    """
    if sources.labels is None and sources.rough is None and not sources.clicks and sources.decisions is None:
        raise MedsegError("a label must be given, got none; name --labels, --rough, --decisions, or --click a place")
    if sources.slices is not None and sources.labels is None:
        raise MedsegError("--slices must go with --labels, whose slices they are, got none; leave it out")
    if sources.slices is not None and sources.slices != DRAWN and int(sources.slices) < 1:
        raise MedsegError(f"--slices must be at least 1, got {sources.slices}; 3 is a good start")
    references = find_references(sources.labels, scheme=record.config.naming.classes) if sources.labels else None
    masks = {} if references is None else {c.case_id: p for c in listing.cases if (p := references.of(c.case_id))}
    rough = rough_label_files(sources.rough) if sources.rough else {}
    clicks = [*sources.clicks, *(read_clicks(sources.decisions) if sources.decisions else ())]
    known = {case.case_id for case in listing.cases}
    if strange := [click for click in clicks if click.case not in known]:
        raise MedsegError(f"{strange[0]} must be in a case of the scans, got none of that name; {_some(known)}")
    with_label = {*masks, *rough, *(click.case for click in clicks)}
    cases = _cases(with_label, record, listing, wanted)
    names = {case.case_id for case in cases}
    files = {name: path for name, path in masks.items() if name in names}
    rough = {name: path for name, path in rough.items() if name in names}
    clicks = [click for click in clicks if click.case in names]
    scheme = scheme_of(record.config.naming, references.scheme if references else None)
    _, unfit = usable(cases, files, scheme)
    if unfit:
        raise MedsegError(next(iter(unfit.values())))
    for case in cases:
        if case.case_id in rough:
            read_rough_labels(rough[case.case_id], read_grid(case.image, case.pick))
    classes = _classes(files, rough, clicks, scheme, naming)
    of_id = {case.case_id: case for case in cases}
    voxels = [voxel_of(click, read_grid(of_id[click.case].image, of_id[click.case].pick)) for click in clicks]
    require_consistent(clicks, voxels)
    by_case = {
        name: [(click, voxel) for click, voxel in zip(clicks, voxels, strict=True) if click.case == name]
        for name in {click.case for click in clicks}
    }
    effort = _effort(sources, files, rough, clicks)
    return Gathered(cases, files, rough, by_case, scheme, classes, effort, sources.slices)


def _cases(
    with_label: Collection[str], record: RunRecord, listing: Listing, wanted: Collection[str] | None
) -> tuple[Case, ...]:
    """The cases to learn from."""
    known = {case.case_id: case for case in listing.cases}
    for name in wanted or ():
        if name not in known or name not in with_label:
            what = "of the scans" if name not in known else "with a label"
            have = _some(known if name not in known else with_label)
            raise MedsegError(f"--cases must name cases {what}, got {printable(name)}; {have}")
    for name in with_label - known.keys() if wanted is None else ():
        _log.warning("%s: there is a label of it, but no scan", printable(name))
    chosen = [case for name, case in known.items() if name in with_label and (wanted is None or name in wanted)]
    held_out = {entry["sha256"] for entry in record.inputs.values() if entry["split"] == "held_out"}
    kept = [case for case in chosen if hash_scan(case.image, case.pick) not in held_out]
    left_out = [case.case_id for case in chosen if case not in kept]
    if left_out and wanted is not None:
        raise MedsegError(
            f"--cases must name cases that the run does not hold out, got {printable(left_out[0])}; it is there to be "
            "scored"
        )
    for name in left_out:
        _log.info("%s is held out by the run: its label is not read", printable(name))
    if not kept:
        raise MedsegError(
            f"labels must be of cases in the scans, got none; {_some(known)}: name labels like their scans"
        )
    return tuple(kept)


def _some(names: Collection[str]) -> str:
    """The first few names, for messages."""
    return f"there is {', '.join(sorted(map(printable, names))[:5]) or 'none'}"


def _classes(
    files: Mapping[str, Path],
    rough: Mapping[str, Path],
    clicks: Sequence[Click],
    scheme: LabelScheme | None,
    naming: Naming,
) -> tuple[ClassEntry, ...]:
    """The classes that the labels hold, under the names of the run where they have no others.

    Raises:
        MedsegError: a mask is empty, or holds a value that means nothing; a click names no class.
    """
    is_named = naming.named_by != "clusters"
    own = list(naming.classes) if is_named else []
    values: dict[int, Path] = {}
    for path in files.values():
        there = [int(value) for value in np.unique(read_label_values(path, scheme)[0]) if value > 0]
        if not there:
            raise MedsegError(f"{path} must have something drawn on it, got background only; leave the case out")
        values |= dict.fromkeys(there, path)
    meant = {entry.value: entry for entry in (meaning_of(scheme) or own)}
    if not meant and values:
        meant = {value: ClassEntry(value, f"class {value}", colour_of(value - 1)) for value in sorted(values)}
    elif not meant and rough:
        meant = {FILE_VESSEL: ClassEntry(FILE_VESSEL, "vessel", colour_of(0))}
    elif not meant:
        names = dict.fromkeys(click.name for click in clicks if click.name != BACKGROUND)
        meant = {value: ClassEntry(value, name, colour_of(value - 1)) for value, name in enumerate(names, start=1)}
    if strange := [value for value in values if value not in meant]:
        known = ", ".join(f"{entry.value} {entry.name}" for entry in meant.values())
        raise MedsegError(
            f"{values[strange[0]]} must hold the classes {known}, got the value {strange[0]}; say what it means in a "
            "classes.yaml beside the labels"
        )
    meant = _as_in_run(meant, own)
    clicked = {click.name for click in clicks} - {BACKGROUND}
    names_known = [entry.name for entry in meant.values()]
    if unknown := sorted(clicked.difference(names_known)):
        known = ", ".join([*names_known, BACKGROUND])
        raise MedsegError(f"class of a click must be one of {known}, got {printable(unknown[0])}; correct the click")
    if not meant:
        raise MedsegError("clicks must name a class, got background only; click something of each class")
    taught = [entry for entry in meant.values() if entry.value in values or entry.name in clicked]
    if (rough or not taught) and not any(entry == _first(list(meant.values())) for entry in taught):
        taught.append(_first(list(meant.values())))
    return tuple(sorted(taught, key=lambda entry: entry.value))


def _as_in_run(meant: Mapping[int, ClassEntry], own: Sequence[ClassEntry]) -> dict[int, ClassEntry]:
    """The classes with what the run knows of them: by their names, or because both know one only."""
    by_name = {entry.name: entry for entry in own}
    sought = [entry for entry in own if not entry.background and not entry.inside]
    if len(sought) == len(meant) == 1 and (entry := next(iter(meant.values()))).name not in by_name:
        _log.info("the labels' %s is taken for the run's %s", entry.name, sought[0].name)
        return {entry.value: replace(sought[0], value=entry.value)}
    return {
        value: replace(by_name[entry.name], value=value, inside=None) if entry.name in by_name else entry
        for value, entry in meant.items()
    }


def _first(classes: Sequence[ClassEntry]) -> ClassEntry:
    """What is sought first: rough masks are of it."""
    return next((entry for entry in classes if not entry.background), classes[0])


def _effort(sources: Sources, files: Mapping[str, Path], rough: Mapping[str, Path], clicks: Sequence[Click]) -> Effort:
    """What was given; how many slices only the scans tell."""
    counts: dict[str, int] = {}
    minutes: list[float | None] = []
    if files:
        counts["cases"] = len(files)
        minutes.append(_minutes_of_review(sources.labels, files))
    if rough:
        assert sources.rough is not None
        ticked = effort_of_annotations(sources.rough, set(rough))
        counts |= ticked.counts
        minutes.append(ticked.minutes)
    if clicks:
        counts["clicks"] = len(dict.fromkeys(clicks))
        counted = set(files) if files and minutes[0] is not None else set()  # a review counts once
        measured = sources.decisions is not None and not sources.clicks
        cases = {click.case for click in clicks} - counted
        minutes.append(read_minutes(sources.decisions, cases) if measured and sources.decisions else None)
    if sources.minutes is not None:
        return Effort(counts, sources.minutes)
    known = [spent for spent in minutes if spent is not None]
    return Effort(counts, round(sum(known), 2) if len(known) == len(minutes) else None)


def _minutes_of_review(labels: Path | None, files: Mapping[str, Path]) -> float | None:
    """Minutes that reviewers spent on these cases, where the masks are those that `medseg review --collect` filed."""
    path = None if labels is None else labels / DECISIONS
    if path is None or not path.is_file():
        return None
    decisions, _ = read_decisions(path)
    if not files.keys() <= {decision.case for decision in decisions}:
        return None
    return sum(decision.seconds for decision in decisions if decision.case in files) / 60
