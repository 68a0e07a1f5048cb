"""This file teaches a linear head on loose points: a convex problem, solved in seconds and the same in every repeat.

The prior's log-odds stand beside the head's with a weight of their own, which begins at 1 and is never negative. Two
things hold head and weight where they begin, and count the less the more is labelled: a quadratic penalty, and
*anchors*, places that nobody labelled, where the answer is to stay what the prior says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from medseg.fewshot.losses import POINT_LOSSES
from medseg.stego.head import Head
from medseg.stego.model import LinearModel

PENALTY = 3.0
"""Of a squared weight, in labelled voxels: features have sd 1, so 3 voxels outweigh the belief that nothing changes."""
ANCHORS = 100.0
"""What all anchors together weigh, in labelled voxels: much beside five clicks, nothing beside a labelled slice."""
WHOLE_CASE = 1000.0
"""What all voxels of a case weigh together that is labelled as a whole, where there is a prior: it has no anchors, and
its voxels resemble each other more than those of the next scan. With their full weight one case taught the looks of its
scanner: on simulated scans of other kinds Dice fell by .03, with this one by .01; of the same kind it rises alike."""
MOST_ROUNDS = 100
"""Of L-BFGS; some 30 are the rule."""


class LabelledPoints(NamedTuple):
    """What a linear head is taught by.

    Attributes:
        features: of each point.
        prior: log-odds of each class by the prior.
        target: class number, 0 for background.
        weight: how many labelled voxels a point stands for.
    """

    features: Float[Tensor, "n d"]
    prior: Float[Tensor, "n c"]
    target: Int[Tensor, " n"]
    weight: Float[Tensor, " n"]


class Anchors(NamedTuple):
    """Places that nobody labelled.

    Attributes:
        features: of each.
        prior: log-odds of each class by the prior.
    """

    features: Float[Tensor, "m d"]
    prior: Float[Tensor, "m c"]


def fit_linear(points: LabelledPoints, anchors: Anchors, *, loss: str = "cross_entropy") -> tuple[LinearModel, float]:
    """Teach a linear head.

    Args:
        points: of all labelled cases.
        anchors: of all labelled cases; none where everything is labelled.
        loss: one of `POINT_LOSSES`.

    Returns:
        The head, whose cluster n is class number n, and the weight of the prior.
    """
    weight = points.weight.double()
    mean, sd = _moments(torch.cat([points.features, anchors.features]).double())
    seen = [((group.features.double() - mean) / sd, group.prior.double()) for group in (points, anchors)]
    kept = _logits(seen[1][1]).softmax(1)
    slope = torch.zeros(points.prior.shape[1], len(mean), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(slope), dtype=torch.float64, requires_grad=True)
    root = torch.ones((), dtype=torch.float64, requires_grad=True)  # its square is never negative
    solver = torch.optim.LBFGS([slope, bias, root], max_iter=MOST_ROUNDS, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        solver.zero_grad()
        at_points, at_anchors = (_logits(root.square() * prior + known @ slope.T + bias) for known, prior in seen)
        moved = slope.square().sum() + bias.square().sum() + (root.square() - 1).square()
        total = weight.sum() * POINT_LOSSES[loss](at_points, points.target, weight) + PENALTY / 2 * moved
        if len(kept):
            total = total + ANCHORS * functional.cross_entropy(at_anchors, kept)
        total = total / weight.sum()
        total.backward()
        return total

    solver.step(value)
    with torch.no_grad():
        plain = slope / sd  # so that the head takes features as they come
        row = torch.cat([torch.zeros_like(plain[:1]), plain]).float()
        offset = torch.cat([torch.zeros_like(bias[:1]), bias - plain @ mean]).float()
    head = Head(len(mean), len(mean), "none")
    return LinearModel("probe", head, row, offset), float(root.detach().square())


def _logits(odds: Float[Tensor, "n c"]) -> Float[Tensor, "n c1"]:
    """Log-odds with those of background, 0, before them."""
    return torch.cat([torch.zeros_like(odds[:, :1]), odds], dim=1)


def _moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and sd of each channel; channels that do not vary are divided by 1."""
    mean, sd = features.mean(0), features.std(0, correction=0)
    return mean, torch.where(sd > 1e-6, sd, torch.ones_like(sd))
