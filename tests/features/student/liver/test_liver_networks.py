from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.features.student.liver import views
from medseg.features.student.liver.basis import basis_from, fit_basis
from medseg.features.student.liver.network import CellNet, EchoNet, first_weights
from medseg.features.student.liver.views import plain_components, plain_echoes, view_of_components, view_of_echoes


def test_the_networks_give_logits_that_are_linear_in_their_features() -> None:
    for net, inputs, width in ((CellNet(7), torch.randn(2, 9, 48, 48), 32), (EchoNet(), torch.randn(2, 3, 64, 64), 16)):
        logits, features = net.eval()(inputs)
        assert logits.shape == (2, 1, *inputs.shape[2:])
        assert features.shape == (2, width, *inputs.shape[2:])
        torch.testing.assert_close(net.answer(features), logits)


def test_first_weights_are_a_function_of_the_seed() -> None:
    state = torch.get_rng_state()
    one, same, other = (first_weights(CellNet, 4, seed).mix[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_basis_gives_uncorrelated_components_of_unit_rms() -> None:
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((4000, 3)).astype(np.float32)
    mixed = sources @ rng.standard_normal((3, 6)).astype(np.float32) + 5
    basis = fit_basis([torch.from_numpy(mixed)], [3])
    found = basis([torch.from_numpy(mixed[:2304]).T.reshape(1, 6, 48, 48)])[0].flatten(1)
    assert found.shape == (3, 2304)
    torch.testing.assert_close(found @ found.T / 2304, torch.eye(3), atol=0.1, rtol=0)
    again = basis_from(basis.tensors())
    maps = [torch.randn(1, 6, 24, 24)]
    assert torch.equal(again(maps), basis(maps))


def test_a_map_of_few_channels_has_as_many_components() -> None:
    assert fit_basis([torch.randn(100, 4), torch.randn(100, 50)], [24, 40]).components == 44


def one_hot(row: int, column: int, side: int = 48) -> torch.Tensor:
    values = torch.zeros(side, side)
    values[row, column] = 1
    return values


def test_components_target_and_weight_move_together_and_places_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DROPPED", "GAIN_SD", "OFFSET_SD", "NOISE_SD"):
        monkeypatch.setattr(views, name, 0.0)
    point = one_hot(20, 30)
    shifts = set()
    for seed in range(40):
        inputs, target, weight = view_of_components(
            np.random.default_rng(seed), point.expand(3, -1, -1), point, torch.ones(48, 48)
        )
        assert torch.equal(inputs[0], target)
        assert torch.equal(inputs[3:], plain_components(torch.zeros(1, 3, 48, 48))[0, 3:])
        row, column = (int(n) for n in target.nonzero()[0])
        shifts.add((row - 20, column - 30))
        gone = 48 * 48 - (48 - abs(row - 20)) * (48 - abs(column - 30))
        assert int((weight == 0).sum()) == gone
        if row > 20:
            assert not weight[: row - 20].any()
        if column < 30:
            assert not weight[:, column - 30 :].any()
    assert {s for pair in shifts for s in pair} == set(range(-3, 4))


def test_components_are_dropped_and_changed_as_the_recipe_says() -> None:
    values = torch.ones(400, 48, 48)
    inputs, _, _ = view_of_components(np.random.default_rng(0), values, values[0], values[0])
    means, deviations = inputs[:400].mean((1, 2)), inputs[:400].std((1, 2))
    assert float(deviations.mean()) == pytest.approx(0.3, abs=0.01)
    dropped = means[(means - 1).abs() > 0.9]  # mostly those without their own value
    assert 0.1 < len(dropped) / 400 < 0.25
    assert float(means.mean()) == pytest.approx(0.8, abs=0.1)


def test_echoes_are_bent_with_their_lesson_and_a_view_is_a_function_of_its_seed() -> None:
    block = torch.zeros(64, 64)
    block[20:44, 16:48] = 4.0
    lesson = torch.nn.functional.interpolate(block[None, None] / 4, (48, 48))[0, 0]
    for seed in range(6):
        inputs, target, weight = view_of_echoes(np.random.default_rng(seed), block, lesson, torch.ones(48, 48))
        again = view_of_echoes(np.random.default_rng(seed), block, lesson, torch.ones(48, 48))
        assert torch.equal(inputs, again[0])
        seen, said = inputs[0] > inputs[0].mean(), target > 0.5
        assert float((seen & said).sum() * 2 / (seen.sum() + said.sum())) > 0.9
        assert torch.equal(inputs[1:], plain_echoes(block[None])[0, 1:])
        assert weight[32, 32] == 1
    assert not torch.equal(inputs, view_of_echoes(np.random.default_rng(9), block, lesson, torch.ones(48, 48))[0])
