"""This file asks whether the uncertainty of a mask can be believed: how many voxels of each uncertainty are wrong.

The *expected calibration error* is the mean over voxels of the gap between the uncertainty of their bin and the share
of its voxels that are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from vessels_answers import Answer, Answers
from vessels_cases import TestPhantom

from medseg.files import replacing
from medseg.reconstruction.uncertainty import Agreement

BINS = 10
LEAST_UNCERTAINTY = 0.02
"""Voxels outside the mask that are surer than this are left out: nearly all of a head, and right."""
MEMBERS = ("seeds", "rounds", "methods", "all")
"""Who is asked: the voters of STEGO; the student of each round; STEGO, student and flux rule; everybody."""


def wrong_counts(
    case: TestPhantom, mask: Bool[np.ndarray, "i j k"], asked: Answers, *, voters: int
) -> dict[str, dict[str, list[float]]]:
    """By members and bin: voxels, those of them that are wrong, and the sum of their uncertainties."""
    everybody: list[tuple[Answer, int]] = [(asked.stego_mean, voters)]
    everybody += [(answer, 1) for answer in (*asked.rounds, asked.of["flux"])]
    members = {
        "seeds": [(asked.stego_mean, voters)],
        "rounds": [(answer, 1) for answer in asked.rounds],
        "methods": [(asked.of[name], 1) for name in ("stego", "student", "flux")],
        "all": everybody,  # as in CASE_uncertainty
    }
    labels, wrong = mask.astype(np.uint8), mask != case.reference
    counts = {}
    for name, answers in members.items():
        agreement = Agreement((1, *mask.shape))
        for answer, votes in answers:
            agreement.add(answer[None], votes=votes)
        uncertain = agreement.uncertainty(labels, [1])
        looked_at = case.volume.region & (mask | (uncertain > LEAST_UNCERTAINTY))
        values = uncertain[looked_at]
        bins = np.minimum((values * BINS).astype(int), BINS - 1)
        weights = {"voxels": np.ones(len(values)), "wrong": wrong[looked_at], "uncertainty": values}
        counts[name] = {key: np.bincount(bins, weight, BINS).tolist() for key, weight in weights.items()}
    return counts


def report(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Print curve and error for each kind of members over all cells, and draw them."""
    sums = {
        name: {
            key: np.sum([cell["calibration"][name][key] for cell in cells], axis=0)
            for key in ("voxels", "wrong", "uncertainty")
        }
        for name in MEMBERS
    }
    print(f"\nCalibration over {len(cells)} phantoms: share of wrong voxels by uncertainty (in brackets: voxels)")
    print(f"{'uncertainty':14}" + "".join(f"{name:>22}" for name in MEMBERS))
    for n in range(BINS):
        line = "".join(
            f"{_ratio(found['wrong'][n], found['voxels'][n]):12.3f} ({found['voxels'][n]:7.0f})"
            for found in sums.values()
        )
        print(f"{n / BINS:.1f} - {(n + 1) / BINS:.1f}     {line}")
    errors = {name: calibration_error(found) for name, found in sums.items()}
    print(f"{'ECE':14}" + "".join(f"{error:22.3f}" for error in errors.values()))
    _draw(sums, errors, path)
    print(f"plot: {path}")


def calibration_error(found: Mapping[str, np.ndarray]) -> float:
    """The expected calibration error."""
    return _ratio(np.abs(found["wrong"] - found["uncertainty"]).sum(), found["voxels"].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _draw(sums: Mapping[str, Mapping[str, np.ndarray]], errors: Mapping[str, float], path: Path) -> None:
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=1)
    for name, colour in zip(MEMBERS, ("#2a6fdb", "#e07b00", "#3a9e5c", "#c2185b"), strict=True):
        found = sums[name]
        filled = found["voxels"] > 0
        stated, wrong = (found[key][filled] / found["voxels"][filled] for key in ("uncertainty", "wrong"))
        panel.plot(stated, wrong, marker="o", markersize=3, color=colour, label=f"{name}, ECE {errors[name]:.3f}")
    panel.set_xlabel("uncertainty of the mask")
    panel.set_ylabel("share of voxels that are wrong")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.grid(alpha=0.25)
    panel.legend(frameon=False, fontsize=8)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=90, format="png")
