"""This file runs the demo: phantoms made on the spot, the main job on them, pictures and a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Orientation

from medseg.files import read_json, require_folder
from medseg.phantoms.liver_files import write_liver_phantoms
from medseg.phantoms.vessels import write_phantoms
from medseg.prepare.chain import voxel_spacing
from medseg.review.plots import DemoRow, demo_picture
from medseg.scans.readers import read_image, read_labels
from medseg.workflows.reviewing import review_results
from medseg.workflows.scoring import score_results
from medseg.workflows.segmentation import segment_scans
from medseg.workflows.whole import run_all

_log = logging.getLogger(__name__)
_CASES, _SEED, _SHAPE = 4, 7, (128, 128, 96)
_RAS = (("L", "R"), ("P", "A"), ("I", "S"))
_FRAMES, _FRAME_SEED = 16, 11
_QUICK = ("student.steps=120", "run.checkpoint_every=120")


def run_demo(out: Path) -> dict[str, Any]:
    """Make four vessel phantoms, train on three without labels, write and score masks of all four; then livers.

    Args:
        out: folder for phantoms, run and results; `out/liver` has the frames of livers.

    Returns:
        `lines` that say where to look.
    """
    require_folder(out, "-o")
    scans = out / "scans"
    _log.info("making %d phantoms: the truth is known, and no label is used until the masks are scored", _CASES)
    write_phantoms(scans, cases=_CASES, seed=_SEED, shape=_SHAPE)
    # The brain mask leaves out the arteries below the brain, so they are left out of the score as well.
    answer = run_all("demo", scans, out, region="brain", overrides=("run.held_out=0.25",))
    picture = out / "plots" / "demo.png"
    demo_picture(_rows(out, scans), picture)
    livers = _livers(out / "liver")
    review = _review(out)
    lines = [
        *answer["lines"],
        "",
        *livers["lines"],
        "",
        "A score on phantoms checks the pipeline; it is no forecast for patients. Research use only.",
        "Look at:",
        f"  {picture}  all cases on one picture, beside the truth",
        f"  {out / 'plots'}  pictures of every case",
        f"  {out}/*_seg.nii.gz  masks on the scans' own grids",
        f"  {out / 'scores.csv'}  every score, beside the baselines",
        f"  {out / 'run' / 'run.yaml'}  what was run",
        f"  {out / 'liver'}/*_overlay.png  livers in simulated ultrasound frames",
        *review["lines"],
    ]
    return {"lines": lines, "failed": {**answer["failed"], **livers["failed"], **review["failed"]}}


def _review(out: Path) -> dict[str, Any]:
    """The page on which a radiologist would review the vessels."""
    answer = review_results(out)
    return answer | {"lines": [f"  {answer['files'][0]}  the page for the radiologist: open it in a browser"]}


def _livers(out: Path) -> dict[str, Any]:
    """Frames of livers: a student that needs no weights learns from them, without labels, and its masks are scored."""
    frames = out / "frames"
    _log.info("making %d ultrasound frames of livers", _FRAMES)
    write_liver_phantoms(frames, cases=_FRAMES, seed=_FRAME_SEED, size="small")
    made = segment_scans([frames / "imgs"], out, config="liver_ultrasound_bare", overrides=_QUICK)
    scored = score_results(out, frames / "labels")
    return {"lines": [*made["lines"], *scored["lines"]], "failed": {**made["failed"], **scored["failed"]}}


def _rows(out: Path, scans: Path) -> list[DemoRow]:
    """One row a case: scan, mask, truth and scores."""
    scores = read_json(out / "scores.json")["rows"]
    rows = []
    for row in (row for row in scores if row["method"] == "stego"):
        case = row["case_id"]
        image = _upright(read_image(scans / f"{case}_img.nii.gz"))
        predicted, reference, region = (
            np.asarray(_upright(read_labels(path))[0]) > 0
            for path in (out / f"{case}_seg.nii.gz", scans / f"{case}_label.nii.gz", out / f"{case}_region.nii.gz")
        )
        picture, spacing = np.asarray(image[0]), voxel_spacing(image)
        rows.append(DemoRow(case, picture, predicted, spacing, reference & region, region, row["scores"]))
    return rows


def _upright(volume: MetaTensor) -> MetaTensor:
    turned = Orientation("RAS", labels=_RAS)(volume)
    assert isinstance(turned, MetaTensor)  # as long as the volume is one
    return turned
