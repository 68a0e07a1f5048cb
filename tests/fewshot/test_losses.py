"""Losses equal slow loops, and unknown places have no influence."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.fewshot.losses import (
    generalised_dice,
    soft_cldice,
    soft_skeleton,
    weighted_cross_entropy,
    window_loss,
)


def test_cross_entropy_weighs_classes_more_and_takes_that_out_of_the_odds() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, -2.0], [0.0, 0.5]], dtype=torch.float64)
    target, weight = torch.tensor([1, 0, 1]), torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    total = scale = 0.0
    for (_, odds), value, share in zip(logits.tolist(), target.tolist(), weight.tolist(), strict=True):
        odds += math.log(1.7 / 0.5)
        probability = 1 / (1 + math.exp(-odds))
        factor = share * (1.7 if value else 0.5)
        total -= factor * math.log(probability if value else 1 - probability)
        scale += factor
    assert weighted_cross_entropy(logits, target, weight).item() == pytest.approx(total / scale)


def test_a_share_of_vessel_is_learnt_as_it_is() -> None:
    target = torch.tensor([1] * 30 + [0] * 70)
    odds = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([odds], line_search_fn="strong_wolfe", max_iter=50)

    def value() -> torch.Tensor:
        solver.zero_grad()
        logits = torch.stack([torch.zeros_like(odds), odds]).expand(100, 2)
        loss = weighted_cross_entropy(logits, target, torch.ones(100, dtype=torch.float64))
        loss.backward()
        return loss

    solver.step(value)
    assert odds.sigmoid().item() == pytest.approx(0.3, abs=1e-4)


def test_generalised_dice_is_that_of_sudre() -> None:
    logits = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0] * 15 + [1] * 5)  # nothing of class 2
    weight = torch.linspace(0.5, 2, 20, dtype=torch.float64)
    shares = logits.softmax(1)
    above = below = 0.0
    for value in range(2):
        truth = (target == value).double()
        size = (weight * truth).sum().item()
        above += (weight * truth * shares[:, value]).sum().item() / size**2
        below += (size + (weight * shares[:, value]).sum().item()) / size**2
    assert generalised_dice(logits, target, weight).item() == pytest.approx(1 - 2 * above / below)


def test_a_soft_skeleton_of_a_tube_is_its_axis_and_bridges_no_gap() -> None:
    tube = torch.zeros(1, 1, 11, 11, 15)
    tube[:, :, 4:7, 4:7, 2:13] = 1
    skeleton = soft_skeleton(tube)
    assert skeleton[0, 0, 5, 5, 4:11].min() == 1
    assert skeleton[0, 0, 4, 4].max() == 0
    assert skeleton.sum() < tube.sum() / 4


def test_cldice_is_0_for_equal_masks_and_sees_a_gap() -> None:
    tube = torch.zeros(1, 1, 11, 11, 15)
    tube[:, :, 4:7, 4:7, 2:13] = 1
    broken = tube.clone()
    broken[..., 6:9] = 0
    thick = tube.clone()
    thick[:, :, 3:8, 3:8, 2:13] = 1
    skeleton = soft_skeleton(tube)
    assert soft_cldice(tube, tube, skeleton).item() == pytest.approx(0, abs=1e-6)
    assert soft_cldice(broken, tube, skeleton) > 0.1
    assert soft_cldice(thick, tube, skeleton) < 0.05  # a wall too far out breaks nothing


def test_unknown_places_have_no_influence_and_no_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, 8, generator=generator, requires_grad=True)
    target = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    target[:, 3:5, 3:5] = 1
    weight = torch.ones(2, 8, 8, 8)
    weight[..., 4:] = 0
    skeleton = soft_skeleton((target * weight.long())[:, None].float())
    first = window_loss(logits, target, weight, skeleton)
    first.backward()
    assert logits.grad is not None and not logits.grad[..., 4:].any() and logits.grad[..., :4].any()
    other = target.clone()
    other[..., 4:] = 1 - other[..., 4:]
    changed = logits.detach().clone()
    changed[..., 4:] += 3
    assert window_loss(changed, other, weight, skeleton).item() == pytest.approx(first.item())
