"""This file pastes the network's answers at windows back into a volume.

Each window's values are weighted with a Gaussian around its centre, and a voxel gets the weighted
mean of the windows that cover it. Windows of a plane touch one slice each, so when they come
ordered by slice only a *slab* of a few slices is under way at a time; finished slabs are added
to the output, which may be a memory map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from medseg.errors import MedsegError
from medseg.patches.slicing import PatchGeometry, plane_shape, slices_first

# Also the width of what is written at once: 16 float32 voxels along the fastest axis are a cache line.
_SLAB_SLICES = 16
_SIGMA_OF_SIZE = 1 / 8
_LEAST_WEIGHT = 1e-3


def gaussian_weights(size: int) -> Float[np.ndarray, "size size"]:
    """Weights of a window: 1 at the centre, sigma an eighth of the side, never below one thousandth.

    References:
        Isensee et al., nnU-Net, Nature Methods 2021 (sliding window with Gaussian importance).
    """
    offset = (np.arange(size) - (size - 1) / 2) / (size * _SIGMA_OF_SIZE)
    profile = np.exp(-0.5 * offset**2)
    weights = np.outer(profile, profile)
    return np.maximum(weights / weights.max(), _LEAST_WEIGHT).astype(np.float32)


class Blender:
    """The weighted mean of overlapping windows of one plane.

    Args:
        shape: of the volume, in voxels `(i, j, k)`.
        geometry: the windows' plane and size.
        channels: of the values.
        out: the array to add the blended values to, of shape `(channels, i, j, k)`, so that several
            planes can share one; a new float32 array of zeros where None.
        share: factor of the blended values; a third where three planes are averaged.

    Example:
        >>> geometry = PatchGeometry("axial", size=4)
        >>> blender = Blender((4, 4, 2), geometry, channels=1)
        >>> blender.add(torch.full((1, 1, 2, 2), 0.25), np.array([[1, 0, 0]]))
        >>> blender.result()[0, 0, 0].tolist()
        [0.0, 0.25]
    """

    def __init__(
        self,
        shape: Sequence[int],
        geometry: PatchGeometry,
        channels: int,
        *,
        out: np.ndarray | None = None,
        share: float = 1.0,
    ) -> None:
        self._out = np.zeros((channels, *shape), dtype=np.float32) if out is None else out
        if self._out.shape != (channels, *shape):
            raise MedsegError(f"out must have the shape {(channels, *shape)}, got {self._out.shape}; make a new one")
        self._slices_first = slices_first(self._out, geometry.plane)
        slices, height, width = plane_shape(shape, geometry.plane)
        self._size = geometry.size
        self._share = share
        self._gaussian = torch.from_numpy(gaussian_weights(geometry.size))
        self._sums = np.zeros((channels, min(_SLAB_SLICES, slices), height, width), dtype=np.float32)
        self._weights = np.zeros(self._sums.shape[1:], dtype=np.float32)
        self._slab = -1
        self._is_open = False

    def add(self, values: Float[torch.Tensor, "b c hp wp"], locations: Int[np.ndarray, "b 3"]) -> None:
        """Paste the values of windows; coarser ones are interpolated, finer ones averaged.

        Args:
            values: on any grid that covers the window evenly.
            locations: ordered by slice, over all calls.

        Raises:
            ValueError: a location lies in a slab that is already written.
        """
        weighted = (_on_window(values.detach(), self._size) * self._gaussian.to(values.device)).cpu().numpy()
        gaussian = self._gaussian.numpy()
        height, width = self._weights.shape[1:]
        rows, columns = min(self._size, height), min(self._size, width)
        for window, (number, row, column) in zip(weighted, locations.tolist(), strict=True):
            slab, depth = divmod(number, _SLAB_SLICES)
            if slab != self._slab:
                self._begin(slab)
            elif not self._is_open:
                raise ValueError(f"locations must come ordered by slice, got slice {number} after it was written")
            self._sums[:, depth, row : row + rows, column : column + columns] += window[:, :rows, :columns]
            self._weights[depth, row : row + rows, column : column + columns] += gaussian[:rows, :columns]

    def result(self) -> Float[np.ndarray, "c i j k"]:
        """The blended volume, nothing added where no window came; it is the `out` that was given."""
        self._write()
        return self._out

    def _begin(self, slab: int) -> None:
        if slab < self._slab:
            raise ValueError(f"locations must come ordered by slice, got slab {slab} after slab {self._slab}")
        self._write()
        self._sums[:] = 0
        self._weights[:] = 0
        self._slab, self._is_open = slab, True

    def _write(self) -> None:
        if not self._is_open:
            return
        start = self._slab * _SLAB_SLICES
        target = self._slices_first[:, start : start + _SLAB_SLICES]
        # A voxel without a window has the sum 0, so any divisor leaves it 0.
        blended = self._sums / np.where(self._weights > 0, self._weights, 1)
        target += self._share * blended[:, : target.shape[1]]
        self._is_open = False


def _on_window(values: Float[torch.Tensor, "b c hp wp"], size: int) -> Float[torch.Tensor, "b c size size"]:
    """Values of a patch on the voxels of its window."""
    if values.shape[-2:] == (size, size):
        return values.float()
    if min(values.shape[-2:]) > size:
        return torch.nn.functional.adaptive_avg_pool2d(values.float(), size)
    return torch.nn.functional.interpolate(values.float(), (size, size), mode="bilinear", align_corners=False)
