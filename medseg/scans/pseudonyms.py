"""This file gives cases other names, so that no result tells whose scan it is.

A *pseudonym* stands for a case's name wherever something is written. The *key* is a CSV file with the header
`case,pseudonym` that says which is whose: it belongs to those who may know, and beside no result.
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.files import csv_text, replacing
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import References
from medseg.scans.names import is_usable_name, split_extension

_COLUMNS = ["case", "pseudonym"]
_BYTES = 3
"""Of randomness in a pseudonym: 16 million names; one that is taken is drawn again."""
_OWNER_ONLY = 0o600


def pseudonymised(listing: Listing, path: Path) -> Listing:
    """The listing with a pseudonym for every case, of the key at `path`.

    Cases that the key does not name get a new, random pseudonym, which is added to it; a key that is missing is made,
    readable for its owner only. A patient of several scans is called like the first of them, so that they stay
    together. Paths stay what they are, but `alias` says what results call them.

    Raises:
        MedsegError: the key is no such table, gives a name twice, or cannot be written.
    """
    names = [case.case_id for case in listing.cases] + [case_id for case_id, _ in listing.problems]
    with _locked(path):
        key = _read_key(path) if path.exists() else {}
        new = [name for name in dict.fromkeys(names) if _cell(name) not in key]
        if new:
            taken = {pseudonym.casefold() for pseudonym in key.values()}
            for name in new:
                key[_cell(name)] = _draw(taken)
            _write_key(path, key)
    of = _lookup(key)
    patients: dict[str, str] = {}
    for case in listing.cases:
        patients.setdefault(case.patient, of(case.case_id))
    cases = [_renamed(case, of(case.case_id), patients[case.patient]) for case in listing.cases]
    line = f"every case is called by its pseudonym; {path} says which is whose" + (f" ({len(new)} new)" if new else "")
    return replace(
        listing,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        labels={of(name): label for name, label in listing.labels.items()},
        problems=tuple(sorted((of(name), problem) for name, problem in listing.problems)),
        notes=(*listing.notes, line),
    )


def as_pseudonyms(references: References, path: Path) -> References:
    """References by pseudonym, of the key at `path`; those that it does not name are left out.

    Raises:
        MedsegError: the key is missing or no such table.
    """
    of = _read_key(path)
    renamed = References({of[_cell(name)]: label for name, label in references.items() if _cell(name) in of})
    renamed.scheme = references.scheme
    return renamed


def require_key_elsewhere(path: Path, out: Path) -> None:
    """Check that the key does not lie among the results, with which it would be handed on.

    Raises:
        MedsegError: it does.
    """
    if path.resolve().is_relative_to(out.resolve()):
        raise MedsegError(f"--pseudonyms must lie outside of the results, got {path} in {out}; choose another place")


def without_reasons(failed: Mapping[str, str], cases: Sequence[Case]) -> Mapping[str, str]:
    """Failed cases as results may name them: error lines name files, so beside pseudonyms the terminal alone has them.

    Args:
        failed: error line by case.
        cases: of the listing.
    """
    if not any(case.alias for case in cases):
        return failed
    return dict.fromkeys(failed, "cannot be used; the line on the terminal says why")


def _renamed(case: Case, pseudonym: str, patient: str) -> Case:
    alias = pseudonym + split_extension(case.image.name)[1]
    return replace(case, case_id=pseudonym, patient=patient, alias=alias)


def _lookup(key: Mapping[str, str]) -> Callable[[str], str]:
    return lambda name: key[_cell(name)]


def _cell(name: str) -> str:
    """A case's name as it stands in the key."""
    return csv_text(name).strip()


def _draw(taken: set[str]) -> str:
    """A pseudonym that is not taken, and takes it."""
    while (pseudonym := f"P-{secrets.token_hex(_BYTES).upper()}").casefold() in taken:
        pass
    taken.add(pseudonym.casefold())
    return pseudonym


def _read_key(path: Path) -> dict[str, str]:
    """Pseudonym by case, as both stand in the table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(row)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MedsegError(f"{path} must be a readable CSV file, got {error}; check --pseudonyms") from error
    if header != _COLUMNS or any(len(row) != 2 for row in rows):
        raise MedsegError(
            f"{path} must have the columns case,pseudonym and two cells in every row, got others; mend the file"
        )
    key: dict[str, str] = {}
    taken: set[str] = set()
    for case, pseudonym in rows:
        if case in key or pseudonym.casefold() in taken:
            raise MedsegError(f"{path} must give each case one pseudonym of its own, got {case},{pseudonym} again")
        if not is_usable_name(pseudonym, everywhere=True) or csv_text(pseudonym) != pseudonym:
            raise MedsegError(f"pseudonym in {path} must be usable as a file name, got {pseudonym!r}; choose another")
        key[case] = pseudonym
        taken.add(pseudonym.casefold())
    return key


def _write_key(path: Path, key: Mapping[str, str]) -> None:
    with replacing(Path(os.path.realpath(path))) as beside:  # a link to the key stays a link
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with os.fdopen(opened, "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(_COLUMNS)
            table.writerows(key.items())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process after the other draw names, where several work on the same scans; Windows runs only one."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
