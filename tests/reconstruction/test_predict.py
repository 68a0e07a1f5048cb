"""This file tests that probabilities of clusters become probabilities of classes in the right place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.patches.slicing import PatchGeometry
from medseg.reconstruction.predict import Method, Voter, predict_case

SHAPE = (13, 17, 9)


class Values:
    """A volume backbone whose only feature is the grey value."""

    name, dim, fingerprint = "values", 1, "1"

    def features_of_box(self, sample: Any, box: tuple[slice, slice, slice]) -> torch.Tensor:
        return sample["image"].as_tensor()[(slice(None), *box)]


class Halves:
    """Three clusters: the grey value is the probability of the first two together."""

    name, clusters = "halves", 3

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([features * 0.25, features * 0.75, 1 - features], dim=1)

    def codes(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def log_probabilities_of(self, codes: torch.Tensor) -> torch.Tensor:
        return self.probabilities(codes).log()


def test_a_class_of_many_clusters_does_not_win_by_their_number_where_the_strongest_counts() -> None:
    clusters = torch.tensor([0.3, 0.25, 0.25, 0.2]).view(1, 4, 1, 1)
    names = {0: 2, 1: 1, 2: 1}  # the last is background
    summed = Voter(Halves(), names).of_clusters(clusters, (1, 2))[0, :, 0, 0]
    assert summed.tolist() == pytest.approx([0.5, 0.3])
    strongest = Voter(Halves(), names, by_strongest=True).of_clusters(clusters, (1, 2, 9))[0, :, 0, 0]
    assert strongest.tolist() == pytest.approx([0.25 / 0.75, 0.3 / 0.75, 0])
    everything = Voter(Halves(), dict.fromkeys(range(4), 1), by_strongest=True).of_clusters(clusters, (1,))
    assert everything.item() == 1


@pytest.mark.parametrize("planes", [("axial",), ("axial", "coronal", "sagittal")], ids=" ".join)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_class_probabilities_lie_where_the_scan_has_them(planes: tuple[str, ...], overlap: float) -> None:
    values = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    sample = {"image": MetaTensor(values), "region": torch.ones((1, *SHAPE)), "case_id": "a"}
    methods = {
        "both": Method((Voter(Halves(), {0: 1, 1: 1}),)),
        "second": Method((Voter(Halves(), {1: 1}),)),
        "none": Method((Voter(Halves(), {}),)),
    }
    found = predict_case(
        sample,
        methods,
        [Values()],
        values=[1],
        geometry=PatchGeometry("axial", 8, overlap),
        planes=planes,
        batch=5,
        device=torch.device("cpu"),
    )
    assert np.allclose(found["both"].median[0], values[0], atol=1e-6)
    assert np.allclose(found["second"].median[0], 0.75 * values[0], atol=1e-6)
    assert not found["none"].median.any()


def test_nothing_is_predicted_where_no_window_touches_the_region() -> None:
    region = torch.zeros((1, *SHAPE))
    region[:, :4, :4, 2] = 1
    sample = {"image": MetaTensor(torch.ones((1, *SHAPE))), "region": region, "case_id": "a"}
    method = {"both": Method((Voter(Halves(), {0: 1, 1: 1}),))}
    geometry = PatchGeometry("axial", 4, 0.0)
    device = torch.device("cpu")
    found = predict_case(
        sample, method, [Values()], values=[1], geometry=geometry, planes=("axial",), batch=4, device=device
    )["both"].median[0]
    assert found.sum() == 16
    assert (found[:4, :4, 2] == 1).all()


def test_voters_decide_by_their_median_and_their_mean_tells_how_far_they_agree() -> None:
    values = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    sample = {"image": MetaTensor(values), "region": torch.ones((1, *SHAPE)), "case_id": "a"}
    # The third has no cluster for the class: one voter that went wrong.
    voters = tuple(Voter(Halves(), names) for names in ({0: 1, 1: 1}, {1: 1}, {}))
    found = predict_case(
        sample,
        {"three": Method(voters), "two": Method(voters[:2])},
        [Values()],
        values=[1],
        geometry=PatchGeometry("axial", 8, 0.0),
        planes=("axial",),
        batch=5,
        device=torch.device("cpu"),
    )
    assert np.allclose(found["three"].median[0], 0.75 * values[0], atol=1e-6)
    assert np.allclose(found["three"].mean[0], (1 + 0.75) / 3 * values[0], atol=1e-6)
    assert np.allclose(found["two"].median[0], (1 + 0.75) / 2 * values[0], atol=1e-6)
