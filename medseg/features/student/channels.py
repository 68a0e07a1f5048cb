"""This file makes a student's last activations features: each channel gets mean 0 and sd 1, and a constant joins them.

Its words: *moments* are count, sum and sum of squares of each channel; *lift* is one more channel of constant value, so
that the cosine of two voxels keeps the difference of their magnitudes.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, Float64
from lightning_fabric import Fabric
from torch import Tensor

FEATURE_LIMIT = 5.0
"""sd at which standardised features are clipped, so that one extreme channel cannot fill a cosine."""
LEAST_SD = 1e-4
"""Channels that vary less are dead: they are divided by 1, not blown up."""


def moments_of(features: Float[Tensor, "w n"]) -> Float64[Tensor, "3 w"]:
    """Count, sum and sum of squares of each channel."""
    values = features.double()
    return torch.stack([torch.full((len(values),), values.shape[1]).double(), values.sum(1), values.square().sum(1)])


def mean_and_sd(moments: Float64[Tensor, "3 w"], fabric: Fabric) -> tuple[Float64[Tensor, " w"], Float64[Tensor, " w"]]:
    """Mean and sd of each channel over what all processes have measured."""
    if fabric.world_size > 1:
        moments = fabric.all_reduce(moments.to(fabric.device), reduce_op="sum").cpu()  # type: ignore[union-attr]
    count, total, squares = moments
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean, torch.where(std < LEAST_SD, torch.ones_like(std), std)


def standardised(
    features: Float[Tensor, "w i j k"], mean: Float[Tensor, " w"], std: Float[Tensor, " w"]
) -> Float32[Tensor, "d i j k"]:
    """Standardised, clipped features, and the lift."""
    found = torch.empty(len(features) + 1, *features.shape[1:])
    inside = found[:-1]
    torch.sub(features.float(), mean[:, None, None, None], out=inside)
    inside.div_(std[:, None, None, None]).clamp_(-FEATURE_LIMIT, FEATURE_LIMIT)
    found[-1] = math.sqrt(len(features))  # the rms norm of standardised features
    return found
