"""This file ranks the cases of a result folder by what deserves a look first, and says why in plain words.

The *evidence* of a case is a handful of numbers about its mask. Each *doubt* it gives has a weight: how many times the
number exceeds what is usual. The sum of a case's weights is its place in the queue; equal cases come in the order of
their uncertainty, then of their names. No number says that a mask is wrong, and none that it is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

NO_DOUBT = "No reason to doubt was found; look at it all the same."
"""What is said of a case without a doubt."""

EMPTY_WEIGHT, ALARM_WEIGHT = 6.0, 5.0
"""Weights of an empty mask and of an alarm: they come before anything that is measured."""
MOST_WEIGHT = 3.0
"""Most that a measured doubt weighs, so that one strange number does not hide all others."""
USUAL_UNCERTAINTY = 0.25
"""Mean uncertainty (0..1) along a mask up to which it is usual; good masks of phantoms have .13 to .18."""
UNCERTAIN = 0.5
"""Uncertainty (0..1) of a voxel from which on most of those that were asked would have decided otherwise."""
USUAL_UNCERTAIN_SHARE = 0.1
"""Share of such voxels along a mask up to which it is usual; phantoms have 0 to .02."""
USUAL_DICE = 0.7
"""Dice with another method down to which methods agree as they usually do."""
NO_RIVALS = frozenset({"untrained"})
"""Methods whose disagreement says nothing: what was never trained is meant to be worse."""
LEAST_OTHERS = 4
"""Other cases that must be there before one of them is called odd."""
ODD_Z = 3.5
"""Robust z (distance from the median in standard deviations, taken from the median distance) of an odd number, after
Iglewicz and Hoaglin (1993)."""
LEAST_SPREAD = 0.1
"""Standard deviation of logarithms that cases have at the least (10 %): among equal cases nothing is odd by 1 %."""
_MAD_TO_SD = 1.4826
USUAL_BORDER = 0.5
"""Share of the surface of a mask along the border of the region up to which it is usual; livers in a sector have up to
.46."""
LOW_CONTRAST = 0.4
"""Difference between mask and surroundings (standard deviations) below which one can hardly see it; livers of phantoms
have .5 to 1.7, vessels 4."""
MOST_NAMED = 3
"""Methods that one sentence names."""


@dataclass(frozen=True)
class Evidence:
    """What is known about the mask of a case; None where it was not measured.

    Attributes:
        case_id: the case.
        voxels: voxels or pixels of its mask.
        amount: how much that is, in `unit`.
        unit: `ml`, `cm²` or `pixels`.
        components: pieces that do not touch.
        uncertainty: mean uncertainty along the mask, 0 to 1.
        uncertain_share: share of `UNCERTAIN` voxels along the mask.
        dice: overlap with the mask of each other method; NaN where both are empty.
        border_share: share of the mask's surface that lies along the border of the region that was looked at.
        contrast: distance of mask and surroundings in standard deviations of their grey values.
        alarms: what the program itself said, in words.
    """

    case_id: str
    voxels: int
    amount: float | None = None
    unit: str = "ml"
    components: int | None = None
    uncertainty: float | None = None
    uncertain_share: float | None = None
    dice: Mapping[str, float] = field(default_factory=dict)
    border_share: float | None = None
    contrast: float | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """The place of a case in the queue.

    Attributes:
        case_id: the case.
        rank: 1 is looked at first.
        reasons: plain sentences, the strongest first; at least one.
        weight: sum of what its doubts weigh.
    """

    case_id: str
    rank: int
    reasons: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class _Doubt:
    weight: float
    words: str


def rank_cases(cases: Sequence[Evidence]) -> list[Ranked]:
    """Put cases in the order in which they should be looked at.

    Args:
        cases: of one result folder, in any order; no two of one name.

    Returns:
        The first to be looked at first; the same for the same cases in another order. Nothing for no case.
    """
    weighed = []
    for case in cases:
        others = [other for other in cases if other.case_id != case.case_id]
        doubts = sorted(_doubts(case, others), key=lambda doubt: -doubt.weight)  # stable: equal ones keep their order
        weighed.append((case, sum(doubt.weight for doubt in doubts), doubts))
    weighed.sort(key=lambda entry: (-round(entry[1], 9), -(entry[0].uncertainty or 0.0), entry[0].case_id))
    return [
        Ranked(case.case_id, place, tuple(doubt.words for doubt in doubts) or (NO_DOUBT,), weight)
        for place, (case, weight, doubts) in enumerate(weighed, start=1)
    ]


def _doubts(case: Evidence, others: Sequence[Evidence]) -> list[_Doubt]:
    """Everything that speaks for a look; an empty mask has nothing else to be measured."""
    alarms = [_Doubt(ALARM_WEIGHT, f"The program itself raised an alarm: {_sentence(words)}") for words in case.alarms]
    if case.voxels == 0:
        return [*alarms, _Doubt(EMPTY_WEIGHT, "The mask is empty: nothing was marked.")]
    found = [
        _of_uncertainty(case),
        _of_methods(case),
        _of_amount(case, others),
        _of_components(case, others),
        _of_border(case),
        _of_contrast(case),
    ]
    return [*alarms, *(doubt for doubt in found if doubt is not None)]


def _of_uncertainty(case: Evidence) -> _Doubt | None:
    mean, share = case.uncertainty or 0.0, case.uncertain_share or 0.0
    weight = max(mean / USUAL_UNCERTAINTY, share / USUAL_UNCERTAIN_SHARE)
    if weight <= 1:
        return None
    words = (
        f"The program is unsure along this mask: at {share:.0%} of it most of its votes spoke against the mask "
        f"(mean uncertainty {mean:.2f} of 1)."
    )
    return _Doubt(min(weight, MOST_WEIGHT), words)


def _of_methods(case: Evidence) -> _Doubt | None:
    low = {
        name: dice
        for name, dice in case.dice.items()
        if name not in NO_RIVALS and not math.isnan(dice) and dice < USUAL_DICE
    }
    if not low:
        return None
    named = sorted(low, key=lambda name: (low[name], name))[:MOST_NAMED]
    overlaps = ", ".join(f"{name} {low[name]:.2f}" for name in named)
    weight = (1 - low[named[0]]) / (1 - USUAL_DICE)
    return _Doubt(
        min(weight, MOST_WEIGHT), f"Another method drew a different mask (overlap from 0 to 1, Dice: {overlaps})."
    )


def _of_amount(case: Evidence, others: Sequence[Evidence]) -> _Doubt | None:
    if not case.amount:
        return None
    amounts = [other.amount for other in others if other.amount and other.unit == case.unit]
    z = robust_z(math.log(case.amount), [math.log(amount) for amount in amounts])
    if z is None or abs(z) <= ODD_Z:
        return None
    size = "more" if z > 0 else "less"
    words = (
        f"Much {size} is marked than in the other cases of this folder: {amount_in_words(case.amount, case.unit)}, "
        f"usually {amount_in_words(median(amounts), case.unit)}."
    )
    return _Doubt(min(abs(z) / ODD_Z, MOST_WEIGHT), words)


def _of_components(case: Evidence, others: Sequence[Evidence]) -> _Doubt | None:
    if case.components is None:
        return None
    counts = [other.components for other in others if other.components and other.unit == case.unit]
    z = robust_z(math.log(1 + case.components), [math.log(1 + count) for count in counts])
    if z is None or abs(z) <= ODD_Z:
        return None
    many = "unusually many" if z > 0 else "unusually few"
    pieces = "piece" if case.components == 1 else "pieces"
    words = f"The mask has {many} separate pieces: {case.components} {pieces}, usually {median(counts):g}."
    return _Doubt(min(abs(z) / ODD_Z, MOST_WEIGHT), words)


def _of_border(case: Evidence) -> _Doubt | None:
    share = case.border_share or 0.0
    if share <= USUAL_BORDER:
        return None
    words = (
        f"{share:.0%} of the mask's surface lies along the border of the region that was looked at; it may be cut off "
        "there."
    )
    return _Doubt(min(share / USUAL_BORDER, MOST_WEIGHT), words)


def _of_contrast(case: Evidence) -> _Doubt | None:
    if case.contrast is None or case.contrast >= LOW_CONTRAST:
        return None
    weight = LOW_CONTRAST / max(case.contrast, LOW_CONTRAST / MOST_WEIGHT)
    return _Doubt(weight, "The mask hardly differs from its surroundings in brightness.")


def robust_z(value: float, others: Sequence[float]) -> float | None:
    """Distance of a logarithm from the median of the others in their standard deviations.

    Returns:
        None for fewer than `LEAST_OTHERS` others.

    Example:
        >>> robust_z(2.0, [0.0, 0.1, -0.1, 0.0])
        20.0
    """
    if len(others) < LEAST_OTHERS:
        return None
    middle = median(others)
    spread = _MAD_TO_SD * median(abs(other - middle) for other in others)
    return (value - middle) / max(spread, LEAST_SPREAD)


def amount_in_words(amount: float, unit: str) -> str:
    """An amount with its unit, as short as it may be read aloud.

    Example:
        >>> amount_in_words(0.8785, "ml"), amount_in_words(123.4, "cm²"), amount_in_words(9558.5, "pixels")
        ('0.88 ml', '123 cm²', '9,558 pixels')
    """
    if unit == "pixels":
        return f"{amount:,.0f} pixels"
    digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
    return f"{amount:.{digits}f} {unit}"


def _sentence(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."
