"""This file reads label pictures: which class each pixel has.

A label picture holds *values* (grey, or the indices of a palette) or *colours*. A lossy one is
refused: its compression mixes the values of neighbours into values that nobody drew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Int32, Integer, Shaped, UInt8

from medseg.errors import MedsegError
from medseg.scans.picture_files import Frames, read_frames, read_header
from medseg.scans.schemes import UNLABELLED, LabelScheme

_log = logging.getLogger(__name__)
_LARGEST_LABEL = 255
_MOST_IDS = 255
"""Different values in one label; a photograph in grey has as many."""
_BLACK = 0


def read_label_frames(path: Path, scheme: LabelScheme | None = None) -> Int16[np.ndarray, "n h w"]:
    """Read the class of each pixel, from 0 to 255, -1 where nothing is labelled.

    255 beside other values means unlabelled, 0 and 255 alone are read as 0 and 1 (unless the scheme
    has several classes), transparent pixels are unlabelled; each is logged. Values are those of the
    palette's indices, unless the colours it uses are those of the scheme.

    Args:
        path: the label.
        scheme: what values and colours mean; without one, the class is the value that is stored.

    Raises:
        MedsegError: the file is lossy, cannot be read, or holds what the scheme does not know.
    """
    lossy = read_header(path).lossy
    if lossy:
        raise MedsegError(
            f"{path} must be stored without loss, got {lossy}, whose compression blurs labels into values that "
            "nobody drew; export it as PNG"
        )
    frames = read_frames(path, indices=True)
    colours = _colours(path, frames, scheme)
    if colours is not None:
        assert scheme is not None
        labels = _by_colour(path, colours, scheme)
    else:
        labels = _by_value(path, _whole_numbers(path, frames.values[..., 0]), scheme)
    if scheme and scheme.ignored:
        labels[np.isin(labels, list(scheme.ignored))] = UNLABELLED
    if frames.alpha is not None and (clear := frames.alpha == 0).any():
        _log.info("%s has %d transparent pixels, read as unlabelled", path, clear.sum())
        labels[clear] = UNLABELLED
    return labels


def _colours(path: Path, frames: Frames, scheme: LabelScheme | None) -> UInt8[np.ndarray, "n h w 3"] | None:
    """The colours of each pixel where they say the class, or None where its value does."""
    known = dict(scheme.colours) if scheme and scheme.colours else {}
    if frames.palette is not None:
        # Indices mean nothing where a tool has sorted the colours of a palette as it likes.
        colours = frames.palette[frames.values[..., 0]]
        is_grey, black = True, frozenset({_BLACK})
    elif frames.values.shape[-1] == 1:
        return None
    else:
        if frames.values.min() < 0 or frames.values.max() > _LARGEST_LABEL or frames.values.dtype.kind == "f":
            raise MedsegError(f"{path} must hold colours of 8 bits, got {frames.values.dtype}; convert it")
        colours = frames.values.astype(np.uint8)
        is_grey = bool((colours == colours[..., :1]).all())
        black = frozenset() if known.get((0, 0, 0)) else frozenset({_BLACK})
    used = frozenset(np.unique(_packed(colours)).tolist()) - black
    if used & {_code(colour) for colour in known}:
        return colours
    if is_grey:
        return None
    if not known:
        raise MedsegError(
            f"{path} must be grey or have a list of its colours, got colours and no list; write a classes.yaml "
            "with value, name and colour of each class beside the images"
        )
    return colours


def _by_colour(path: Path, colours: UInt8[np.ndarray, "n h w 3"], scheme: LabelScheme) -> Int16[np.ndarray, "n h w"]:
    packed = _packed(colours)
    codes = np.unique(packed)
    known = {_code(colour): value for colour, value in (scheme.colours or {}).items()}
    known.setdefault(_BLACK, 0)
    if not known.keys() >= set(codes.tolist()):
        counts = np.bincount(np.searchsorted(codes, packed).ravel()).tolist()
        unknown = [(count, code) for count, code in zip(counts, codes.tolist(), strict=True) if code not in known]
        count, code = max(unknown)
        others = f", and {len(unknown) - 1} more unknown colours" if len(unknown) > 1 else ""
        raise MedsegError(
            f"{path} must use the colours of {scheme.name}, got #{code:06x} in {count} pixels{others}; "
            "list it in classes.yaml"
        )
    return _looked_up(packed, codes, [known[code] for code in codes.tolist()])


def _packed(colours: UInt8[np.ndarray, "*n 3"]) -> Int32[np.ndarray, "*n"]:
    """One number for each colour, as it is written in hex."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _code(colour: tuple[int, int, int]) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _whole_numbers(path: Path, values: Shaped[np.ndarray, "n h w"]) -> Integer[np.ndarray, "n h w"]:
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        broken = values[~np.isfinite(values) | (values != np.round(values))]
        if len(broken):
            raise MedsegError(f"{path} must hold whole-number labels, got {broken[0]:g}; threshold it first")
        _log.info("%s holds whole numbers stored as floats, read as labels", path)
        values = values.astype(np.int64)
    return values


def _by_value(
    path: Path, stored: Integer[np.ndarray, "n h w"], scheme: LabelScheme | None
) -> Int16[np.ndarray, "n h w"]:
    ids = np.unique(stored)
    if len(ids) > _MOST_IDS:
        raise MedsegError(
            f"{path} must hold at most {_MOST_IDS} different labels, got {len(ids)}; is it a picture, not a label?"
        )
    table = _meanings(path, ids.tolist(), scheme)
    for value in ids.tolist():
        meant = table.get(value)
        if meant is not None and UNLABELLED <= meant <= _LARGEST_LABEL:
            continue
        known = f"the values of {scheme.name}" if scheme and meant is None else f"labels from 0 to {_LARGEST_LABEL}"
        pixels = (stored == value).sum()
        raise MedsegError(f"{path} must hold {known}, got {value} in {pixels} pixels; correct the label or renumber it")
    return _looked_up(stored, ids, [table[value] for value in ids.tolist()])


def _looked_up(
    stored: Integer[np.ndarray, "n h w"], found: Integer[np.ndarray, " values"], meant: Sequence[int]
) -> Int16[np.ndarray, "n h w"]:
    """The class of each pixel; `found` holds every stored value once, in order, and `meant` its class."""
    return np.array(meant, np.int16)[np.searchsorted(found, stored)]


def _meanings(path: Path, ids: Sequence[int], scheme: LabelScheme | None) -> dict[int, int]:
    """Class value of each stored value."""
    if scheme and scheme.values is not None:
        return {UNLABELLED: UNLABELLED, _LARGEST_LABEL: UNLABELLED, **scheme.values}
    named = {value for value, _, _ in scheme.classes} if scheme else set()
    known = named | {UNLABELLED, 0, _LARGEST_LABEL}
    table = {value: value for value in ids if value in known or not named}
    classes = named - {0} if scheme else {1}
    if _LARGEST_LABEL not in table or _LARGEST_LABEL in classes:
        return table
    # With several classes, a label that shows none of them has 255 where nobody labelled, not where the first is.
    is_binary = table.keys() <= {UNLABELLED, 0, _LARGEST_LABEL} and len(classes) == 1
    table[_LARGEST_LABEL] = 1 if is_binary else UNLABELLED
    _log.info("%s: 255 is read as %s", path, "1" if is_binary else "unlabelled")
    return table
