"""This file scores liver masks of ultrasound pictures and puts the rows of the liver benchmark into a table.

Values of masks and labels: 0 outside the sector, 1 sector tissue, 2 liver, 3 mass; the *union* is liver and mass. A
*cell* holds the scores of one row with one seed, by picture. Dice is of each picture, then the mean of them; a picture
without a mass in mask or label has no Dice of the mass and is left out of that mean. mIoU and accuracy are of the
three classes *inside the labelled outline*, all pixels of all pictures and seeds together: the black margin, of which
every method is right, does not count, and what a mask leaves outside its sector there is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8

from medseg.naming.matching import count_table, match_by_purity
from medseg.scoring.overlap import dice
from medseg.scoring.segmentation import overall
from medseg.scoring.statistics import patient_intervals
from medseg.scoring.tables import bootstrap_interval, spread

TISSUE, LIVER, MASS = 1, 2, 3
BOOTSTRAP_SEED = 0
COLUMNS = (
    "row",
    "names",
    "effort",
    "union Dice",
    "- mean shape",
    "liver",
    "mass",
    "mIoU",
    "accuracy",
    "sd of seeds",
)

Cell = Mapping[str, Any]


def score_picture(predicted: Integer[np.ndarray, "h w"], reference: Integer[np.ndarray, "h w"]) -> dict[str, Any]:
    """Dice of union, liver and mass (None without a pixel of it), and pixels by given and true class.

    Returns:
        Also `counts`: rows tissue, liver, mass and none of them, columns tissue, liver and mass of the label.
    """
    pairs = {
        "union": (predicted >= LIVER, reference >= LIVER),
        "liver": (predicted == LIVER, reference == LIVER),
        "mass": (predicted == MASS, reference == MASS),
    }
    found: dict[str, Any] = {name: _or_none(dice(mine, true)) for name, (mine, true) in pairs.items()}
    counts = count_table(predicted, reference.astype(np.int64) - TISSUE, clusters=MASS + 1, classes=MASS)
    return found | {"counts": np.roll(counts, -1, axis=0).tolist()}


def as_classes(union: Bool[np.ndarray, "h w"], sector: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Class values of a method that knows liver and nothing else."""
    return np.where(sector, np.where(union, LIVER, TISSUE), 0).astype(np.uint8)


def cluster_table(
    clusters: Integer[np.ndarray, "*grid"], reference: Integer[np.ndarray, "*grid"], count: int
) -> Int[np.ndarray, "clusters 2"]:
    """Pixels by cluster (values from 1; 0 is none, and not counted), outside and inside the union."""
    inside = clusters > 0
    found, union = clusters[inside].astype(np.int64) - 1, (reference[inside] >= LIVER).astype(np.int64)
    return count_table(found, union, clusters=count, classes=2)


def value_of_cluster(table: Int[np.ndarray, "clusters 2"]) -> UInt8[np.ndarray, " values"]:
    """Class value of each cluster value 0 .. K: liver for those that together have the highest Dice with the union."""
    # A mass is no cluster here: named as one, whichever cluster holds most of it is lost for the union.
    return np.r_[0, np.where(match_by_purity(table) == 1, LIVER, TISSUE)].astype(np.uint8)


def summary(cells: Sequence[Cell], baseline: Sequence[Cell] | None = None) -> dict[str, Any]:
    """What the table says of one row.

    Args:
        cells: one a seed, of the same pictures.
        baseline: the row that the union is compared with, picture by picture.

    Returns:
        Means over pictures (each the mean of its seeds) with 95 % intervals of a bootstrap over pictures.
    """
    pictures = sorted(cells[0]["scores"])
    union = _by_picture(cells, "union", pictures)
    found: dict[str, Any] = {"pictures": len(pictures), "seeds": len(cells)}
    for key in ("union", "liver", "mass"):
        of = spread(_by_picture(cells, key, pictures), "dice", seed=BOOTSTRAP_SEED)
        found[key] = {"mean": of.mean, "low": of.low, "high": of.high, "pictures": of.defined}
    if baseline is not None:
        differences = union - _by_picture(baseline, "union", pictures)
        low, high = bootstrap_interval(differences.tolist(), seed=BOOTSTRAP_SEED)
        found["difference"] = {"mean": float(differences.mean()), "low": low, "high": high}
    counts = np.array([[cell["scores"][name]["counts"] for name in pictures] for cell in cells]).sum(axis=0)
    intervals = patient_intervals(counts, overall, seed=BOOTSTRAP_SEED)
    for key in ("mean_iou", "accuracy"):
        found[key] = {"mean": overall(counts.sum(axis=0))[key], "low": intervals[key][0], "high": intervals[key][1]}
    of_seeds = [float(_by_picture([cell], "union", pictures).mean()) for cell in cells]
    found["of_seeds"] = {"mean": float(np.mean(of_seeds)), "sd": _sd(of_seeds), "values": of_seeds}
    found["worst"] = float(union.min())
    return found


def markdown(rows: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> list[str]:
    """Lines of the table; each row has a title, where its names come from, its effort in words, and its summary.

    Titles of rows with an effort are in italics.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for title, names, effort, of in rows:
        shown = title if effort.startswith("label-free") else f"*{title}*"
        words = [
            shown,
            names,
            effort,
            _number(of["union"], ends=True),
            _number(of["difference"], ends=True, sign="+") if "difference" in of else "",
            _number(of["liver"]),
            _number(of["mass"]),
            _number(of["mean_iou"]),
            _number(of["accuracy"]),
            "" if of["seeds"] < 2 else f"{of['of_seeds']['sd']:.3f} of {of['seeds']}",
        ]
        lines.append("| " + " | ".join(words) + " |")
    return lines


def _by_picture(cells: Sequence[Cell], key: str, pictures: Sequence[str]) -> np.ndarray:
    """A score of each picture, mean over the seeds in which it is defined; NaN where it is in none."""
    values = np.array([[cell["scores"][name][key] for cell in cells] for name in pictures], dtype=float)
    defined = ~np.isnan(values)
    sums = np.where(defined, values, 0).sum(axis=1)
    return np.divide(sums, defined.sum(axis=1), out=np.full(len(pictures), math.nan), where=defined.any(axis=1))


def _sd(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number


def _number(of: Mapping[str, float], *, ends: bool = False, sign: str = "") -> str:
    if math.isnan(of["mean"]):
        return "-"
    words = format(of["mean"], f"{sign}.3f")
    return f"{words} ({of['low']:{sign}.3f} to {of['high']:{sign}.3f})" if ends else words
