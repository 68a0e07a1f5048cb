"""What do minutes of annotation buy? Dice and clDice against effort on the four shared phantoms, leave one out.

    MEDSEG_TEST_DATA=FOLDER python benchmarks/effort.py --work DIR [--noise sd50] [--only 007] [--levels case] [--docs]

A run is trained once, without labels, on phantoms that medseg generates itself, so that none of the four scans was ever
seen; that is cheaper than a run for each fold, and no kinder. Each fold teaches a probe by labels of the other three
phantoms, as `medseg teach` does, and is scored on the one left out, whose label no folder of the fold holds. Annotators
are simulated from labels of *training* phantoms: clicks on centre lines and on bright places that are no vessel, cells
that hold a vessel, whole slices, whole scans. Minutes are a model, see `MINUTES`: assumed, not measured. A finished
cell is not computed again. Without MEDSEG_TEST_DATA there is nothing to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from names import NOISES, PHANTOMS, noisy_copy
from scipy.ndimage import distance_transform_edt
from vessels_cases import Plan

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.config import change_config
from medseg.files import read_json, replacing, write_json
from medseg.naming.annotations import SCHEMA, AnnotatedSlice, Annotation, slice_axis
from medseg.naming.clicks import BACKGROUND, Click
from medseg.naming.effort import Effort, in_words
from medseg.phantoms.hard import write_hard_phantoms
from medseg.reconstruction.refine import refine
from medseg.runs import RunRecord
from medseg.scans.arrays import read_grid, read_label_values, read_values
from medseg.scans.cases import Case
from medseg.scans.folders import find_cases
from medseg.scans.sources import hash_scan
from medseg.scoring.overlap import dice
from medseg.scoring.skeleton import cldice, skeleton
from medseg.workflows import parts
from medseg.workflows.annotating import CELL, collect_annotations
from medseg.workflows.labels import labels_of
from medseg.workflows.predictors import predictor_of_run
from medseg.workflows.probing import steps_after
from medseg.workflows.taught_labels import Sources
from medseg.workflows.teaching import teach_run

LEVELS = ("none", "clicks", "cells", "slices", "case", "cases")
"""Efforts, from nothing to three whole scans."""
GROWN = ("cells_grown", "slices_grown")
"""The same efforts with a second round, which learns from labels that grew."""
CLICKS = (3, 2)
"""On vessels, and on bright places that are none."""
CELLS, SLICES = 60, 3
"""Ticked cells and drawn slices, in one scan."""
MINUTES: Mapping[str, float] = {"clicks": 0.1, "cells": 2 / 60, "slices": 8.0, "cases": 180.0}
"""Assumed for one click, ticked cell, drawn slice and drawn scan; whoever has measured puts in better ones."""
RUN_PHANTOMS = ("noise_015", "noise_030", "spacing_065", "faint", "bright_fat", "slabs")
"""Generated, of a family that the four shared ones are not of."""
RUN_SERIES = 3
"""Other trees than those that the recipe was looked at with."""
BRIGHT = 0.98
"""Quantile of the grey values, vessels left out, above which a place may be taken for a vessel."""
APART = 3.0
"""Voxels between a vessel and a click beside it."""
CPU = torch.device("cpu")
_TITLES = {"": "as they are", "_sd50": "noise of .5 tissue medians added"}


def main() -> int:
    """Compute the cells that were asked for, and print the table of all that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for scans, the run and cells")
    parser.add_argument("--noise", nargs="*", default=[""], metavar="sd50", help="copies with that noise; '' is none")
    parser.add_argument("--only", nargs="*", default=list(PHANTOMS), help="phantoms to be left out")
    parser.add_argument("--levels", nargs="*", default=list(LEVELS), help=f"among {', '.join((*LEVELS, *GROWN))}")
    parser.add_argument("--docs", action="store_true", help="write docs/effort.png and print the table for the docs")
    parser.add_argument("--trial", action="store_true", help="few steps, to see it run")
    asked = parser.parse_args()
    if not (data := os.environ.get("MEDSEG_TEST_DATA")):
        print("MEDSEG_TEST_DATA names no folder: nothing to look at")
        return 0
    start_logging(quiet=True, verbose=False)
    torch.set_num_threads(1)
    plan = Plan(asked.work.resolve(), "shipped", asked.trial)
    parts.prepared = partial(_kept, parts.prepared)
    for noise in (f"_{noise}" if noise else "" for noise in asked.noise):
        ground = Ground(plan, Path(data), noise)
        for level in asked.levels:
            for test in asked.only:
                plan.cell(f"effort{noise}/{level}/{test}", partial(ground.compute, level, test))
    report(plan, docs=asked.docs)
    return 0


@contextmanager
def _kept(prepared: Any, *arguments: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """A prepared scan that stays on disk: every fold and every effort needs it again."""
    with prepared(*arguments, **{**options, "keep": True}) as sample:
        yield sample


class Ground:
    """The scans, their labels and the run.

    Args:
        plan: where everything lies.
        data: folder of the shared phantoms.
        noise: a key of `NOISES`.
    """

    def __init__(self, plan: Plan, data: Path, noise: str) -> None:
        self.plan, self.data, self.noise = plan, data, noise
        self.scans = plan.work / f"scans{noise}"
        for name, folder in PHANTOMS.items():
            mask = self.scans / f"{name}_mask.nii.gz"
            if not mask.is_file():
                self.scans.mkdir(parents=True, exist_ok=True)
                image = self.scans / f"{name}_img.nii.gz"
                shutil.copy(data / folder / mask.name, mask)
                made = noisy_copy(data / folder / image.name, mask, image, NOISES[noise])
                if made != image:
                    shutil.copy(made, image)
        self.cases = {case.case_id: case for case in find_cases(self.scans).cases}

    @property
    def record(self) -> RunRecord:
        """The run, trained on generated phantoms."""
        scans = self.plan.work / "generated"
        if not scans.is_dir():
            beside = scans.with_name("generated.unfinished")
            write_hard_phantoms(beside, names=RUN_PHANTOMS[: 2 if self.plan.trial else None], series=RUN_SERIES)
            for label in beside.glob("*_label.nii.gz"):
                label.unlink()
            beside.rename(scans)
        return self.plan.trained("effort", "demo", scans)

    def compute(self, level: str, test: str) -> dict[str, Any]:
        """Teach by the training phantoms of a fold, and score the one that was left out."""
        record, effort, seconds = self.record, Effort(), 0.0
        if level != "none":
            answer = self._teach(record, level, test)
            effort, seconds = Effort.from_dict(answer["effort"]), answer["seconds"]["training"]
        method = record.config.reconstruct.method if level == "none" else "probe"
        config = change_config(record.config, [f"reconstruct.method={method}"], sections=("reconstruct",))
        predictor = predictor_of_run(record, config, CPU, compare=False)
        case = self.cases[test]
        with parts.prepared(case, config.prepare, record.store / "prepared") as sample:
            share = predictor.predict(sample, config, CPU).probabilities[method][0]
            volume = parts.refinement_volume(sample)
            mask = refine(share, volume, steps_after(method, config.reconstruct.refine)) & volume.region
            truth = (labels_of(self._label(test), case, config.prepare, None) > 0) & volume.region
        scores = {"dice": dice(mask, truth), "cldice": cldice(mask, truth)}
        return {
            "scores": scores,
            "naming": predictor.naming[method].named_by,
            "effort": effort.as_dict(),
            "teaching": seconds,
        }

    def _label(self, name: str) -> Path:
        return self.data / PHANTOMS[name] / f"{name}_label.nii.gz"

    def _teach(self, record: RunRecord, level: str, test: str) -> dict[str, Any]:
        """By labels of the other phantoms; of efforts on one scan, by the next one."""
        level, rounds = level.removesuffix("_grown"), 2 if level in GROWN else 1
        names = list(PHANTOMS)
        others = [names[(names.index(test) + step) % len(names)] for step in range(1, len(names))]
        one = others[0]
        if level == "clicks":
            clicks = self._clicks(self.cases[one])
            return self._taught(record, Sources(clicks=clicks, minutes=MINUTES["clicks"] * len(clicks)), [one], rounds)
        if level == "cells":
            return self._taught(record, Sources(rough=self._rough(self.cases[one])), [one], rounds)
        labels = self.plan.work / "labels" / f"without_{test}"
        labels.mkdir(parents=True, exist_ok=True)
        for name in others:
            shutil.copy(self._label(name), labels)
        if level == "slices":
            sources = Sources(labels, SLICES, minutes=MINUTES["slices"] * SLICES)
            return self._taught(record, sources, [one], rounds)
        chosen = [one] if level == "case" else others
        return self._taught(record, Sources(labels, minutes=MINUTES["cases"] * len(chosen)), chosen, rounds)

    def _taught(self, record: RunRecord, sources: Sources, cases: Sequence[str], rounds: int) -> dict[str, Any]:
        return teach_run(record.folder, self.scans, sources, cases=cases, rounds=rounds)

    def _clicks(self, case: Case) -> list[Click]:
        """Places on centre lines, and bright ones that are no vessel."""
        image, _ = read_values(case.image, case.pick)
        vessel = read_label_values(self._label(case.case_id), None)[0] > 0
        inside = read_label_values(case.mask, None)[0] > 0 if case.mask else np.ones(vessel.shape, bool)
        far = distance_transform_edt(~vessel) > APART
        bright = inside & far & (image > np.quantile(image[inside & ~vessel], BRIGHT))
        random = np.random.default_rng(int(case.case_id))
        clicks = []
        for places, count, name in zip(
            (skeleton(vessel) & inside, bright), CLICKS, ("vessel", BACKGROUND), strict=True
        ):
            chosen = random.choice(np.argwhere(places), count, replace=False)
            clicks += [Click(case.case_id, (i, j, k), "voxel", name) for i, j, k in chosen.astype(float).tolist()]
        return clicks

    def _rough(self, case: Case) -> Path:
        """Rough masks of so many cells that hold a vessel, slice after slice; the last slice is not seen as a whole."""
        folder = self.plan.work / f"rough{self.noise}" / case.case_id
        grid = read_grid(case.image, case.pick)
        axis = slice_axis(grid.affine)
        vessel = np.moveaxis(read_label_values(self._label(case.case_id), None)[0] > 0, axis, 0)
        slices, left = [], CELLS
        count = len(vessel)
        for index in (round(count * share) for share in (0.5, 0.35, 0.65, 0.2, 0.8, 0.43, 0.58)):
            held = sorted({(i // CELL, j // CELL) for i, j in np.argwhere(vessel[index]).tolist()})
            if left and held:
                slices.append(AnnotatedSlice(index, tuple(held[:left]), seen=len(held) <= left))
                left = max(left - len(held), 0)
        annotation = Annotation(
            case.case_id,
            hash_scan(case.image, case.pick),
            grid,
            CELL,
            tuple(sorted(slices, key=lambda part: part.index)),
            60 * MINUTES["cells"] * (CELLS - left),
            "simulated",
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        write_json(folder / "medseg_annotation.json", {"schema": SCHEMA, "annotations": [annotation.as_dict()]})
        answer = collect_annotations(folder / "medseg_annotation.json", self.scans, folder)
        assert not answer["failed"], answer["failed"]
        return folder


def report(plan: Plan, *, docs: bool) -> None:
    """Print the table of the finished cells, and draw it."""
    for noise in _TITLES:
        folder = plan.work / "cells" / f"effort{noise}"
        found = {
            level: {path.stem: read_json(path) for path in sorted((folder / level).glob("*.json"))}
            for level in (*LEVELS, *GROWN)
        }
        # Means are of the same phantoms in every row.
        common = set(PHANTOMS).intersection(*(tests for tests in found.values() if tests))
        cells = {level: [tests[name] for name in sorted(common)] for level, tests in found.items() if tests and common}
        if not cells:
            continue
        print(f"\nFour phantoms {_TITLES[noise]}, leave one out; minutes are assumed\n")
        print("\n".join(markdown(cells)))
        if docs:
            drawn = {level: found for level, found in cells.items() if level in LEVELS}
            draw(drawn, Path(__file__).parent.parent / "docs" / f"effort{noise}.png", _TITLES[noise])


def markdown(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Lines of the table, an effort each."""
    lines = [
        "| effort | folds | Dice, mean | worst | clDice, mean | worst | teaching, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for level, found in cells.items():
        effort = in_words(found[0]["naming"], Effort.from_dict(found[0]["effort"]))
        scores = [np.array([cell["scores"][key] for cell in found]) for key in ("dice", "cldice")]
        numbers = [f"{number:.3f}".removeprefix("0") for values in scores for number in (values.mean(), values.min())]
        seconds = np.mean([cell["teaching"] for cell in found])
        grown = ", two rounds" if level in GROWN else ""
        lines.append(f"| {effort}{grown} | {len(found)} | {' | '.join(numbers)} | {seconds:.0f} |")
    return lines


def draw(cells: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str) -> None:
    """Plot mean and worst of both scores against the effort."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    efforts = [in_words(found[0]["naming"], Effort.from_dict(found[0]["effort"])) for found in cells.values()]
    names = ["\n".join(textwrap.wrap(effort, 10)) for effort in efforts]
    for panel, key, words in zip(panels, ("dice", "cldice"), ("Dice", "clDice"), strict=True):
        values = [np.array([cell["scores"][key] for cell in found]) for found in cells.values()]
        for place, scores in enumerate(values):
            panel.scatter(
                [place] * len(scores), scores, s=14, color="#9aa0a6", zorder=2, label=None if place else "phantoms"
            )
        panel.plot([scores.mean() for scores in values], color="#2f6fde", marker="o", label="mean", zorder=3)
        panel.plot([scores.min() for scores in values], color="#d93025", linestyle=":", label="worst", zorder=1)
        panel.set_xticks(range(len(names)), names, fontsize=6.5)
        panel.set_title(words, fontsize=10)
        panel.set_ylim(min(0.85, *(scores.min() - 0.02 for scores in values)), 1)
        panel.grid(alpha=0.25)
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(f"Phantoms {title}: score against effort (minutes are assumed)", fontsize=11)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110, format="png")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
