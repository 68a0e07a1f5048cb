"""This file reads the grid and the values of a DICOM volume: the slices of a series, or an object of several frames.

Values are what is stored, times the slope plus the intercept of each slice. *MONOCHROME1* means that low values are
shown bright: such values are turned round, but for CT and PET, where they are measured quantities whatever their looks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from pydicom.pixels.processing import apply_modality_lut

from medseg.errors import MedsegError
from medseg.scans.dicom.entries import Entry, entry_of
from medseg.scans.dicom.headers import guarded
from medseg.scans.dicom.instances import Instance
from medseg.scans.dicom.pixels import read_frames_of
from medseg.scans.dicom.resampling import regular_grid, resampled
from medseg.scans.dicom.stacks import Slice, Stack, require_regular, stack_of
from medseg.scans.grids import Grid, require_plausible_size
from medseg.scans.picks import WHOLE, Pick

_log = logging.getLogger(__name__)
_QUANTITIES = ("CT", "PT")
_ITEMSIZE = 4


@dataclass(frozen=True)
class Volume:
    """A DICOM volume before its values are read.

    Args:
        path: what it was named by.
        entry: its objects.
        stack: its slices in order.
        grid: where its voxels lie.
        is_resampled: whether its slices have to be put on that grid by interpolation.
    """

    path: Path
    entry: Entry
    stack: Stack
    grid: Grid
    is_resampled: bool

    @property
    def frames(self) -> int:
        """How many volumes lie in the same place."""
        return len(self.stack.frames)


def open_volume(path: Path, pick: Pick = WHOLE) -> Volume:
    """Find the slices of a volume and where they lie.

    Args:
        path: a slice, an object of several frames, a folder or a zip archive.
        pick: the series, and whether an irregular one is to be resampled.

    Raises:
        MedsegError: there is no such volume, or its slices are irregular and are not to be resampled.
    """
    entry = entry_of(path, pick.series)
    if entry.kind == "picture":
        raise MedsegError(f"{path} must have planes in the patient, got {entry.first.what} without; it is a picture")
    where = path.parent if len(entry.instances) > 1 and path.is_file() and entry.first.place.member is None else path
    name = f"{where} ({entry.describe()})" if len(entry.instances) > 1 else str(path)
    slices = [Slice(instance, plane) for instance in entry.instances for plane in instance.planes]
    stack = stack_of(name, slices)
    if stack.faults and pick.resample and stack.is_mendable:
        regular = regular_grid(stack)
        return Volume(path, entry, stack, Grid(str(path), regular.shape, regular.affine), True)
    require_regular(stack)
    return Volume(path, entry, stack, Grid(str(path), stack.shape, stack.affine), False)


def read_values(volume: Volume, frame: int) -> Float[np.ndarray, "i j k"]:
    """The values of one of the volumes in the same place.

    Raises:
        MedsegError: an object is damaged or cannot be decoded, or the volume does not fit in memory.
    """
    stored = sum(instance.place.size for instance in volume.entry.instances)
    first = volume.entry.first
    compressed = first.transfer_syntax.is_encapsulated
    shape = (*volume.stack.shape, volume.frames)
    require_plausible_size(volume.path, shape, first.itemsize, stored, compressed=compressed)
    require_plausible_size(volume.path, volume.grid.shape, _ITEMSIZE, stored * 1000, compressed=True)
    slices = volume.stack.frames[frame]
    values = np.empty(volume.stack.shape, np.float32)
    for k, pixels in _decoded(slices):
        values[..., k] = pixels.T
    if first.photometric == "MONOCHROME1":
        done = "kept, because they are measured" if first.modality in _QUANTITIES else "turned round"
        _log.info("%s shows low values bright (MONOCHROME1); its values are %s", volume.stack.name, done)
    if not volume.is_resampled:
        return values
    _log.warning(
        "%s has %s; its %d slices were put on a regular grid of %s voxels, %s mm, by linear interpolation",
        volume.stack.name,
        ", ".join(volume.stack.faults),
        len(slices),
        " x ".join(map(str, volume.grid.shape)),
        " x ".join(f"{size:.4g}" for size in volume.grid.spacing),
    )
    along_k: Iterator[np.ndarray] = (values[..., k] for k in range(values.shape[2]))
    return resampled(regular_grid(volume.stack), along_k, float(values.min()))


def _decoded(slices: tuple[Slice, ...]) -> Iterator[tuple[int, Float[np.ndarray, "j i"]]]:
    """The place of each slice in the stack and its values; each object is opened once."""
    by_instance: dict[Instance, list[tuple[int, Slice]]] = {}
    for k, item in enumerate(slices):
        by_instance.setdefault(item.instance, []).append((k, item))
    for instance, wanted in by_instance.items():
        dataset, frames = read_frames_of(instance, [item.plane.index for _, item in wanted])
        for (k, item), stored in zip(wanted, frames, strict=True):
            if instance.photometric == "MONOCHROME1" and instance.modality not in _QUANTITIES:
                stored = turned_round(stored, instance)
            if "ModalityLUTSequence" in dataset:
                with guarded(instance.place):
                    yield k, np.asarray(apply_modality_lut(stored, dataset), np.float32)
            else:
                yield k, (stored * np.float64(item.plane.slope) + item.plane.intercept).astype(np.float32)


def turned_round(stored: Shaped[np.ndarray, "*shape"], instance: Instance) -> Shaped[np.ndarray, "*shape"]:
    """Stored values with the largest that can be stored for the least, and so on."""
    both_ends = -1 if instance.is_signed else (1 << instance.bits) - 1  # the least and the largest together
    return both_ends - stored.astype(np.int64)
