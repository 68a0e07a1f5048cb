"""This file compares a probe's answer with a few labels.

Logits have a channel for each class, background first. Targets are class numbers; places of weight 0 are unknown and
have no influence at all.

References:
    Dang et al., Vessel-CAPTCHA, Medical Image Analysis 75 (2022): weighted cross-entropy.
    Sudre et al., Generalised Dice overlap as a deep learning loss function, DLMIA 2017.
    Shit et al., clDice, CVPR 2021: soft skeletons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

CLASS_WEIGHT, BACKGROUND_WEIGHT = 1.7, 0.5
"""Of a labelled class and of background in the cross-entropy, as Vessel-CAPTCHA has them: classes are rare."""
WEIGHT_ODDS = math.log(CLASS_WEIGHT / BACKGROUND_WEIGHT)
"""Log-odds by which these weights alone would raise every class."""
SMOOTHING = 1.0
"""Voxels added above and below in Dice and clDice, so that a window without a class teaches gently."""
THINNING = 4
"""Steps of the soft skeleton, one voxel each: wider vessels keep a core a few voxels wide, which weighs no less."""
LEAST_KNOWN = 0.5
"""Share of a window that must be labelled for its skeletons to mean anything."""


def weighted_cross_entropy(
    logits: Float[Tensor, "n c"], target: Int[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in which classes weigh more than background.

    The weights say which errors count, not how much there is of a class: what they would add to its odds is added
    beforehand, so that the answer need not learn it. (Without this, masks of vessels grew by a voxel.)
    """
    logits = torch.cat([logits[:, :1], logits[:, 1:] + WEIGHT_ODDS], dim=1)
    weight = weight * torch.where(target > 0, CLASS_WEIGHT, BACKGROUND_WEIGHT)
    return (weight * functional.cross_entropy(logits, target, reduction="none")).sum() / weight.sum()


def generalised_dice(
    logits: Float[Tensor, "n c"], target: Int[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """1 - generalised Dice: every class counts by the inverse square of its size; one that is not there not at all."""
    truth = functional.one_hot(target, logits.shape[1]).to(logits.dtype) * weight[:, None]
    found = logits.softmax(1) * weight[:, None]
    size = truth.sum(0)
    share = torch.where(size > 0, 1 / size.clamp(min=1e-6).square(), torch.zeros_like(size))
    both = (found * truth / weight.clamp(min=1e-6)[:, None]).sum(0)
    return 1 - 2 * (share * both).sum() / (share * (found.sum(0) + size)).sum()


POINT_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": weighted_cross_entropy,
    "generalised_dice": generalised_dice,
}
"""What a head on loose points can be taught by."""


def window_loss(
    logits: Float[Tensor, "b c1 i j k"],
    target: Int[Tensor, "b i j k"],
    weight: Float[Tensor, "b i j k"],
    skeleton: Float[Tensor, "b c i j k"],
) -> Float[Tensor, ""]:
    """Cross-entropy + Dice + clDice over windows; clDice only in windows that are labelled for the most part.

    Args:
        logits: background first.
        target: class numbers.
        weight: 1 where they are known, else 0.
        skeleton: of each class in the target.
    """
    entropy = functional.cross_entropy(logits, target, reduction="none")
    total = (weight * entropy).sum() / weight.sum().clamp(min=1)
    found = logits.softmax(1)[:, 1:] * weight[:, None]
    truth = torch.stack([target == value for value in range(1, logits.shape[1])], dim=1) * weight[:, None]
    axes = (0, 2, 3, 4)
    sizes = found.sum(axes) + truth.sum(axes)
    total = total + (1 - (2 * (found * truth).sum(axes) + SMOOTHING) / (sizes + SMOOTHING)).mean()
    whole = weight.mean((1, 2, 3)) >= LEAST_KNOWN
    return total + soft_cldice(found[whole], truth[whole], skeleton[whole]) if whole.any() else total


def soft_cldice(
    found: Float[Tensor, "b c i j k"], truth: Float[Tensor, "b c i j k"], true_skeleton: Float[Tensor, "b c i j k"]
) -> Float[Tensor, ""]:
    """1 - soft clDice: the share of each one's skeleton that lies in the other, over all windows."""

    def inside(skeleton: Tensor, other: Tensor) -> Tensor:
        axes = (0, 2, 3, 4)
        return ((skeleton * other).sum(axes) + SMOOTHING) / (skeleton.sum(axes) + SMOOTHING)

    precision, sensitivity = inside(soft_skeleton(found), truth), inside(true_skeleton, found)
    return (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()


def soft_skeleton(values: Float[Tensor, "b c i j k"], steps: int = THINNING) -> Float[Tensor, "b c i j k"]:
    """What opening takes away from ever thinner versions of a soft mask."""
    skeleton = functional.relu(values - _opened(values))
    for _ in range(steps):
        values = _eroded(values)
        more = functional.relu(values - _opened(values))
        skeleton = skeleton + functional.relu(more - skeleton * more)
    return skeleton


def _eroded(values: Tensor) -> Tensor:
    """Minimum over the six neighbours, axis by axis."""
    lines = ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    thin = [-functional.max_pool3d(-values, line, 1, tuple(n // 2 for n in line)) for line in lines]
    return torch.minimum(torch.minimum(thin[0], thin[1]), thin[2])


def _opened(values: Tensor) -> Tensor:
    return functional.max_pool3d(_eroded(values), 3, 1, 1)
