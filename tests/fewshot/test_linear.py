"""A linear head learns what labels say, keeps the prior where they say nothing, and is the same in every repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medseg.fewshot.linear import Anchors, LabelledPoints, fit_linear
from medseg.stego.model import LinearModel, load_method

NO_ANCHORS = Anchors(torch.zeros(0, 3), torch.zeros(0, 1))


def points(count: int, seed: int = 0) -> LabelledPoints:
    """Vessel is where the first feature is above 2; the prior is wrong about every fifth point."""
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(count, 3, generator=generator) + 2
    target = (features[:, 0] > 2).long()
    odds = (4.0 * target - 2) * torch.where(torch.rand(count, generator=generator) < 0.2, -1, 1)
    return LabelledPoints(features, odds[:, None], target, torch.ones(count))


def odds_of(head: LinearModel, weight: float, given: LabelledPoints) -> torch.Tensor:
    answer = head.log_probabilities_of(given.features.T[None, :, :, None])[0, :, :, 0]
    return weight * given.prior[:, 0] + answer[1] - answer[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "generalised_dice"])
def test_it_corrects_the_prior_on_points_it_never_saw(loss: str) -> None:
    head, weight = fit_linear(points(2000), NO_ANCHORS, loss=loss)
    new = points(1000, seed=1)
    right = ((odds_of(head, weight, new) > 0) == (new.target == 1)).float().mean()
    assert right > 0.95  # the prior alone: 0.8
    assert weight >= 0


def test_two_points_against_anchors_leave_the_prior_nearly_as_it_is() -> None:
    few = points(2)
    many = points(2000, seed=2)
    head, weight = fit_linear(few, Anchors(many.features, many.prior))
    believed = many.prior[:, 0] > 0
    assert ((odds_of(head, weight, many) > 0) == believed).float().mean() > 0.98


def test_a_head_of_several_classes_says_background_by_its_first_channel_and_comes_back_from_disk(
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(300) % 3
    centre = torch.eye(3)[target] * 5
    given = LabelledPoints(
        centre + torch.randn(300, 3, generator=generator), torch.zeros(300, 2), target, torch.ones(300)
    )
    head, _ = fit_linear(given, Anchors(torch.zeros(0, 3), torch.zeros(0, 2)))
    assert (head.assign(given.features) == target).float().mean() > 0.97
    head.save(tmp_path)
    assert torch.equal(load_method(tmp_path).assign(given.features), head.assign(given.features))
    again, _ = fit_linear(given, Anchors(torch.zeros(0, 3), torch.zeros(0, 2)))
    assert torch.equal(again.weight, head.weight)


def test_a_prior_that_is_always_wrong_loses_its_weight() -> None:
    given = points(500)
    wrong = given._replace(prior=-(4.0 * given.target[:, None] - 2), features=torch.zeros(500, 3))
    _, weight = fit_linear(wrong, NO_ANCHORS)
    assert weight == pytest.approx(0, abs=0.05)
