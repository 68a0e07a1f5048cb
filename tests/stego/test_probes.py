from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.stego.probes import Probes, assign, cluster_loss, linear_loss
from medseg.stego.reports import count_pairs, match, score


def test_probes_pass_no_gradient_to_the_codes() -> None:
    codes = torch.randn(2, 4, 3, 3, requires_grad=True)
    cosine, logits = Probes(4, 3, classes=2)(codes, codes)
    assert logits is not None
    (cluster_loss(cosine) + logits.sum()).backward()
    assert codes.grad is None


def test_hard_assignment_takes_the_nearest_prototype() -> None:
    cosine = torch.tensor([[[[0.1, 0.9]], [[0.5, -0.2]]]])
    assert assign(cosine, None).tolist() == [[[[0.0, 1.0]], [[1.0, 0.0]]]]
    assert float(cluster_loss(cosine)) == pytest.approx(-0.7)
    assert assign(cosine, 50.0).argmax(1).tolist() == [[[1, 0]]]


def test_unlabelled_pixels_do_not_count() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, -1], [7, 2]]])
    expected = torch.nn.functional.cross_entropy(logits[0, :, [0, 1], [0, 1]].T, torch.tensor([0, 2]))
    assert torch.allclose(linear_loss(logits, labels), expected)


def test_a_batch_without_labels_costs_nothing_and_is_no_nan() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = linear_loss(logits, torch.full((1, 4, 4), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


def test_pixels_of_extra_clusters_count_as_wrong() -> None:
    predicted = torch.tensor([[[2, 2, 0, 1]]])
    labels = torch.tensor([[[0, 0, 1, 1]]])
    table = match(count_pairs(predicted, labels, 3, 2))
    assert table.tolist() == [[2, 0], [0, 1], [0, 1]]
    assert score(table) == {"mIoU": 0.75, "Accuracy": 0.75, "Dice": pytest.approx((1 + 2 / 3) / 2)}


def test_a_class_that_never_occurs_is_left_out_and_one_only_predicted_counts_as_0() -> None:
    assert score(np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])) == {
        "mIoU": pytest.approx(0.375),
        "Accuracy": 0.75,
        "Dice": pytest.approx((6 / 7) / 2),
    }
