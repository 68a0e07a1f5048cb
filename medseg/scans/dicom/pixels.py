"""This file decodes the pixels of a DICOM object, frame by frame, as they are stored.

*Native* pixels lie as they are; *encapsulated* ones are compressed frames (JPEG, JPEG 2000, JPEG-LS, RLE), each with a
*codestream* that says its own size. That size is compared with the header's before a decoder asks for memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Shaped
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import JPEG2000TransferSyntaxes

from medseg.errors import MedsegError
from medseg.scans.dicom.headers import guarded, read_dataset
from medseg.scans.dicom.instances import Instance, require_whole

_JPEG_2000_START = b"\xff\x4f\xff\x51"
_JPEG_START = b"\xff\xd8"
_JPEG_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers after which the size of a JPEG or a JPEG-LS stands."""
_NO_LENGTH = {0x01, *range(0xD0, 0xDA)}
_SCAN = 0xDA


def read_frames_of(instance: Instance, indices: Sequence[int]) -> tuple[Dataset, Iterator[Shaped[np.ndarray, "..."]]]:
    """The data set of an object and the frames that are asked for, each [rows columns] or [rows columns 3].

    YBR comes as RGB. Bits above those that are stored (overlays of old files) are cleared.

    Raises:
        MedsegError: the object is damaged, too large, or compressed in a way that cannot be read; of a frame it may be
            found out when it is asked for.
    """
    require_whole(instance)
    dataset = read_dataset(instance.place)
    if "PixelData" not in dataset:
        raise MedsegError(
            f"{instance.place.name} must hold its pixels, got none; it is cut, or has floating-point pixels: "
            "export it again"
        )
    return dataset, _frames(instance, dataset, indices)


def _frames(instance: Instance, dataset: Dataset, indices: Sequence[int]) -> Iterator[Shaped[np.ndarray, "..."]]:
    syntax = instance.transfer_syntax
    shape = (instance.rows, instance.columns, *([3] if instance.samples == 3 else []))
    with guarded(instance.place):
        if syntax.is_encapsulated:
            _require_codestreams(instance, dataset)
        # OpenJPEG keeps to the standard more closely than GDCM does.
        plugin = "pylibjpeg" if syntax in JPEG2000TransferSyntaxes else ""
        frames = iter_pixels(dataset, indices=list(indices), decoding_plugin=plugin)
    while True:
        with guarded(instance.place):
            frame = next(frames, None)
        if frame is None:
            return
        if frame.shape != shape:
            raise MedsegError(
                f"{instance.place.name} must have frames of {' x '.join(map(str, shape))}, got "
                f"{' x '.join(map(str, frame.shape))}; it is damaged, export it again"
            )
        yield frame


def _require_codestreams(instance: Instance, dataset: Dataset) -> None:
    """Refuse compressed frames that say another size than the header."""
    for frame in generate_frames(dataset.PixelData, number_of_frames=instance.frames):
        size = _codestream_size(frame)
        if size is not None and size != (instance.rows, instance.columns):
            raise MedsegError(
                f"{instance.place.name} must have compressed frames of {instance.rows} x {instance.columns} pixels, "
                f"got {size[0]} x {size[1]}; it is damaged, export it again"
            )


def _codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a compressed frame claims; none where it does not say so, as RLE."""
    if (start := frame[:1024].find(_JPEG_2000_START)) >= 0:  # a few writers put a JP2 box in front
        right, bottom, left, top = (
            int.from_bytes(frame[start + 8 + 4 * n : start + 12 + 4 * n], "big") for n in range(4)
        )
        return bottom - top, right - left
    if not frame.startswith(_JPEG_START):
        return None
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker in _JPEG_SIZES:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        if marker == _SCAN:
            return None
        at += 2 if marker in _NO_LENGTH else 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
