"""This file says what a sweep trains: cells of a sampling scheme, a size and a seed.

A *size* is the share of a case's patches that a scheme picks. The scheme `all` takes every patch, so it has one size,
100 %, and is not repeated over the others. A *cell* is one training with its masks of the held-out patients and their
scores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from medseg.errors import MedsegError
from medseg.scoring.sweeps import EVERYTHING, percent

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")

SCHEMES = ("R", "C", "CF", "CFW", "CFX", "CFWX", EVERYTHING)
"""The vessel fork's schemes; `medseg.patches.sampling` says what each of them picks."""


@dataclass(frozen=True, order=True)
class Cell:
    """One training of a sweep.

    Attributes:
        scheme: how patches are picked, a name of `SCHEMES`.
        size: the share of them that is picked, in (0, 1].
        seed: of the training.
    """

    scheme: str
    size: float
    seed: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.scheme}_{self.size:g}_{self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """The config keys that make the cell what it is."""
        return (
            f"patches.scheme={self.scheme}",
            f"patches.scheme_fraction={self.size}",
            f"run.seed={self.seed}",
            "run.held_out=0",  # the sweep names the patients, so that all cells are scored on the same ones
        )

    def patches_of(self, drawn: int) -> int:
        """How many of `drawn` patches of a case the scheme picks: at least one."""
        return max(1, round(self.size * drawn))


def share_of(text: str, option: str) -> float:
    """`0.05` or `5%` as a number in (0, 1].

    Raises:
        MedsegError: it is no share; 5 is not, because 5 % is meant.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise MedsegError(
            f"{option} must be a share in (0, 1] or a percentage such as 5%, got {text}; write "
            f"{text.removesuffix('%')}% perhaps"
            if not text.endswith("%")
            else f"{option} must be a percentage above 0% and at most 100%, got {text}; write 5%, or 0.05"
        )
    return value


def scheme_of_name(text: str) -> str:
    """A scheme that a sweep knows.

    Raises:
        MedsegError: there is no such scheme.
    """
    if text not in SCHEMES:
        raise MedsegError(f"--schemes must be among {', '.join(SCHEMES)}, got {text!r}; choose some of them")
    return text


def seed_of(text: str) -> int:
    """A seed: a whole number from 0.

    Raises:
        MedsegError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise MedsegError(f"--seeds must be whole numbers from 0, got {text!r}; write 1,42,97")
    return int(text)


def listed(text: str, option: str, read: Callable[[str], _Value]) -> tuple[_Value, ...]:
    """The values of a list with commas, in its order, each once.

    Raises:
        MedsegError: the list is empty, or a value is none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise MedsegError(f"{option} must name at least one value, got none; leave it out for the usual ones")
    return tuple(dict.fromkeys(read(word) for word in words))


def cells_of(
    schemes: Sequence[str], sizes: Sequence[float], seeds: Sequence[int], *, per_case: int, cases: int
) -> list[Cell]:
    """The cells of a sweep that can differ, seed by seed.

    Sizes that pick the same number of patches would train the same model twice; the largest of them stays.

    Args:
        schemes: names of `SCHEMES`.
        sizes: shares.
        seeds: of the trainings.
        per_case: patches that are drawn of a case before a scheme thins them.
        cases: scans to train on.

    Raises:
        MedsegError: a size leaves not one patch of all cases.
    """
    for size in sizes:
        if size * per_case * cases < 1:
            raise MedsegError(
                f"--sizes must leave at least one patch, got {percent(size)} of {per_case} patches in {cases} "
                f"{'case' if cases == 1 else 'cases'}; give a larger size, or more with --set patches.per_case=N"
            )
    by_count: dict[int, list[float]] = {}
    for size in sorted(sizes):
        by_count.setdefault(Cell("R", size, 0).patches_of(per_case), []).append(size)
    for count, same in by_count.items():
        if len(same) > 1:
            _log.warning(
                "sizes %s all pick %d of %d patches of a case, so only %s is trained; raise patches.per_case to tell "
                "them apart (the vessel fork drew 500)",
                ", ".join(map(percent, same)), count, per_case, percent(same[-1]),
            )  # fmt: skip
    kept = [same[-1] for same in by_count.values()]
    return [
        Cell(scheme, size, seed)
        for seed in seeds
        for scheme in schemes
        for size in ([1.0] if scheme == EVERYTHING else kept)
    ]
