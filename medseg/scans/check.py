"""This file checks whether a file can be used: a scan or picture by itself, or a label or mask with its image.

All values are read, by the readers that training and reconstruction use, but without torch. *Facts* are what was found
out, *notes* lines on what is odd but harmless; what cannot be used is a `MedsegError`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.errors import MedsegError
from medseg.scans import itk_formats, nifti, picture_files
from medseg.scans.contents import content_of
from medseg.scans.grids import Grid, require_same_grid, require_same_size
from medseg.scans.names import KINDS, is_picture
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.picture_labels import read_label_frames
from medseg.scans.schemes import LabelScheme
from medseg.scans.values import mend_non_finite, require_contrast, require_finite
from medseg.scans.volumes import is_known, read_volume, read_volume_grid, read_volume_labels

_log = logging.getLogger("medseg")
_DARKEST = 8 / 255
"""Share of the scale below which a picture is black to the eye; the values of labels lie there."""
_CLASSES_SHOWN = 8
_EXTENSIONS_OF = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WebP": (".webp",),
    "GIF": (".gif",),
}


@dataclass
class Facts:
    """What a file holds.

    Attributes:
        format: by content, e.g. `NIfTI-1`, `DICOM`, `PNG`.
        shape: voxels along i, j, k of a volume; rows, columns, frames of a picture.
        unit: of the spacing; a picture has no other than its pixels.
        spacing: voxel size along i, j, k; none for pictures.
        orientation: axis letters; none for pictures.
        dtype: how values are stored, where the file says it in its header.
        lowest: least value, NaN left out.
        highest: largest value.
        stored_frames: how many volumes or frames there are to pick from.
        is_dark: whether a picture is black to the eye, as the values of a label are.
        notes: what is odd but harmless.
    """

    format: str
    shape: tuple[int, ...]
    unit: Literal["mm", "px"]
    spacing: tuple[float, ...] | None
    orientation: str | None
    dtype: str | None
    lowest: float
    highest: float
    stored_frames: int = 1
    is_dark: bool = False
    notes: list[str] = field(default_factory=list)


def check_scan(path: Path, pick: Pick = WHOLE) -> Facts:
    """Read all of a scan, picture or video and say what it holds.

    Args:
        path: the file.
        pick: what to take of a file that holds several volumes.

    Raises:
        MedsegError: it cannot be used.
    """
    content = require_image_content(path)
    with _notes(path) as notes:
        facts = _check_picture(path, content, pick) if is_picture(path) else _check_volume(path, content, pick)
    facts.notes += notes
    expected = _EXTENSIONS_OF.get(content)
    if expected and path.suffix.lower() not in expected:
        facts.notes.append(f"holds {content}, which its name does not say")
    return facts


def check_pair(
    path: Path, image: Path, pick: Pick = WHOLE, scheme: LabelScheme | None = None, *, is_mask: bool = False
) -> list[str]:
    """Check that a label lies on the grid of its image and holds labels; notes say which.

    Args:
        path: the label, or a brain mask.
        image: its image.
        pick: what is taken of the image.
        scheme: what the values and colours of a label picture mean.
        is_mask: it is a brain mask, which must not be empty.

    Raises:
        MedsegError: it does not fit, or holds no labels.
    """
    require_image_content(path)
    with _notes(path) as notes:
        labels = _labels_of_picture(path, image, pick, scheme) if is_picture(path) else _labels_of(path, image, pick)
    classes = [value for value in np.unique(labels).tolist() if value > 0]
    if not classes:
        if is_mask:
            raise MedsegError(f"{path} must mark the brain, got no voxel above 0; make it again or remove it")
        notes.append("is empty: it holds nothing but 0")
    else:
        shown = ", ".join(map(str, classes[:_CLASSES_SHOWN])) + (", ..." if len(classes) > _CLASSES_SHOWN else "")
        notes.append(f"holds {shown} in {np.mean(labels > 0):.2%} of the image")
    return notes


def scan_facts(path: Path, pick: Pick) -> dict[str, Any]:
    """`check_scan` as plain values, to be called in a worker."""
    return asdict(check_scan(path, pick))


def require_image_content(path: Path) -> str:
    """What the file holds by its first bytes.

    Raises:
        MedsegError: that is no image, such as a checkpoint or a text; nothing in it is loaded.
    """
    if path.is_dir():
        raise MedsegError(f"{path} must be a file, got a folder; check the name")
    is_pair = path.suffix.lower() == ".img"  # its header is in the other file
    content = (
        content_of(path.with_suffix(".hdr")) if is_pair and path.with_suffix(".hdr").is_file() else content_of(path)
    )
    if not is_known(path) and content not in ("DICOM", "zip file"):
        raise MedsegError(f"{path} must be {KINDS}, got {content}; give a scan or a picture")
    is_foreign = content.startswith(("checkpoint", "text", "PDF", "HDF5")) and path.suffix.lower() != ".mat"
    if is_foreign:
        raise MedsegError(f"{path} must be what its name says, got {content}; export it again")
    return content


def _check_volume(path: Path, content: str, pick: Pick) -> Facts:
    values, grid = read_volume(path, pick)
    mend_non_finite(path, values)
    lowest, highest = float(values.min()), float(values.max())
    require_contrast(path, lowest, highest)
    dtype, frames = _stored(path)
    return Facts(content, grid.shape, "mm", grid.spacing, grid.orientation, dtype, lowest, highest, frames)


def _stored(path: Path) -> tuple[str | None, int]:
    """Number format and count of volumes, as the header says them."""
    if itk_formats.is_itk_format(path):
        header = itk_formats.read_header(path)
        return header.pixel, int(np.prod(header.shape[3:], dtype=np.int64)) * header.channels
    if nifti.is_nifti(path):
        stored = nifti.read_header(path)
        return str(stored.get_data_dtype()), int(np.prod(nifti.stored_shape(stored)[3:], dtype=np.int64))
    return None, 1


def _check_picture(path: Path, content: str, pick: Pick) -> Facts:
    """One frame is in memory at a time."""
    header = picture_files.read_header(path)
    lowest, highest, nan, infinite, pixels, frames = np.inf, -np.inf, 0, 0, 0, 0
    dtype = np.dtype(np.uint8)
    for page in picture_files.iterate_pages(path, pick.frame):
        with np.errstate(over="ignore"):
            values = page.values.astype(np.float32) if page.values.dtype.kind == "f" else page.values
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            nan += int(np.isnan(values).sum())
            infinite += int(np.isinf(values).sum())
            values = values[finite]
        if values.size:
            lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        dtype, pixels, frames = page.values.dtype, pixels + page.values.size, frames + 1
    require_finite(path, nan, infinite, pixels, "pixels")
    facts = Facts(
        content, (header.height, header.width, frames), "px", None, None, str(dtype), lowest, highest, header.frames
    )
    facts.is_dark = dtype.kind == "u" and highest < _DARKEST * np.iinfo(dtype).max
    if nan:
        facts.notes.append(f"has {nan} pixels that are NaN; they are set to its minimum {lowest:g}")
    if lowest == highest:
        facts.notes.append(f"shows nothing: {highest:g} in every pixel")
    elif facts.is_dark:
        facts.notes.append(f"is black to the eye: values up to {highest:g} of {np.iinfo(dtype).max}; is it a label?")
    if pick.frame is None and frames != header.frames:
        facts.notes.append(f"has {frames} frames that can be read, of {header.frames} that it names")
    return facts


def _labels_of(path: Path, image: Path, pick: Pick) -> np.ndarray:
    if is_picture(image):
        raise MedsegError(f"{path} must be a picture as {image} is, got a volume; give the label of this picture")
    require_same_grid(read_volume_grid(image, pick), read_volume_grid(path))
    return read_volume_labels(path)[0]


def _labels_of_picture(path: Path, image: Path, pick: Pick, scheme: LabelScheme | None) -> np.ndarray:
    if not is_picture(image):
        grid: Grid = read_volume_grid(image, pick)
        header = picture_files.read_header(path)
        raise MedsegError(
            f"{path} must be a volume of {' x '.join(map(str, grid.shape))} voxels as {image} is, got a picture of "
            f"{header.height} x {header.width} pixels; give the label of this volume"
        )
    header, label = picture_files.read_header(image), picture_files.read_header(path)
    frames = 1 if pick.frame is not None else header.frames
    found = 1 if pick.frame is not None and pick.frame < label.frames else label.frames
    require_same_size(path, (header.height, header.width, frames), (label.height, label.width, found))
    return read_label_frames(path, scheme)


@contextmanager
def _notes(path: Path) -> Iterator[list[str]]:
    """What the readers say meanwhile, without the name of the file."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().removeprefix(f"{path} ").removeprefix(f"{path}: "))

    listener, level, propagates = Listener(logging.INFO), _log.level, _log.propagate
    handlers, _log.handlers = _log.handlers, [listener]
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield said
    finally:
        _log.handlers, _log.propagate = handlers, propagates
        _log.setLevel(level)
