"""This file takes in what a user gives: it finds the cases, and gives them pseudonyms where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """

    pick: Pick = WHOLE
    pseudonyms: Path | None = None
    keep_identity: bool = False

    def cases(self, scans: Path | Sequence[Path], *, skip: Sequence[Path]) -> Listing:
        """The cases of `scans`, under the names that results will carry.

        Args:
            scans: what `find_cases` takes.
            skip: folders of results: what lies there is no scan, and the key may not lie there.

        Raises:
            MedsegError: no usable case is there, or the key cannot be used.
        """
        if self.pseudonyms is None:
            return find_cases(scans, pick=self.pick, skip=skip)
        for folder in skip:
            require_key_elsewhere(self.pseudonyms, folder)
        return pseudonymised(find_cases(scans, pick=self.pick, skip=skip), self.pseudonyms)


AS_IT_IS = Intake()
"""Nothing picked, names as they are."""
