"""This file serves stored patches to the trainer, in an order that is a function of (seed, step).

*Item*: one patch as tensors. *Pair*: an anchor and one of its neighbours, the positive. A batch is named by index pairs
that are drawn in the training process, so neither the number of workers nor a restart changes what is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from monai.data import DataLoader
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from medseg.errors import MedsegError


@runtime_checkable
class PatchStore(Protocol):
    """Patches of one case with their frozen features, as the feature store gives them."""

    case_id: str
    patient: str

    @property
    def plane(self) -> str: ...
    @property
    def locations(self) -> Int[np.ndarray, "n 3"]: ...
    def __len__(self) -> int: ...
    def features(self, index: int) -> np.ndarray: ...
    def image(self, index: int) -> np.ndarray: ...
    def salience(self, index: int) -> np.ndarray: ...


class PatchDataset(Dataset[dict[str, Tensor]]):
    """The patches of several cases behind one index.

    Args:
        stores: the patches of each case.
        reference: for each case its reference labels "n h w" (-1: unknown), or None. They reach reported probes only.

    Attributes:
        store_index, patch_index: for each patch the case's place in `stores` and the patch's place in that case.
        feature_dim, grid: channels of the features, rows and columns of their maps.
        classes: one more than the largest reference label; 0 without any label.

    Raises:
        MedsegError: there is no patch at all.
    """

    def __init__(self, stores: Sequence[PatchStore], reference: Sequence[np.ndarray | None] | None = None) -> None:
        self.stores = list(stores)
        self.reference = list(reference) if reference is not None else [None] * len(self.stores)
        counts = [len(store) for store in self.stores]
        if sum(counts) == 0:
            raise MedsegError(
                f"the training set must hold at least one patch, got none from {len(counts)} cases; "
                "check the brain mask and patches.empty"
            )
        self.store_index = np.repeat(np.arange(len(counts)), counts)
        self.patch_index = np.concatenate([np.arange(count) for count in counts])
        shape = self.stores[self.store_index[0]].features(0).shape
        self.feature_dim, self.grid = int(shape[0]), (int(shape[1]), int(shape[2]))
        self.classes = max((int(labels.max()) + 1 for labels in self.reference if labels is not None), default=0)

    def __len__(self) -> int:
        return len(self.store_index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Patch `index`: features `d hf wf`, image `h w` or `3 h w`, salience `hf wf`, labels `h w`."""
        store, patch = self.stores[self.store_index[index]], int(self.patch_index[index])
        features = _tensor(store.features(patch))
        item = {
            "features": features,
            "image": _tensor(store.image(patch)),
            "salience": largest_in_cell(_tensor(store.salience(patch)), self.grid),
            "index": torch.tensor(index),
        }
        if self.classes:
            labels = self.reference[self.store_index[index]]
            item["labels"] = (
                torch.full(item["image"].shape[-2:], -1)
                if labels is None
                else torch.from_numpy(np.asarray(labels[patch], dtype=np.int64))
            )
        return item

    def salience(self, index: int) -> Tensor:
        """Salience `hf wf` of patch `index` alone, without reading its features."""
        store = self.stores[self.store_index[index]]
        return largest_in_cell(_tensor(store.salience(int(self.patch_index[index]))), self.grid)


class PairedPatches(Dataset[dict[str, Tensor]]):
    """A dataset indexed by (anchor, positive); the positive's entries are called `positive_...`."""

    def __init__(self, patches: PatchDataset) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, pair: tuple[int, int]) -> dict[str, Tensor]:
        positive = self.patches[pair[1]]
        return self.patches[pair[0]] | {
            f"positive_{name}": positive[name] for name in ("features", "image", "salience")
        }


class PairOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (anchor, positive) for the steps `start` to `stop`.

    Every pass over the patches is a new permutation without its incomplete last batch; the positive is drawn among the
    anchor's neighbours.

    Args:
        neighbours: for each patch the indices of its neighbours.
        batch: patches in a batch over all processes; more than there are patches is lowered to their number.
        seed: of every draw.
        start, stop: steps.
        rank, processes: which equal share of each batch to give.

    Raises:
        MedsegError: the batch cannot be shared equally.
    """

    def __init__(
        self,
        neighbours: Int[np.ndarray, "n k"],
        *,
        batch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.neighbours, self.seed, self.start, self.stop = neighbours, seed, start, stop
        self.batch = min(batch, len(neighbours))
        if self.batch % processes:
            raise MedsegError(
                f"the batch must be a multiple of the {processes} processes, got {self.batch} patches; "
                "change stego.batch or the number of processes"
            )
        share = self.batch // processes
        self.rows = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        count, choices = self.neighbours.shape
        per_epoch = count // self.batch
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start, self.stop):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = np.random.default_rng([self.seed, 0, epoch]).permutation(count)
            first = step % per_epoch * self.batch
            anchors = order[first : first + self.batch]
            slots = np.random.default_rng([self.seed, 1, step]).integers(choices, size=self.batch)
            pairs = zip(anchors.tolist(), self.neighbours[anchors, slots].tolist(), strict=True)
            yield list(pairs)[self.rows]


def pair_loader(patches: PatchDataset, order: PairOrder, workers: int = 0) -> DataLoader:
    """A MONAI loader that reads the batches of `order`; it leaves the global random state alone."""
    return DataLoader(PairedPatches(patches), workers, batch_sampler=order, generator=torch.Generator())


def largest_in_cell(values: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest value in each cell of a coarser grid, so that thin structures survive."""
    if tuple(values.shape[-2:]) == size:
        return values
    return functional.adaptive_max_pool2d(values[None], size)[0]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))
