"""This file tests cropped copies of data sets."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torchvision
import torchvision.transforms.functional
from PIL import Image
from torch import from_numpy

from medseg.errors import MedsegError
from medseg.scans.folders import find_cases
from medseg.scans.readers import read_image, read_labels
from medseg.scans.shipped_schemes import shipped_scheme
from medseg.workflows.cropping import crop_pictures, five_crops, random_crops


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three pictures of odd size in train and val; two have a label, partly unlabelled, with the classes 0, 1 and 7."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    for split, name in (("train", "a"), ("train", "ü b#1"), ("val", "c")):
        for kind in ("imgs", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (21, 34, 3), np.uint8)).save(folder / "imgs" / split / f"{name}.png")
        if name != "c":
            label = rng.choice(np.array([0, 1, 7, 255], np.uint8), (21, 34))
            Image.fromarray(label).save(folder / "labels" / split / f"{name}.png")
    return folder


@pytest.mark.parametrize(("shape", "ratio"), [((21, 34), 0.5), ((7, 5), 0.7), ((4, 4), 1.0)])
def test_five_crops_are_those_of_torchvision(shape: tuple[int, int], ratio: float) -> None:
    array = np.arange(shape[0] * shape[1]).reshape(shape)
    size = [int(shape[0] * ratio), int(shape[1] * ratio)]
    expected = torchvision.transforms.functional.five_crop(from_numpy(array), size)
    for crop, other in zip(five_crops(shape, ratio), expected, strict=True):
        assert (crop.cut(array) == other.numpy()).all()


def test_random_crops_reach_every_place_and_stay_inside():
    rng = np.random.default_rng(1)
    crops = [crop for _ in range(60) for crop in random_crops((4, 6), 0.5, rng)]
    assert {crop.row for crop in crops} == {0, 1, 2} and {crop.column for crop in crops} == {0, 1, 2, 3}
    assert {(crop.height, crop.width) for crop in crops} == {(2, 3)}
    assert {(crop.height, crop.width) for crop in random_crops((1, 1), 0.1, rng)} == {(1, 1)}


def test_images_and_labels_are_cut_alike_and_without_loss(source: Path, tmp_path: Path) -> None:
    answer = crop_pictures(source, tmp_path / "out", name="set", crop_type="random", ratio=0.5, seed=3)
    folder = tmp_path / "out" / "set_random_crop_0.5"
    assert answer["folder"] == str(folder) and answer["crops"] == 15 and not answer["failed"]
    with (folder / "crops.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["number"]) for row in rows] == list(range(15))
    names = {"c": ("val", "c")} | {row["case"]: ("train", row["case"]) for row in rows if row["split"] == "train"}
    assert {row["split"] for row in rows if row["case"] == "c"} == {"val"} and len(names) == 3
    originals = {path.stem: path for path in (source / "imgs").rglob("*.png")}
    for row in rows:
        stem = next(stem for stem in originals if stem in (row["case"], row["case"].removeprefix("train_")))
        box = np.s_[int(row["row"]) :, int(row["column"]) :]
        window = pixels_of(originals[stem])[box][: int(row["height"]), : int(row["width"])]
        assert (pixels_of(folder / "img" / row["split"] / f"{row['number']}.png") == window).all()
        label = folder / "label" / row["split"] / f"{row['number']}.png"
        assert label.is_file() == (stem != "c")
        if label.is_file():
            drawn = pixels_of(source / "labels" / row["split"] / f"{stem}.png")[box]
            assert (pixels_of(label) == drawn[: int(row["height"]), : int(row["width"])]).all()


def test_unlabelled_pixels_stay_unlabelled_beside_background_alone(tmp_path: Path) -> None:
    for kind in ("imgs", "labels"):
        (tmp_path / "s" / kind).mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "s" / "imgs" / "a.png")
    label = np.zeros((8, 8), np.uint8)
    label[:, 4:] = 255  # the corners on the left hold 0, those on the right 255
    label[0, 0], label[7, 7] = 1, 2
    Image.fromarray(label).save(tmp_path / "s" / "labels" / "a.png")
    crop_pictures(tmp_path / "s", tmp_path / "o", name="s", ratio=0.5)
    label_crops = tmp_path / "o" / "s_five_crop_0.5" / "label" / "train"
    read = [read_labels(label_crops / f"{number}.png").numpy()[0, :, :, 0] for number in range(5)]
    assert (read[1] == -1).all() and set(np.unique(read[2])) == {0}
    assert set(np.unique(read[4])) == {0, -1}  # 0 and 255 alone, which by value would be background and class 1


def test_grey_of_16_bits_keeps_them_and_grey_of_8_bits_is_8(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1001
    Image.fromarray(deep).save(tmp_path / "s" / "deep.png")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "s" / "flat.png")
    crop_pictures(tmp_path / "s", tmp_path / "o", name="s", ratio=1)
    crops = [pixels_of(tmp_path / "o" / "s_five_crop_1" / "img" / "train" / f"{n}.png") for n in (0, 5)]
    assert (crops[0] == deep).all() and crops[0].dtype == np.uint16 and crops[1].dtype == np.uint8


def test_the_copy_is_read_as_a_data_set_again(source: Path, tmp_path: Path) -> None:
    answer = crop_pictures(source, tmp_path / "out", name="set", ratio=0.5)
    listing = find_cases(Path(answer["folder"]))
    assert len(listing.cases) == 15 and len(listing.labels) == 10 and not listing.problems
    assert sorted(case.split or "" for case in listing.cases) == ["train"] * 10 + ["val"] * 5
    image = read_image(listing.cases[0].image)
    assert image.shape == (3, 10, 17, 1)


def test_colours_become_indices_and_the_scheme_goes_along(tmp_path: Path) -> None:
    for kind in ("imgs", "labels"):
        (tmp_path / "s" / kind).mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "s" / "imgs" / "a.png")
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4, :4] = (255, 255, 0)
    Image.fromarray(colours).save(tmp_path / "s" / "labels" / "a.png")
    suim = shipped_scheme("suim")
    folder = Path(crop_pictures(tmp_path / "s", tmp_path / "o", name="s", scheme=suim)["folder"])
    (fish,) = [value for value, name, _ in suim.classes if name == "fish"]
    assert (pixels_of(folder / "label" / "train" / "0.png") == fish).all()
    listing = find_cases(folder)
    assert listing.scheme is not None and (fish, "fish", "#ffff00") in listing.scheme.classes
    read = [read_labels(listing.labels[name], listing.scheme).numpy() for name in ("0", "1")]
    assert (read[0] == fish).all() and (read[1] == 0).all()


def test_every_frame_of_a_stack_is_cropped(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    pages = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "s" / "stack.tif", save_all=True, append_images=pages[1:])
    answer = crop_pictures(tmp_path / "s", tmp_path / "o", name="s")
    values = [
        pixels_of(path).max() for path in sorted((tmp_path / "o").rglob("*.png"), key=lambda path: int(path.stem))
    ]
    assert answer["crops"] == 15 and values == [10] * 5 + [20] * 5 + [30] * 5


def test_the_same_seed_crops_the_same_places_whatever_else_is_there(source: Path, tmp_path: Path) -> None:
    def places(out: str, seed: int) -> set[tuple[str, str, str]]:
        folder = Path(crop_pictures(source, tmp_path / out, name="s", crop_type="random", seed=seed)["folder"])
        with (folder / "crops.csv").open(newline="", encoding="utf-8") as stream:
            return {(row["case"], row["row"], row["column"]) for row in csv.DictReader(stream)}

    first, other = places("one", 0), places("two", 1)
    (source / "imgs" / "val" / "c.png").unlink()
    assert places("three", 0) == {place for place in first if place[0] != "c"}
    assert first != other
    assert {place[1:] for place in first if place[0] == "a"} != {place[1:] for place in first if place[0] == "c"}


def test_a_bad_picture_is_left_out_and_named(source: Path, tmp_path: Path) -> None:
    (source / "imgs" / "train" / "a.png").write_bytes(b"no picture")
    answer = crop_pictures(source, tmp_path / "out", name="set")
    assert answer["crops"] == 10 and "a.png" in next(iter(answer["failed"].values()))


@pytest.mark.parametrize(
    ("named", "reason"),
    [({"ratio": 0.0}, "crop_ratio must be in"), ({"crop_type": "six"}, "crop_type must be five or random, got six")],
)
def test_a_wrong_wish_is_one_line(source: Path, tmp_path: Path, named: dict[str, object], reason: str) -> None:
    with pytest.raises(MedsegError, match=reason):
        crop_pictures(source, tmp_path / "out", name="set", **named)  # type: ignore[arg-type]


def test_a_set_that_is_there_is_not_mixed_with_another(source: Path, tmp_path: Path) -> None:
    crop_pictures(source, tmp_path / "out", name="set")
    with pytest.raises(MedsegError, match="must be new, got a folder"):
        crop_pictures(source, tmp_path / "out", name="set")


def test_an_interrupted_run_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.workflows.cropping._write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crop_pictures(source, tmp_path / "out", name="set")
    assert list((tmp_path / "out").iterdir()) == []
