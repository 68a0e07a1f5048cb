from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from stego.fakes import FakeStore, fake_dataset

from medseg.errors import MedsegError
from medseg.patches.datasets import PairOrder, PatchDataset, pair_loader

NEIGHBOURS = np.stack([np.roll(np.arange(10), -shift) for shift in (1, 2, 3)], axis=1)


def order(**changes: int) -> PairOrder:
    options = {"batch": 4, "seed": 0, "start": 0, "stop": 9} | changes
    return PairOrder(NEIGHBOURS, **options)  # type: ignore[arg-type]


def test_an_item_is_what_the_store_holds() -> None:
    dataset = fake_dataset(labelled=True, cases=2, count=3)
    assert len(dataset) == 6 and dataset.classes == 3
    item = dataset[4]
    store = dataset.stores[1]
    assert torch.equal(item["features"], torch.from_numpy(store.features(1).astype(np.float32)))
    assert torch.equal(item["labels"], torch.from_numpy(dataset.reference[1][1]))  # type: ignore[index]
    assert int(item["index"]) == 4
    assert "labels" not in fake_dataset()[0]


def test_a_case_without_labels_among_labelled_ones_is_unknown() -> None:
    stores = [FakeStore("a", 2), FakeStore("b", 2)]
    dataset = PatchDataset(stores, [None, stores[1].tissue])
    assert (dataset[0]["labels"] == -1).all()
    assert (dataset[3]["labels"] >= 0).all()


def test_a_set_without_patches_is_one_error_line() -> None:
    with pytest.raises(MedsegError, match="at least one patch, got none from 1 cases"):
        PatchDataset([FakeStore("a", 0)])


def test_each_pass_shows_every_patch_at_most_once_and_in_another_order() -> None:
    batches = list(order(stop=4))
    first, second = ([anchor for batch in half for anchor, _ in batch] for half in (batches[:2], batches[2:]))
    assert len(set(first)) == len(first) == 8
    assert first != second
    assert all(positive in NEIGHBOURS[anchor] for batch in batches for anchor, positive in batch)
    assert len({(positive - anchor) % 10 for batch in batches for anchor, positive in batch}) == 3


@pytest.mark.parametrize("start", [1, 2, 5])
def test_an_order_that_starts_later_gives_the_same_batches(start: int) -> None:
    assert list(order(start=start)) == list(order())[start:]
    assert list(order(seed=1)) != list(order())


def test_processes_share_the_same_batch() -> None:
    shares = [list(order(rank=rank, processes=2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == list(order())
    with pytest.raises(MedsegError, match="multiple of the 3 processes, got 4"):
        order(processes=3)


def test_a_batch_larger_than_the_set_is_lowered() -> None:
    assert all(sorted(anchor for anchor, _ in batch) == list(range(10)) for batch in order(batch=64))


def test_the_loader_gives_pairs_and_leaves_the_global_random_state_alone() -> None:
    dataset = fake_dataset(cases=2, count=5)
    state = torch.get_rng_state()
    batches = list(pair_loader(dataset, order(stop=2)))
    assert torch.equal(state, torch.get_rng_state())
    for batch, pairs in zip(batches, order(stop=2), strict=True):
        assert batch["index"].tolist() == [anchor for anchor, _ in pairs]
        wanted = torch.stack([dataset[positive]["features"] for _, positive in pairs])
        assert torch.equal(batch["positive_features"], wanted)


def test_a_dataset_can_be_sent_to_a_spawned_worker() -> None:
    again = pickle.loads(pickle.dumps(fake_dataset()))
    assert torch.equal(again[3]["features"], fake_dataset()[3]["features"])
