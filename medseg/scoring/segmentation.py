"""This file scores whole labelled pictures: every pixel has a class, and all pixels count together.

*Confusion*: pixels by the class they were given (rows) and their true class (columns); the last row, one more than
there are columns, holds pixels that were given none of the classes, which count as errors. Scores are of all pictures
together, as published, not means over pictures. A class that is in no label and was never given is *undefined* (NaN)
and left out of a mean; one that was given wrongly has 0 and counts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from medseg.files import csv_text, write_json, write_text
from medseg.naming.effort import LABEL_FREE, NO_EFFORT, Effort, in_words
from medseg.naming.matching import accuracy, class_iou, mean_iou
from medseg.scoring.tables import without_nan

METRICS = {"mean_iou": "mIoU", "accuracy": "Accuracy", "mean_dice": "Dice"}
"""What is said of all classes together, by its published name."""
_PUBLISHED_PROBES = {"stego": "cluster", "linear": "linear"}


def class_dice(counts: Integer[np.ndarray, "rows classes"]) -> Float[np.ndarray, " classes"]:
    """Dice of each class; 0 for an absent class that was given, NaN if it was not either."""
    classes = counts.shape[1]
    hits = np.diagonal(counts).astype(np.float64)
    both = counts[:classes].sum(axis=1) + counts.sum(axis=0)
    return np.divide(2 * hits, both, out=np.full(classes, np.nan), where=both > 0)


def mean_dice(counts: Integer[np.ndarray, "rows classes"]) -> float:
    """Mean of the defined Dice scores; NaN without any."""
    dices = class_dice(counts)
    return float(np.nanmean(dices)) if np.isfinite(dices).any() else float("nan")


def overall(counts: Integer[np.ndarray, "rows classes"]) -> dict[str, float]:
    """The numbers of all classes together, by the keys of `METRICS`."""
    return {"mean_iou": mean_iou(counts), "accuracy": accuracy(counts), "mean_dice": mean_dice(counts)}


@dataclass(frozen=True)
class SegmentationScores:
    """One row of an evaluation: a method, with one way of naming its clusters.

    Attributes:
        method: its name.
        naming: where its names came from, one of `scoring.tables.NAMING_SOURCES`.
        classes: names of the classes, in the order of the columns.
        counts: the confusion of all pictures.
        intervals: lower and upper end of the 95 % interval, by the keys of `METRICS`; NaN where there is none.
        effort: what people gave for it.
    """

    method: str
    naming: str
    classes: tuple[str, ...]
    counts: Integer[np.ndarray, "rows classes"]
    intervals: Mapping[str, tuple[float, float]]
    effort: Effort = NO_EFFORT

    @property
    def overall(self) -> dict[str, float]:
        """The numbers of all classes together."""
        return overall(self.counts)

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """IoU, Dice and number of true pixels of each class, by its name."""
        ious, dices, pixels = class_iou(self.counts), class_dice(self.counts), self.counts.sum(axis=0)
        return {
            name: {"iou": float(iou), "dice": float(dice), "pixels": int(true)}
            for name, iou, dice, true in zip(self.classes, ious, dices, pixels, strict=True)
        }


def published_names(rows: Sequence[SegmentationScores]) -> dict[str, float]:
    """STEGO's own names and units (percent) for its cluster probe, matched to these labels, and its linear probe."""
    found: dict[str, float] = {}
    for row in rows:
        if (row.method, row.naming) in (("stego", "oracle"), ("linear", "training_labels")):
            probe = _PUBLISHED_PROBES[row.method]
            found |= {f"final/{probe}/{METRICS[key]}": 100 * value for key, value in row.overall.items()}
    return found


def write_segmentation_csv(path: Path, rows: Sequence[SegmentationScores]) -> None:
    """Write a line for each row's classes together (`all`), then one for each class."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ends = [f"{key}_{end}" for key in METRICS for end in ("low", "high")]
    writer.writerow(["method", "naming", "label_free", "effort", "class", "pixels", "iou", "dice", "accuracy", *ends])
    for row in rows:
        free = "yes" if row.naming in LABEL_FREE else "no"
        words = [csv_text(row.method), row.naming, free, in_words(row.naming, row.effort)]
        total = row.overall
        numbers = [total["mean_iou"], total["mean_dice"], total["accuracy"]]
        limits = [limit for key in METRICS for limit in row.intervals.get(key, (math.nan, math.nan))]
        writer.writerow([*words, "all", int(row.counts.sum()), *map(_cell, numbers), *map(_cell, limits)])
        for name, scores in row.per_class.items():
            cells = [scores["pixels"], _cell(scores["iou"]), _cell(scores["dice"]), "", *("" for _ in ends)]
            writer.writerow([*words, csv_text(name), *cells])
    write_text(path, stream.getvalue())


def write_segmentation_json(path: Path, rows: Sequence[SegmentationScores], *, facts: Mapping[str, Any]) -> None:
    """Write all rows with their confusions; an undefined number is `null`.

    Args:
        path: the file.
        rows: of the evaluation.
        facts: what else belongs to it, put at the top.
    """
    content = {
        "schema": "medseg-evaluation/1",
        **facts,
        "published": published_names(rows),
        "rows": [
            {
                "method": row.method,
                "naming": row.naming,
                "label_free": row.naming in LABEL_FREE,
                "effort": row.effort.as_dict(),
                "effort_in_words": in_words(row.naming, row.effort),
                **row.overall,
                "intervals": {key: list(ends) for key, ends in row.intervals.items()},
                "classes": row.per_class,
                "confusion": row.counts.tolist(),
            }
            for row in rows
        ],
    }
    write_json(path, without_nan(content))


def _cell(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.6g}"
