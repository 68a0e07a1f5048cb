from __future__ import annotations

import numpy as np
import pytest
import torch
from stego.fakes import FakeStore
from torch import Tensor

from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs, nearest_patches


def unit_vectors(count: int, dim: int = 8) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(0)), dim=1)


def slow_pairs(
    means: Tensor, patients: list[str], scans: list[str], slices: list[int], k: int, far: int
) -> list[list[int]]:
    """The rule of the docstring, patch by patch."""
    found = []
    for i in range(len(means)):
        order = sorted(range(len(means)), key=lambda j: -float(means[i] @ means[j]))
        near = [j for j in order if j != i and scans[j] == scans[i] and abs(slices[j] - slices[i]) < far]
        others = [j for j in order if patients[j] != patients[i]]
        same = [j for j in order if j != i and patients[j] == patients[i] and j not in near]
        partners = (others + same)[:k] or near[:k] or [i]
        found.append([partners[slot % len(partners)] for slot in range(k)])
    return found


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("patients", [1, 2, 5])
@pytest.mark.parametrize("neighbours", [4, 14])
def test_pairs_follow_the_rule(patients: int, neighbours: int, chunk: int) -> None:
    count = 15
    patient = [str(i % patients) for i in range(count)]
    scan = [f"{p}-{i % 2}" for i, p in enumerate(patient)]
    slices = [i // 2 for i in range(count)]
    means = unit_vectors(count)
    options = {"patients": patient, "scans": scan, "slices": np.array(slices), "slice_distance": 3}
    found = nearest_patches(means, neighbours=neighbours, chunk=chunk, **options)  # type: ignore[arg-type]
    assert found.tolist() == slow_pairs(means, patient, scan, slices, neighbours, 3)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_any_set_size_has_pairs_and_none_but_a_lone_patch_is_its_own(count: int) -> None:
    names = ["a"] * count
    found = nearest_patches(unit_vectors(count), patients=names, scans=names, slices=np.zeros(count, int), neighbours=7)
    assert found.shape == (count, 7)
    assert (found == np.arange(count)[:, None]).any() == (count == 1)


def test_neighbouring_slices_of_one_scan_are_no_partners() -> None:
    means = torch.ones(6, 2) / 2**0.5
    slices = np.array([0, 1, 2, 10, 11, 30])
    found = nearest_patches(means, patients=["a"] * 6, scans=["a"] * 6, slices=slices, neighbours=3, slice_distance=8)
    assert (np.abs(slices[found] - slices[:, None]) >= 8).all()


def test_the_nearest_may_be_of_the_same_patient_where_that_is_asked_for() -> None:
    means = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=1)
    given = {"patients": ["a", "a", "b", "b"], "scans": ["a", "a", "b", "b"], "slices": np.zeros(4, int)}
    others = nearest_patches(means, neighbours=1, slice_distance=0, **given)  # type: ignore[arg-type]
    nearest = nearest_patches(means, neighbours=1, slice_distance=0, others_first=False, **given)  # type: ignore[arg-type]
    assert others[:, 0].tolist() == [3, 3, 1, 1]
    assert nearest[:, 0].tolist() == [1, 0, 3, 2]


def test_pairs_of_a_dataset_prefer_other_patients() -> None:
    stores = [
        FakeStore("scan1", 3, patient="p"),
        FakeStore("scan2", 3, patient="p"),
        FakeStore("scan3", 3, patient="q"),
    ]
    dataset = PatchDataset(stores)
    found = find_pairs(dataset, neighbours=3)
    assert set(dataset.store_index[found[:6]].ravel()) == {2}
    assert set(dataset.store_index[found[6:]].ravel()) <= {0, 1}
