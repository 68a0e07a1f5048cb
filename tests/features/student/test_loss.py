from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medseg.features.student.loss import known_dice, student_loss


def grid(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def test_the_terms_are_the_numbers_of_their_definition() -> None:
    # probabilities .5 and .8; labels yes and no; weights 2 and 1
    found = student_loss(grid(0.0, math.log(4)), grid(1.0, 0.0), grid(2.0, 1.0), bce_weight=3.0, smoothing=20.0)
    bce = (2 * math.log(2) + math.log(5)) / 3
    dice = 1 - (2 * 1.0 + 20) / (1.0 + 0.8 + 2 + 20)
    assert float(found.bce) == pytest.approx(bce, rel=1e-5)
    assert float(found.dice) == pytest.approx(dice, rel=1e-4)
    assert float(found.total) == pytest.approx(3 * bce + dice, rel=1e-5)


def test_unknown_voxels_have_no_influence() -> None:
    labels, weight = grid(1, 0, 1), grid(1.0, 1.0, 0.0)
    logits = [grid(0.3, -1.0, last).requires_grad_() for last in (-9.0, 9.0)]
    losses = [student_loss(values, labels, weight, bce_weight=3.0, smoothing=20.0).total for values in logits]
    assert losses[0].item() == losses[1].item()
    for values, loss in zip(logits, losses, strict=True):
        loss.backward()
        assert values.grad is not None
        assert float(values.grad[..., 2]) == 0
        assert float(values.grad[..., 0]) != 0
    assert known_dice(logits[0], labels, weight) == known_dice(logits[1], labels, weight) == 1


def test_a_batch_of_which_nothing_is_known_teaches_nothing() -> None:
    logits = grid(0.3, -1.0).requires_grad_()
    loss = student_loss(logits, grid(2, 2), grid(0.0, 0.0), bce_weight=3.0, smoothing=20.0)
    loss.total.backward()
    assert loss.total.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_dice_of_known_voxels_says_no_and_takes_empty_for_right() -> None:
    labels, weight = grid(1, 1, 0), grid(1.0, 1.0, 1.0)
    assert float(known_dice(grid(1.0, -1.0, -1.0), labels, weight)) == pytest.approx(2 / 3)
    assert float(known_dice(grid(-1.0, -1.0, 1.0), labels, weight)) == 0
    assert float(known_dice(grid(-1.0, -1.0, -1.0), grid(0, 0, 0), weight)) == 1
