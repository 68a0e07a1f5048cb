"""This file compares the student's answer with labels, of which some are unknown.

Both terms weigh each voxel; a voxel of weight 0 has no influence at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from medseg.features.teachers.vessels import YES


class StudentLoss(NamedTuple):
    """The two terms and what is minimised.

    Attributes:
        total: `bce_weight * bce + dice`.
        bce: weighted mean of the binary cross-entropy.
        dice: 1 - soft Dice over the whole batch.
    """

    total: Float[Tensor, ""]
    bce: Float[Tensor, ""]
    dice: Float[Tensor, ""]


def student_loss(
    logits: Float[Tensor, "b i j k"],
    labels: UInt8[Tensor, "b i j k"],
    weight: Float[Tensor, "b i j k"],
    *,
    bce_weight: float,
    smoothing: float,
) -> StudentLoss:
    """Binary cross-entropy and soft Dice.

    Args:
        logits: the answer.
        labels: 1 for a vessel; others count as background where they have a weight.
        weight: of each voxel.
        bce_weight: of the cross-entropy beside Dice.
        smoothing: voxels added above and below in Dice, so that a batch without vessels teaches gently.
    """
    target = (labels == YES).to(logits.dtype)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (weight * entropy).sum() / weight.sum().clamp(min=1)
    probability = logits.sigmoid() * weight
    overlap = (probability * target).sum()
    dice = 1 - (2 * overlap + smoothing) / (probability.sum() + (weight * target).sum() + smoothing)
    return StudentLoss(bce_weight * bce + dice, bce, dice)


@torch.no_grad()
def known_dice(
    logits: Float[Tensor, "b i j k"], labels: UInt8[Tensor, "b i j k"], weight: Float[Tensor, "b i j k"]
) -> Float[Tensor, ""]:
    """Dice of `p > .5` over the batch's known voxels; 1 where there is no vessel and none was found."""
    known = weight > 0
    predicted, reference = (logits > 0) & known, (labels == YES) & known
    both = predicted.sum() + reference.sum()
    return torch.where(both > 0, 2 * (predicted & reference).sum() / both.clamp(min=1), torch.ones_like(weight.sum()))
