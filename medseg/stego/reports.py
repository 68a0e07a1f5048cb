"""This file decides what of a training step is recorded: losses, health, pictures, and scores where labels are.

Scores against reference labels are only reported; nothing is chosen by them. The clusters are matched with the classes
by the best one-to-one assignment on the batch; left-over clusters count as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medseg.records import Records
from medseg.stego.health import CodeHealth
from medseg.stego.losses import resize
from medseg.stego.pictures import draw_labels, draw_table
from medseg.stego.step import StepLosses

COLUMNS = (
    "step",
    *(
        f"loss/{name}"
        for name in (
            "pos_intra",
            "pos_inter",
            "neg_inter",
            "rec",
            "aug_alignment",
            "crf",
            "linear",
            "cluster",
            "contrastive",
            "total",
        )
    ),
    *(f"cd/{name}" for name in ("pos_intra", "pos_inter", "neg_inter")),
    *(f"health/{name}" for name in ("mean_cosine", "effective_rank", "clusters_used")),
    *(f"test/{probe}/{score}" for probe in ("cluster", "linear") for score in ("mIoU", "Accuracy", "Dice")),
)
"""Columns of `metrics.csv`; TensorBoard uses the same names, the published program's."""
_HISTOGRAMS = {"self": "intra_cd", "knn": "inter_cd", "random": "neg_cd"}


def record_step(
    records: Records,
    step: int,
    scalars: Mapping[str, float],
    found: StepLosses,
    health: CodeHealth,
    batch: Mapping[str, Tensor],
    *,
    picture: bool,
) -> None:
    """Write one step's numbers; with `picture` also histograms and pictures."""
    row = dict(scalars)
    row |= {
        "health/mean_cosine": health.mean_cosine,
        "health/effective_rank": health.effective_rank,
        "health/clusters_used": health.clusters_used,
    }
    labels = batch.get("labels")
    tables: dict[str, np.ndarray] = {}
    if labels is not None and bool((labels >= 0).any()):
        size = (int(labels.shape[1]), int(labels.shape[2]))
        classes = int(found.logits.shape[1]) if found.logits is not None else int(labels.max()) + 1
        if found.logits is not None:
            tables["linear"] = count_pairs(resize(found.logits.detach(), size).argmax(1), labels, classes, classes)
        if found.whole_maps:
            predicted = resize(found.cosines, size).argmax(1)
            tables["cluster"] = match(count_pairs(predicted, labels, found.cosines.shape[1], classes))
        for probe, table in tables.items():
            row |= {f"test/{probe}/{name}": value for name, value in score(table).items()}
    records.scalars(step, row)
    if not picture:
        return
    for term, values in found.code_correspondences.items():
        records.histogram(step, _HISTOGRAMS[term], values)
    if found.whole_maps:
        maps = [found.cosines.argmax(1), *([] if labels is None else [labels])]
        image = batch["image"] if batch["image"].ndim == 3 else batch["image"].mean(1)
        records.picture(step, "plot_labels", draw_labels(image, *maps))
    if "cluster" in tables:
        records.picture(step, "conf_matrix", draw_table(tables["cluster"].T))
    if labels is not None and bool((labels >= 0).any()):
        records.histogram(step, "label_frequency", labels[labels >= 0])


def count_pairs(predicted: Int[Tensor, "b h w"], labels: Int[Tensor, "b h w"], rows: int, classes: int) -> np.ndarray:
    """Table of pixels [predicted, class] over the pixels that have a label."""
    valid = (labels >= 0) & (labels < classes)
    index = predicted[valid] * classes + labels[valid]
    return torch.bincount(index.cpu(), minlength=rows * classes).reshape(rows, classes).numpy().astype(np.float64)


def match(table: np.ndarray) -> np.ndarray:
    """Rows of the clusters brought to their classes; the clusters left over are summed into one last row."""
    clusters, classes = linear_sum_assignment(table, maximize=True)
    matched = np.zeros((table.shape[1] + 1, table.shape[1]))
    matched[classes] = table[clusters]
    matched[-1] = np.delete(table, clusters, axis=0).sum(0)
    return matched


def score(table: np.ndarray) -> dict[str, float]:
    """Mean IoU and Dice over the classes that occur, and accuracy, as fractions; rows after the classes are wrong."""
    classes = table.shape[1]
    right = np.diag(table[:classes])
    union = table[:classes].sum(1) + table.sum(0) - right
    both = table[:classes].sum(1) + table.sum(0)
    present = union > 0
    return {
        "mIoU": float((right[present] / union[present]).mean()),
        "Accuracy": float(right.sum() / table.sum()),
        "Dice": float((2 * right[present] / both[present]).mean()),
    }
