"""This script trains the student that medseg ships: on own phantoms and on vessels painted into them, on no scan.

    python scripts/train_shipped_student.py --work /tmp/shipped

It makes the phantoms of the training family, learns their exact labels (veins and scalp arteries count as unknown:
nothing local tells them from arteries), and compares the result, gated by the flux rule, with the flux rule alone on
the test family, whose settings and seeds the training family never draws. Only a student that is better in mean Dice
and in mean clDice is written; its card says what was measured. The same arguments give the same student on the same
machine; an interrupted training goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.config import load_config
from medseg.features.student.training import train_student
from medseg.features.student.vessels.course import VesselCourse, VesselSettings
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.student.vessels.volumes import StudentVolume, open_volume, store_volume
from medseg.features.teachers.vessels import NO, UNKNOWN, YES
from medseg.files import hash_content, write_json
from medseg.phantoms.hard import TEST_FAMILY, HardCase, training_settings
from medseg.phantoms.vessels import VesselPhantom, make_vessel_phantom, write_phantom
from medseg.prepare.chain import prepare_case
from medseg.progress import track
from medseg.reconstruction.direct import flux_probability
from medseg.reconstruction.refine import refine
from medseg.runs import versions
from medseg.scans.cases import Case
from medseg.scoring.overlap import UNION, score_labels
from medseg.workflows import parts

SHIPPED = Path(__file__).resolve().parent.parent / "medseg" / "features" / "student" / "shipped"
_UNMASKED_EVERY = 3  # every third phantom is learnt without its brain mask: scalp and skull are negatives too


def main(arguments: list[str]) -> int:
    """Make phantoms, train, compare, and ship what is better than the rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for phantoms, volumes and the training")
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED, help="where the student goes")
    parser.add_argument("--cases", type=int, default=24, help="training phantoms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args(arguments)
    start_logging(quiet=False, verbose=False)

    config = load_config("tof_mra")
    fabric = parts.start_fabric(config.run)
    numbers = track(range(asked.cases), "phantoms", asked.cases)
    volumes = [training_volume(asked.work, asked.seed, number) for number in numbers]
    settings = VesselSettings(rounds=1, steps=asked.steps, batch=asked.batch)
    trained = train_student(
        VesselCourse(volumes, settings), run_dir=asked.work / "training", fabric=fabric, seed=asked.seed
    )
    rows = [compare(trained, case) for case in track(TEST_FAMILY, "test phantoms", len(TEST_FAMILY))]
    scored = [row for row in rows if row["vessels"]]
    means = {
        f"{method} {metric}": round(float(np.mean([row[method][metric] for row in scored])), 3)
        for method in ("flux", "gated student")
        for metric in ("dice", "cldice")
    }
    card = {
        "trained_on": f"{asked.cases} phantoms of the training family (medseg.phantoms.hard), seed {asked.seed}, and "
        "vessels painted into them; no scan of a person, no image from elsewhere",
        "command": f"python scripts/train_shipped_student.py --work WORK --cases {asked.cases} --seed {asked.seed} "
        f"--steps {asked.steps} --batch {asked.batch}",
        "versions": versions(),
        "test": "phantoms of the test family inside their brain masks, none of whose settings or seeds were trained on",
        "means": means,
        "cases": rows,
        "limits": "bright vessels of .3-3 mm radius at .3-1 mm spacing in MR; it does not tell arteries from veins; "
        "phantoms are no patients: look at every mask",
    }
    write_json(asked.work / "card.json", card)
    for row in rows:
        print(row)
    print(means)
    better = all(means[f"gated student {metric}"] > means[f"flux {metric}"] for metric in ("dice", "cldice"))
    if not better:
        print("the gated student is not better than the flux rule: nothing is written")
        return 1
    trained.save(asked.out, card)
    return 0


def training_volume(work: Path, seed: int, number: int, side: int = 128) -> StudentVolume:
    """One phantom of the training family, `side` voxels wide, with its exact labels, made once."""
    key = hash_content([seed, number])
    folder = work / "volumes" / key[:16]
    if known := open_volume(folder, key):
        return known
    rng = np.random.default_rng([seed, number])
    phantom = make_vessel_phantom(**training_settings(rng, side=side))
    sample = prepare(work / "scans", f"training_{number:03d}", phantom, masked=number % _UNMASKED_EVERY != 0)
    labels = np.where(phantom.label > 0, YES, NO).astype(np.uint8)
    labels[phantom.other_vessels > 0] = UNKNOWN
    region = np.asarray(sample["region"][0]) > 0
    labels[~region] = UNKNOWN
    return store_volume(folder, sample, labels, key=key)


def prepare(folder: Path, name: str, phantom: VesselPhantom, *, masked: bool) -> dict[str, Any]:
    """The phantom through the same files and the same preparation as a scan."""
    config = load_config("tof_mra")
    path = write_phantom(folder, name, phantom)
    mask = folder / f"{name}_mask.nii.gz" if masked else None
    case = Case(name, path, name, mask=mask, mask_mode=None if masked else "none")
    return prepare_case(case, parts.preparation(config.prepare))


def compare(student: VesselStudent, case: HardCase) -> dict[str, Any]:
    """Dice and clDice of the flux rule and of the gated student on one test phantom, inside its brain mask."""
    config = load_config("tof_mra")
    phantom = case.make()
    with TemporaryDirectory() as folder:
        sample = prepare(Path(folder), case.name, phantom, masked=True)
    volume = parts.refinement_volume(sample)
    maps = student.maps(sample, torch.device("cpu"))
    masks = {
        "flux": flux_probability(volume) > 0.5,
        "gated student": refine(np.asarray(maps["student_probability"][0]), volume, config.reconstruct.refine),
    }
    row: dict[str, Any] = {"case": case.name, "vessels": bool((phantom.label * volume.region).any())}
    for method, mask in masks.items():
        scores = score_labels(mask.astype(np.uint8), phantom.label, volume.spacing, region=volume.region)[UNION]
        found = {metric: round(float(scores[metric]), 3) for metric in ("dice", "cldice")}
        row[method] = found if row["vessels"] else None  # there is nothing to overlap with
        row[f"{method}, voxels"] = int(mask.sum())
    return row


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
