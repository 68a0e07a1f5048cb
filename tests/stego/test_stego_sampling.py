from __future__ import annotations

import pytest
import torch

from medseg.stego import losses
from medseg.stego.augment import View, draw_view, show, view_coordinates
from medseg.stego.head import Head, keep_masks
from medseg.stego.sampling import (
    STREAMS,
    corners,
    derangements,
    draw,
    gather_pixels,
    generator_for,
    pixel_coordinates,
    salient_coordinates,
    salient_pixels,
)


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_negatives_are_true_derangements(count: int) -> None:
    found = derangements(count, 40, generator_for(0, "step"))
    assert found.shape == (0 if count == 1 else 40, count)
    for permutation in found:
        assert sorted(permutation.tolist()) == list(range(count))
        assert (permutation != torch.arange(count)).all()


def test_every_derangement_of_four_occurs_about_equally_often() -> None:
    found = derangements(4, 900, generator_for(1, "step"))
    counts = torch.unique(found, dim=0, return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 70 and counts.max() < 135


def test_draws_are_a_function_of_seed_stream_and_step() -> None:
    names = [(seed, stream, step) for seed in (0, 1) for stream in STREAMS for step in (0, 1)]
    numbers = [float(torch.rand((), generator=generator_for(*name), dtype=torch.float64)) for name in names]
    assert len(set(numbers)) == len(names)
    assert numbers == [float(torch.rand((), generator=generator_for(*name), dtype=torch.float64)) for name in names]


def test_a_share_of_the_points_is_salient() -> None:
    options = {"batch": 4, "feature_dim": 3, "samples": 20, "negatives": 2, "dropout": 0.0, "crf_samples": 7}
    draws = draw(generator_for(0, "step"), salient_share=0.3, **options)  # type: ignore[arg-type]
    assert 0.25 < draws.salient.float().mean() < 0.35
    assert draws.keep is None
    assert draws.crf_pixels.shape == (2, 7)
    assert draws.coords.abs().max() <= 1


def test_salient_pixels_lie_in_the_mask_and_cover_it() -> None:
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 4, 6] = mask[0, 1, 2] = mask[0, 0, 0] = True
    picks = torch.rand((2, 30, 30), generator=torch.Generator().manual_seed(0))
    rows, columns = salient_pixels(mask, picks)
    assert mask[0, rows[0], columns[0]].all()
    assert {(0, 0), (1, 2), (4, 6)} == set(zip(rows[0].flatten().tolist(), columns[0].flatten().tolist(), strict=True))
    # The second image has no mask: any pixel may come.
    assert len(set((rows[1] * 7 + columns[1]).flatten().tolist())) == 35


def test_a_pick_of_almost_one_takes_the_last_pixel() -> None:
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    rows, columns = salient_pixels(mask, torch.tensor([[1 - 1e-9, 0.0]], dtype=torch.float32))
    assert (rows.tolist(), columns.tolist()) == ([[2, 0]], [[2, 0]])


def test_a_salient_point_reads_exactly_its_pixel_on_an_oblong_map() -> None:
    values = torch.arange(15.0).reshape(1, 1, 3, 5)
    mask = torch.zeros(1, 3, 5, dtype=torch.bool)
    mask[0, 2, 3] = True
    coords = salient_coordinates(
        torch.zeros(1, 2, 2, 2), torch.rand(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), mask
    )
    assert losses.sample(values, coords).unique().tolist() == [13.0]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7)])
def test_the_corners_give_the_bilinear_value(size: tuple[int, int]) -> None:
    values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coords = torch.rand(2, 4, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2.4 - 1.2
    coords[0, 0, 0] = torch.tensor([1.0, 1.0])
    index, weight = corners(coords, size, snap=False)
    found = (gather_pixels(values, index) * weight[:, None]).sum(-1).unflatten(2, (4, 4))
    assert torch.allclose(found, losses.sample_at(values, coords))


def test_snapped_points_read_the_nearest_pixel() -> None:
    values = torch.arange(12.0).reshape(1, 1, 3, 4)
    coords = pixel_coordinates(torch.tensor([1.2, 1.7]), torch.tensor([0.4, 2.6]), (3, 4)).reshape(1, 1, 2, 2)
    index, _ = corners(coords, (3, 4), snap=True)
    assert gather_pixels(values, index).flatten().tolist() == [4.0, 11.0]


def test_pixels_may_be_read_from_other_rows() -> None:
    values = torch.arange(24.0).reshape(3, 2, 2, 2)
    found = gather_pixels(values, torch.tensor([[[3]], [[0]]]), torch.tensor([2, 0]))
    assert found.flatten().tolist() == [19.0, 23.0, 0.0, 4.0]


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    keep = keep_masks((3, 50, 40), 0.1, generator_for(0, "step"))
    assert keep.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert float(keep.mean()) == pytest.approx(1, abs=0.02)
    head = Head(40, 5)
    features = torch.randn(50, 40, 2, 2)
    _, signal = head(features, keep)
    assert torch.equal(signal == 0, (keep[2] == 0)[:, :, None, None].expand(-1, -1, 2, 2))


def test_the_whole_view_is_the_image_and_its_flip_is_the_flip() -> None:
    image = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    one, none = torch.ones(2), torch.zeros(2)
    view = View(torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([False, True]), one, one, none + 1e-3)
    shown = show(view, image)
    assert torch.allclose(shown[0], image[0], atol=1e-5)
    assert torch.allclose(shown[1], image[1].flip(-1), atol=1e-5)


def test_a_view_shows_what_its_coordinates_say() -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    view = draw_view(4, generator_for(0, "augmentation"))
    still = view._replace(brightness=torch.ones(4), contrast=torch.ones(4), blur_sigma=torch.full((4,), 1e-3))
    coords = view_coordinates(view, (40, 60))
    shown = [show(still, ramp.expand(4, -1, -1)) for ramp in (columns, rows)]
    assert torch.allclose(shown[0], ((coords[..., 0] + 1) / 2 * 59).clamp(0, 59), atol=1e-3)
    assert torch.allclose(shown[1], ((coords[..., 1] + 1) / 2 * 39).clamp(0, 39), atol=1e-3)
    assert (view.half <= 1).all() and (view.half.prod(1) > 0.7).all()
