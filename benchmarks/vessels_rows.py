"""This file fills the main table of the vessel benchmark: every method on every test phantom, inside the brain mask.

What a cell holds serves the calibration too, so that each phantom is prepared and asked about once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from vessels_answers import CPU, EDGE_ONLY, ask_run
from vessels_calibration import wrong_counts
from vessels_cases import Plan, TestPhantom, prepared_phantom, print_grid, print_scores

from medseg.files import replacing
from medseg.reconstruction.refine import refine
from medseg.runs import RunRecord
from medseg.scoring.baselines import BASELINES

TRAINING_PHANTOMS, VOTERS = 4, 3
DRAWN = {
    "brightest 1 %": ("#9aa0a6", ":"),
    "Frangi top .5 %": ("#9aa0a6", "--"),
    "best threshold (oracle)": ("#9aa0a6", "-"),
    "flux rule": ("#2a6fdb", "-"),
    "segment: student as shipped, gated": ("#e07b00", "--"),
    "student, gated": ("#e07b00", "-"),
    "STEGO on student, 3 voters": ("#c2185b", "-"),
}
"""Rows of the plots, each with its line; grey are those without our methods."""


def train_student_run(plan: Plan) -> RunRecord:
    """The run of the shipped config on the training phantoms."""
    return plan.trained("tof_mra", "tof_mra", plan.training_scans(TRAINING_PHANTOMS), f"stego.voters={VOTERS}")


def train_bank_run(plan: Plan) -> RunRecord:
    """The filter bank's run on the same."""
    return plan.trained("tof_mra_bank", "tof_mra_bank", plan.training_scans(TRAINING_PHANTOMS))


def measure(plan: Plan, name: str) -> dict[str, Any]:
    """Scores of all rows on one phantom, and how far the uncertainty of its mask can be believed."""
    student_run, bank_run = train_student_run(plan), train_bank_run(plan)
    case = prepared_phantom(plan, name, student_run.config)
    rows = {row: case.scores(mask) for row, mask in _threshold_masks(case).items()}

    steps = bank_run.config.reconstruct.refine
    bank = ask_run(bank_run, case.sample, methods=["kmeans", "stego"])
    rows["filter bank, k-means"] = case.scores(refine(bank.of["kmeans"], case.volume, steps))
    rows["filter bank, STEGO"] = case.scores(refine(bank.of["stego"], case.volume, steps))

    steps = student_run.config.reconstruct.refine
    maps = plan.starting_student().maps(case.sample, CPU)
    shipped = np.asarray(maps["student_probability"][0])
    methods = ["kmeans", "untrained", "stego 1", "stego", "student", "flux"]
    asked = ask_run(student_run, case.sample, methods=methods, rounds=True)
    rows["flux rule"] = case.scores((asked.of["flux"] > 0.5) & case.volume.region)
    rows["segment: student as shipped, gated"] = case.scores(refine(shipped, case.volume, steps))
    rows["student, edge only"] = case.scores(refine(asked.of["student"], case.volume, EDGE_ONLY))
    rows["student, gated"] = case.scores(refine(asked.of["student"], case.volume, steps))
    rows["k-means on student, 3 voters"] = case.scores(refine(asked.of["kmeans"], case.volume, steps))
    rows["untrained head, 3 voters"] = case.scores(refine(asked.of["untrained"], case.volume, steps))
    rows["STEGO on student, 1 voter"] = case.scores(refine(asked.of["stego 1"], case.volume, steps))
    mask = refine(asked.of["stego"], case.volume, steps)
    rows["STEGO on student, 3 voters"] = case.scores(mask)
    counts = wrong_counts(case, mask, asked, voters=VOTERS)
    return case.facts | {"rows": rows, "calibration": counts}


def cells(plan: Plan, share: tuple[int, int] = (0, 1)) -> list[dict[str, Any]]:
    """The cells of this process's share of the phantoms."""
    first, step = share
    return [plan.cell(f"rows/{name}", partial(measure, plan, name)) for name in plan.test_cases[first::step]]


def run(plan: Plan, share: tuple[int, int], docs: Path | None) -> None:
    """Fill the table, print it, draw the plots."""
    found = cells(plan, share)
    with_vessels = [cell for cell in found if cell["vessels"]]
    if with_vessels:
        table = {row: {cell["case"]: cell["rows"][row] for cell in with_vessels} for row in with_vessels[0]["rows"]}
        note = (
            "oracle: chosen with the label. veins: share of the mask in veins and scalp arteries, which count as wrong."
        )
        print_scores(f"All rows ({len(found)} of {len(plan.test_cases)} test phantoms)", table, note=note)
        print_grid("Dice by phantom", table, "dice")
        print_grid("clDice by phantom", table, "cldice")
    for cell in found:
        if cell["alarm"]:
            print(f"{cell['case']}: alarm, {cell['alarm']}")
        if not cell["vessels"]:
            print(f"\n{cell['case']}: no vessels; voxels in the mask")
            for row, scores in cell["rows"].items():
                print(f"{row:34}{scores['voxels']:8d}")
    if len(found) == len(plan.test_cases):
        for path in [plan.work / "vessels_noise.png", *([docs] if docs else [])]:
            draw(with_vessels, path)
            print(f"plot: {path}")


def _threshold_masks(case: TestPhantom) -> dict[str, Bool[np.ndarray, "i j k"]]:
    image, region = case.phantom.image, case.volume.region
    masks = {name: rule(image, region, case.volume.spacing) for name, rule in BASELINES.items()}
    masks["best threshold (oracle)"] = best_threshold(image, case.reference, region)
    return masks


def best_threshold(
    image: np.ndarray, reference: Bool[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"]
) -> Bool[np.ndarray, "i j k"]:
    """The mask above the threshold of the highest Dice, which only the label can tell."""
    if not reference.any():
        return np.zeros(region.shape, bool)
    levels, place = np.unique(image[region], return_inverse=True)
    every = np.bincount(place, minlength=len(levels))[::-1].cumsum()
    right = np.bincount(place, weights=reference[region], minlength=len(levels))[::-1].cumsum()
    best = int(np.argmax(2 * right / (every + right[-1])))
    return region & (image >= levels[::-1][best])


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot clDice against noise and against spacing."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    axes = (("noise_", "noise_sd", "noise sd, tissue medians"), ("spacing_", "spacing_mm", "voxel size, mm"))
    for panel, (prefix, fact, words) in zip(panels, axes, strict=True):
        series = sorted((cell for cell in cells if cell["case"].startswith(prefix)), key=lambda cell: cell[fact])
        for row, (colour, line) in DRAWN.items():
            values = [cell["rows"][row]["cldice"] for cell in series]
            at = [cell[fact] for cell in series]
            panel.plot(at, values, line, color=colour, marker="o", markersize=3, linewidth=1.4, label=row)
        panel.set_xlabel(words)
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("clDice")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=90, format="png")
