"""Do the rules pick the clusters that the labels would pick? k-means and STEGO over seeds, vessels and liver.

    MEDSEG_TEST_DATA=FOLDER python benchmarks/names.py --work DIR [PART ...]

The *oracle* takes the clusters with the highest Dice against the label (`match_by_purity`); the rule sees cards only.
Of vessels: the four shared phantoms, each also with added Rician noise of two strengths. k-means is fitted to each of
these twelve anew, with 20 seeds and one start each (5 seeds where K is not the config's); STEGO is trained once, with
5 seeds, on phantoms of the training family, named there by the rules, and applied to all. Of the liver: both are
fitted to the training frames of `us_liver_aul` and applied to the validation frames. Labels are read by the oracle
only. A finished cell is not computed again. Without MEDSEG_TEST_DATA there is nothing to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from liver_cases import DATA as LIVER_DATA
from liver_cases import pictures_in
from liver_scores import LIVER
from vessels_cases import Plan

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.files import replacing
from medseg.naming.cards import measure_clusters
from medseg.naming.classes import read_classes
from medseg.naming.matching import count_table, match_by_purity
from medseg.naming.rulebook import load_rules, name_clusters
from medseg.phantoms.hard import write_hard_phantoms
from medseg.phantoms.scanner import add_rician_noise
from medseg.prepare.chain import prepare_case
from medseg.runs import RunRecord, open_run
from medseg.scans.cases import Case
from medseg.scans.readers import read_labels
from medseg.stego.clustering import fit_kmeans
from medseg.stego.model import ClusterModel
from medseg.workflows import parts
from medseg.workflows.naming import name_method
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.students import trained_student

RULES = ("tof_mra", "tof_mra_student")
"""Rules for vessels: by the flux rule, and by the answer of the student that it taught."""
PARTS = ("points", "kmeans", "stego", "silent", "liver")
PHANTOMS = {
    "002": "brava_bg0002_phantom",
    "007": "brava_phantoms_cow",
    "013": "brava_phantoms_cow",
    "020": "brava_phantoms_cow",
}
"""Shared phantoms and their folders."""
NOISES = {"": 0.0, "_sd28": 0.28, "_sd50": 0.5}
"""Added noise, in tissue medians; two channels."""
GRAIN_MM = 0.33
"""Length over which neighbouring voxels share noise."""
SEEDS = {16: 20, 8: 5, 27: 5}
"""Seeds of k-means by the number of clusters; 16 is the config's."""
STEGO_SEEDS = 5
FIT_POINTS, SALIENT_SHARE, SALIENT_TOP = 16000, 0.75, 0.05
"""Points that clusters are fitted to, as configs/default.yaml has them."""
JUDGED_POINTS = 150_000
"""Voxels of the region, drawn uniformly, on which the oracle judges."""
CLOSE = 0.01
"""Dice below the oracle's down to which a rule's choice is as good: sets may differ by a cluster that hardly counts."""
SLAB = 8
"""Slices whose features are in memory together."""
TRAINING_PHANTOMS = 4


class Points(NamedTuple):
    """Voxels of one scan: features, what rules may ask, the label, and how many of them clusters are fitted to."""

    features: torch.Tensor
    brightness: np.ndarray
    salience: np.ndarray
    label: np.ndarray
    fitted: int


def main() -> int:
    """Compute the parts that were asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--work", type=Path, required=True, help="folder for scans, runs and cells")
    parser.add_argument("--student", default="shipped", help="weights of the vessels' student: shipped, or a folder")
    parser.add_argument("--liver-student", type=Path, help="folder of a liver student; trained here without one")
    parser.add_argument("--only", nargs="*", default=[], help="scans of the parts points and kmeans")
    parser.add_argument("--trial", action="store_true", help="few steps and two scans, to see it run")
    asked = parser.parse_args()
    if strange := set(asked.parts) - set(PARTS):
        parser.error(f"PART must be among {', '.join(PARTS)}, got {', '.join(sorted(strange))}")
    if not (data := os.environ.get("MEDSEG_TEST_DATA")):
        print("MEDSEG_TEST_DATA names no folder: nothing to look at")
        return 0
    start_logging(quiet=True, verbose=False)
    torch.set_num_threads(1)
    plan = Plan(asked.work.resolve(), asked.student, asked.trial)
    scans = asked.only or [f"{name}{noise}" for name in (("007",) if asked.trial else PHANTOMS) for noise in NOISES]
    for part in asked.parts or PARTS:
        if part == "liver":
            _liver(plan, Path(data), asked.liver_student)
        elif part == "stego":
            _stego(plan, Path(data), scans)
        elif part == "silent":
            _silent(plan)
        else:
            for scan in scans:
                _points(plan, Path(data), scan)
                for rules in RULES if part == "kmeans" else ():
                    plan.cell(f"kmeans/{rules}/{scan}", partial(_kmeans_of, plan, Path(data), scan, rules))
    _report(plan, scans)
    return 0


def _points(plan: Plan, data: Path, scan: str) -> Points:
    """Voxels of a shared phantom, from the work folder or made."""
    path = plan.work / "points" / f"{scan}.npz"
    if not path.is_file():
        plan.cell(f"points/{scan}", partial(_draw_points, plan, data, scan, path))
    with np.load(path) as content:
        return Points(
            torch.from_numpy(content["features"]).float(),
            *(content[n] for n in Points._fields[1:4]),
            int(content["fitted"]),
        )


def _draw_points(plan: Plan, data: Path, scan: str, path: Path) -> dict[str, Any]:
    name, sd = scan[:3], NOISES[scan[3:]]
    folder = data / PHANTOMS[name]
    image = noisy_copy(
        folder / f"{name}_img.nii.gz", folder / f"{name}_mask.nii.gz", plan.work / "scans" / f"{scan}.nii.gz", sd
    )
    config = plan.config("tof_mra")
    case = Case(scan, image, scan, mask=folder / f"{name}_mask.nii.gz")
    sample = prepare_case(case, parts.preparation(config.prepare))
    student = plan.starting_student()
    sample |= student.maps(sample)
    label = parts.on_prepared_grid(read_labels(folder / f"{name}_label.nii.gz"), case, config.prepare)
    return _keep_points(sample, np.asarray(label[0]) > 0, student, path, seed=len(scan))


def _keep_points(sample: Mapping[str, Any], label: np.ndarray, student: Any, path: Path, seed: int) -> dict[str, Any]:
    """Draw points to fit and points to judge, and keep what is known of them."""
    random = np.random.default_rng(seed)
    region, salience = np.asarray(sample["region"][0]) > 0, np.asarray(sample["salience"][0])
    inside = np.flatnonzero(region)
    high = inside[salience.ravel()[inside] > np.quantile(salience.ravel()[inside], 1 - SALIENT_TOP)]
    salient = random.choice(high, min(round(FIT_POINTS * SALIENT_SHARE), len(high)), replace=False)
    uniform = random.choice(inside, min(FIT_POINTS - len(salient) + JUDGED_POINTS, len(inside)), replace=False)
    chosen = np.concatenate([salient, uniform])
    places = np.unravel_index(chosen, region.shape)
    features = np.empty((len(chosen), student.dim), np.float16)
    for first in range(0, region.shape[2], SLAB):
        mine = np.flatnonzero((places[2] >= first) & (places[2] < first + SLAB))
        box = (slice(0, region.shape[0]), slice(0, region.shape[1]), slice(first, first + SLAB))
        block = student.features_of_box(sample, box).numpy()
        features[mine] = block[:, places[0][mine], places[1][mine], places[2][mine] - first].T
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        np.savez(
            beside,
            features=features,
            brightness=np.asarray(sample["image"][0])[places],
            salience=salience[places],
            label=label[places],
            fitted=min(FIT_POINTS, len(chosen)),
        )
    return {"points": len(chosen), "vessel_share": float(label[region].mean())}


def noisy_copy(image: Path, mask: Path, path: Path, sd: float) -> Path:
    """The scan with Rician noise of so many tissue medians; the scan itself for none."""
    if sd == 0:
        return image
    if not path.is_file():
        stored: Any = nibabel.load(image)
        values = np.asarray(stored.dataobj, np.float32)
        level = float(np.median(values[np.asarray(nibabel.load(mask).dataobj) > 0]))
        spacing = tuple(float(size) for size in stored.header.get_zooms()[:3])
        random = np.random.default_rng([round(100 * sd), int(image.name[:3])])
        noisy = add_rician_noise(random, values, spacing, sd=sd * level, grain_mm=GRAIN_MM)
        with replacing(path) as beside:
            nibabel.save(nibabel.Nifti1Image(noisy.astype(np.float32), stored.affine), beside)
    return path


def _kmeans_of(plan: Plan, data: Path, scan: str, rules: str) -> dict[str, Any]:
    """k-means on one scan, every K and seed, named by some rules."""
    points = _points(plan, data, scan)
    answers = plan.starting_student().answer_at(points.features[: points.fitted]).numpy()
    fit = points.features[: points.fitted]
    found = {}
    for clusters, seeds in SEEDS.items():
        for seed in range(2 if plan.trial else seeds):
            fitted = fit_kmeans(fit, clusters, metric="euclidean", starts=1, seed=seed)
            model = ClusterModel("kmeans", None, fitted.prototypes, "euclidean", 1.0)
            assigned = model.assign_codes(points.features).numpy()
            rule = _by_rule(assigned[: points.fitted], points, answers, rules, clusters)
            found[f"{clusters} {seed}"] = _judged(assigned, points, rule, clusters)
    return found


def _by_rule(assigned: np.ndarray, points: Points, answers: np.ndarray, rules: str, clusters: int) -> list[int]:
    """The clusters of the first class of some rules, by cards of the points that clusters were fitted to."""
    shown = {"brightness": points.brightness, "salience": points.salience}
    measured = {name: values[: points.fitted] for name, values in shown.items()} | {"answer": answers}
    cards = measure_clusters(assigned, measured, np.zeros(points.fitted, int), clusters=clusters)
    return list(name_clusters(cards, load_rules(rules)).classes[0].clusters)


def _judged(assigned: np.ndarray, points: Points, rule: Sequence[int], clusters: int) -> dict[str, Any]:
    """A rule's choice beside the oracle's, on uniformly drawn points: those after the salient ones."""
    first = round(points.fitted * SALIENT_SHARE) if len(points.label) > points.fitted else 0
    table = count_table(assigned[first:], points.label[first:].astype(int), clusters=clusters, classes=2)
    return _compared(table, rule)


def _compared(table: np.ndarray, rule: Sequence[int]) -> dict[str, Any]:
    oracle = np.flatnonzero(match_by_purity(table) == 1).tolist()
    return {
        "rule": sorted(map(int, rule)),
        "oracle": oracle,
        "rule_dice": _dice(table, rule),
        "oracle_dice": _dice(table, oracle),
        "clusters": len(table),
    }


def _dice(table: np.ndarray, chosen: Sequence[int]) -> float:
    taken = table[list(chosen)]
    return float(2 * taken[:, 1].sum() / max(taken.sum() + table[:, 1].sum(), 1))


def _trained(plan: Plan) -> RunRecord:
    """STEGO with five seeds on generated phantoms, on the student as it was shipped."""
    scans = plan.training_scans(TRAINING_PHANTOMS)
    return plan.trained("vessels", "tof_mra", scans, "student.steps=0", f"stego.voters={STEGO_SEEDS}", "run.device=cpu")


def _stego(plan: Plan, data: Path, scans: Sequence[str]) -> None:
    """The five trainings, named where they were trained, on every scan; their k-means too."""
    record = _trained(plan)
    for scan in scans:
        plan.cell(f"stego/{scan}", lambda scan=scan: _applied(record, _points(plan, data, scan)))  # type: ignore[misc]


def _applied(record: RunRecord, points: Points) -> dict[str, Any]:
    found = {}
    for method in ("stego", "kmeans"):
        for seed, folder in enumerate(record.method_folders(method)):
            model = ClusterModel.load(folder)
            assigned = np.concatenate([model.assign(block).numpy() for block in points.features.split(20_000)])
            for rules in RULES:
                asked = record.config.naming.model_copy(update={"rules": rules})
                rule = name_method(folder, asked, clusters=model.clusters).classes[0].clusters
                found[f"{method}:{rules} {seed}"] = _judged(assigned, points, rule, model.clusters)
    return found


def _silent(plan: Plan) -> None:
    """A phantom without vessels, by both methods of the run: the voxels of their masks, and the line that says why."""
    record = _trained(plan)

    def masks() -> dict[str, Any]:
        folder = plan.work / "without_vessels"
        (image,) = write_hard_phantoms(folder, names=["no_vessels"], series=1)
        (folder / image.name.replace("_img", "_label")).unlink(missing_ok=True)
        found: dict[str, Any] = {}
        for method in ("stego", "kmeans"):
            out = plan.work / "silent" / method
            reconstruct_run(record.folder, folder, out, overrides=[f"reconstruct.method={method}", "run.device=cpu"])
            (mask,) = out.glob("*_seg.nii.gz")
            found[method] = int(np.count_nonzero(np.asarray(nibabel.load(mask).dataobj)))
        return found

    plan.cell("silent", masks)


def _liver(plan: Plan, data: Path, student: Path | None) -> None:
    """k-means and STEGO on the features of a liver student; the rule by its answer, judged on held-out frames."""
    folder = data / LIVER_DATA
    learn, report = pictures_in(folder, "train"), pictures_in(folder, "val")
    images = plan.work / "liver_frames"
    images.mkdir(parents=True, exist_ok=True)
    for picture in learn[:8] if plan.trial else learn:
        if not (images / picture.image.name).is_file():
            shutil.copyfile(picture.image, images / picture.image.name)
    config = [f"student.start={student}", "student.steps=0"] if student else []
    asked = [*config, f"stego.voters={STEGO_SEEDS}", "run.device=cpu"]
    asked += ["stego.steps=6"] if plan.trial else []

    def trained() -> dict[str, Any]:
        from medseg.workflows.training import train_run

        train_run("liver_ultrasound", images, plan.work / "runs" / "liver", overrides=asked)
        return {"overrides": asked}

    plan.cell("trained/liver", trained)
    record = open_run(plan.work / "runs" / "liver")
    plan.cell("liver", lambda: _liver_cells(plan, record, report[:3] if plan.trial else report))


def _liver_cells(plan: Plan, record: RunRecord, report: Sequence[Any]) -> dict[str, Any]:
    network = trained_student(record.student, record.config, torch.device("cpu"))
    assert network is not None
    blocks, labels, frames = [], [], []
    for number, picture in enumerate(report):
        case = Case(picture.name, picture.image, picture.name)
        sample = prepare_case(case, parts.preparation(record.config.prepare))
        sample |= network.maps(sample, torch.device("cpu"))
        label = parts.on_prepared_grid(read_labels(picture.label_path), case, record.config.prepare)
        inside = np.asarray(sample["region"][0]) > 0
        whole = tuple(slice(0, length) for length in inside.shape)
        blocks.append(network.features_of_box(sample, whole)[:, torch.from_numpy(inside)].T)
        labels.append(np.asarray(label[0])[inside] >= LIVER)
        frames.append(np.full(inside.sum(), number))
    features, label, frame = torch.cat(blocks), np.concatenate(labels), np.concatenate(frames)
    found: dict[str, Any] = {}

    def judge(name: str, assign: Callable[[torch.Tensor], torch.Tensor], rule: Sequence[int], clusters: int) -> None:
        assigned = np.concatenate([assign(block).numpy() for block in features.split(20_000)])
        tables = [
            count_table(assigned[frame == n], label[frame == n].astype(int), clusters=clusters, classes=2)
            for n in range(len(report))
        ]
        found[name] = _compared(np.sum(tables, axis=0), rule)
        found[name]["frames"] = [_compared(table, rule) for table in tables]

    for method in ("stego", "kmeans"):
        for seed, folder in enumerate(record.method_folders(method)):
            model = ClusterModel.load(folder)
            named = read_classes(folder / "classes.yaml").classes[0]
            judge(f"{method} {seed}", model.assign, named.clusters, model.clusters)
    points, answers = _liver_points(record, network)
    for clusters, seeds in SEEDS.items():
        for seed in range(2 if plan.trial else seeds):
            fitted = fit_kmeans(points, clusters, metric="euclidean", starts=1, seed=seed)
            model = ClusterModel("kmeans", None, fitted.prototypes, "euclidean", 1.0)
            mine = model.assign_codes(points).numpy()
            cards = measure_clusters(mine, {"answer": answers}, np.zeros(len(mine), int), clusters=clusters)
            rule = name_clusters(cards, load_rules("liver_ultrasound")).classes[0].clusters
            judge(f"{clusters} {seed}", model.assign_codes, rule, clusters)
    return found


def _liver_points(record: RunRecord, network: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Points of the training frames and what the student answers there."""
    from medseg.stego.clustering import sample_points

    points = sample_points(kept_patches(record), FIT_POINTS, 0.0, 0)
    return points.features, network.answer_at(points.features).numpy()


def _report(plan: Plan, scans: Sequence[str]) -> None:
    """Print what is there."""
    for part in (*(f"kmeans/{rules}" for rules in RULES), "stego"):
        cells = {scan: plan.work / "cells" / part / f"{scan}.json" for scan in scans}
        there = {scan: plan.cell(f"{part}/{scan}", dict) for scan, path in cells.items() if path.is_file()}
        if there:
            _print(f"{part}, vessels, {len(there)} scans", [cell for found in there.values() for cell in _cells(found)])
            for noise in NOISES:
                mine = [cell for scan, found in there.items() if scan[3:] == noise for cell in _cells(found)]
                if mine:
                    _print(f"  noise {NOISES[noise]:g}", mine)
    if (plan.work / "cells" / "liver.json").is_file():
        found = plan.cell("liver", dict)
        _print("liver, validation frames together", _cells(found))
        _print(
            "liver, each validation frame", [(name, frame) for name, cell in _cells(found) for frame in cell["frames"]]
        )
    if (plan.work / "cells" / "silent.json").is_file():
        print(f"\nwithout vessels, voxels of the masks: {plan.cell('silent', dict)}")


def _cells(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, cell) for name, cell in found.items() if isinstance(cell, dict)]


def _print(title: str, cells: Sequence[tuple[str, Any]]) -> None:
    """A line for each method or K: how often the rule's choice is the oracle's, and their Dice."""
    print(
        f"\n{title}; effort: the rule label-free, the oracle all labels\n"
        f"{'':12}{'same set':>12}{'within .01':>12}{'rule Dice':>11}{'oracle':>8}{'worst gap':>11}{'empty':>7}"
    )
    for group in sorted({name.split()[0] for name, _ in cells}, key=lambda name: (not name.isdigit(), name.zfill(3))):
        mine = [cell for name, cell in cells if name.split()[0] == group]
        gaps = [cell["oracle_dice"] - cell["rule_dice"] for cell in mine]
        same = sum(cell["rule"] == cell["oracle"] for cell in mine)
        close = sum(gap <= CLOSE for gap in gaps)
        rule, oracle = (np.mean([cell[key] for cell in mine]) for key in ("rule_dice", "oracle_dice"))
        label = f"K = {group}" if group.isdigit() else group
        empty = sum(not cell["rule"] for cell in mine)
        print(
            f"{label:24}{f'{same}/{len(mine)}':>12}{f'{close}/{len(mine)}':>12}{rule:11.3f}{oracle:8.3f}"
            f"{max(gaps):11.3f}{empty:7d}"
        )


if __name__ == "__main__":
    sys.exit(guarded(main))
