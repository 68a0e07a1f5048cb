"""This file computes the features of windows, a few slices at a time.

*Slice* backbones see patches, batch by batch. *Volume* backbones are computed over a *slab*, a box
of a few neighbouring slices that holds its windows, and the windows are cut from it like from an
image; so the features of a case are never whole in memory. Extraction for training and
reconstruction both come through here. Which windows share a slab or a batch follows from the
arguments alone, so a repeated call gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from medseg.errors import MedsegError
from medseg.patches.planes import PLANE_AXES
from medseg.patches.slicing import PatchGeometry, cut_all, plane_shape, slices_first

# A thicker slab spends less on the halo that a volume backbone reads around it.
_SLAB_BYTES = 512 * 2**20
_SLAB_SLICES = 32


def is_volume_backbone(backbone: Any) -> bool:
    """Whether a backbone is computed over boxes of the volume instead of over patches."""
    return hasattr(backbone, "features_of_box")


def display_of(sample: Mapping[str, Any]) -> str:
    """What the image values of a sample are: `tissue` medians, or `rgb` display values."""
    return sample.get("facts", {}).get("display", "tissue")


def feature_shape(geometry: PatchGeometry, backbones: Sequence[Any]) -> tuple[int, int, int]:
    """Channels, rows and columns `(d, hf, wf)` of the features of one window.

    Raises:
        MedsegError: there is no backbone, or a patch is no whole number of a slice backbone's strides.
    """
    if not backbones:
        raise MedsegError("features.backbone must name at least one backbone, got none; filter_bank works offline")
    side = 1
    for backbone in backbones:
        if is_volume_backbone(backbone):
            side = max(side, geometry.size)
        elif geometry.pixels % backbone.stride:
            raise MedsegError(
                f"patches.size x patches.magnification must be a multiple of {backbone.stride}, the stride of "
                f"{backbone.name}, got {geometry.size} x {geometry.magnification}; change the size"
            )
        else:
            side = max(side, geometry.pixels // backbone.stride)
    return sum(backbone.dim for backbone in backbones), side, side


def batch_ranges(
    locations: Int[np.ndarray, "n 3"],
    shape: Sequence[int],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    batch_size: int,
) -> list[list[range]]:
    """Which windows (indices into `locations`) come in which batch: a list of batches per slab.

    Raises:
        ValueError: the locations are not ordered by slice.
    """
    numbers = locations[:, 0]
    if (np.diff(numbers) < 0).any():
        raise ValueError("locations must come ordered by slice")
    slices, height, width = plane_shape(shape, geometry.plane)
    dim = sum(backbone.dim for backbone in backbones if is_volume_backbone(backbone))
    thickness = min(_SLAB_SLICES, max(1, _SLAB_BYTES // (4 * dim * height * width))) if dim else max(slices, 1)
    edges = np.searchsorted(numbers, np.arange(0, slices + thickness, thickness)).tolist()
    return [
        [range(first, min(first + batch_size, stop)) for first in range(start, stop, batch_size)]
        for start, stop in pairwise(edges)
        if stop > start
    ]


def batch_count(
    locations: Int[np.ndarray, "n 3"],
    shape: Sequence[int],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    batch_size: int,
    *,
    skip: int = 0,
) -> int:
    """How many batches `window_features` yields."""
    slabs = batch_ranges(locations, shape, geometry, backbones, batch_size)
    return sum(batch.stop > skip for slab in slabs for batch in slab)


def window_features(
    sample: Mapping[str, Any],
    locations: Int[np.ndarray, "n 3"],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    *,
    skip: int = 0,
) -> Iterator[tuple[Int[np.ndarray, "b 3"], Float[torch.Tensor, "b d hf wf"]]]:
    """Yield the features of the windows, batch by batch in their order.

    Args:
        sample: a prepared scan (see `medseg.prepare.chain`).
        locations: ordered by slice.
        geometry: of the windows.
        backbones: one or more. The features of several are brought to the finest grid
            (bilinear) and concatenated, each vector of each scaled to norm 1: every backbone then has
            unit rms norm in every batch, and the cosine of two joined vectors is the mean of the
            backbones' cosines. Features of a single backbone stay as they are.
        device: where slice backbones run and where the features are.
        batch_size: most windows of a batch; the last batch of a slab is smaller.
        skip: windows that were had before; their batches are left out and cost nothing.

    Yields:
        The locations of a batch and its float32 features.
    """
    _, side, _ = feature_shape(geometry, backbones)
    for backbone in backbones:
        if isinstance(backbone, torch.nn.Module):
            backbone.to(device)
    shape = tuple(sample["image"].shape[1:])
    for slab in batch_ranges(locations, shape, geometry, backbones, batch_size):
        wanted = [batch for batch in slab if batch.stop > skip]
        if not wanted:
            continue
        boxes = _SlabFeatures(sample, locations[slab[0].start : slab[-1].stop], geometry, backbones, device)
        for batch in wanted:
            where = locations[batch.start : batch.stop]
            with torch.no_grad():
                blocks = [
                    boxes.cut(backbone, where)
                    if is_volume_backbone(backbone)
                    else _slice_features(sample, where, geometry, backbone, device)
                    for backbone in backbones
                ]
                features = blocks[0] if len(blocks) == 1 else join_features(blocks, side)
            yield where, features
        del boxes  # before the next slab's features are made beside them


def join_features(blocks: Sequence[Float[torch.Tensor, "b _ _ _"]], side: int) -> Float[torch.Tensor, "b d side side"]:
    """Concatenate features of several backbones on one grid, each vector of each scaled to norm 1."""
    resized = [
        block
        if block.shape[-1] == side
        else torch.nn.functional.interpolate(block, (side, side), mode="bilinear", align_corners=False)
        for block in blocks
    ]
    return torch.cat([torch.nn.functional.normalize(block, dim=1) for block in resized], dim=1)


def _slice_features(
    sample: Mapping[str, Any],
    locations: Int[np.ndarray, "b 3"],
    geometry: PatchGeometry,
    backbone: Any,
    device: torch.device | str,
) -> Float[torch.Tensor, "b d hf wf"]:
    """Features of patches by a slice backbone."""
    from medseg.features.backbones import to_rgb  # timm is heavy, and the filter bank needs none of it

    patches = to_rgb(cut_all(sample["image"], locations, geometry).float(), display_of(sample))
    return backbone(patches.to(device)).float()


class _SlabFeatures:
    """Volume backbones over the smallest box that holds some windows."""

    def __init__(
        self,
        sample: Mapping[str, Any],
        locations: Int[np.ndarray, "n 3"],
        geometry: PatchGeometry,
        backbones: Sequence[Any],
        device: torch.device | str,
    ) -> None:
        lengths = plane_shape(sample["image"].shape[1:], geometry.plane)
        self._origin = locations.min(axis=0)
        # A window that sticks out of a small volume is padded when it is cut from the slab.
        stop = np.minimum(locations.max(axis=0) + np.array([1, geometry.size, geometry.size]), lengths)
        in_plane = [slice(int(first), int(last)) for first, last in zip(self._origin, stop, strict=True)]
        axis = PLANE_AXES[geometry.plane]
        box = (*in_plane[1 : axis + 1], in_plane[0], *in_plane[axis + 1 :])
        # Slices come first in memory, as in a sagittal volume: windows overlap, so each voxel is read several times.
        self._geometry = PatchGeometry("sagittal", geometry.size)
        with torch.no_grad():
            self._features = {
                id(backbone): slices_first(backbone.features_of_box(sample, box), geometry.plane)
                .contiguous()
                .to(device)
                for backbone in backbones
                if is_volume_backbone(backbone)
            }

    def cut(self, backbone: Any, locations: Int[np.ndarray, "b 3"]) -> Float[torch.Tensor, "b d size size"]:
        """The backbone's features in the windows."""
        return cut_all(self._features[id(backbone)], locations - self._origin, self._geometry).float()
