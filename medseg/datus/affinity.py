"""This file ties the cells of a picture to one another by how alike their keys are.

Words: the *keys* are those of a ViT's last block, heads concatenated; a network without keys gives its features
instead. A *cell* is one place of the feature map. The *affinity* of two cells is the cosine of their keys; cells are
*tied* where it is above 0, as published: the sign of the cosine is that of the published dot product.

Features of other networks and of filter banks are not spread around 0 as keys are (those of the image bank are never
below it, and every cell would be tied to every other), so they are *centred*: the mean over the picture is taken off
first, and two cells are tied where they differ from the picture in the same way.

References:
    Kumar, Sur and Baruah, DatUS: Data-driven Unsupervised Semantic Segmentation with Pre-trained Self-supervised
    Vision Transformer, 2024, section III.
"""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from medseg.features.frozen import FrozenViT

MOST_CELLS = 1024
"""Cells of a picture that are tied, at most: their pairs fill memory, and 784 (224 pixels in patches of 8) are those of
the published setting."""
THRESHOLD = 0.0
"""Cosine above which two cells are tied, as published."""
_NOTHING = 1e-6
"""Norm, as a share of the largest of the picture, below which a centred feature says nothing of its direction."""


def as_keys(backbone: Any) -> Any:
    """The same network giving the keys of its last block, where it has some."""
    if isinstance(backbone, FrozenViT) and backbone.feature != "KK":
        return FrozenViT(backbone.model, backbone.name, "KK")
    return backbone


def gives_keys(backbone: Any) -> bool:
    """Whether what a backbone gives are keys."""
    return isinstance(backbone, FrozenViT) and backbone.feature == "KK"


def on_cells(features: Float[Tensor, "d hf wf"], most: int = MOST_CELLS) -> Float[Tensor, "d hc wc"]:
    """Features averaged to a grid of the same proportions and of `most` cells at most; a small grid stays as it is."""
    height, width = features.shape[1:]
    if height * width <= most:
        return features
    scale = math.sqrt(most / (height * width))
    rows = max(1, min(most, int(height * scale)))
    columns = max(1, min(most // rows, int(width * scale)))
    return functional.adaptive_avg_pool2d(features[None], (rows, columns))[0]


def affinity(features: Float[Tensor, "n d"], *, centred: bool) -> Float[Tensor, "n n"]:
    """Cosine of each pair of cells.

    Args:
        features: of the cells of one picture.
        centred: whether the mean over the picture is taken off first. A cell that then has no direction has affinity 0.
    """
    values = features.float()
    if centred:
        largest = values.norm(dim=1).max()
        values = values - values.mean(0)
        values = values * (values.norm(dim=1, keepdim=True) > _NOTHING * largest)
    values = functional.normalize(values, dim=1)
    return values @ values.T


def tied(cosines: Float[Tensor, "n n"]) -> Bool[Tensor, "n n"]:
    """Which cells are tied; none to itself."""
    pairs = cosines > THRESHOLD
    return (pairs | pairs.T).fill_diagonal_(False)  # rounding must not make a tie one-sided
