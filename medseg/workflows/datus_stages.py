"""This file computes DatUS stage by stage and keeps what each stage gives, so that only what changed is done again.

The *stages* of a slice are its keys, its segments and the features of its crops; those of all slices together are the
labels. What a stage gives lies in `stages/STAGE/`, in a file whose name ends in the hash of all that it depends on: a
file that is there is what would be computed.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.nn import functional

from medseg.datus.affinity import affinity, as_keys, gives_keys, on_cells, tied
from medseg.datus.crops import crop_features, segment_means
from medseg.datus.labelling import LEAST_CELLS
from medseg.datus.segments import OUTSIDE, communities, connected_segments
from medseg.features.windows import display_of, is_volume_backbone
from medseg.files import hash_content, replacing
from medseg.scans.cases import Case
from medseg.workflows import parts
from medseg.workflows.correspondence import Viewer

_VERSION = 2  # to be raised with every change of a stage, so that what is stored is computed anew

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SegmentedSlice:
    """One slice between its segments and its labels.

    Attributes:
        case_id: whose slice it is.
        number: which slice.
        segments: on the cells.
        crops: the feature of each segment; empty where nobody asked for them.
        hash: of all that they depend on.
        keys_hash: of all that the keys depend on.
    """

    case_id: str
    number: int
    segments: Integer[np.ndarray, "hc wc"]
    crops: Float[np.ndarray, "_ d"]
    hash: str
    keys_hash: str

    @property
    def cells(self) -> Integer[np.ndarray, " s"]:
        """How many cells each segment has."""
        return _sizes(self.segments)


class Store:
    """Arrays by stage, name and hash; and the seconds that went into each stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = defaultdict(float)
        self.computed: dict[str, int] = defaultdict(int)

    def get(self, stage: str, name: str, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """What is stored under this hash, else what `compute` gives, which is then stored."""
        path = self._folder / stage / f"{name}_{key[:16]}.npz"
        with self.timed(stage):
            found = _read(path)
            if found is None:
                self.computed[stage] += 1
                found = compute()
                with replacing(path) as beside:
                    np.savez(beside, allow_pickle=False, **found)
        return found

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a block to those of a stage; a stage computed within another one counts for itself."""
        start, before = perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            within = sum(self.seconds.values()) - before
            self.seconds[stage] += perf_counter() - start - within


class Stages:
    """The stages of single slices.

    Args:
        viewer: looks at slices with the config's backbones; those that have keys will give them.
        crop_backbone: sees the crops; None: the viewer's do. Those that measure voxels see no crops: a segment then has
            the mean of its cells.
        store: of what was computed.
        resolution: of the communities.
    """

    def __init__(self, viewer: Viewer, crop_backbone: Any | None, store: Store, resolution: float) -> None:
        viewer.backbones = [as_keys(backbone) for backbone in viewer.backbones]
        self.viewer, self.store, self.resolution = viewer, store, resolution
        self.centred = not all(gives_keys(backbone) for backbone in viewer.backbones)
        seen = viewer.backbones if crop_backbone is None else [crop_backbone]
        self.crop_backbones: list[Any] = [] if any(is_volume_backbone(backbone) for backbone in seen) else seen

    def of_case(
        self, case: Case, sample: dict[str, Any], numbers: Sequence[int], *, crops: bool
    ) -> list[SegmentedSlice]:
        """Some axial slices of a prepared case, with or without the features of their crops."""
        of_case = parts.case_hash(case, self.viewer.config.prepare)
        with_maps = cache(lambda: parts.add_maps(sample, self.viewer.backbones, self.viewer.device))
        return [self._slice(case, sample, number, of_case, with_maps, crops=crops) for number in numbers]

    def stored_keys(self, found: SegmentedSlice) -> Arrays:
        """Keys and region of a slice that `of_case` has given."""
        return self.store.get("keys", _name(found.case_id, found.number), found.keys_hash, _nothing_stored)

    def _slice(
        self,
        case: Case,
        sample: dict[str, Any],
        number: int,
        of_case: str,
        with_maps: Callable[[], dict[str, Any]],
        *,
        crops: bool,
    ) -> SegmentedSlice:
        name, store = _name(case.case_id, number), self.store
        looked, seen = (
            [backbone.fingerprint for backbone in backbones]
            for backbones in (self.viewer.backbones, self.crop_backbones)
        )
        keys_hash = hash_content([_VERSION, of_case, number, looked])
        segments_hash = hash_content([keys_hash, self.resolution])
        crops_hash = hash_content([segments_hash, seen])

        def keys() -> Arrays:
            return store.get("keys", name, keys_hash, lambda: self._keys(case, with_maps(), number))

        segments = store.get("segments", name, segments_hash, lambda: self._segments(**keys()))["segments"]
        if not crops:
            return SegmentedSlice(case.case_id, number, segments, np.zeros((0, 0)), segments_hash, keys_hash)
        features = store.get("crops", name, crops_hash, lambda: self._crops(sample, number, segments, keys))["crops"]
        return SegmentedSlice(case.case_id, number, segments, features, crops_hash, keys_hash)

    def _keys(self, case: Case, sample: dict[str, Any], number: int) -> Arrays:
        view = self.viewer.view(case, sample, number)
        keys = on_cells(view.features)
        region = torch.as_tensor(np.asarray(sample["region"])[..., number] > 0).float()
        inside = functional.adaptive_avg_pool2d(region[None], (keys.shape[1], keys.shape[2]))[0, 0] > 0.5
        return {"keys": keys.half().numpy(), "inside": inside.numpy()}

    def _segments(self, keys: Float[np.ndarray, "d hc wc"], inside: Bool[np.ndarray, "hc wc"]) -> Arrays:
        groups = np.full(inside.shape, OUTSIDE, dtype=np.int64)
        if inside.any():
            cosines = affinity(torch.from_numpy(keys[:, inside].T.copy()).float(), centred=self.centred)
            groups[inside] = communities(tied(cosines).numpy(), resolution=self.resolution)
        return {"segments": connected_segments(groups)}

    def _crops(
        self,
        sample: Mapping[str, Any],
        number: int,
        segments: Integer[np.ndarray, "hc wc"],
        keys: Callable[[], Arrays],
    ) -> Arrays:
        if not self.crop_backbones:
            return {"crops": segment_means(torch.from_numpy(keys()["keys"]), segments).numpy()}
        # Small segments become noise whatever they show, and there may be thousands: no network need see them.
        sizes = _sizes(segments)
        large = np.flatnonzero(sizes >= LEAST_CELLS)
        numbers = np.full(len(sizes) + 1, OUTSIDE)
        numbers[large] = np.arange(len(large))
        found = crop_features(shown(sample, number), numbers[segments], self.crop_backbones, device=self.viewer.device)
        crops = np.zeros((len(sizes), found.shape[1]), dtype=np.float32)
        crops[large] = found.numpy()
        return {"crops": crops}


def shown(sample: Mapping[str, Any], number: int) -> Float[Tensor, "3 h w"]:
    """A slice in display values 0 to 1, as `to_rgb` shows it to networks."""
    plane = torch.as_tensor(sample["image"])[..., number].float()
    values = plane if display_of(sample) == "rgb" else 1 - torch.exp2(-plane.clamp(min=0))
    return values.clamp(0, 1).expand(3, -1, -1)


def _name(case_id: str, number: int) -> str:
    return f"{case_id}_{number:04d}"


def _sizes(segments: Integer[np.ndarray, "hc wc"]) -> Integer[np.ndarray, " s"]:
    """Cells of each segment."""
    return np.bincount(segments[segments != OUTSIDE])


def _read(path: Path) -> Arrays | None:
    """The arrays of a stored file; None where there is none, or a damaged one."""
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _nothing_stored() -> Arrays:
    raise AssertionError("keys are stored before segments are")
