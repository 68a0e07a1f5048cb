"""This file compares the student's answer with a target that is known better in some places than in others.

A *target* is the probability that the student should give, 0 or 1 where the teacher is sure. Both terms weigh each
place; one of weight 0 is unknown and has no influence at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


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
    logits: Float[Tensor, " b *grid"],
    target: Float[Tensor, " b *grid"],
    weight: Float[Tensor, " b *grid"],
    *,
    bce_weight: float,
    smoothing: float,
) -> StudentLoss:
    """Binary cross-entropy and soft Dice.

    Args:
        logits: the answer.
        target: 0 to 1.
        weight: of each place.
        bce_weight: of the cross-entropy beside Dice.
        smoothing: places added above and below in Dice, so that a batch without anything to find teaches gently.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (weight * entropy).sum() / weight.sum().clamp(min=1)
    probability = logits.sigmoid() * weight
    overlap = (probability * target).sum()
    dice = 1 - (2 * overlap + smoothing) / (probability.sum() + (weight * target).sum() + smoothing)
    return StudentLoss(bce_weight * bce + dice, bce, dice)


@torch.no_grad()
def known_dice(
    logits: Float[Tensor, " b *grid"], target: Float[Tensor, " b *grid"], weight: Float[Tensor, " b *grid"]
) -> Float[Tensor, ""]:
    """Dice of `p > .5` over the batch's known places; 1 where there is nothing and nothing was found."""
    known = weight > 0
    predicted, reference = (logits > 0) & known, (target > 0.5) & known
    both = predicted.sum() + reference.sum()
    return torch.where(both > 0, 2 * (predicted & reference).sum() / both.clamp(min=1), torch.ones_like(weight.sum()))
