from __future__ import annotations

import math

import pytest
import torch

from medseg.stego import losses
from medseg.stego.losses import SampledPairs, Terms


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_zero_vector_stays_zero_and_is_no_nan() -> None:
    values = torch.zeros(1, 3, 2, 2, requires_grad=True)
    losses.normalise(values).sum().backward()
    assert torch.equal(losses.normalise(values), torch.zeros(1, 3, 2, 2))
    assert values.grad is not None and values.grad.isfinite().all()


def test_the_pair_loss_by_hand() -> None:
    wanted, found = torch.tensor([0.5, 0.5, 0.1]), torch.tensor([0.9, -0.2, 0.4])
    plain = losses.pair_loss(wanted, found, 0.3, zero_clamp=False, stabilise=False)
    clamped = losses.pair_loss(wanted, found, 0.3, zero_clamp=True, stabilise=True)
    assert plain.tolist() == pytest.approx([-0.18, 0.04, 0.08])
    assert clamped.tolist() == pytest.approx([-0.16, 0.0, 0.08])


def test_pointwise_centring_keeps_the_batch_mean_and_passes_no_gradient() -> None:
    first = random_maps(3, 4, 2, 2).requires_grad_()
    second = random_maps(3, 4, 2, 2) + 0.5
    plain = losses.feature_correspondence(first, second, pointwise=False)
    centred = losses.feature_correspondence(first, second, pointwise=True)
    assert float(centred.mean()) == pytest.approx(float(plain.mean()))
    assert torch.allclose(centred.mean((3, 4)), plain.mean().expand(3, 2, 2))
    assert not centred.requires_grad


def test_a_batch_of_one_has_no_random_term() -> None:
    point = random_maps(1, 4, 2, 2), random_maps(1, 3, 2, 2)
    found = losses.correlation_loss(SampledPairs(point, point, ()), Terms(9.0, 1.0, 1.0), Terms(0.0, 0.0, 0.0))
    assert set(found.losses) == {"self", "knn"}
    assert float(found.total) == pytest.approx(float(found.losses["self"] + found.losses["knn"]))


def test_the_crf_kernel_by_hand() -> None:
    guidance = torch.tensor([[[[0.0, 0.3]]]])
    codes = torch.tensor([[[[1.0, 0.6]], [[0.0, 0.8]]]])
    pixels = torch.tensor([[0, 0], [0, 1]])
    loss = losses.contrastive_crf_loss(guidance, codes, pixels, alpha=0.5, beta=0.15, gamma=0.05, shift=0.25)[0]
    near = 10 * math.exp(-1 / 1.0 - 0.09 / 0.3) + 3 * math.exp(-1 / 0.1) - 0.25
    assert loss[0, 1].item() == pytest.approx(-0.6 * near, rel=1e-5)
    assert loss[0, 0].item() == pytest.approx(-12.75)


@pytest.mark.parametrize("axis", [2, 3])
def test_a_flipped_view_is_compared_with_its_own_flip(axis: int) -> None:
    codes = random_maps(2, 5, 3, 4)
    x, y = torch.meshgrid(torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 3), indexing="xy")
    coords = torch.stack((-x if axis == 3 else x, -y if axis == 2 else y), dim=-1).expand(2, 3, 4, 2).double()
    assert float(losses.augmentation_loss(codes, codes.flip(axis), coords)) == pytest.approx(-1.0)
    assert float(losses.augmentation_loss(codes, codes.flip(5 - axis), coords)) > -0.9
