"""This file copies folders of pictures into another format, with other label values, or without black ones.

A *source* is never changed and nothing is overwritten: every function writes into a folder of its own and
keeps folders and names. What is stored stays what it is, bit for bit, except in a lossy JPEG of an image.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import Shaped
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, replacing
from medseg.scans.names import is_picture, named_files
from medseg.scans.picture_arrays import MATLAB_IMAGE, MATLAB_LABEL
from medseg.scans.picture_files import read_frames
from medseg.scans.picture_labels import read_label_frames
from medseg.scans.readers import read_picture
from medseg.scans.schemes import LabelScheme

_log = logging.getLogger(__name__)
FORMATS = ("png", "jpg", "tif", "mat", "npy")
_PILLOW: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "tif": {"format": "TIFF", "compression": "tiff_lzw", "save_all": True},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "webp": {"format": "WEBP", "lossless": True, "exact": True},
}
"""How Pillow writes each format; the last three are kept by labels whose values change."""
_SAME_FORMAT = {"jpeg": "jpg", "tiff": "tif"}
DARK = 8 / 255
"""Largest value of a pixel that counts as black: JPEG leaves some noise on it."""
BLACK_SHARE = 0.99
"""Share of dark pixels from which a picture counts as black."""


def convert_dataset(source: Path, out: Path, *, to: str, labels: bool = False) -> dict[str, Any]:
    """Copy every picture below a folder into another format.

    What a folder or a name calls a label keeps its values (the indices of a palette), whatever the format.

    Args:
        source: the folder.
        out: where the copies go; may be the source.
        to: one of `FORMATS`.
        labels: all of them are labels.

    Returns:
        `lines` on what was done, and `failed`, the reason for each file that was not converted.

    Raises:
        MedsegError: there is nothing to convert, or labels would become JPEG.
    """
    if to not in FORMATS:
        raise MedsegError(f"format must be one of {', '.join(FORMATS)}, got {to}; choose one")
    if labels and to == "jpg":
        raise MedsegError(
            "labels must be stored without loss, got --to jpg, which changes label values; choose png, tif, mat or npy"
        )
    paths = _pictures(source, out)
    known_labels = set(paths) if labels else _labels(source, paths)

    def convert(path: Path, target: Path) -> bool:
        target = target.with_suffix(f".{to}")
        is_label = path in known_labels
        if is_label and to == "jpg":
            raise MedsegError(f"{path} must stay without loss because it is a label, got --to jpg; choose png")
        if _format_of(path) == to:
            return _copy_new(path, target)
        values = _stored_label(path) if is_label else _stored_image(path)
        return _write_new(target, values, is_label=is_label)

    return _each(source, out, paths, convert, "converted")


def map_label_values(source: Path, out: Path, *, mapping: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Copy every label picture below a folder with other values.

    Args:
        source: the folder.
        out: where the copies go; not the source.
        mapping: new value, 0 to 255, of each value that changes; without it, labels that hold nothing but 0 and
            255 get 0 and 1, and all others are copied as they are.

    Returns:
        `lines` on what was done, and `failed`, the reason for each file that was not copied.

    Raises:
        MedsegError: there is nothing to copy, or it would be copied onto itself.
    """
    _require_elsewhere(source, out)

    def fix(path: Path, target: Path) -> bool:
        values = _stored_label(path)
        if (values == values[..., :1]).all():
            values = values[..., :1]
        elif mapping is None:
            return _copy_new(path, target)
        else:
            raise MedsegError(
                f"{path} must be grey or indices to change values, got colours; list them in classes.yaml"
            )
        found = set(np.unique(values).tolist())
        table = mapping if mapping is not None else {255: 1} if found <= {0, 255} else {}
        changes = {old: new for old, new in table.items() if old in found}
        if not changes:
            return _copy_new(path, target)
        fixed = values.astype(np.uint8) if values.dtype == bool else values.copy()
        for old, new in changes.items():
            fixed[values == old] = new
        _log.info("%s: %s", path, ", ".join(f"{old} becomes {new}" for old, new in changes.items()))
        return _write_new(target, fixed, is_label=True)

    return _each(source, out, _pictures(source, out), fix, "copied")


def write_ids(source: Path, out: Path, *, scheme: LabelScheme) -> dict[str, Any]:
    """Write every label below a folder as a grey PNG of the ids that a scheme has for its classes.

    Args:
        source: the folder.
        out: where the new labels go; not the source.
        scheme: what the colours of the labels mean; what nobody labelled becomes 255.

    Returns:
        `lines` on what was done, and `failed`, the reason for each file that was left out.

    Raises:
        MedsegError: there is nothing to convert, or it would be written over.
    """
    _require_elsewhere(source, out)
    id_of = np.full(256, 255, np.uint8)
    for stored, value in (scheme.values or {value: value for value, _, _ in scheme.classes}).items():
        id_of[value] = stored

    def convert(path: Path, target: Path) -> bool:
        ids = id_of[read_label_frames(path, scheme)]  # the last place is of UNLABELLED, -1
        return _write_new(target.with_suffix(".png"), ids[..., None], is_label=True)

    return _each(source, out, _pictures(source, out), convert, "converted")


def drop_black(source: Path, out: Path, *, share: float = BLACK_SHARE, dark: float = DARK) -> dict[str, Any]:
    """Copy the pictures below a folder that are not black, and the labels that belong to them.

    Args:
        source: the folder.
        out: where the copies go; not the source.
        share: share of dark pixels from which a picture counts as black.
        dark: largest value of a dark pixel, 0 to 1.

    Returns:
        `lines` on what was done, and `failed`, the reason for each file that was not copied.

    Raises:
        MedsegError: there is nothing to copy, or it would be copied onto itself.
    """
    _require_elsewhere(source, out)
    if not 0 < share <= 1:
        raise MedsegError(f"--share must be in (0, 1], got {share}; 1 leaves out what is black all over")
    paths = _pictures(source, out)
    files, ignored = named_files(paths, source, pictures=True)
    partners: dict[tuple[tuple[str, ...], str], list[Path]] = {}
    for file in files:
        if file.role == "label":
            partners.setdefault((file.group, file.base), []).append(file.path)
    keys = {file.path: (file.group, file.base) for file in files if file.role == "image"}
    left_out = [f"{path.relative_to(source)} is left out: {reason}" for path, reason in ignored]

    def copy(path: Path, target: Path) -> bool:
        values = read_picture(path)
        dark_share = (values.amax(dim=0) <= dark).float().mean().item()
        if dark_share >= share:
            left_out.append(f"{path.relative_to(source)} is left out: {dark_share:.1%} of it is black")
            return False
        copied = _copy_new(path, target)
        for label in partners.get(keys[path], ()):
            _copy_new(label, out / label.relative_to(source))
        return copied

    report = _each(source, out, list(keys), copy, "copied")
    return {**report, "lines": [*report["lines"], *left_out]}


def _each(
    source: Path, out: Path, paths: Sequence[Path], make: Callable[[Path, Path], bool], done: str
) -> dict[str, Any]:
    """Make each file; one that fails does not stop the others."""
    failed: dict[str, str] = {}
    made = 0
    for path in paths:
        name = path.relative_to(source)
        try:
            made += make(path, out / name)
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[str(name)] = str(error)
            _log.error(str(error))
    lines = [f"{made} of {len(paths)} pictures {done} to {out}"]
    left = len(paths) - made - len(failed)
    lines += [f"{left} not {done}: there already, or left out"] if left else []
    return {"lines": lines, "failed": failed}


def _pictures(source: Path, out: Path) -> list[Path]:
    """All pictures below the source that are not below the results."""
    if not source.is_dir():
        raise MedsegError(f"{source} must be a folder of pictures, got {'a file' if source.exists() else 'none'}")
    root = source.resolve()
    inside = None if out.resolve() == source.resolve() else out.resolve()
    found = [
        path
        for path in sorted(source.rglob("*"))
        if is_picture(path)
        and path.is_file()
        and path.resolve().is_relative_to(root)  # no link brings a file of elsewhere in
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and not (inside and path.resolve().is_relative_to(inside))
    ]
    if not found:
        raise MedsegError(f"{source} must hold pictures, got none; check the name")
    return found


def _labels(source: Path, paths: Sequence[Path]) -> set[Path]:
    return {file.path for file in named_files(paths, source, pictures=True)[0] if file.role == "label"}


def _require_elsewhere(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve():
        raise MedsegError(f"{out} must be another folder than the source, because nothing is overwritten; choose one")


def _stored_image(path: Path) -> Shaped[np.ndarray, "n h w c"]:
    """Grey or colours in the depth of the file; what is transparent lies on black."""
    frames = read_frames(path)
    if frames.header.is_reduced:
        raise MedsegError(
            f"{path} must have at most 8 bits a colour, got 16, of which 8 would be lost; keep it as it is"
        )
    if frames.alpha is None:
        return frames.values
    _log.info("%s is transparent in places; it is laid on black", path)
    opacity = frames.alpha[..., None] / 255
    return np.rint(frames.values * opacity).astype(frames.values.dtype)


def _stored_label(path: Path) -> Shaped[np.ndarray, "n h w c"]:
    """Values, indices of a palette, or colours."""
    frames = read_frames(path, indices=True)
    if frames.header.lossy:
        raise MedsegError(
            f"{path} must be stored without loss because it is a label, got {frames.header.lossy}; export it as PNG"
        )
    if frames.header.is_reduced or frames.alpha is not None:
        what = "16 bits a colour" if frames.header.is_reduced else "transparent pixels"
        raise MedsegError(
            f"{path} must be an opaque label of 8 bits a colour, got {what}, which would be lost; keep it"
        )
    return frames.values


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower().removeprefix(".")
    return _SAME_FORMAT.get(suffix, suffix)


def _copy_new(path: Path, target: Path) -> bool:
    if target.exists():
        if target.read_bytes() == path.read_bytes():
            return False
        raise _other_content(target)
    with replacing(target) as beside:
        shutil.copyfile(path, beside)
    return True


def _write_new(target: Path, values: Shaped[np.ndarray, "n h w c"], *, is_label: bool) -> bool:
    """Write, and read back what has been written; whether the file is new."""
    kind = _format_of(target)
    content = _encoded(target, kind, values, is_label=is_label)
    is_exact = kind != "jpg"
    if target.exists():
        if target.read_bytes() == content or (is_exact and _holds(target, values, is_label=is_label)):
            return False
        raise _other_content(target)
    with replacing(target) as beside:
        beside.write_bytes(content)
        if is_exact and not _holds(beside, values, is_label=is_label):
            raise MedsegError(f"{target} must hold the values of its source, which {kind} cannot; choose npy or mat")
    return True


def _other_content(target: Path) -> MedsegError:
    return MedsegError(f"{target} must be new, got a file with other content; choose another folder")


def _holds(path: Path, values: Shaped[np.ndarray, "n h w c"], *, is_label: bool) -> bool:
    try:
        found = read_frames(path, indices=is_label).values
    except MedsegError:
        return False
    return found.shape == values.shape and np.array_equal(found, values, equal_nan=values.dtype.kind == "f")


def _encoded(target: Path, kind: str, values: Shaped[np.ndarray, "n h w c"], *, is_label: bool) -> bytes:
    stream = io.BytesIO()
    array = values[..., 0] if values.shape[-1] == 1 else values
    if kind == "npy":
        np.save(stream, array[0] if len(array) == 1 else array)
    elif kind == "mat":
        name = MATLAB_LABEL if is_label else MATLAB_IMAGE
        scipy.io.savemat(stream, {name: array[0] if len(array) == 1 else array}, do_compression=True)
    else:
        if len(array) > 1 and kind != "tif":
            raise MedsegError(f"{target} must hold one picture, got {len(array)} frames; choose tif, npy or mat")
        pages = [Image.fromarray(page) for page in _narrowed(target, kind, array, is_label=is_label)]
        if kind == "jpg" and pages[0].mode == "1":
            pages[0] = pages[0].convert("L")
        options = {**_PILLOW[kind], "append_images": pages[1:]} if kind == "tif" else _PILLOW[kind]
        pages[0].save(stream, **options)
    return stream.getvalue()


def _narrowed(
    target: Path, kind: str, values: Shaped[np.ndarray, "n h w *c"], *, is_label: bool
) -> Shaped[np.ndarray, "n h w *c"]:
    """The same values in a number of bits that a picture of the format can have."""
    if is_label and values.dtype.kind == "f" and np.array_equal(values, np.rint(values)):
        values = values.astype(np.int64)  # MATLAB stores labels as doubles
    deep = values.ndim == 3 and kind in ("png", "tif")
    fitting: tuple[type[np.unsignedinteger], ...] = (np.uint8, np.uint16) if deep else (np.uint8,)
    if values.dtype == bool or values.dtype in fitting or (kind == "tif" and deep and values.dtype == np.float32):
        return values
    if values.dtype.kind in "iu" and values.dtype != np.uint16 and values.min() >= 0:
        # Wider numbers are read by the 8 or 16 bits that they fill, so they show the same.
        for narrow in fitting:
            if values.max() <= np.iinfo(narrow).max:
                return values.astype(narrow)
    bits = " or ".join(str(np.iinfo(narrow).bits) for narrow in fitting)
    raise MedsegError(
        f"{target} must hold whole numbers of {bits} bits, got {values.dtype} from {values.min():g} to "
        f"{values.max():g}; choose npy or mat"
    )
