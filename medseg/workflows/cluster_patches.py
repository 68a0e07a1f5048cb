"""This file gathers what the gallery of clusters shows of a run's patches: pictures, codes, and where they lie.

*Page codes* are what the page computes with: codes (of unit length where the run compares directions), reduced to fewer
channels where there are many. *Turned* patches show the patient as radiologists see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from medseg.config import SEEN
from medseg.features.store import StoredPatches
from medseg.patches.datasets import PatchDataset
from medseg.review.gallery.page import StoredCodes, stored_codes
from medseg.review.gallery.patches import Patches, ShownPatch, Unit
from medseg.review.gallery.places import assign
from medseg.runs import RunRecord
from medseg.scans.names import is_picture
from medseg.stego.model import ClusterModel, Metric, unit

_CODE_BYTES = 12e6
"""Most bytes of page codes; more would take a browser over a second for each K."""
_MOST_CHANNELS = 32
"""Of page codes; longer codes are reduced."""
_KEPT = 0.995
"""Share of all squared distances that reduced codes keep."""
_LONGEST_SIDE = 112
"""Pixels of a patch on the page; more are not seen in a picture of its size."""
_BLACK, _WHITE = 0.5, 99.7
"""Percentiles of the grey values that are shown black and white; vessels are a small part of all voxels."""


@dataclass(frozen=True)
class PageSpace:
    """How codes become page codes.

    Attributes:
        metric: of the method; directions are compared as points of unit length.
        mean: is subtracted.
        basis: onto which the rest is projected.
        kept: share of all squared distances that page codes keep.
    """

    metric: Metric
    mean: Float[Tensor, " e"]
    basis: Float[Tensor, "e m"]
    kept: float

    @classmethod
    def of(cls, codes: Float[Tensor, "n e"], metric: Metric) -> PageSpace:
        """The codes themselves, or the fewest of their principal components that keep their distances."""
        channels = codes.shape[1]
        nothing = torch.zeros(channels, dtype=torch.float64)
        if channels <= _MOST_CHANNELS:
            return cls(metric, nothing, torch.eye(channels, dtype=torch.float64), 1.0)
        values = (unit(codes) if metric == "cosine" else codes).double()
        mean = values.mean(0)
        variances, directions = torch.linalg.eigh((values - mean).T @ (values - mean))
        shares = variances.flip(0).clamp_min(0).cumsum(0) / variances.clamp_min(0).sum().clamp_min(1e-300)
        count = min(int((shares < _KEPT).sum()) + 1, channels)
        return cls(metric, mean, directions.flip(1)[:, :count], float(shares[count - 1]))

    def project(self, codes: Float[Tensor, "n e"]) -> Float[np.ndarray, "n m"]:
        """Page codes of codes, or of prototypes."""
        values = (unit(codes) if self.metric == "cosine" else codes).double()
        return ((values - self.mean) @ self.basis).numpy()


def shown_patches(
    record: RunRecord, dataset: PatchDataset, model: ClusterModel, space: PageSpace, most: int
) -> tuple[Patches, StoredCodes, float]:
    """The patches of the page with their codes, and how often the page agrees with the method on their places."""
    turned = record.config.prepare.modality not in SEEN
    cells = model.codes(dataset[0]["features"][None])[0, 0].numel()
    chosen = chosen_patches(dataset, max(min(most, int(_CODE_BYTES / (cells * space.basis.shape[1]))), 1))
    images, codes, inside, nearest = [], [], [], []
    for index in chosen:
        item = dataset[index]
        found = model.codes(item["features"][None])[0]
        flat = found.flatten(1).T
        nearest.append(_turned(model.assign_codes(flat).view(found.shape[1:]).numpy(), turned))
        maps = space.project(flat).reshape(*found.shape[1:], -1)
        codes.append(np.moveaxis(_turned(maps, turned), -1, 0))
        salience = functional.interpolate(item["salience"][None, None], size=tuple(found.shape[1:]))[0, 0]
        inside.append(_turned(salience.numpy() >= 0, turned))
        image = item["image"].numpy()
        images.append(_turned(image[..., None] if image.ndim == 2 else np.moveaxis(image, 0, -1), turned))
    store = dataset.stores[dataset.store_index[chosen[0]]]
    assert isinstance(store, StoredPatches)
    patches = Patches(
        [_source(record, dataset, index) for index in chosen],
        _pictures(np.stack(images), display=not turned),
        np.stack(codes),
        np.stack(inside),
        store.plane,
        store.geometry.size,
        turned,
    )
    stored = stored_codes(patches.codes)
    by_page = assign(stored.codes, space.project(model.prototypes)).cluster
    agreement = float((by_page == np.stack(nearest))[patches.inside].mean()) if patches.inside.any() else 1.0
    return patches, stored, agreement


def chosen_patches(dataset: PatchDataset, most: int) -> list[int]:
    """Patches of as many cases as possible: of each case some of the more salient half, from one end to the other."""
    cases = np.unique(dataset.store_index)
    if len(cases) > most:
        cases = cases[np.linspace(0, len(cases) - 1, most).round().astype(int)]
    chosen: list[int] = []
    for position, case in enumerate(cases.tolist()):
        indices = np.flatnonzero(dataset.store_index == case)
        wanted = min((most - len(chosen)) // (len(cases) - position), len(indices))
        salience = [float(dataset.salience(index).clamp_min(0).mean()) for index in indices.tolist()]
        salient = np.sort(np.argsort(salience, kind="stable")[::-1][: max(wanted, len(indices) // 2)])
        spread = np.linspace(0, len(salient) - 1, wanted).round().astype(int)
        chosen += indices[salient[spread]].tolist()
    return chosen


def _source(record: RunRecord, dataset: PatchDataset, index: int) -> ShownPatch:
    store = dataset.stores[dataset.store_index[index]]
    assert isinstance(store, StoredPatches)
    modality = record.config.prepare.modality
    lies_in: Unit = "mm"
    if modality == "liver_ultrasound":
        lies_in = "sector"
    elif modality == "picture" and is_picture(Path(record.inputs[store.case_id]["image"])):
        lies_in = "px"
    number, row, column = (int(n) for n in store.locations[dataset.patch_index[index]])
    affine = None if store.affine is None else np.asarray(store.affine, dtype=np.float64)
    return ShownPatch(store.case_id, (number, row, column), affine, lies_in, bool(store.locations[:, 0].any()))


def _turned(values: Shaped[np.ndarray, "..."], turned: bool) -> np.ndarray:
    """Rows and columns as a radiologist sees them; those of pictures and sectors are so already."""
    return np.flip(np.swapaxes(values, 0, 1), axis=(0, 1)) if turned else values


def _pictures(images: Float[np.ndarray, "n y x c"], *, display: bool) -> UInt8[np.ndarray, "n y2 x2 c"]:
    """Patches as a screen shows them: display values as they are, others in one window for all."""
    low, high = (0.0, 1.0) if display else np.percentile(images, (_BLACK, _WHITE))
    shown = np.rint(np.clip((images - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    if shown.shape[-1] == 3 and (shown == shown[..., :1]).all():
        shown = shown[..., :1]  # grey
    longest = max(shown.shape[1:3])
    if longest <= _LONGEST_SIDE:
        return shown
    size = tuple(round(side * _LONGEST_SIDE / longest) for side in shown.shape[2:0:-1])
    smaller = [[Image.fromarray(channel).resize(size, Image.Resampling.BOX) for channel in np.moveaxis(image, -1, 0)]
               for image in shown]  # fmt: skip
    return np.stack([np.stack([np.asarray(channel) for channel in image], axis=-1) for image in smaller])
