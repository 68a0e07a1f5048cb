"""What every method draws in real volumes: projections side by side, pieces, voxels, and Dice where there is a label.

    MEDSEG_TEST_DATA=FOLDER python benchmarks/real_volumes.py --work DIR [VOLUME ...]

Each volume is segmented by itself: a run is trained on it alone, with few steps, and its methods are asked; the student
is the shipped one unless `--student-steps` adapts it. A volume that is finished is not computed again. Labels go to the
score only. Without MEDSEG_TEST_DATA there is nothing to do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from vessels_answers import EDGE_ONLY, ask_run
from vessels_cases import Plan

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.naming.effort import in_words
from medseg.prepare.chain import prepare_case
from medseg.reconstruction.refine import Volume, refine
from medseg.review.plots import orient
from medseg.scans.folders import find_cases
from medseg.scans.readers import read_image, read_labels
from medseg.scoring.baselines import brightest_1_percent
from medseg.scoring.overlap import components, dice
from medseg.scoring.skeleton import cldice
from medseg.workflows import parts

WHOLE = ("prepare.brain_mask=none",)
"""Overrides for what is no head."""


@dataclass(frozen=True)
class RealVolume:
    """A volume of the test data.

    Attributes:
        image: path below the data folder.
        config: the shipped config for it.
        overrides: of the config.
        label: path of its label.
        label_above: grey value above which the label is 1.
    """

    image: str
    config: str
    overrides: tuple[str, ...] = ()
    label: str | None = None
    label_above: float = 0.5


VOLUMES: Mapping[str, RealVolume] = {
    "tof": RealVolume("tof_cta_topcow_roi/mra_roi.mha", "tof_mra", WHOLE),
    "carotid": RealVolume("pcmra_carotid_vtk/carotid.nii.gz", "tof_mra", WHOLE),
    "vascusynth": RealVolume(
        "vascusynth/original_image.nii.gz", "tof_mra", WHOLE, "vascusynth/original_image.nii.gz", 127
    ),
    "vascusynth_noise": RealVolume(
        "vascusynth/noise_image_0.nii.gz", "tof_mra", WHOLE, "vascusynth/original_image.nii.gz", 127
    ),
    "aorta": RealVolume("cemra_vmtk_aorta/aorta.mha", "ce_mra"),
    "cta": RealVolume("cta_totalseg_aorta/ct_cropped.nii.gz", "cta", (), "cta_totalseg_aorta/aorta.nii.gz"),
}


def main() -> int:
    """Measure the volumes that were asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*", metavar="VOLUME", help=f"{', '.join(VOLUMES)}; all by default")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, projections and results")
    parser.add_argument("--student", default="shipped", help="weights of the student: shipped, or a folder")
    parser.add_argument("--student-steps", type=int, default=0, help="steps of one round that adapt the student")
    parser.add_argument("--stego-steps", type=int, default=100)
    parser.add_argument("--trial", action="store_true", help="a few steps, to see it run")
    asked = parser.parse_args()
    if strange := set(asked.volumes) - set(VOLUMES):
        parser.error(f"VOLUME must be among {', '.join(VOLUMES)}, got {', '.join(sorted(strange))}")
    if not (data := os.environ.get("MEDSEG_TEST_DATA")):
        print("MEDSEG_TEST_DATA names no folder: nothing to look at")
        return 0
    start_logging(quiet=True, verbose=False)
    torch.set_num_threads(1)
    plan = Plan(asked.work.resolve(), asked.student, asked.trial)
    steps = (f"student.steps={asked.student_steps}", "student.rounds=1", f"stego.steps={asked.stego_steps}")
    for name in asked.volumes or VOLUMES:
        if not (Path(data) / VOLUMES[name].image).is_file():
            print(f"{name}: {VOLUMES[name].image} is not in the test data, left out")
            continue
        try:
            found = plan.cell(f"real/{name}", partial(measure, plan, name, Path(data), steps))
        except MedsegError as error:
            print(f"{name}: {error}")
            continue
        report(name, found, plan.work / f"{name}.png")
    return 0


def measure(plan: Plan, name: str, data: Path, steps: tuple[str, ...]) -> dict[str, Any]:
    """Masks of every method on one volume: what they count, and their projections as a picture."""
    real = VOLUMES[name]
    overrides = (*steps, "stego.voters=3", *real.overrides)
    # In a trial the student keeps its weights, so that what is drawn still says something.
    last = ("student.steps=0",) if plan.trial else ()
    record = plan.trained(f"real_{name}", real.config, data / real.image, *overrides, last=last)
    config = record.config
    case = find_cases(data / real.image).cases[0]
    sample = prepare_case(case, parts.preparation(config.prepare))
    volume = parts.refinement_volume(sample)
    scan = np.asarray(parts.on_prepared_grid(read_image(case.image), case, config.prepare)[0])
    has_student = "student" in config.features.backbone
    asked = ask_run(record, sample, methods=["kmeans", "stego", "flux", *(["student"] if has_student else [])]).of
    refinement = config.reconstruct.refine
    masks = {
        "brightest 1 %": brightest_1_percent(scan, volume.region, volume.spacing),
        "flux rule": (asked["flux"] > 0.5) & volume.region,
    }
    if has_student:
        masks["student, edge only"] = refine(asked["student"], volume, EDGE_ONLY)
        masks["student, gated"] = refine(asked["student"], volume, refinement)
    masks["k-means, 3 voters"] = refine(asked["kmeans"], volume, refinement)
    masks["STEGO, 3 voters"] = refine(asked["stego"], volume, refinement)
    reference = None
    if real.label:
        label = parts.on_prepared_grid(read_labels(data / real.label), case, config.prepare)
        reference = np.asarray(label[0]) > real.label_above
    draw(scan, masks, volume, plan.work / f"{name}.png", reference=reference)
    rows = {row: _counts(mask, reference, volume) for row, mask in masks.items()}
    facts = parts.plain_facts(sample["facts"])
    return {"config": real.config, "shape": list(scan.shape), "spacing": volume.spacing, "facts": facts, "rows": rows}


def _counts(mask: np.ndarray, reference: np.ndarray | None, volume: Volume) -> dict[str, Any]:
    found: dict[str, Any] = {
        "voxels": int(mask.sum()),
        "ml": float(mask.sum() * np.prod(volume.spacing) / 1000),
        "pieces": components(mask),
    }
    if reference is not None:
        found |= {"dice": dice(mask, reference), "cldice": cldice(mask, reference)}
    return found


def report(name: str, found: Mapping[str, Any], picture: Path) -> None:
    """Print one volume's table."""
    facts = found["facts"]
    print(f"\n{name} by {found['config']}, {' x '.join(map(str, found['shape']))} voxels, {picture}")
    print(f"region by {facts.get('region_source')}, alarm: {facts.get('flux_alarm') or 'none'}")
    print(f"{'':24}{'effort':12}{'voxels':>9}{'ml':>9}{'pieces':>8}{'Dice':>8}{'clDice':>8}")
    for row, counts in found["rows"].items():
        scores = "".join(f"{counts[key]:8.3f}" for key in ("dice", "cldice") if counts.get(key) is not None)
        print(f"{row:24}{in_words('none'):12}{counts['voxels']:9d}{counts['ml']:9.2f}{counts['pieces']:8d}{scores}")


def draw(
    scan: np.ndarray,
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
    volume: Volume,
    path: Path,
    *,
    reference: Bool[np.ndarray, "i j k"] | None,
) -> None:
    """Draw axial and coronal projections: the scan's largest values, and for each mask how thick it is."""
    shown = {**masks, **({} if reference is None else {"label": reference})}
    window = np.percentile(scan, [2, 99.9])
    thicknesses = [mask.sum(axis=axis) * volume.spacing[axis] for mask in shown.values() for axis in (1, 2)]
    drawn = np.concatenate([thickness[thickness > 0] for thickness in thicknesses])
    thickest_mm = float(np.percentile(drawn, 99)) if drawn.size else 1.0
    extent_mm = np.array(scan.shape) * volume.spacing
    heights = [extent_mm[1], extent_mm[2]]
    width_in = 2.6
    figure = Figure(figsize=(width_in * (len(shown) + 1), width_in * sum(heights) / extent_mm[0] + 0.4))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(shown) + 1, height_ratios=heights, squeeze=False)
    for row, axis in zip(panels, (2, 1), strict=True):
        across, up = (volume.spacing[other] for other in range(3) if other != axis)
        row[0].imshow(orient(scan.max(axis=axis)), cmap="gray", vmin=window[0], vmax=window[1], aspect=up / across)
        for panel, mask in zip(row[1:], shown.values(), strict=True):
            thickness_mm = orient(mask.sum(axis=axis)) * volume.spacing[axis]
            panel.imshow(np.sqrt(thickness_mm), cmap="inferno", vmin=0, vmax=np.sqrt(thickest_mm), aspect=up / across)
    for panel, words in zip(panels[0], ("scan", *shown), strict=True):
        panel.set_title(words, fontsize=10)
    for panel in panels.flat:
        panel.set_axis_off()
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.93, wspace=0.02, hspace=0.02)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110, format="png")


if __name__ == "__main__":
    sys.exit(guarded(main))
