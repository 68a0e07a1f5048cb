"""Masks as PNG: what is written is what a plain reader and our own give back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.picture_masks import write_colour_png, write_grey_png, write_index_png
from medseg.scans.readers import read_labels

_COLOURS = {1: "#e6194b", 200: "#3cb44b"}
_LABELS = np.array([[0, 1, 200], [200, 7, 0]], np.uint8)


def _opened(path: Path) -> tuple[str, np.ndarray]:
    with Image.open(path) as picture:
        return picture.mode, np.asarray(picture)


def test_an_index_png_holds_the_labels_and_shows_colours(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.png"
    write_index_png(path, _LABELS, _COLOURS)
    mode, values = _opened(path)
    assert mode == "P" and np.array_equal(values, _LABELS)
    with Image.open(path) as picture:
        assert picture.convert("RGB").getpixel((2, 0)) == (0x3C, 0xB4, 0x4B)
    assert np.array_equal(read_labels(path)[0, :, :, 0], _LABELS)
    assert [file.name for file in tmp_path.iterdir()] == ["a_seg.png"]


def test_every_label_survives_also_in_a_view_of_an_array(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16).T
    write_index_png(tmp_path / "a.png", labels, {})
    assert np.array_equal(_opened(tmp_path / "a.png")[1], labels)
    write_index_png(tmp_path / "b.png", np.zeros((1, 1), np.uint8), {})
    assert _opened(tmp_path / "b.png")[1].tolist() == [[0]]


def test_a_colour_png_shows_each_class_and_black_for_others(tmp_path: Path) -> None:
    write_colour_png(tmp_path / "a.png", _LABELS, _COLOURS)
    mode, values = _opened(tmp_path / "a.png")
    assert mode == "RGB" and values[0].tolist() == [[0, 0, 0], [0xE6, 0x19, 0x4B], [0x3C, 0xB4, 0x4B]]
    assert values[1, 1].tolist() == [0, 0, 0]


def test_grey_has_the_bits_that_are_asked_for(tmp_path: Path) -> None:
    values = np.array([[0, 0.5, 1], [-1, 2, 0.2]])
    for bits, kind in ((8, np.uint8), (16, np.uint16)):
        write_grey_png(tmp_path / "a.png", values, bits)
        found = _opened(tmp_path / "a.png")[1]
        largest = 2**bits - 1
        assert found.dtype == kind
        assert found.tolist() == [[0, round(largest / 2), largest], [0, largest, round(largest / 5)]]
    with pytest.raises(MedsegError, match="8 or 16 bits, got 12"):
        write_grey_png(tmp_path / "a.png", values, 12)
