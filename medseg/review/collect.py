"""This file files what reviewers downloaded as labels: checked, one for each case, with everybody's own beside it.

    INTO/CASE_label.nii.gz                     the label of a case: `medseg score` and `medseg train` take it
    INTO/reviewers/NAME/CASE_label.nii.gz      the same of each reviewer; never taken with the folder above it, but
                                               `medseg score OUT INTO/reviewers/NAME` may be asked for
    INTO/decisions.json                        every decision: reviewer, time, comment ..., and the outcome of each case
    INTO/classes.yaml                          what the values mean

Pictures have `CASE_label.png`, cines `CASE_label.tif` with a page a frame. The label of a case that several reviewed is
the one they agree on; where they differ, that of the first one; where one rejects what another does not, there is none.
Of two decisions of the same reviewer the later one counts. What was filed before stays, and filing it again changes
nothing; so `INTO` may gather the cases of several result folders.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.files import hash_file, printable, read_record, require_folder, write_json
from medseg.review.decisions import SCHEMA, VERDICTS, Decision, is_decisions_file, read_decisions, reviewer_folder
from medseg.review.returned import LabelWriter
from medseg.scoring.overlap import dice

_log = logging.getLogger(__name__)

DECISIONS = "decisions.json"
REVIEWERS = "reviewers"
_MASK_ENDS = (".nii.gz", ".nii")
_COPY = re.compile(r" ?\((?P<number>\d+)\)(?=\.nii(\.gz)?$|\.gz$|\.json$)", re.IGNORECASE)
"""What browsers put into the name of a file that is there already."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*~\x00-\x1f\x7f]')
"""Letters for which browsers put `_` into the name of a download."""


@dataclass(frozen=True)
class _Reading:
    """A decision, where it was read, and the file of its mask where it has one.

    `is_filed`: an earlier call has checked and filed it.
    """

    decision: Decision
    place: Path
    mask: Path | None = None
    is_filed: bool = False

    @property
    def who(self) -> tuple[str, str]:
        """One reviewer of one case."""
        return self.decision.case, reviewer_folder(self.decision.reviewer)

    @property
    def where(self) -> str:
        """For messages."""
        return f"the decision of {self.decision.reviewer} on {self.decision.case} in {self.place}"


@dataclass(frozen=True)
class _Filed:
    """What an earlier call left: its decisions, and what became of each case."""

    readings: tuple[_Reading, ...] = ()
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def source_of(self, case: str) -> str | None:
        """Hash of the scan that the filed decisions on a case are about."""
        return next((r.decision.source_sha256 for r in self.readings if r.decision.case == case), None)


def collect(downloads: Path, into: Path, results: Path, manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Check decisions and corrected masks, and file them as labels.

    Args:
        downloads: a folder with decisions and masks, also in folders below it.
        into: where labels go; what an earlier call filed there is kept.
        results: the result folder that was reviewed.
        manifests: of its cases.

    Returns:
        `lines` for the terminal, `cases`: what became of each, `failed`: a line for each file or decision left out.

    Raises:
        MedsegError: there is no decision at all, or `into` cannot be used.
    """
    require_folder(into, "--into")
    if not downloads.is_dir():
        raise MedsegError(f"--collect must be a folder, got {downloads}; give the one with the downloads")
    writers = {str(manifest["case"]): LabelWriter(results, manifest) for manifest in manifests}
    failed: dict[str, str] = {}
    filed = _filed_before(into)
    found, masks = _found(downloads, into, failed)
    if not found and not failed:
        raise MedsegError(f"{downloads} must hold medseg_decisions.json, got none; download it from the review page")
    paired, unused = _with_masks(found, masks, failed)
    readings = [*_usable(paired, writers, filed, failed)]
    touched = {reading.decision.case for reading in readings}
    known = {_key(reading) for reading in readings}
    readings += [reading for reading in filed.readings if _key(reading) not in known]
    current = _latest(readings)
    cases, lines = dict(filed.cases), list[str]()
    for case in sorted(touched):
        of_case = [reading for reading in current if reading.decision.case == case]
        for reading in of_case:
            _file_reading(reading, into, writers[case])
        of_case.sort(key=lambda reading: (reading.decision.time, reading.who))
        cases[case], said = _settle(case, of_case, into, writers[case])
        lines += said
    if readings:
        _write_if_new(into / DECISIONS, lambda path: write_json(path, _content(readings, current, cases)))
    if cases and (results / "classes.yaml").is_file():
        _write_if_new(into / "classes.yaml", lambda path: shutil.copyfile(results / "classes.yaml", path))
    for line in failed.values():
        _log.error(line)
    lines = [_counts(current), *lines]
    lines += [f"{printable(path.name)} belongs to no decision and is left out" for path in sorted(unused)]
    undecided = writers.keys() - cases.keys()
    if undecided:
        lines.append(f"{len(undecided)} of {len(writers)} cases have no decision yet")
    labels = sum(outcome["label"] is not None for outcome in cases.values())
    return {"lines": [*lines, f"labels in {into}: {labels}"], "cases": cases, "failed": failed}


def _filed_before(into: Path) -> _Filed:
    """What an earlier call filed; a damaged list stops everything, because writing it anew would lose it."""
    path = into / DECISIONS
    if not path.exists():
        return _Filed()
    content = read_record(path, "decisions", "cases", advice="restore it, or choose another --into")
    decisions, failed = read_decisions(path)
    if failed or not isinstance(content["cases"], dict):
        why = next(iter(failed.values()), "no cases")
        raise MedsegError(f"{path} must be as it was written, got damage ({why}); restore it, or choose another --into")
    return _Filed(tuple(_Reading(decision, path, is_filed=True) for decision in decisions), content["cases"])


def _found(downloads: Path, into: Path, failed: dict[str, str]) -> tuple[list[_Reading], list[Path]]:
    """Decisions and corrected masks below a folder; links are not followed, nor is what was filed taken again."""
    readings: list[_Reading] = []
    masks: list[Path] = []
    for path in _files(downloads, into.resolve()):
        if is_decisions_file(path):
            try:
                decisions, wrong = read_decisions(path)
            except (MedsegError, OSError) as error:
                failed[str(path)] = printable(str(error))
                continue
            failed |= wrong
            readings += [_Reading(decision, path) for decision in decisions]
        elif _plain_name(path.name).endswith(_MASK_ENDS):
            masks.append(path)
    return readings, masks


def _files(folder: Path, skip: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if (Path(place) / name).resolve() != skip]
        yield from (path for name in sorted(names) if not (path := Path(place) / name).is_symlink() and path.is_file())


def _with_masks(
    readings: Sequence[_Reading], masks: Sequence[Path], failed: dict[str, str]
) -> tuple[list[_Reading], set[Path]]:
    """Find the file of each corrected mask; two reviewers, or two cases, cannot share one."""
    paired = []
    for reading in readings:
        try:
            paired.append(reading if reading.decision.mask is None else replace(reading, mask=_mask_of(reading, masks)))
        except MedsegError as error:
            _fail(failed, reading, error)
    owners: dict[Path, set[tuple[str, str]]] = {}
    for reading in paired:
        if reading.mask is not None:
            owners.setdefault(reading.mask, set()).add(reading.who)
    shared = {path: who for path, who in owners.items() if len(who) > 1}
    for path, who in shared.items():
        names = " and ".join(sorted(f"{reviewer} ({case})" for case, reviewer in who))
        failed[str(path)] = printable(
            f"{path} must be the mask of one decision, got {names}; give the downloads of each reviewer a folder of "
            "their own"
        )
    return [reading for reading in paired if reading.mask not in shared], set(masks) - set(owners)


def _mask_of(reading: _Reading, masks: Sequence[Path]) -> Path:
    """The mask that a decision names: in its own folder if there is one, and of several the copy of the same number."""
    assert reading.decision.mask is not None
    wanted = _plain_name(reading.decision.mask)
    fitting = [path for path in masks if _plain_name(path.name) == wanted]
    near = [path for path in fitting if path.parent == reading.place.parent] or fitting
    same = [path for path in near if _copy_number(path.name) == _copy_number(reading.place.name)]
    chosen = near if len(near) == 1 else same
    if len(chosen) != 1:
        got = f"{len(near)} of that name" if near else "none"
        raise MedsegError(
            f"{reading.where} must have its mask {reading.decision.mask} beside it, got {got}; download both again"
        )
    return chosen[0]


def _usable(
    readings: Iterable[_Reading], writers: Mapping[str, LabelWriter], filed: _Filed, failed: dict[str, str]
) -> list[_Reading]:
    """Decisions on these masks of these scans whose own masks fit; each once."""
    kept: dict[tuple[Any, ...], _Reading] = {}
    for reading in readings:
        if _key(reading) in kept:
            continue
        try:
            _require_same_result(reading, writers.get(reading.decision.case), filed)
            writers[reading.decision.case].require_mask(reading.mask)
            kept[_key(reading)] = reading
        except MedsegError as error:
            _fail(failed, reading, error)
    return list(kept.values())


def _require_same_result(reading: _Reading, writer: LabelWriter | None, filed: _Filed) -> None:
    decision = reading.decision
    if writer is None:
        raise MedsegError(f"{reading.where} must be on a case of these results, got another; name its result folder")
    for key, what in (("source_sha256", "scan"), ("run_hash", "model")):
        if getattr(decision, key) != writer.manifest[key]:
            raise MedsegError(
                f"{reading.where} must be on the {what} of these results, got another one; name the result folder that "
                "was reviewed"
            )
    if filed.source_of(decision.case) not in (None, decision.source_sha256):
        raise MedsegError(
            f"{reading.where} must be on the scan that --into has decisions on, got another one of that name; choose "
            "another --into"
        )


def _latest(readings: Sequence[_Reading]) -> list[_Reading]:
    """Of each reviewer and case the last decision."""
    last: dict[tuple[str, str], _Reading] = {}
    for reading in readings:
        before = last.get(reading.who)
        if before is None or reading.decision.time > before.decision.time:
            last[reading.who] = reading
    return [last[who] for who in sorted(last)]


def _file_reading(reading: _Reading, into: Path, writer: LabelWriter) -> None:
    path = into / _place_of(reading, writer)
    if reading.decision.verdict == "reject":
        path.unlink(missing_ok=True)
    elif not reading.is_filed:
        _write_if_new(path, lambda beside: writer.write(beside, reading.mask))


def _settle(
    case: str, readings: Sequence[_Reading], into: Path, writer: LabelWriter
) -> tuple[dict[str, Any], list[str]]:
    """The label of a case, from what its reviewers say, the first one first; and what is to be said of it."""
    label, shown = into / writer.name, printable(case)
    names = [reading.decision.reviewer for reading in readings]
    outcome: dict[str, Any] = {"label": None, "reviewers": names, "outcome": "rejected", "dice": {}}
    rejecting = [reading.decision for reading in readings if reading.decision.verdict == "reject"]
    if rejecting:
        label.unlink(missing_ok=True)
        by = " and ".join(decision.reviewer for decision in rejecting)
        why = "; ".join(decision.comment for decision in rejecting if decision.comment)
        said = f"{shown}: rejected by {printable(by)}" + (f" ({printable(why)})" if why else "")
        if len(rejecting) < len(readings):
            return outcome | {"outcome": "disputed"}, [f"{said}, but not by all; no label until they agree"]
        return outcome, [f"{said}; no label"]
    first, *others = (into / _place_of(reading, writer) for reading in readings)
    own = writer.read(first)
    _write_if_new(label, lambda path: shutil.copyfile(first, path))
    outcome |= {"label": writer.name, "outcome": "agreed" if others else "one reviewer"}
    lines = []
    for name, other in zip(names[1:], others, strict=True):
        theirs = writer.read(other)
        is_same = np.array_equal(own, theirs)
        overlap = 1.0 if is_same else dice(writer.is_finding(own), writer.is_finding(theirs))
        outcome["dice"][name] = None if np.isnan(overlap) else round(overlap, 4)
        if not is_same:
            outcome["outcome"] = "differ"
            pair = printable(f"{names[0]} and {name}")
            lines.append(f"{shown}: {pair} differ (Dice {overlap:.3f}); {printable(writer.name)} is of the first")
    return outcome, lines


def _content(
    readings: Sequence[_Reading], current: Sequence[_Reading], cases: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The list of decisions; one that another decision of the same reviewer replaced is kept and does not count."""
    ordered = sorted(readings, key=lambda reading: (*reading.who, reading.decision.time))
    entries = [{**reading.decision.as_dict(), "counts": reading in current} for reading in ordered]
    return {"schema": SCHEMA, "decisions": entries, "cases": {case: dict(cases[case]) for case in sorted(cases)}}


def _counts(current: Sequence[_Reading]) -> str:
    reviewers = len({reading.who[1] for reading in current})
    verdicts = [reading.decision.verdict for reading in current]
    counts = ", ".join(f"{verdicts.count(verdict)} {word}" for verdict, word in VERDICTS.items())
    who = "1 reviewer" if reviewers == 1 else f"{reviewers} reviewers"
    return f"{len(verdicts)} {'decision' if len(verdicts) == 1 else 'decisions'} of {who}: {counts}"


def _fail(failed: dict[str, str], reading: _Reading, error: MedsegError) -> None:
    failed[f"{reading.place}: {reading.decision.case}, {reading.decision.time}"] = printable(str(error))


def _key(reading: _Reading) -> tuple[Any, ...]:
    """By which a decision that was read twice is known."""
    return *reading.who, reading.decision.time, reading.decision.verdict


def _place_of(reading: _Reading, writer: LabelWriter) -> Path:
    return Path(REVIEWERS) / reading.who[1] / writer.name


def _plain_name(name: str) -> str:
    """A file name without what browsers make of it."""
    return _FORBIDDEN.sub("_", _COPY.sub("", name)).casefold()


def _copy_number(name: str) -> int:
    found = _COPY.search(name)
    return int(found["number"]) if found else 0


def _write_if_new(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there, unless the same is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".collect_", dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        write(made)
        if not path.is_file() or hash_file(path) != hash_file(made):
            made.replace(path)
