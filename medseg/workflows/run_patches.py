"""This file keeps in a run which stored patches it was trained on, so that clusters can be fitted again without scans.

Labels that were beside the scans are kept with them: clusters that are fitted again can then be named by training
labels, where the config asks for that. Nothing else reads them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import MedsegError
from medseg.features.store import StoredPatches
from medseg.files import replacing
from medseg.patches.datasets import PatchDataset
from medseg.runs import RunRecord

_FILE = "patches.npz"


def keep_patches(folder: Path, dataset: PatchDataset) -> None:
    """Write down the patches of a run, and the labels in them.

    Args:
        folder: of the run.
        dataset: what it trains on, from the feature store.
    """
    labels = {str(n): values for n, values in enumerate(dataset.reference) if values is not None}
    names = [Path(store.folder).name for store in dataset.stores if isinstance(store, StoredPatches)]
    with replacing(folder / _FILE) as beside:
        np.savez_compressed(beside, allow_pickle=False, stores=np.array(names), **labels)


def kept_patches(record: RunRecord) -> PatchDataset:
    """The patches that a run was trained on, in their order.

    Raises:
        MedsegError: the run names none, or they are no longer in the store.
    """
    path = record.folder / _FILE
    again = "run the same `medseg train` again, which makes them anew"
    try:
        with np.load(path, allow_pickle=False) as content:
            stores = [StoredPatches(record.store / name) for name in content["stores"].tolist()]
            labels = [content.get(str(n)) for n in range(len(stores))]
    except (OSError, ValueError, KeyError, MedsegError) as error:
        raise MedsegError(f"{path} must name patches that are stored, got {error}; {again}") from error
    return PatchDataset(stores, labels)
