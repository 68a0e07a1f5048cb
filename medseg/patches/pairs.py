"""This file finds for each patch its most similar patches, other patients first.

Similarity is the cosine of the patches' mean features. The patches of neighbouring slices of one scan look alike
without teaching anything, so they are partners only where nothing else is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from medseg.patches.datasets import PatchDataset
from medseg.progress import track

_OTHER_PATIENT, _SAME_PATIENT, _NEAR_SLICE, _ITSELF = range(4)
_TIER_GAP = 4.0  # cosines span 2


def mean_features(patches: PatchDataset) -> Float[Tensor, "n d"]:
    """Mean feature vector of each patch, of unit length (stored features are frozen: no dropout)."""
    means = [
        np.asarray(patches.stores[store].features(int(patch)), dtype=np.float32).mean((1, 2))
        for store, patch in track(
            list(zip(patches.store_index, patches.patch_index, strict=True)), "reading patches for pairs"
        )
    ]
    return functional.normalize(torch.from_numpy(np.stack(means)), dim=1)


def find_pairs(
    patches: PatchDataset, *, neighbours: int = 7, slice_distance: int = 8, others_first: bool = True
) -> Int[np.ndarray, "n k"]:
    """For each patch its `neighbours` best partners, the best first; see `nearest_patches`."""
    stores = patches.stores
    return nearest_patches(
        mean_features(patches),
        patients=[stores[store].patient for store in patches.store_index],
        scans=[(stores[store].case_id, stores[store].plane) for store in patches.store_index],
        slices=np.concatenate([np.asarray(store.locations)[:, 0] for store in stores]),
        neighbours=neighbours,
        slice_distance=slice_distance,
        others_first=others_first,
    )


def nearest_patches(
    means: Float[Tensor, "n d"],
    *,
    patients: Sequence[str],
    scans: Sequence[object],
    slices: Int[np.ndarray, " n"],
    neighbours: int,
    slice_distance: int = 8,
    others_first: bool = True,
    chunk: int = 1024,
) -> Int[np.ndarray, "n k"]:
    """Exact nearest neighbours by cosine, computed in chunks.

    Partners are taken from other patients, then from the same patient (slices of one scan at least `slice_distance`
    apart); only a patch that has neither takes patches of near slices, and a lone patch takes itself.

    Args:
        means: unit vectors, one a patch.
        patients: patient of each patch.
        scans: scan and plane of each patch; slice distances count within one of them.
        slices: slice number of each patch.
        neighbours: partners of each patch, k; where fewer are permitted, they repeat from the best on.
        slice_distance: patches of one scan closer than so many slices do not count as partners.
        others_first: False takes the nearest patches whoever they are of, as published; near slices stay excluded.
        chunk: patches compared with all others at a time.

    Returns:
        Indices, the best first within each kind.
    """
    count = len(means)
    patient_id = torch.from_numpy(np.unique(np.asarray(patients), return_inverse=True)[1])
    scan_names: dict[object, int] = {}
    scan_id = torch.tensor([scan_names.setdefault(scan, len(scan_names)) for scan in scans])
    slice_id = torch.as_tensor(np.asarray(slices, dtype=np.int64))
    wanted = min(neighbours, max(count - 1, 1))
    found = np.empty((count, neighbours), dtype=np.int64)
    for first in track(range(0, count, chunk), "pairing patches"):
        rows = slice(first, min(first + chunk, count))
        similarity = means[rows] @ means.T
        same_patient = (patient_id[rows, None] == patient_id) & others_first
        near = (scan_id[rows, None] == scan_id) & ((slice_id[rows, None] - slice_id).abs() < slice_distance)
        tier = torch.where(near, _NEAR_SLICE, torch.where(same_patient, _SAME_PATIENT, _OTHER_PATIENT))
        tier[torch.arange(len(tier)), torch.arange(first, rows.stop)] = _ITSELF
        best = (similarity - _TIER_GAP * tier).topk(wanted, dim=1).indices
        best_tier = tier.gather(1, best)
        permitted = (best_tier <= _SAME_PATIENT).sum(1)
        permitted = torch.where(permitted > 0, permitted, (best_tier <= _NEAR_SLICE).sum(1).clamp_min(1))
        slots = torch.arange(neighbours) % permitted[:, None]
        found[rows] = best.gather(1, slots).numpy()
    return found
