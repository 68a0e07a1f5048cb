"""Copies of folders: every value survives, nothing is overwritten or deleted, and one bad file stops no other."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.conversion import FORMATS, convert_dataset, drop_black, map_label_values
from medseg.scans.picture_files import read_frames
from medseg.scans.readers import read_image, read_labels

_RANDOM = np.random.default_rng(0)
_GREY = _RANDOM.integers(0, 256, (6, 5)).astype(np.uint8)
_RGB = _RANDOM.integers(0, 256, (6, 5, 3)).astype(np.uint8)
_DEEP = _RANDOM.integers(0, 65536, (6, 5)).astype(np.uint16)
_IDS = np.array([[0, 1, 2], [3, 3, 0]], np.uint8)
_SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def _save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"img": values})
    else:
        Image.fromarray(values).save(path)
    return path


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("first", ["png", "tif", "mat", "npy"])
def test_images_go_both_ways_between_all_exact_formats(tmp_path: Path, first: str) -> None:
    source = tmp_path / "source"
    pictures = {"grey": _GREY, "x/rgb": _RGB, "x/y.z/deep": _DEEP, "bits": _GREY > 99}
    for name, values in pictures.items():
        _save(source / f"{name}.{first}", values)
    before = _content(source)
    for to in ("png", "tif", "mat", "npy"):
        for back in (first, "npy"):
            assert convert_dataset(source, tmp_path / to, to=to)["failed"] == {}
            assert convert_dataset(tmp_path / to, tmp_path / f"{to}_{back}", to=back)["failed"] == {}
            for name, values in pictures.items():
                found = read_frames(tmp_path / f"{to}_{back}" / f"{name}.{back}").values[0]
                assert found.dtype == values.dtype and np.array_equal(found.squeeze(), values)
    assert _content(source) == before


def test_an_image_becomes_a_jpeg_that_looks_like_it(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    _save(tmp_path / "in" / "a.png", ramp)
    _save(tmp_path / "in" / "b.tif", np.dstack([ramp, ramp[::-1], ramp.T[::-1]]))
    _save(tmp_path / "in" / "deep.png", _DEEP)
    report = convert_dataset(tmp_path / "in", tmp_path / "out", to="jpg")
    assert (
        list(report["failed"]) == ["deep.png"] and "whole numbers of 8 bits, got uint16" in report["failed"]["deep.png"]
    )
    assert report["lines"][0].startswith("2 of 3 pictures converted")
    for name in ("a.png", "b.tif"):
        found = read_image((tmp_path / "out" / name).with_suffix(".jpg"))
        assert (found - read_image(tmp_path / "in" / name)).abs().max() < 0.06
    again = convert_dataset(tmp_path / "in", tmp_path / "out", to="jpg")
    assert list(again["failed"]) == ["deep.png"] and again["lines"][1].startswith("2 not converted")


@pytest.mark.parametrize("to", ["png", "tif", "mat", "npy"])
def test_no_label_changes(tmp_path: Path, to: str) -> None:
    indexed = Image.frombytes("P", (3, 2), _IDS.tobytes())
    indexed.putpalette([9, 9, 9, 0, 0, 0, 5, 6, 7, 0, 255, 0])
    (tmp_path / "gt").mkdir()
    indexed.save(tmp_path / "gt" / "palette.png")
    _save(tmp_path / "gt" / "grey.png", _IDS)
    _save(tmp_path / "gt" / "deep.tif", _IDS.astype(np.uint16))
    _save(tmp_path / "gt" / "wide.npy", _IDS.astype(np.int64))
    _save(tmp_path / "gt" / "double.mat", _IDS.astype(np.float64))
    _save(tmp_path / "gt" / "unlabelled.png", np.array([[0, 255, 3]], np.uint8))
    for labels, source in ((True, tmp_path / "gt"), (False, tmp_path)):  # said, and by the name of the folder
        out = tmp_path / f"out_{labels}"
        assert convert_dataset(source, out, to=to, labels=labels)["failed"] == {}
        for path in out.rglob(f"*.{to}"):
            expected = [[0, -1, 3]] if path.stem == "unlabelled" else _IDS.tolist()
            assert read_labels(path)[0, :, :, 0].tolist() == expected
        assert len(list(out.rglob("*.*"))) == 6
        # What would be converted again lies below the source.
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_colours_of_a_label_stay_exact(tmp_path: Path) -> None:
    _save(tmp_path / "in" / "a.png", _RGB)
    for to in ("npy", "mat", "tif"):
        convert_dataset(tmp_path / "in", tmp_path / to, to=to, labels=True)
        assert np.array_equal(read_frames(tmp_path / to / f"a.{to}").values[0], _RGB)


def test_a_label_never_becomes_a_jpeg_or_comes_from_one(tmp_path: Path) -> None:
    _save(tmp_path / "in" / "labels" / "a.png", _IDS)
    _save(tmp_path / "in" / "imgs" / "a.png", _GREY)
    report = convert_dataset(tmp_path / "in", tmp_path / "out", to="jpg")
    assert list(report["failed"]) == ["labels/a.png"] and "without loss" in report["failed"]["labels/a.png"]
    assert [str(path) for path in _content(tmp_path / "out")] == ["imgs/a.jpg"]
    with pytest.raises(MedsegError, match="labels must be stored without loss, got --to jpg"):
        convert_dataset(tmp_path / "in", tmp_path / "out", to="jpg", labels=True)
    _save(tmp_path / "lossy" / "a.jpg", _GREY)
    report = convert_dataset(tmp_path / "lossy", tmp_path / "out2", to="png", labels=True)
    assert "because it is a label, got JPEG" in report["failed"]["a.jpg"] and not (tmp_path / "out2").exists()


def test_nothing_is_overwritten_and_the_others_go_on(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.png", "c.png", "c.tif"):
        _save(source / name, _GREY if name != "c.tif" else _GREY + 1)
    (source / "broken.png").write_bytes(b"text")
    mine = _save(out / "b.npy", _RGB).read_bytes()
    report = convert_dataset(source, out, to="npy")
    assert list(report["failed"]) == ["b.png", "broken.png", "c.tif"]
    assert "must be new, got a file with other content" in report["failed"]["b.png"]
    assert (out / "b.npy").read_bytes() == mine
    assert np.array_equal(np.load(out / "a.npy"), _GREY) and np.array_equal(np.load(out / "c.npy"), _GREY)


def test_a_folder_can_be_converted_in_place_and_again(tmp_path: Path) -> None:
    for name in ("a.png", "x/b.png"):
        _save(tmp_path / name, _GREY)
    for to in ("mat", "mat", "npy"):
        assert convert_dataset(tmp_path, tmp_path, to=to)["failed"] == {}
    assert sorted(_content(tmp_path)) == ["a.mat", "a.npy", "a.png", "x/b.mat", "x/b.npy", "x/b.png"]


def test_results_below_the_source_are_not_converted(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", _GREY)
    for _ in range(2):
        convert_dataset(tmp_path, tmp_path / "out", to="tif")
    assert sorted(_content(tmp_path)) == ["a.png", "out/a.tif"]


def test_pages_survive_where_there_is_room_for_them(tmp_path: Path) -> None:
    pages = _RANDOM.integers(0, 256, (3, 6, 5)).astype(np.uint8)
    _save(tmp_path / "in" / "a.npy", pages)
    for to in ("tif", "mat"):
        assert convert_dataset(tmp_path / "in", tmp_path / to, to=to)["failed"] == {}
        assert np.array_equal(read_frames(tmp_path / to / f"a.{to}").values[..., 0], pages)
    report = convert_dataset(tmp_path / "in", tmp_path / "png", to="png")
    assert "must hold one picture, got 3 frames; choose tif" in report["failed"]["a.npy"]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    _save(tmp_path / "in" / "a.npy", np.linspace(0, 1, 12).reshape(3, 4))
    _save(tmp_path / "in" / "b.npy", np.array([[-1, 2]]))
    _save(tmp_path / "in" / "c.npy", np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    assert list(convert_dataset(tmp_path / "in", tmp_path / "png", to="png")["failed"]) == ["a.npy", "b.npy", "c.npy"]
    assert list(convert_dataset(tmp_path / "in", tmp_path / "tif", to="tif")["failed"]) == ["a.npy", "b.npy"]
    assert convert_dataset(tmp_path / "in", tmp_path / "mat", to="mat")["failed"] == {}


def test_a_folder_that_is_not_there_or_empty_is_one_line(tmp_path: Path) -> None:
    for source, words in (
        (tmp_path / "none", "folder of pictures, got none"),
        (tmp_path, "must hold pictures, got none"),
    ):
        with pytest.raises(MedsegError, match=words):
            convert_dataset(source, tmp_path / "out", to="png")
    with pytest.raises(MedsegError, match="format must be one of"):
        convert_dataset(tmp_path, tmp_path / "out", to="gif")


def test_0_and_255_become_0_and_1_and_other_labels_stay(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    binary = np.array([[0, 255, 255]], np.uint8)
    for name in ("a.png", "x/b.tif", "c.npy", "d.mat", "e.bmp"):
        _save(source / name, binary)
    _save(source / "rgb.png", np.repeat(binary[..., None], 3, axis=2))
    _save(source / "several.png", np.array([[0, 255, 3]], np.uint8))
    _save(source / "colours.png", np.array([[(255, 0, 0), (0, 0, 0)]], np.uint8))
    before = _content(source)
    assert map_label_values(source, out)["failed"] == {}
    for name in ("a.png", "x/b.tif", "c.npy", "d.mat", "e.bmp", "rgb.png"):
        assert read_frames(out / name, indices=True).values.squeeze().tolist() == [0, 1, 1], name
    for name in ("several.png", "colours.png"):
        assert (out / name).read_bytes() == before[name]
    assert _content(source) == before


def test_listed_values_change_at_once_and_others_stay(tmp_path: Path) -> None:
    _save(tmp_path / "in" / "a.png", np.array([[255, 128, 1, 7]], np.uint8))
    _save(tmp_path / "in" / "colours.png", _RGB)
    report = map_label_values(tmp_path / "in", tmp_path / "out", mapping={255: 1, 128: 2, 1: 255})
    assert read_frames(tmp_path / "out" / "a.png").values.squeeze().tolist() == [1, 2, 255, 7]
    assert list(report["failed"]) == ["colours.png"] and "must be grey or indices" in report["failed"]["colours.png"]
    with pytest.raises(MedsegError, match="must be another folder than the source"):
        map_label_values(tmp_path / "in", tmp_path / "in")


def test_black_pictures_are_left_out_with_their_labels(tmp_path: Path) -> None:
    nearly = np.zeros((20, 20), np.uint8)
    nearly[0, :5], nearly[5:] = 200, 5  # 5 of 400 pixels are bright
    for name, values in (
        ("seen", np.full((20, 20), 90, np.uint8)),
        ("black", np.zeros((20, 20), np.uint8)),
        ("dim", nearly),
    ):
        _save(tmp_path / "in" / "imgs" / "train" / f"{name}.png", values)
        _save(tmp_path / "in" / "labels" / "train" / f"{name}.png", np.ones((20, 20), np.uint8))
    before = _content(tmp_path / "in")
    report = drop_black(tmp_path / "in", tmp_path / "out")
    kept = [f"{folder}/train/{name}.png" for folder in ("imgs", "labels") for name in ("dim", "seen")]
    assert sorted(_content(tmp_path / "out")) == kept
    assert "imgs/train/black.png is left out: 100.0% of it is black" in report["lines"]
    drop_black(tmp_path / "in", tmp_path / "strict", share=0.98)
    assert sorted(_content(tmp_path / "strict")) == ["imgs/train/seen.png", "labels/train/seen.png"]
    assert _content(tmp_path / "in") == before
    for share in (0, 1.5):
        with pytest.raises(MedsegError, match="--share must be in"):
            drop_black(tmp_path / "in", tmp_path / "out", share=share)


@pytest.mark.parametrize(
    ("script", "options", "made"),
    [
        ("convert_dataset", ["--to", "npy"], "a.npy"),
        ("fix_label_pixel", ["--map", "255=1", "128=2"], "a.png"),
        ("remove_blacks", ["--share", "0.9"], "a.png"),
    ],
)
def test_the_scripts_say_what_they_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, options: list[str], made: str
) -> None:
    spec = importlib.util.spec_from_file_location(script, _SCRIPTS / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _save(tmp_path / "in" / "a.png", _GREY | 16)
    request = ["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options]
    assert module.main(request) == 0
    assert "1 of 1 pictures" in capsys.readouterr().out and list(_content(tmp_path / "out")) == [made]
    (tmp_path / "in" / "b.png").write_bytes(b"text")
    assert module.main(request) == 1
    assert "b.png must be a PNG" in capsys.readouterr().err
    if script == "fix_label_pixel":
        for pair in ("255", "x=1", "1=256", "1=-1"):
            with pytest.raises(MedsegError, match="must be pairs such as 255=1"):
                module.main([*request[:4], "--map", pair])
    if script == "convert_dataset":
        assert module._FORMATS == FORMATS


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared pictures")
def test_shared_labels_survive_a_round_trip(tmp_path: Path) -> None:
    source = Path(os.environ["MEDSEG_TEST_DATA"]) / "bench_suim8"
    (tmp_path / "in").mkdir()
    for path in sorted(source.glob("*.png"))[:2]:
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    convert_dataset(tmp_path / "in", tmp_path / "mat", to="mat", labels=True)
    assert convert_dataset(tmp_path / "mat", tmp_path / "png", to="png", labels=True)["failed"] == {}
    for path in (tmp_path / "in").iterdir():
        with Image.open(path) as first, Image.open(tmp_path / "png" / path.name) as second:
            assert np.array_equal(np.asarray(first), np.asarray(second))
