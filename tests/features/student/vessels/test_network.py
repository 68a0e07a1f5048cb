from __future__ import annotations

import numpy as np
import pytest
import torch
from features.student.vessels.fakes import fake_student

from medseg.features.student.vessels import network
from medseg.features.student.vessels.network import StudentNet, folded, network_inputs


def test_the_default_network_is_small_and_keeps_the_grid() -> None:
    net = StudentNet()
    assert 150_000 < sum(parameter.numel() for parameter in net.parameters()) < 250_000
    logits, features = net(torch.randn(1, 2, 8, 12, 4))
    assert logits.shape == (1, 1, 8, 12, 4)
    assert features.shape == (1, 12, 8, 12, 4)
    assert (features >= 0).all()


@pytest.mark.parametrize(("widths", "multiple"), [((3,), 1), ((3, 5), 2), ((4, 8, 8), 4), ((2, 2, 3, 4), 8)])
def test_any_number_of_levels_works(widths: tuple[int, ...], multiple: int) -> None:
    net = StudentNet(widths)
    assert net.multiple == multiple
    assert net(torch.randn(2, 2, 8, 8, 8))[1].shape == (2, widths[0], 8, 8, 8)


def test_the_logits_are_a_linear_map_of_the_features() -> None:
    net = fake_student().net
    logits, features = net(torch.randn(1, 2, 8, 8, 8))
    torch.testing.assert_close(net.answer(features), logits)


def test_pooling_is_that_of_torch() -> None:
    values = torch.randn(2, 3, 4, 8, 6)
    assert torch.equal(network._pooled(values), torch.nn.functional.max_pool3d(values, 2))
    assert torch.equal(network._pooled(values), network._pooled(values.clone().requires_grad_()).detach())


def test_an_untrained_network_expects_few_vessels() -> None:
    net = StudentNet((4, 8)).eval()
    assert net(torch.randn(1, 2, 8, 8, 8))[0].sigmoid().mean() < 0.2


def test_inputs_are_the_numbers_of_the_definition() -> None:
    found = network_inputs(torch.tensor([-1.0, 0.0, 0.8, 1.0, 2.0, 9.0]), 2.0)
    np.testing.assert_allclose(found[0], np.log([0.2, 0.2, 1.0, 1.2, 2.2, 9.2]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], [-2.0, -1.0, -0.2, 0.0, 1.0, 4.0], rtol=1e-5)


def test_a_volume_without_contrast_gives_finite_inputs() -> None:
    assert network_inputs(torch.tensor([0.5, 1.0, 3.0]), 0.0).isfinite().all()


def test_folded_norms_give_the_same_answer() -> None:
    net = fake_student().net
    inputs = torch.randn(1, 2, 8, 8, 8)
    quick = folded(net)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in quick.modules())
    for found, wanted in zip(quick(inputs), net(inputs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
