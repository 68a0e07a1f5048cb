from __future__ import annotations

import pytest
import torch
from stego.fakes import fake_dataset, small_settings

from medseg.patches.datasets import PairOrder, pair_loader
from medseg.patches.pairs import find_pairs
from medseg.stego.sampling import Draws
from medseg.stego.step import StepLosses, build_optimiser, build_parts, compute_losses, place_points
from medseg.stego.training import draw_for

BATCH = 5


def step(sampling: str, **changes: object) -> tuple[StepLosses, dict[str, torch.Tensor]]:
    """Losses and gradients of one step with the same draws."""
    dataset = fake_dataset(labelled=True)
    settings = small_settings(sampling=sampling, dropout=0.3, **changes)
    order = PairOrder(find_pairs(dataset, neighbours=3), batch=BATCH, seed=0, start=0, stop=1)
    batch = next(iter(pair_loader(dataset, order)))
    parts = build_parts(6, settings, classes=3, seed=0)
    found = compute_losses(
        parts, batch, draw_for(settings, BATCH, 6, 0, 0), settings, settings.term_shifts, threshold=0.5
    )
    found.total.backward()
    assert all(parameter.grad is not None for parameter in parts.head.parameters())
    return found, {name: parameter.grad for name, parameter in parts.head.named_parameters()}  # type: ignore[misc]


def test_the_head_on_corners_gives_the_losses_and_gradients_of_whole_maps() -> None:
    (maps, map_gradients), (corner, corner_gradients) = step("maps"), step("corners")
    for name, value in corner.scalars.items():
        if name not in ("loss/cluster", "loss/total"):  # the cluster probe sees the points instead of every pixel
            assert float(value) == pytest.approx(float(maps.scalars[name]), abs=1e-6), name
    for name, gradient in corner_gradients.items():
        torch.testing.assert_close(gradient, map_gradients[name], atol=1e-6, rtol=1e-4)


def test_snapped_points_give_other_losses() -> None:
    (pixels, _), (corner, _) = step("pixels"), step("corners")
    assert float(pixels.scalars["loss/contrastive"]) != pytest.approx(
        float(corner.scalars["loss/contrastive"]), abs=1e-4
    )


def test_the_parts_add_up_to_the_total() -> None:
    found, _ = step("maps", rec_weight=0.5, crf_weight=0.25, crf_samples=30, correspondence_weight=2.0)
    parts = found.scalars
    terms = 0.63 * parts["loss/neg_inter"] + 0.25 * parts["loss/pos_inter"] + 0.67 * parts["loss/pos_intra"]
    assert float(parts["loss/contrastive"]) == pytest.approx(2 * float(terms))
    wanted = parts["loss/contrastive"] + 0.5 * parts["loss/rec"] + 0.25 * parts["loss/crf"]
    wanted = wanted + parts["loss/cluster"] + parts["loss/linear"]
    assert float(found.total.detach()) == pytest.approx(float(wanted))


def test_rows_of_a_batch_keep_what_concerns_all() -> None:
    whole = draw_for(small_settings(), 6, 4, 0, 0)
    part = whole.rows(slice(2, 4), torch.device("cpu"))
    assert isinstance(part, Draws)
    assert torch.equal(part.coords, whole.coords[:, 2:4])
    assert torch.equal(part.negatives, whole.negatives[:, 2:4])
    assert part.keep is not None and part.keep.shape == (2, 3, 6, 4)


def test_head_and_probes_learn_at_their_own_rates() -> None:
    settings = small_settings(learning_rate=1e-3, probe_learning_rate=1e-2, rec_weight=1.0)
    parts = build_parts(6, settings, classes=2, seed=0)
    groups = build_optimiser(parts, settings).param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-2]
    assert [len(group["params"]) for group in groups] == [8, 3]


@pytest.mark.parametrize("salient_share", [0.0, 0.5])
def test_no_point_of_the_loss_lies_outside_the_region(salient_share: float) -> None:
    salience = torch.zeros(4, 8, 8)
    salience[:, :, :5] = -1
    draws = draw_for(small_settings(salient_share=salient_share), 4, 6, 0, 0)
    for coords in place_points({"salience": salience, "positive_salience": salience}, draws, threshold=0.5):
        columns = ((coords[..., 0] + 1) / 2 * 7).round()
        assert columns.min() >= 5
