"""This file tests where a place of a picture finds itself, in numbers by hand and in a slow loop."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.features.correspondence import at_points, correspondence, enlarged, pair_cosines
from medseg.stego.losses import sample_at


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))


def test_the_corners_are_the_first_and_the_last_cell(features: torch.Tensor) -> None:
    found = at_points(features, torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    assert torch.allclose(found, torch.stack([features[:, r, c] for r in (0, -1) for c in (0, -1)]), atol=1e-6)


def test_between_two_cells_lies_their_mean(features: torch.Tensor) -> None:
    found = at_points(features, torch.tensor([[0.0, 0.5 / 5]]))
    assert torch.allclose(found[0], (features[:, 0, 0] + features[:, 0, 1]) / 2, atol=1e-6)


def test_points_are_read_as_the_losses_read_them(features: torch.Tensor) -> None:
    points = torch.rand(7, 2, generator=torch.Generator().manual_seed(1))
    coords = (points.flip(-1) * 2 - 1)[None, None]
    assert torch.allclose(at_points(features, points), sample_at(features[None], coords)[0, :, 0].T, atol=1e-6)


def test_every_cosine_agrees_with_a_slow_loop(features: torch.Tensor) -> None:
    other = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(2))
    heat = correspondence(features, (1 / 3, 2 / 5), other)
    query = features[:, 1, 2].tolist()
    for row in range(3):
        for column in range(2):
            vector = other[:, row, column].tolist()
            dot = sum(a * b for a, b in zip(query, vector, strict=True))
            assert heat[row, column] == pytest.approx(dot / math.hypot(*query) / math.hypot(*vector), abs=1e-5)


def test_a_place_finds_itself_and_not_its_mirror_image(features: torch.Tensor) -> None:
    heat = correspondence(features, (1 / 3, 1.0), features)
    assert divmod(int(heat.argmax()), 6) == (1, 5)
    assert heat.max() == pytest.approx(1, abs=1e-5)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    assert (correspondence(torch.zeros(3, 2, 2), (0.5, 0.5), torch.ones(3, 2, 2)) == 0).all()


def test_pairs_are_every_vector_of_one_list_with_every_one_of_the_other(features: torch.Tensor) -> None:
    first, second = features[:, 0].T, features[:, 1, :4].T
    found = pair_cosines(first, second)
    assert found.shape == (6, 4)
    assert found[2, 3] == pytest.approx(float(torch.cosine_similarity(first[2], second[3], dim=0)), abs=1e-6)


def test_an_enlarged_map_has_its_corners_in_the_pictures_corners() -> None:
    heat = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    large = enlarged(heat, (5, 9))
    assert [large[0, 0], large[0, -1], large[-1, 0], large[-1, -1]] == [0, 1, 2, 3]
    assert large[2, 4] == 1.5
