"""This file gives the features that a run sees at single voxels of a scan.

*Stored grid*: of the scan's file. *Prepared grid*: of its sample, see `medseg.prepare.chain`. A voxel's features are
read in the window, of those that reconstruction looks at, in whose middle it lies most nearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.windows import window_features
from medseg.patches.planes import PLANE_AXES
from medseg.patches.slicing import PatchGeometry, plane_shape, window_starts
from medseg.prepare.chain import invert, prepare_case
from medseg.runs import RunRecord
from medseg.scans.cases import Case
from medseg.workflows import parts

Read = Callable[[Float[Tensor, "b d hf wf"]], Float[Tensor, "b e hc wc"]]
"""What is read of the features of windows, on a grid of its own."""


def features_at(
    case: Case,
    voxels: Int[np.ndarray, "n 3"],
    record: RunRecord,
    backbones: Sequence[Any],
    device: torch.device,
    *,
    read: Read = lambda features: features,
) -> Float[Tensor, "n e"]:
    """Features of voxels, in their order.

    Args:
        case: the scan.
        voxels: indices on the stored grid.
        record: says how it is prepared and cut.
        backbones: of the run.
        device: where networks run.
        read: what is read instead of the features, such as the codes of a head, which may need whole windows.

    Raises:
        MedsegError: the scan cannot be used, or a voxel is one that is not prepared, outside the sector.
    """
    sample = prepare_case(case, parts.preparation(record.config.prepare))
    places = prepared_voxels(sample, voxels)
    if len(missing := np.flatnonzero((places < 0).any(1))):
        voxel = " ".join(map(str, voxels[missing[0]].tolist()))
        raise MedsegError(f"a voxel of {case.case_id} must lie where one looks, got {voxel}; choose one in the sector")
    sample = parts.add_maps(sample, backbones, device)
    geometry = parts.patch_geometry(record.config.patches)
    return features_at_places(sample, places, geometry, backbones, device, record.config.reconstruct.batch, read)


def prepared_voxels(sample: Mapping[str, Any], voxels: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
    """The voxel of the prepared grid whose label each stored voxel would get; -1 where it would get none."""
    shape = sample["image"].shape[1:]
    found = np.empty((len(voxels), 3), dtype=np.int64)
    for axis, length in enumerate(shape):  # one at a time: the volumes are large
        numbers = torch.arange(1.0, length + 1).reshape([-1 if other == axis else 1 for other in range(3)])
        # Taken back as labels are, so that no turn or resampling has to be described twice.
        stored = invert(numbers.expand(1, *shape), sample, nearest=True)[0]
        found[:, axis] = np.rint(stored[tuple(voxels.T)]) - 1
    return found


def features_at_places(
    sample: Mapping[str, Any],
    places: Int[np.ndarray, "n 3"],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    device: torch.device,
    batch: int,
    read: Read = lambda features: features,
) -> Float[Tensor, "n e"]:
    """What is read at voxels of the prepared grid.

    Args:
        sample: with the maps of the backbones (`parts.add_maps`).
        places: voxels of the prepared grid.
        geometry: of the windows.
        backbones: of the run.
        device: where networks run.
        batch: windows a batch.
        read: as in `features_at`.
    """
    axis = PLANE_AXES[geometry.plane]
    in_plane = np.concatenate([places[:, [axis]], np.delete(places, axis, axis=1)], axis=1)
    _, height, width = plane_shape(sample["image"].shape[1:], geometry.plane)
    corners = np.stack(
        [
            in_plane[:, 0],
            _nearest_start(in_plane[:, 1], height, geometry),
            _nearest_start(in_plane[:, 2], width, geometry),
        ],
        axis=1,
    )
    locations, window = np.unique(corners, axis=0, return_inverse=True)
    window = window.ravel()
    found: Tensor | None = None
    first = 0
    for where, features in window_features(sample, locations, geometry, backbones, device, batch):
        with torch.inference_mode():
            values = read(features).cpu()
        mine = np.flatnonzero((window >= first) & (window < first + len(where)))
        cells = (in_plane[mine, 1:] - corners[mine, 1:]) * np.array(values.shape[2:]) // geometry.size
        if found is None:
            found = torch.empty(len(places), values.shape[1])
        found[mine] = values[window[mine] - first, :, cells[:, 0], cells[:, 1]].clone()
        first += len(where)
    return torch.empty(0, 0) if found is None else found


def _nearest_start(places: Int[np.ndarray, " n"], length: int, geometry: PatchGeometry) -> Int[np.ndarray, " n"]:
    """First voxel of the window in whose middle each place lies most nearly, along one axis."""
    starts = np.array(window_starts(length, geometry.size, geometry.overlap))
    off = np.abs(places[:, None] - (starts[None] + (geometry.size - 1) / 2))
    off[(places[:, None] < starts[None]) | (places[:, None] >= starts[None] + geometry.size)] = np.inf
    return starts[off.argmin(1)]
