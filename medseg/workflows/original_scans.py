"""This file finds the scans that the masks of a result folder were made of.

A scan is known by its content: the manifest holds its hash. It is sought where the manifest names it, then by its case,
then among all others, because results may carry pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_record
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import find_cases
from medseg.scans.picks import Pick
from medseg.scans.sources import hash_scan


class OriginalScans:
    """The scans of a result folder; files are hashed when they are needed, each once.

    Args:
        out: result folder.
        given: the scans; where they were read from when None.

    Attributes:
        place: where the scans are; None where results under pseudonyms do not tell.

    Raises:
        MedsegError: `given` is not there; without it, `summary.json` is missing or damaged.
    """

    def __init__(self, out: Path, given: Path | None = None) -> None:
        if given is not None and not given.exists():
            raise MedsegError(f"--scans must be a folder or a file that is there, got {given}; check the name")
        self._out, self.is_given = out, given is not None
        self.place = given
        if given is None:
            place = read_record(out / "summary.json", advice="name the scans with --scans").get("scans")
            self.place = None if place is None else Path(str(place))
        self._listings: dict[Pick, Listing] = {}
        self._hashes: dict[tuple[Path, Pick], str | None] = {}

    def find(self, manifest: Mapping[str, Any]) -> Case | None:
        """The scan of a case, if one with its content is there."""
        wanted = manifest["source_sha256"]
        return next((case for case in self._likely(manifest) if self._hash(case) == wanted), None)

    def called(self, manifest: Mapping[str, Any]) -> Case | None:
        """The scan that is called like that of a case, whatever its content."""
        return next((case for case in self._likely(manifest) if case.case_id == manifest["case"]), None)

    def require(self, manifest: Mapping[str, Any]) -> Case:
        """The scan of a case.

        Raises:
            MedsegError: it is not there, or has changed since.
        """
        found = self.find(manifest)
        if found is None:
            if self.place is None:
                raise MedsegError(
                    f"the scan of {manifest['case']} must be in reach, got results under pseudonyms, which do not "
                    "say where scans are; name them with --scans"
                )
            raise MedsegError(
                f"the scan of {manifest['case']} must be {manifest['source']} as its mask was made of it, got none "
                f"with that content in {self.place}; name the scans with --scans"
            )
        return found

    def _likely(self, manifest: Mapping[str, Any]) -> list[Case]:
        """All scans, the one at the named place first, then the one with the name of the case."""
        if self.place is None:
            return []
        named = (self.place if self.place.is_dir() else self.place.parent) / manifest["source"]
        cases = list(self.listing(pick_of(manifest)).cases)
        if named.is_file() and all(case.image != named for case in cases):  # it takes no folder to score one file
            cases.append(Case(manifest["case"], named, manifest["case"], pick=pick_of(manifest)))
        return sorted(cases, key=lambda case: (case.image != named, case.case_id != manifest["case"]))

    def listing(self, pick: Pick) -> Listing:
        """All scans, found with what was picked of them."""
        if pick not in self._listings:
            try:
                if self.place is None:
                    raise MedsegError("no place is known")
                self._listings[pick] = find_cases(self.place, pick=pick, skip=(self._out,))
            except MedsegError:  # they have gone since; each case says what it lacks
                self._listings[pick] = Listing((), {})
        return self._listings[pick]

    def _hash(self, case: Case) -> str | None:
        key = case.image, case.pick
        if key not in self._hashes:
            try:
                self._hashes[key] = hash_scan(*key)
            except (OSError, MedsegError):
                self._hashes[key] = None
        return self._hashes[key]


def pick_of(manifest: Mapping[str, Any]) -> Pick:
    """What was taken of a scan that holds several volumes."""
    return Pick(**manifest.get("pick", {}))
