"""This file draws what a training shows in TensorBoard: patches beside their labels, and tables of counts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_COLOURS = (
    (0.90, 0.10, 0.29), (0.24, 0.71, 0.29), (1.00, 0.88, 0.10), (0.26, 0.39, 0.85), (0.96, 0.51, 0.19),
    (0.57, 0.12, 0.71), (0.27, 0.94, 0.94), (0.94, 0.20, 0.90), (0.74, 0.96, 0.05), (0.60, 0.39, 0.14),
)  # fmt: skip


def colour(labels: Int[Tensor, "*grid"]) -> Float[Tensor, " 3 *grid"]:
    """A colour for each label; unknown ones (negative) are black."""
    palette = torch.tensor([*_COLOURS, (0.0, 0.0, 0.0)])
    index = torch.where(labels < 0, len(_COLOURS), labels % len(_COLOURS))
    return palette[index.cpu()].movedim(-1, 0)


def draw_labels(
    image: Float[Tensor, "b h w"], *maps: Int[Tensor, "b _ _"], most: int = 5
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
