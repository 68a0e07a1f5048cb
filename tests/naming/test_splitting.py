"""This file tests how clicked codes name, merge and split clusters."""

from __future__ import annotations

import itertools

import pytest
import torch

from medseg.naming.splitting import clusters_of_clicks, same_codes
from medseg.stego.model import Metric, nearness

PROTOTYPES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def blobs(seed: int = 0) -> torch.Tensor:
    """Cluster 0 is two heaps of 200 and 50 points, at (-2, 0) and (2, 0)."""
    generator = torch.Generator().manual_seed(seed)
    heaps = [torch.randn(count, 2, generator=generator) * 0.3 + torch.tensor(at) for count, at in HEAPS]
    return torch.cat(heaps)


HEAPS = ((200, (-2.0, 0.0)), (50, (2.0, 0.0)), (80, (10.0, 0.0)))


def class_of(codes: torch.Tensor, found: object, metric: Metric = "euclidean") -> list[str | None]:
    nearest = nearness(codes, found.prototypes, metric).argmax(1)  # type: ignore[attr-defined]
    return [found.name[k] for k in nearest.tolist()]  # type: ignore[attr-defined]


def never() -> torch.Tensor:
    raise AssertionError("no cluster is split, so no point is asked for")


def test_clicks_of_one_class_name_a_cluster_and_several_clusters_may_carry_it() -> None:
    codes = torch.tensor([[1.0, 1.0], [9.0, 1.0], [-1.0, 0.0]])
    found = clusters_of_clicks(codes, ["a", "a", "a"], PROTOTYPES, "euclidean", never)
    assert torch.equal(found.prototypes, PROTOTYPES) and not found.is_split
    assert found.name == ("a", "a", None) and found.parent == (0, 1, 2)


def test_two_classes_in_a_cluster_split_it_into_what_its_points_form() -> None:
    codes = torch.tensor([[-1.5, 0.5], [1.4, 0.2]])
    found = clusters_of_clicks(codes, ["a", "b"], PROTOTYPES, "euclidean", blobs)
    assert found.is_split and found.parent == (1, 2, 0, 0) and found.name == (None, None, "a", "b")
    heap_a, heap_b = found.prototypes[2], found.prototypes[3]
    assert torch.allclose(heap_a, blobs()[:200].mean(0), atol=1e-5)  # by hand: each heap is one part
    assert torch.allclose(heap_b, blobs()[200:250].mean(0), atol=1e-5)
    assert torch.equal(found.prototypes[:2], PROTOTYPES[1:])
    assert class_of(blobs(), found) == ["a"] * 200 + ["b"] * 50 + [None] * 80


def test_a_click_never_leaves_its_class_however_its_cluster_would_like_to_part() -> None:
    # Both clicks lie in the larger heap: two means would part the heaps and put both clicks on one side.
    codes = torch.tensor([[-2.2, 0.3], [-1.9, -0.3]])
    found = clusters_of_clicks(codes, ["a", "b"], PROTOTYPES, "euclidean", blobs)
    assert class_of(codes, found) == ["a", "b"]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_click_ends_in_its_class_and_the_order_of_clicks_changes_nothing(metric: Metric) -> None:
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        points = torch.randn(300, 4, generator=generator)
        prototypes = torch.randn(5, 4, generator=generator)
        codes = torch.randn(8, 4, generator=generator)
        names = [("a", "b", "c")[n % 3] for n in range(8)]
        found = clusters_of_clicks(codes, names, prototypes, metric, lambda points=points: points)
        assert class_of(codes, found, metric) == names
        again = clusters_of_clicks(codes.flip(0), names[::-1], prototypes, metric, lambda points=points: points)
        assert {tuple(row) for row in found.prototypes.tolist()} == {tuple(row) for row in again.prototypes.tolist()}


def test_a_prototype_beside_a_click_of_another_cluster_does_not_take_it() -> None:
    # The second click is in cluster 1, but nearer to the third, at which cluster 0 gets a prototype of class b.
    codes = torch.tensor([[0.0, 0.0], [5.1, 0.0], [4.9, 0.0]])
    names = ["a", "a", "b"]
    found = clusters_of_clicks(codes, names, PROTOTYPES, "euclidean", lambda: PROTOTYPES)
    assert class_of(codes, found) == names
    assert found.parent.count(1) == 2  # the prototype it had, and one at the click


def test_codes_that_coincide_are_found_only_where_their_names_differ() -> None:
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.001], [2.0, 0.0]])
    assert same_codes(codes, ["a", "b", "a", "c"], "euclidean") is None
    assert same_codes(codes, ["a", "b", "b", "b"], "euclidean") == (0, 2)
    assert same_codes(codes, ["a", "b", "a", "b"], "cosine") == (0, 3)  # of one direction
    assert all(same_codes(codes[[*pair]], ["a", "a"], "cosine") is None for pair in itertools.combinations(range(4), 2))
