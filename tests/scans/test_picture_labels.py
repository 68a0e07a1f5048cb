"""Label pictures: values, indices and colours become classes, and nothing is guessed in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.readers import read_labels
from medseg.scans.schemes import LabelScheme, scheme_from_classes_yaml

_IDS = np.array([[0, 1, 2], [3, 3, 0]], np.uint8)
_RED, _BLUE, _WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
_SCHEME = LabelScheme(
    "reef.yaml",
    ((1, "coral", "#ff0000"), (2, "fish", "#0000ff"), (3, "weed", "#123456"), (7, "floor", "#ffffff")),
    colours={_RED: 1, _BLUE: 2, _WHITE: 7},
)


def _read(path: Path, scheme: LabelScheme | None = None) -> list[list[int]]:
    labels = read_labels(path, scheme)
    assert labels.dtype == torch.int16 and labels.shape[0] == 1 and labels.shape[3] == 1
    return labels[0, :, :, 0].tolist()


def _save(path: Path, values: Any, **options: Any) -> Path:
    Image.fromarray(np.asarray(values)).save(path, **options)
    return path


def _assert_refused(path: Path, words: str, scheme: LabelScheme | None = None) -> None:
    with pytest.raises(MedsegError, match=words) as caught:
        read_labels(path, scheme)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def _indexed(ids: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def test_values_are_classes_in_every_lossless_format(tmp_path: Path) -> None:
    for name, kind in (("a.png", np.uint8), ("b.png", np.uint16), ("a.tif", np.uint16), ("a.bmp", np.uint8)):
        assert _read(_save(tmp_path / name, _IDS.astype(kind))) == _IDS.tolist()
    for kind in (np.uint8, np.int64, np.float64):
        np.save(tmp_path / "a.npy", _IDS.astype(kind))
        scipy.io.savemat(tmp_path / "a.mat", {"imageData": _IDS.astype(kind)})
        assert _read(tmp_path / "a.npy") == _read(tmp_path / "a.mat") == _IDS.tolist()
    assert _read(_save(tmp_path / "bits.png", _IDS > 0)) == (_IDS > 0).astype(int).tolist()
    equal = np.repeat(_IDS[..., None], 3, axis=2)
    assert _read(_save(tmp_path / "equal.png", equal)) == _IDS.tolist()
    assert _read(_save(tmp_path / "exact.webp", equal, lossless=True)) == _IDS.tolist()


def test_a_palette_gives_its_indices_whatever_its_colours_are(tmp_path: Path) -> None:
    _indexed(_IDS, [(9, 9, 9), (0, 0, 0), (5, 6, 7), (0, 255, 0)]).save(tmp_path / "a.png")
    assert _read(tmp_path / "a.png") == _read(tmp_path / "a.png", _SCHEME) == _IDS.tolist()


def test_a_palette_in_the_colours_of_the_scheme_gives_these(tmp_path: Path) -> None:
    _indexed(_IDS, [_BLUE, (0, 0, 0), _WHITE, _RED]).save(tmp_path / "a.png")  # in an order of its own
    assert _read(tmp_path / "a.png", _SCHEME) == [[2, 0, 7], [1, 1, 2]]
    assert _read(tmp_path / "a.png") == _IDS.tolist()
    _indexed(_IDS, [_BLUE, (0, 0, 0), _WHITE, (1, 2, 3)]).save(tmp_path / "a.png")
    _assert_refused(tmp_path / "a.png", "got #010203 in 2 pixels", _SCHEME)


def test_colours_are_exact_and_an_unknown_one_is_named_and_counted(tmp_path: Path) -> None:
    colours = np.array([[_RED, _BLUE], [(0, 0, 0), _WHITE]], np.uint8)
    assert _read(_save(tmp_path / "a.png", colours), _SCHEME) == [[1, 2], [0, 7]]
    assert _read(_save(tmp_path / "floor.png", np.array([[(0, 0, 0), _WHITE]], np.uint8)), _SCHEME) == [[0, 7]]
    _assert_refused(tmp_path / "a.png", "got colours and no list; write a classes.yaml")
    colours[0, 0] = (254, 0, 0)
    path = _save(tmp_path / "a.png", np.concatenate([colours, colours, [[(1, 2, 3), _RED]]]).astype(np.uint8))
    _assert_refused(
        path, r"colours of reef.yaml, got #fe0000 in 2 pixels, and 1 more unknown colours; list it", _SCHEME
    )


def test_grey_stored_as_colours_is_no_colour(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", np.repeat(_IDS[..., None], 3, axis=2))
    assert _read(path, _SCHEME) == _IDS.tolist()


def test_a_value_that_the_scheme_does_not_name_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", np.array([[0, 1, 255, 77, 77]], np.uint8))
    _assert_refused(path, "must hold the values of reef.yaml, got 77 in 2 pixels", _SCHEME)
    assert _read(path) == [[0, 1, -1, 77, 77]]


def test_255_is_unlabelled_beside_others_and_1_beside_0(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert _read(_save(tmp_path / "a.png", np.array([[0, 255, 3]], np.uint8))) == [[0, -1, 3]]
    assert "a.png: 255 is read as unlabelled" in caplog.text
    binary = _save(tmp_path / "b.png", np.array([[0, 255, 255]], np.uint8))
    assert _read(binary) == [[0, 1, 1]]
    assert "b.png: 255 is read as 1" in caplog.text
    assert _read(binary, _SCHEME) == [[0, -1, -1]]  # of several classes, 255 is none
    listed = LabelScheme("x", ((1, "a", "#000001"), (255, "b", "#000002")))
    assert _read(binary, listed) == [[0, 255, 255]]


def test_a_scheme_maps_and_ignores_values_and_refuses_others(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", np.array([[0, 700, 3, 255, 9]], np.uint16))
    scheme = LabelScheme("city", ((1, "a", "#000001"),), values={0: -1, 700: 1, 3: 2, 9: 5}, ignored=frozenset({2}))
    assert _read(path, scheme) == [[-1, 1, -1, -1, 5]]
    _assert_refused(
        path, "must hold the values of city, got 9 in 1 pixels", LabelScheme("city", (), values={0: 1, 700: 1, 3: 2})
    )
    _assert_refused(path, "labels from 0 to 255, got 700")
    np.save(tmp_path / "b.npy", np.array([[-1, 0, 4]]))
    assert _read(tmp_path / "b.npy") == [[-1, 0, 4]]


def test_transparent_pixels_are_unlabelled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    opacity = np.array([[255, 0, 128]], np.uint8)
    path = _save(tmp_path / "a.png", np.dstack([np.array([[1, 2, 3]], np.uint8), opacity]))
    assert _read(path) == [[1, -1, 3]]
    assert "a.png has 1 transparent pixels, read as unlabelled" in caplog.text
    _indexed(_IDS, [(0, 0, 0), _RED, _BLUE, _WHITE]).save(tmp_path / "b.png", transparency=0)
    assert _read(tmp_path / "b.png") == [[-1, 1, 2], [3, 3, -1]]


def test_a_lossy_label_is_refused_with_the_reason(tmp_path: Path) -> None:
    big = np.kron(_IDS, np.ones((16, 16), np.uint8))
    _assert_refused(_save(tmp_path / "a.jpg", big), "without loss, got JPEG, whose compression blurs labels")
    _assert_refused(_save(tmp_path / "a.webp", np.repeat(big[..., None], 3, axis=2)), "got lossy WebP")
    _assert_refused(_save(tmp_path / "a.tif", big, compression="jpeg"), "got JPEG inside TIFF")
    (tmp_path / "renamed.png").write_bytes((tmp_path / "a.jpg").read_bytes())
    _assert_refused(tmp_path / "renamed.png", "got JPEG")


def test_a_photograph_and_fractions_are_no_labels(tmp_path: Path) -> None:
    _assert_refused(
        _save(tmp_path / "a.png", np.arange(256, dtype=np.uint8).reshape(16, 16)), "at most 255 different labels"
    )
    for value in (0.5, np.nan, np.inf):
        np.save(tmp_path / "b.npy", np.array([[0, 1, value]]))
        _assert_refused(tmp_path / "b.npy", "whole-number labels, got")
    np.save(tmp_path / "c.npy", np.array([[0, -3]]))
    _assert_refused(tmp_path / "c.npy", "got -3 in 1 pixels")


def test_labels_are_turned_as_their_images_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert _read(_save(tmp_path / "a.png", _IDS, exif=exif)) == np.rot90(_IDS, -1).tolist()


def test_pages_of_a_label_are_its_frames(tmp_path: Path) -> None:
    Image.fromarray(_IDS).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(_IDS[::-1])])
    assert np.array_equal(read_labels(tmp_path / "a.tif")[0], np.stack([_IDS, _IDS[::-1]], axis=-1))


def test_classes_yaml_gives_classes_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text('classes:\n  - {value: 4, name: liver, colour: "#E6194B", clusters: [1]}\nnamed_by: hand\n')
    scheme = scheme_from_classes_yaml(path)
    assert scheme == LabelScheme(
        "classes.yaml", ((4, "liver", "#e6194b"),), colours={(0, 0, 0): 0, (0xE6, 0x19, 0x4B): 4}
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("classes: []", "must list classes"),
        ("- 1", "must list classes"),
        ("classes: [", "readable YAML"),
        (
            "classes: [{value: 1, name: a, colour: red}]",
            "class 1 in .* must have value, name and, if any, a readable colour",
        ),
        ("classes: [{value: 1, name: a, colour: '#12'}]", "such as"),
        ("classes: [{value: 300, name: a, colour: '#123456'}]", r"in 0..255, got 300"),
        ("classes: [{value: 1, name: a, colour: '#123456'}, {value: 1, name: b, colour: '#123457'}]", "once"),
        ("classes: [{value: 1, name: a, colour: '#123456'}, {value: 2, name: b, colour: '#123456'}]", "once"),
        ("!!python/object/apply:os.mkdir [sprung]", "readable YAML"),
    ],
)
def test_a_wrong_classes_yaml_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(content)
    with pytest.raises(MedsegError, match=words) as caught:
        scheme_from_classes_yaml(path)
    assert "\n" not in str(caught.value) and "classes.yaml" in str(caught.value)


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared pictures")
def test_shared_labels_are_read() -> None:
    folder = Path(os.environ["MEDSEG_TEST_DATA"])
    liver = sorted((folder / "us_liver_aul" / "labels" / "val").glob("*.png"))[:3]
    assert liver and all(set(read_labels(path).unique().tolist()) <= {0, 1, 2, 3} for path in liver)
    colours = {(255 * (n >> 2 & 1), 255 * (n >> 1 & 1), 255 * (n & 1)): n for n in range(8)}
    scheme = LabelScheme("suim", tuple((n, f"class {n}", "#000000") for n in range(8)), colours=colours)
    for path in (folder / "bench_suim8").glob("*.png"):
        with Image.open(path) as opened:
            bits = np.asarray(opened) > 127
        assert np.array_equal(read_labels(path, scheme)[0, :, :, 0], bits @ np.array([4, 2, 1]))
