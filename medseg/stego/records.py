"""This file writes down a training: `metrics.csv`, TensorBoard scalars, histograms and pictures.

Names in TensorBoard are the published program's; the CSV uses the same. A resumed run first drops the rows it will
write again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medseg.files import write_text

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
_COLOURS = (
    (0.90, 0.10, 0.29), (0.24, 0.71, 0.29), (1.00, 0.88, 0.10), (0.26, 0.39, 0.85), (0.96, 0.51, 0.19),
    (0.57, 0.12, 0.71), (0.27, 0.94, 0.94), (0.94, 0.20, 0.90), (0.74, 0.96, 0.05), (0.60, 0.39, 0.14),
)  # fmt: skip


class Records:
    """The writers of one run; with `active` false (all processes but the first) it writes nothing.

    Args:
        run_dir: the run folder.
        start: first step that will be written; rows from there on are dropped.
        active: whether to write.
    """

    def __init__(self, run_dir: Path, *, start: int, active: bool = True) -> None:
        self._writer = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._path = run_dir / "metrics.csv"
        rows = self._path.read_text(encoding="utf-8").splitlines()[1:] if self._path.exists() and start else []
        kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) < start]
        write_text(self._path, "\n".join([",".join(COLUMNS), *kept]) + "\n")
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row; what has no value stays empty."""
        if self._writer is None:
            return
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(
            [step, *(f"{values[name]:.8g}" if name in values else "" for name in COLUMNS[1:])]
        )
        with self._path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(line.getvalue())
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """Add a histogram of all values."""
        if self._writer is not None:
            self._writer.add_histogram(name, values.detach().float().flatten(), step)

    def picture(self, step: int, name: str, picture: Float[Tensor, "3 h w"]) -> None:
        """Add a picture with values in [0, 1]."""
        if self._writer is not None:
            self._writer.add_image(name, picture, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def colour(labels: Int[Tensor, "*grid"]) -> Float[Tensor, "3 *grid"]:
    """A colour for each label; unknown ones (negative) are black."""
    palette = torch.tensor([*_COLOURS, (0.0, 0.0, 0.0)])
    index = torch.where(labels < 0, len(_COLOURS), labels % len(_COLOURS))
    return palette[index.cpu()].movedim(-1, 0)


def draw_labels(
    image: Float[Tensor, "b h w"], *maps: Int[Tensor, "b hf wf"], most: int = 5
) -> Float[Tensor, "3 rows columns"]:
    """Up to five patches, one row each: image, then each label map in colours."""
    size = (int(image.shape[1]), int(image.shape[2]))
    rows = []
    for index in range(min(most, len(image))):
        patch = image[index].float().cpu()
        low, high = float(patch.min()), float(patch.max())
        grey = ((patch - low) / max(high - low, 1e-6)).expand(3, *size)
        panels = [_enlarge(colour(labels[index].cpu()), size) for labels in maps]
        rows.append(torch.cat([grey, *panels], dim=2))
    return torch.cat(rows, dim=1)


def draw_table(table: Float[np.ndarray, "c k"], cell: int = 16) -> Float[Tensor, "3 rows columns"]:
    """A confusion matrix as grey cells, each row divided by its sum: white is all of the row."""
    share = torch.from_numpy(table / np.maximum(table.sum(1, keepdims=True), 1)).float()
    return share.repeat_interleave(cell, 0).repeat_interleave(cell, 1).expand(3, -1, -1)


def _enlarge(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(picture[None], size, mode="nearest")[0]
