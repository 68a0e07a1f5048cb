"""This file takes in what a user gives: it finds the cases, and gives them pseudonyms where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.scans.cases import Listing
from medseg.scans.folders import find_cases
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.pseudonyms import pseudonymised, require_key_elsewhere


@dataclass(frozen=True)
class Intake:
    """How cases are taken in.

    Attributes:
        pick: what to take of files that hold several volumes.
        pseudonyms: the key that says which pseudonym is whose; None keeps the names of files.
        keep_identity: hand down the free text of headers, which may name the patient.
        split: `train` or `val` by case, instead of a draw; cases that it does not name are left out. None draws.
        results: folders in which nothing is a scan, besides those that a command names itself.
    """

    pick: Pick = WHOLE
    pseudonyms: Path | None = None
    keep_identity: bool = False
    split: Mapping[str, str] | None = None
    results: tuple[Path, ...] = ()

    def cases(self, scans: Path | Sequence[Path], *, skip: Sequence[Path]) -> Listing:
        """The cases of `scans`, under the names that results will carry.

        Args:
            scans: what `find_cases` takes.
            skip: folders of results: what lies there is no scan, and the key may not lie there.

        Raises:
            MedsegError: no usable case is there, or the key cannot be used.
        """
        skip = (*skip, *self.results)
        listing = find_cases(scans, pick=self.pick, skip=skip)
        if self.pseudonyms is not None:
            for folder in skip:
                require_key_elsewhere(self.pseudonyms, folder)
            listing = pseudonymised(listing, self.pseudonyms)
        if self.split is None:
            return listing
        split = self.split
        cases = tuple(replace(case, split=split[case.case_id]) for case in listing.cases if case.case_id in split)
        return replace(listing, cases=cases, problems=(), notes=())  # said by whoever made the split


AS_IT_IS = Intake()
"""Nothing picked, names as they are."""
