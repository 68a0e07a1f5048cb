"""This file says how sure scores are: intervals by resampling patients, and paired tests between methods.

A *patient* is the unit: several pictures of one person are not independent. *Holm's correction* keeps the chance of
any false alarm among several comparisons at the level of one.

References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (percentile interval). Wilcoxon,
    Biometrics Bulletin 1, 1945. Holm, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer
from scipy.stats import wilcoxon

LEAST_PAIRS = 6
"""Unequal pairs from which a two-sided signed-rank test can be significant at 5 %: of 5, the least p is 2 / 32."""
_EXACT_PAIRS = 15  # all 2^15 signs are tried; beyond, scipy chooses between the exact table and the normal curve
_RESAMPLES = 2000


def patient_intervals(
    tables: Integer[np.ndarray, "patients rows classes"],
    scores: Callable[[Integer[np.ndarray, "rows classes"]], Mapping[str, float]],
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of scores over resampled patients.

    The tables of the drawn patients are added and scored anew, as the score itself adds all patients. The same seed
    and number of patients draw the same ones, so methods are compared fairly.

    Args:
        tables: counts of each patient.
        scores: what is computed of a table of counts.
        seed: of the draws.
        resamples: number of draws.

    Returns:
        Lower and upper end of each score; NaN for fewer than two patients, whose spread nobody knows.
    """
    if len(tables) < 2:
        return dict.fromkeys(scores(tables.sum(axis=0)), (math.nan, math.nan))
    draws = np.random.default_rng(seed).multinomial(len(tables), np.full(len(tables), 1 / len(tables)), size=resamples)
    # Whole numbers stay exact in float64, whose products are many times faster.
    sums = np.tensordot(draws.astype(float), tables.astype(float), axes=1).astype(np.int64)
    found = [scores(table) for table in sums]
    intervals = {}
    for key in found[0]:
        values = np.array([one[key] for one in found])
        defined = values[~np.isnan(values)]
        low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (math.nan, math.nan)
        intervals[key] = (float(low), float(high))
    return intervals


@dataclass(frozen=True)
class PairedTest:
    """A method against another on the same patients.

    Attributes:
        first: a method.
        second: the other.
        pairs: patients on which both scores are defined.
        difference: median of first minus second; NaN without a pair.
        p: two-sided p of Wilcoxon's signed-rank test; NaN where too few pairs differ for any to be significant.
        p_holm: the same, corrected for the number of tests that were made together.
    """

    first: str
    second: str
    pairs: int
    difference: float
    p: float
    p_holm: float = math.nan

    def describe(self, unit: str = "patients") -> str:
        """One plain line; `unit` is what was paired, in the plural."""
        count = f"{self.pairs} {unit if self.pairs != 1 else unit.removesuffix('s')}"
        words = f"{self.first} - {self.second}: median difference {self.difference:+.3f} over {count}"
        if not self.pairs:
            return f"{self.first} - {self.second}: no {unit.removesuffix('s')} to compare them on"
        if math.isnan(self.p):
            return f"{words}; fewer than {LEAST_PAIRS} of them differ, so no test can be significant"
        return f"{words}, p {_small(self.p)}, {_small(self.p_holm)} by Holm"


def paired_test(first: str, second: str, a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Wilcoxon's signed-rank test of two methods' scores of the same patients, exact for few of them.

    Args:
        first: name of the method that scored `a`.
        second: name of the method that scored `b`.
        a: a score a patient; NaN where undefined, and then the patient is left out.
        b: the same patients' scores, in the same order.
    """
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    differences = differences[~np.isnan(differences)]
    median = float(np.median(differences)) if len(differences) else math.nan
    unequal = differences[differences != 0]
    p = math.nan
    if len(unequal) >= LEAST_PAIRS:
        p = _exact_p(unequal) if len(unequal) <= _EXACT_PAIRS else float(wilcoxon(unequal).pvalue)
    return PairedTest(first, second, len(differences), median, p)


def corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with Holm's corrected p; those that could not be made do not count."""
    order = sorted((n for n, test in enumerate(tests) if not math.isnan(test.p)), key=lambda n: tests[n].p)
    found, so_far = list(tests), 0.0
    for rank, n in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * tests[n].p))
        found[n] = PairedTest(**{**vars(tests[n]), "p_holm": so_far})
    return found


def _exact_p(differences: np.ndarray) -> float:
    """Two-sided p over all signs, which is right with ties too."""
    # scipy's own table knows no ties; among all signs they need no special care.
    n = len(differences)
    size = np.abs(differences)
    ranks = np.array([(size < one).sum() + ((size == one).sum() + 1) / 2 for one in size])
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    far = np.abs(signs @ ranks - ranks.sum() / 2)
    mine = abs(ranks[differences > 0].sum() - ranks.sum() / 2)
    return float(np.mean(far >= mine - 1e-9))


def _small(p: float) -> str:
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"
