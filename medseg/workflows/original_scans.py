"""This file finds the scans that the masks of a result folder were made of.

A scan is known by its content: the manifest holds its hash. It is sought where the manifest names it, then by its case,
then among all others, because results may carry pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import find_cases
from medseg.scans.picks import Pick
from medseg.scans.sources import hash_scan


class OriginalScans:
    """The scans of a result folder; files are hashed when they are needed, each once.

    Args:
        out: result folder.
        given: the scans; where they were read from when None.

    Raises:
        MedsegError: `given` is not there.
    """

    def __init__(self, out: Path, given: Path | None = None) -> None:
        if given is not None and not given.exists():
            raise MedsegError(f"--scans must be a folder or a file that is there, got {given}; check the name")
        self._out, self._given = out, given
        self._listings: dict[Pick, Listing] = {}
        self._hashes: dict[tuple[Path, Pick], str | None] = {}

    @cached_property
    def place(self) -> Path | None:
        """Where the scans are; None where that was not written down, or nothing is there any more."""
        if self._given is not None:
            return self._given
        try:
            place = Path(str(read_json(self._out / "summary.json")["scans"]))
        except (MedsegError, KeyError, TypeError):
            return None
        return place if place.exists() else None

    def find(self, manifest: Mapping[str, Any]) -> Case | None:
        """The scan of a case, if one with its content is there."""
        if self.place is None:
            return None
        wanted, pick = manifest["source_sha256"], pick_of(manifest)
        case_id = manifest["case"]
        named = (self.place if self.place.is_dir() else self.place.parent) / manifest["source"]
        if named.is_file() and self._hash(named, pick) == wanted:
            return Case(case_id, named, case_id, pick=pick)
        listed = sorted(self.listing(pick).cases, key=lambda case: case.case_id != case_id)
        return next((case for case in listed if self._hash(case.image, pick) == wanted), None)

    def require(self, manifest: Mapping[str, Any]) -> Case:
        """The scan of a case.

        Raises:
            MedsegError: it is not there, or has changed since.
        """
        found = self.find(manifest)
        if found is None:
            raise MedsegError(
                f"the scan of {manifest['case']} must be {manifest['source']} as its mask was made of it, got none of "
                f"that content in {self.place or 'a place that is known'}; name the scans with --scans"
            )
        return found

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

    def _hash(self, path: Path, pick: Pick) -> str | None:
        if (path, pick) not in self._hashes:
            try:
                self._hashes[path, pick] = hash_scan(path, pick)
            except (OSError, MedsegError):
                self._hashes[path, pick] = None
        return self._hashes[path, pick]


def pick_of(manifest: Mapping[str, Any]) -> Pick:
    """What was taken of a scan that holds several volumes."""
    return Pick(**manifest.get("pick", {}))
