"""This file compares one place of a picture with every place of another, by the cosine of their features.

A *point* is (row, column) in 0 to 1, where 0 and 1 are the *centres* of a map's first and last cell, as in the losses
of `medseg.stego`. A *correspondence* is the cosine of two feature (or code) vectors.

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022, eq. 1, fig. 2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def at_points(features: Float[Tensor, "d hf wf"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """Feature vectors at points, bilinear; points beyond the edge read the edge."""
    grid = (points.flip(-1) * 2 - 1).to(features)[None, None]
    return functional.grid_sample(features[None], grid, padding_mode="border", align_corners=True)[0, :, 0].T


def correspondence(
    features_a: Float[Tensor, "d hf wf"], point: tuple[float, float], features_b: Float[Tensor, "d hg wg"]
) -> Float[Tensor, "hg wg"]:
    """Cosine of one place of a picture with every place of another, or of the same.

    Args:
        features_a: of the picture that holds the point.
        point: the place asked about.
        features_b: of the picture that is searched.

    Returns:
        Values in [-1, 1]; 0 where a vector is zero.
    """
    query = at_points(features_a, torch.tensor([point], dtype=torch.float64))[0]
    return torch.einsum("d,dhw->hw", _unit(query, 0), _unit(features_b, 0))


def pair_cosines(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosine of every vector of one list with every vector of another."""
    return _unit(first, 1) @ _unit(second, 1).T


def enlarged(heat: Float[Tensor, "hf wf"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """A map at the size of its picture, so that first and last cell lie on first and last pixel."""
    return functional.interpolate(heat[None, None], size, mode="bilinear", align_corners=True)[0, 0]


def _unit(values: Tensor, dim: int) -> Tensor:
    return functional.normalize(values, dim=dim, eps=1e-10)
