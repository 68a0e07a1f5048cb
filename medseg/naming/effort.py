"""This file says what people gave so that a mask could be made: nothing, clicks, ticked cells, slices, cases, minutes.

*Effort* stands beside every score. *Label-free*: nobody named or drew anything. *Oracle*: names were matched to the
very labels that are scored; no effort buys that, and it is no result. A method that people gave something for has it
in `effort.json` of its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_record, write_json

_FILE = "effort.json"
LABEL_FREE = ("none", "rules", "clusters")
"""Sources of names that need no label and no person."""
UNITS: Mapping[str, tuple[str, str]] = {
    "clicks": ("click", "clicks"),
    "cells": ("ticked cell", "ticked cells"),
    "slices": ("labelled slice", "labelled slices"),
    "cases": ("labelled case", "labelled cases"),
}
"""What people give, in the singular and the plural."""


@dataclass(frozen=True)
class Effort:
    """What people gave for a method.

    Attributes:
        counts: how many, by the keys of `UNITS`; empty where nobody counted, or nothing was given.
        minutes: that were measured; None where nobody measured them.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    minutes: float | None = None

    def __post_init__(self) -> None:
        for unit, count in self.counts.items():
            if unit not in UNITS or type(count) is not int or count < 0:
                raise MedsegError(
                    f"effort must count {', '.join(UNITS)} in whole numbers, got {count!r} {unit}; train the run anew"
                )
        if self.minutes is not None and not 0 <= self.minutes < float("inf"):
            raise MedsegError(f"minutes of an effort must be a number from 0, got {self.minutes}; correct them")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as manifests and `effort.json` hold them."""
        return {"counts": dict(self.counts), "minutes": self.minutes}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Effort:
        """The effort in plain values.

        Raises:
            MedsegError: they break the schema.
        """
        counts, minutes = content.get("counts", {}), content.get("minutes")
        if not isinstance(counts, Mapping) or isinstance(minutes, bool) or not isinstance(minutes, int | float | None):
            raise MedsegError(f"effort must hold counts and minutes, got {dict(content)!r}; write the result anew")
        return cls(dict(counts), minutes)


NO_EFFORT = Effort()
"""Nobody gave anything, or nobody counted it; the source of the names tells which."""


def in_words(naming: str, effort: Effort = NO_EFFORT) -> str:
    """The effort behind a score, in few words.

    Args:
        naming: where names came from, one of `medseg.scoring.tables.NAMING_SOURCES`.
        effort: what was given.

    Example:
        >>> in_words("rules"), in_words("clicks", Effort({"clicks": 5}, 0.5)), in_words("oracle")
        ('label-free (rules)', '5 clicks, 0.5 min', 'oracle')
    """
    if naming in LABEL_FREE:
        return "label-free" if naming == "none" else f"label-free ({naming})"
    if naming == "oracle":
        return "oracle"
    given = [f"{count} {UNITS[unit][count != 1]}" for unit, count in effort.counts.items() if count]
    source = {"hand": "named by hand", "clicks": "clicks", "training_labels": "training labels"}[naming]
    time = "time not measured" if effort.minutes is None else f"{effort.minutes:.1f} min"
    return ", ".join([*(given or [source]), time])


def write_effort(folder: Path, effort: Effort) -> None:
    """Keep beside a method what people gave for it."""
    write_json(folder / _FILE, effort.as_dict())


def read_effort(folder: Path) -> Effort | None:
    """What people gave for the method in a folder; None where nothing is kept of it.

    Raises:
        MedsegError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    content = read_record(path, "counts", "minutes", advice="make the method anew")
    try:
        return Effort.from_dict(content)
    except MedsegError as error:
        raise MedsegError(f"{path}: {error}") from error
