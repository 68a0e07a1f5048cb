"""This file holds what was found in the scans a user gave, and splits cases by patient.

A *case* is one scan to segment; it has no field for a label, so that no code on the way from scan to
mask can be handed one. Labels live in `Listing.labels` and go to scoring and reported probes only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.scans.names import is_picture
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.schemes import LabelScheme

_log = logging.getLogger(__name__)
_CASES_SHOWN = 20


@dataclass(frozen=True)
class Case:
    """One scan.

    Args:
        case_id: unique name, also on file systems where upper and lower case are the same.
        image: the scan.
        patient: whose scan it is.
        mask: a given brain mask.
        mask_mode: what a CSV asks for instead of one: `none`, `builtin` or `deepbet`.
        split: `train`, `val` or `test` where folders or a datalist give it.
        pick: what to take of a file that holds several volumes.
        alias: what results call the file instead of its path, where names are not to be told.
    """

    case_id: str
    image: Path
    patient: str
    mask: Path | None = None
    mask_mode: str | None = None
    split: str | None = None
    pick: Pick = WHOLE
    alias: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Args:
        cases: the usable cases, sorted by name.
        labels: label file of those cases that have one.
        problems: name and one-line error of each unusable case.
        notes: what was ignored and why, and what lacks a partner.
        scheme: what the values and colours of label pictures mean, where the data set or the user says it.
    """

    cases: tuple[Case, ...]
    labels: Mapping[str, Path]
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    scheme: LabelScheme | None = None

    def describe(self) -> list[str]:
        """Plain lines for a terminal: counts, the first cases with their partners, and notes; no problems."""
        number_of_patients = len({case.patient for case in self.cases})
        masks = sum(case.mask is not None for case in self.cases)
        counts = [f"{_count(len(self.cases), 'case')} of {_count(number_of_patients, 'patient')}"]
        if masks or not all(is_picture(case.image) for case in self.cases):
            counts.append(f"{masks} with a brain mask")
        lines = [", ".join([*counts, f"{len(self.labels)} with a label"])]
        if self.scheme:
            lines.append(
                f"  labels are read as {self.scheme.name}: {_count(len(self.scheme.classes), 'class', 'classes')}"
            )
        lines += [f"  {self._describe(case)}" for case in self.cases[:_CASES_SHOWN]]
        if len(self.cases) > _CASES_SHOWN:
            lines.append(f"  ... and {len(self.cases) - _CASES_SHOWN} more")
        return lines + [f"  note: {note}" for note in self.notes]

    def _describe(self, case: Case) -> str:
        facts = [f"patient {case.patient}"]
        facts += [f"given for {case.split}"] if case.split else []
        facts += ["brain mask"] if case.mask else [f"brain mask {case.mask_mode}"] if case.mask_mode else []
        facts += ["label"] if case.case_id in self.labels else []
        return f"{case.case_id}: {', '.join(facts)}"


def split_by_patient(
    cases: Sequence[Case], *, validation_fraction: float, seed: int
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Divide cases into training and validation so that no patient is in both.

    Splits that folders or a datalist give win, and cases given for testing are in neither part. All
    other patients are drawn with the seed, whatever the order of the cases. At least one patient
    stays for training; with two or more, a fraction above 0 gives at least one for validation.

    Args:
        cases: the cases.
        validation_fraction: share of the patients, 0 to 1.
        seed: of the draw.

    Returns:
        The training and the validation cases, in the order given; one case alone is for training.
    """
    given = {split: {case.patient for case in cases if case.split == split} for split in ("train", "val", "test")}
    shared = (given["train"] & given["val"]) | (given["train"] & given["test"]) | (given["val"] & given["test"])
    if shared:
        _log.warning("patient %s is in more than one of the given train, val and test sets", ", ".join(sorted(shared)))
    free = sorted(
        {case.patient for case in cases if case.split is None} - given["train"] - given["val"] - given["test"]
    )
    wanted = round(validation_fraction * len(free))
    if validation_fraction > 0 and len(free) > 1:
        wanted = min(max(wanted, 1), len(free) - 1)
    drawn = set(np.random.default_rng(seed).permutation(free)[: wanted if len(free) > 1 else 0].tolist())
    drawn |= given["val"] - given["train"]
    validation = tuple(case for case in cases if case.split == "val" or (case.split is None and case.patient in drawn))
    held_out = {case.case_id for case in validation} | {case.case_id for case in cases if case.split == "test"}
    held_out |= {case.case_id for case in cases if case.split is None and case.patient in given["test"]}
    return tuple(case for case in cases if case.case_id not in held_out), validation


def _count(number: int, noun: str, several: str | None = None) -> str:
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"
