"""This file reads what reviewers decided, from the files that the review page lets them download.

A *decision* is what one reviewer says of one case: accept (the automatic mask is right), correct (the mask that comes
with it is), or reject (neither is to be used). Downloads are anybody's files: every value is checked, keys that are not
known are passed over, and a decision that breaks the schema is left out with a line while the others go on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from medseg.errors import MedsegError
from medseg.files import hash_content, printable, read_json

SCHEMA = "medseg-decisions/1"
VERDICTS: Mapping[str, str] = {"accept": "accepted", "correct": "corrected", "reject": "rejected"}
"""What can be said of a mask, and what the mask is then called."""
LARGEST_FILE = 50_000_000
"""Bytes of a decisions file; a thousand cases with long comments have one."""
LONGEST_TEXT = 10_000
"""Letters of a comment."""
LONGEST_NAME = 1_000
"""Letters of every other text."""
MOST_CLICKS = 10_000
"""Named places of one case."""
UNNAMED = "unnamed"
"""What a reviewer is called who gave no name."""


@dataclass(frozen=True)
class Decision:
    """What one reviewer says of one case.

    Attributes:
        case: its name.
        source_sha256: of the scan that was seen.
        run_hash: of the model whose mask was seen.
        verdict: one of `VERDICTS`.
        reviewer: as the name was typed, spaces at the ends aside.
        time: when; without a time zone it is taken for UTC.
        seconds: that were spent on it.
        comment: free text.
        clicks: named places, `{"xyz_mm": [R, A, S], "class": name}`.
        mask: file name of the corrected mask, None without one.
    """

    case: str
    source_sha256: str
    run_hash: str
    verdict: str
    reviewer: str
    time: datetime
    seconds: float
    comment: str
    clicks: tuple[Mapping[str, Any], ...]
    mask: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values with the keys of the schema."""
        return {
            "case": self.case,
            "source_sha256": self.source_sha256,
            "run_hash": self.run_hash,
            "verdict": self.verdict,
            "reviewer": self.reviewer,
            "time": self.time.isoformat(),
            "seconds": self.seconds,
            "comment": self.comment,
            "clicks": [dict(click) for click in self.clicks],
            "mask": self.mask,
        }


def is_decisions_file(path: Path) -> bool:
    """Whether a file is called as the page calls its decisions, or as browsers do where there is one already."""
    return re.fullmatch(r"medseg_decisions\b.*\.json", path.name, re.IGNORECASE) is not None


def read_decisions(path: Path) -> tuple[list[Decision], dict[str, str]]:
    """The decisions of a file, and a line for each that breaks the schema.

    Raises:
        MedsegError: the file is no decisions file at all.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise MedsegError(f"{path} must have at most {LARGEST_FILE // 1_000_000} MB, got more; download it again")
    try:
        content = read_json(path, advice="download it again")
    except RecursionError as error:
        raise MedsegError(f"{path} must be a decisions file, got JSON nested too deep; download it again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema", "none") if isinstance(content, dict) else type(content).__name__
        raise MedsegError(f"{path} must have the schema {SCHEMA}, got {_short(got)}; download it again")
    entries = content.get("decisions")
    if not isinstance(entries, list):
        raise MedsegError(f"{path} must hold a list of decisions, got {type(entries).__name__}; download it again")
    decisions, failed = [], {}
    for number, entry in enumerate(entries, start=1):
        where = f"decision {number} in {path}"
        try:
            decisions.append(_decision(entry, where))
        except MedsegError as error:
            failed[where] = str(error)
    return decisions, failed


def _decision(entry: Any, where: str) -> Decision:
    if not isinstance(entry, dict):
        raise _wrong(where, "an object with case, verdict ...", entry)
    texts = {key: _text(entry, key, where) for key in ("case", "source_sha256", "run_hash", "verdict", "reviewer")}
    if texts["verdict"] not in VERDICTS:
        raise _wrong(where, f"one of the verdicts {', '.join(VERDICTS)}", texts["verdict"])
    if not texts["case"]:
        raise _wrong(where, "the name of a case", "none")
    seconds: Any = entry.get("seconds")
    if not _is_number(seconds) or seconds < 0:
        raise _wrong(where, "seconds that are a number from 0", seconds)
    mask = entry.get("mask")
    if mask is not None and (not isinstance(mask, str) or not mask or len(mask) > LONGEST_NAME):
        raise _wrong(where, "a file name or null for its mask", mask)
    if (mask is not None) != (texts["verdict"] == "correct"):
        wanted = "the name of a mask" if mask is None else "no mask"
        raise _wrong(where, f"{wanted} beside the verdict {texts['verdict']}", mask)
    return Decision(
        texts["case"],
        texts["source_sha256"],
        texts["run_hash"],
        texts["verdict"],
        " ".join(texts["reviewer"].split()) or UNNAMED,
        _time(entry.get("time"), where),
        seconds,
        _text(entry, "comment", where, longest=LONGEST_TEXT),
        _clicks(entry.get("clicks"), where),
        mask,
    )


def _text(entry: Mapping[str, Any], key: str, where: str, longest: int = LONGEST_NAME) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or len(value) > longest or not _is_text(value):
        raise _wrong(where, f"a text of at most {longest} letters for {key}", value)
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: JSON may hold halves of letters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(value: Any, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(where, "a time as 2026-11-30T12:00:00Z", value) from error
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise _wrong(where, "a time of this age", value) from error


def _clicks(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or len(value) > MOST_CLICKS:
        raise _wrong(where, f"a list of at most {MOST_CLICKS} clicks", type(value).__name__)
    found = []
    for click in value:
        place = click.get("xyz_mm") if isinstance(click, dict) else None
        if not isinstance(place, list) or len(place) != 3 or not all(map(_is_number, place)):
            raise _wrong(where, "three finite numbers for xyz_mm of each click", place)
        found.append({"xyz_mm": place, "class": _text(click, "class", where)})
    return tuple(found)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value)


def _wrong(where: str, wanted: str, got: Any) -> MedsegError:
    return MedsegError(f"{printable(where)} must have {wanted}, got {_short(got)}; download it again")


def _short(value: Any) -> str:
    """A value as one short word of a message, whatever it is."""
    text = printable(str(value))
    return f"{text[:60]}..." if len(text) > 60 else text or "an empty text"


def reviewer_folder(reviewer: str) -> str:
    """The name of a reviewer as a folder that every file system takes; equal names, letter case aside, share one.

    Example:
        >>> reviewer_folder("Ada  Lovelace"), reviewer_folder("../../etc")
        ('ada_lovelace', 'etc_3a0385')
    """
    plain = " ".join(reviewer.split()).casefold()
    clean = re.sub(r"[^\w]+", "_", plain).strip("_")[:60]
    lossless = "_" not in plain and plain.replace(" ", "_") == clean and clean.isascii()
    reserved = PurePath(clean).name in ("con", "prn", "aux", "nul") or re.fullmatch(r"(com|lpt)\d", clean)
    return clean if lossless and clean and not reserved else f"{clean or UNNAMED}_{hash_content(plain)[:6]}"
