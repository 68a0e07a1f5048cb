"""This file writes images and masks side by side for programs that train on them: NIfTI for volumes, PNG for pictures.

Both files of a volume have the header of its mask, so they share a grid whatever format the scan came in. The written
masks have the values 1, 2, 3 ... in the order of the classes' own values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import replacing
from medseg.naming.classes import ClassEntry
from medseg.review.exports.masks import Mask
from medseg.scans.masks import write_like
from medseg.scans.stacks import as_frames

_RESERVED = ("background", "ignore")
"""Names that mean something else to nnU-Net."""


def consecutive(classes: Sequence[ClassEntry]) -> dict[int, int]:
    """The value in the written masks by the class's own value."""
    return {value: number for number, value in enumerate(sorted(entry.value for entry in classes), start=1)}


def label_names(classes: Sequence[ClassEntry]) -> dict[str, int]:
    """The written value of each name, with the background as 0; a name that is taken gets its own value behind it."""
    table = consecutive(classes)
    names = {"background": 0}
    for entry in sorted(classes, key=lambda entry: entry.value):
        name = f"{entry.name} {entry.value}" if entry.name.casefold() in _RESERVED else entry.name
        names[name] = table[entry.value]
    return names


def write_image(path: Path, image: Float[np.ndarray, "i j k"], mask: Mask) -> None:
    """Write a volume on the grid of its mask, as int16 where its values are whole numbers in that range."""
    write_like(path, _narrowed(image), mask.header)


def write_labels_of(path: Path, mask: Mask) -> None:
    """Write the mask of a volume with consecutive values."""
    write_like(path, _renumbered(mask.labels, consecutive(mask.classes)), mask.header)


def write_frames(
    images: Path,
    labels: Path | None,
    names: Sequence[tuple[str, str]],
    frames: Iterable[Float[np.ndarray, "h w _"]],
    mask: Mask,
    *,
    colour: bool,
) -> None:
    """Write the frames of a picture and their masks, one after the other.

    Args:
        images: folder of the frames.
        labels: folder of the masks; None: only the frames are written.
        names: of each frame and of its mask, with extension.
        frames: values from 0 to 1.
        mask: of all frames, as a stack.
        colour: whether files have three channels, also those of grey frames.
    """
    indices = _renumbered(as_frames(mask.labels), consecutive(mask.classes))
    for number, ((image, label), frame) in enumerate(zip(names, frames, strict=True)):
        values = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
        if values.shape[:2] != indices.shape[:2]:
            raise MedsegError(
                f"the mask of {mask.case_id} must have the {values.shape[1]} x {values.shape[0]} pixels of its source, "
                f"got {indices.shape[1]} x {indices.shape[0]}; reconstruct it again"
            )
        if colour:
            values = values[..., :3] if values.shape[2] >= 3 else np.repeat(values[..., :1], 3, axis=2)
        _save(images / image, values if colour else values[..., 0])
        if labels is not None:
            _save(labels / label, indices[:, :, number])


def _renumbered(labels: UInt8[np.ndarray, "..."], table: Mapping[int, int]) -> UInt8[np.ndarray, "..."]:
    lookup = np.zeros(256, np.uint8)
    for value, number in table.items():
        lookup[value] = number
    return lookup[labels]


def _narrowed(image: Float[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "i j k"]:
    limits = np.iinfo(np.int16)
    if image.min() >= limits.min and image.max() <= limits.max:
        whole = image.astype(np.int16)
        if np.array_equal(whole, image):
            return whole
    return image


def _save(path: Path, values: UInt8[np.ndarray, "h w *c"]) -> None:
    with replacing(path) as beside:
        Image.fromarray(values).save(beside, format="PNG")
