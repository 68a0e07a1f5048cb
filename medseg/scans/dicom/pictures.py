"""This file reads DICOM objects without planes in the patient as pictures: ultrasound, colour, secondary captures.

Values keep the bit depth of the file: 8 bits as 8, more as 16, stretched by the bits that are stored and never by what
is shown; windows are not applied. Palettes and YBR become red, green and blue; overlays are not drawn in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from medseg.errors import MedsegError
from medseg.scans.dicom.entries import entry_of
from medseg.scans.dicom.headers import guarded
from medseg.scans.dicom.instances import Instance
from medseg.scans.dicom.pixels import read_frames_of
from medseg.scans.dicom.volumes import turned_round

_LOSSY_NAMES = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"}
_LOSSY_NAMES |= {"1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"}


def open_picture(path: Path, series: str | None = None) -> Instance:
    """The one picture that a path names.

    Raises:
        MedsegError: there is none.
    """
    entry = entry_of(path, series)
    if entry.kind != "picture":
        raise MedsegError(f"{path} must be a picture, got a volume; read it as a scan")
    return entry.first


def lossy_compression(instance: Instance) -> str | None:
    """The lossy compression its values went through, where there is one."""
    if instance.is_lossy or instance.transfer_syntax in _LOSSY_NAMES:
        return "lossy DICOM"
    return None


def iterate_picture(instance: Instance, frame: int | None = None) -> Iterator[Shaped[np.ndarray, "h w c"]]:
    """Give all frames, or one, in their order, as 8 or 16 bits without sign; c is 1, or 3: red, green, blue.

    Raises:
        MedsegError: the object is damaged or cannot be decoded; it may be found out at a later frame.
    """
    wanted = range(instance.frames) if frame is None else [frame]
    dataset, frames = read_frames_of(instance, wanted)
    for stored in frames:
        with guarded(instance.place):
            yield _shown(instance, dataset, stored)


def _shown(instance: Instance, dataset: Dataset, stored: np.ndarray) -> Shaped[np.ndarray, "h w c"]:
    if instance.photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        return _of_depth(colours, 8 * colours.dtype.itemsize)
    if instance.photometric == "MONOCHROME1":
        stored = turned_round(stored, instance)
    if instance.is_signed:
        stored = stored.astype(np.int64) + (1 << (instance.bits - 1))
    return _of_depth(stored.reshape(*stored.shape[:2], -1), instance.bits)


def _of_depth(values: np.ndarray, bits: int) -> Shaped[np.ndarray, "h w c"]:
    """Values from 0 to 2**bits - 1 stretched to the whole of 8 or 16 bits."""
    kind = np.uint8 if bits <= 8 else np.uint16
    largest, full = (1 << bits) - 1, np.iinfo(kind).max
    if largest == full:
        return values.astype(kind)
    return np.round(np.clip(values, 0, largest) * (full / largest)).astype(kind)
