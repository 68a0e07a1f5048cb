"""How well do label-free signals rank checkpoints and numbers of clusters? Spearman with Dice, on labelled data.

    python benchmarks/choice.py SCANS --config tof_mra_bank --set prepare.brain_mask=none -o work
    python benchmarks/choice.py IMAGES --config pictures --seeds 3 --clusters 8,16,27 --checkpoints 4

One run a seed is trained; its candidates (each kept checkpoint with each K) are measured without labels, as `medseg
choose` does, and then scored with them on the pixels of the run's patches. *named*: clusters are named by the labels of
every second case and scored on the others. *oracle*: named by the labels that are scored. Measured seeds are kept in
the work folder and not measured again. Nothing is tuned on the scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from medseg.config import load_config
from medseg.files import read_json, write_json
from medseg.naming.classes import ClassEntry
from medseg.naming.matching import confusion, count_table, hungarian, match_table, mean_iou
from medseg.patches.datasets import PatchDataset
from medseg.runs import open_run
from medseg.stego.choice import SIGNALS, cluster_map
from medseg.stego.clustering import sample_points
from medseg.stego.model import ClusterModel
from medseg.workflows.choosing import measure_run
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import stego_settings, train_run

SCORES = ("dice_named", "dice_oracle", "miou_named", "miou_hungarian")
"""Mean Dice of the classes without background, mean IoU with it."""

Row = dict[str, float]


def main() -> None:
    options = read_options()
    config = load_config(options.config, options.set)
    found: list[list[Row]] = []
    for seed in range(options.seeds):
        kept = options.out / f"seed_{seed}.json"
        if not kept.is_file():
            write_json(kept, measure_seed(options, seed, config.stego.steps))
        found.append(read_json(kept))
    report(found, config.stego.clusters or options.clusters[0])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="images or scans with labels beside them, at least two")
    parser.add_argument("--config", default="tof_mra_bank")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clusters", type=lambda text: [int(k) for k in text.split(",")], default=[8, 16, 24])
    parser.add_argument("--checkpoints", type=int, default=4, help="kept ones a run, at equal intervals")
    parser.add_argument("-o", "--out", type=Path, default=Path("choice"), help="work folder")
    return parser.parse_args()


def measure_seed(options: argparse.Namespace, seed: int, steps: int) -> list[Row]:
    """Train one run; signals and scores of its candidates."""
    folder = options.out / f"run_{seed}"
    every = max(steps // options.checkpoints, 1)
    train_run(
        options.config, options.scans, folder, overrides=[*options.set, f"run.seed={seed}", f"stego.keep_every={every}"]
    )
    record = open_run(folder)
    dataset, settings = kept_patches(record), stego_settings(record.config)
    points = sample_points(
        dataset, settings.fit_points, settings.fit_salient_share, seed, salient_top=settings.salient_top
    )
    candidates = measure_run(folder, dataset, points, settings, clusters=options.clusters, seed=seed)
    return [
        {"step": each.step, "clusters": each.clusters, **each.as_dict()["signals"], **score(each.model, dataset)}
        for each in candidates
    ]


def score(model: ClusterModel, dataset: PatchDataset) -> Row:
    """Dice and mean IoU of a clustering on the pixels of the labelled patches."""
    tables = label_tables(model, dataset)
    naming, scored = sum(tables[::2]), sum(tables[1::2])
    classes = [ClassEntry(n, str(n), "#000000") for n in range(1, scored.shape[1])]
    named = confusion(scored, classes_of(naming, classes))
    oracle = confusion(scored, classes_of(scored, classes))
    return {
        "dice_named": mean_dice(named),
        "dice_oracle": mean_dice(oracle),
        "miou_named": mean_iou(named),
        "miou_hungarian": mean_iou(confusion(scored, hungarian(scored))),
    }


def label_tables(model: ClusterModel, dataset: PatchDataset) -> list[Int[np.ndarray, "k c"]]:
    """For each labelled case how often each cluster meets each class."""
    tables = []
    for number, labels in enumerate(dataset.reference):
        if labels is None:
            continue
        table = np.zeros((model.clusters, dataset.classes), dtype=np.int64)
        for index in np.flatnonzero(dataset.store_index == number):
            clusters = cluster_map(model, dataset, int(index))
            reference = labels[dataset.patch_index[index]]
            table += count_table(clusters, reference, clusters=model.clusters, classes=dataset.classes)
        tables.append(table)
    return tables


def classes_of(table: Int[np.ndarray, "k c"], classes: Sequence[ClassEntry]) -> Int[np.ndarray, " k"]:
    """Class of each cluster by a table of counts; background for those that carry none."""
    found = np.zeros(len(table), dtype=np.int64)
    for cluster, value in match_table(table, classes).class_of_cluster.items():
        found[cluster] = value
    return found


def mean_dice(counts: Int[np.ndarray, "rows c"]) -> float:
    """Mean Dice of the classes but background that occur."""
    hits = np.diagonal(counts)[1:]
    sizes = (counts[:-1].sum(axis=1) + counts.sum(axis=0))[1:]
    return float(np.mean(2 * hits[sizes > 0] / sizes[sizes > 0]))


def report(found: Sequence[Sequence[Row]], usual: int) -> None:
    """Print every candidate, the rank correlations, and what a choice by each signal gives."""
    rows = [row | {"seed": float(seed)} for seed, of_seed in enumerate(found) for row in of_seed]
    columns = ["seed", "step", "clusters", *SIGNALS, *SCORES]
    print("  ".join(f"{name[:12]:>12}" for name in columns))
    for row in rows:
        print("  ".join(f"{cell(row[name]):>12}" for name in columns))

    groups: Mapping[str, Callable[[Row], Any]] = {
        "all": lambda row: 0,
        "checkpoints of one K": lambda row: (row["seed"], row["clusters"]),
        "K of one checkpoint": lambda row: (row["seed"], row["step"]),
        "seeds of one K and step": lambda row: (row["clusters"], row["step"]),
    }
    for target in ("dice_named", "dice_oracle", "miou_hungarian"):
        print(f"\nSpearman with {target}; mean over groups (number of groups x candidates in each)")
        sizes = {name: [len(group) for group in grouped(rows, key)] for name, key in groups.items()}
        print(f"{'':16}" + "".join(f"{f'{name} ({len(n)} x {max(n)})':>36}" for name, n in sizes.items()))
        for signal in SIGNALS:
            cells = (mean_spearman(grouped(rows, key), signal, target) for key in groups.values())
            print(f"{signal:16}" + "".join(f"{cell(value):>36}" for value in cells))
    print("\nDice (named, oracle) of what each signal chooses, mean over seeds")
    last = [max(row["step"] for row in of_seed) for of_seed in found]
    say("last step, usual K", [at(of_seed, step, usual) for of_seed, step in zip(found, last, strict=True)])
    say("best by labels", [max(of_seed, key=lambda row: row["dice_named"]) for of_seed in found])
    say("worst by labels", [min(of_seed, key=lambda row: row["dice_named"]) for of_seed in found])
    means = [{name: float(np.mean([row[name] for row in of_seed])) for name in SCORES} for of_seed in found]
    say("mean of all", means)
    for signal in SIGNALS:
        measured = [[row for row in of_seed if row[signal] is not None] for of_seed in found]
        if all(measured):
            say(signal, [max(of_seed, key=lambda row: row[signal]) for of_seed in measured])


def grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def mean_spearman(groups: Sequence[Sequence[Row]], signal: str, target: str) -> float:
    """Mean rank correlation over the groups in which both vary; NaN without any."""
    found = []
    for group in groups:
        pairs: Float[np.ndarray, "n 2"] = np.array(
            [[row[signal], row[target]] for row in group if row[signal] is not None], dtype=float
        ).reshape(-1, 2)
        if len(pairs) > 2 and (np.ptp(pairs, axis=0) > 1e-9).all():
            found.append(float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic))
    return float(np.mean(found)) if found else float("nan")


def at(rows: Sequence[Row], step: float, clusters: float) -> Row:
    """The candidate of this step, and of this K or the nearest that was tried."""
    return min((row for row in rows if row["step"] == step), key=lambda row: abs(row["clusters"] - clusters))


def say(name: str, rows: Sequence[Row]) -> None:
    cells = (f"{np.mean([row[score] for row in rows]):.3f}" for score in ("dice_named", "dice_oracle"))
    print(f"{name:24}" + "  ".join(cells))


def cell(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) > 1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
