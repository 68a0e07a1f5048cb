"""This file tests the scripts that draw: how they read options, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import main_of
from PIL import Image

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, Naming, write_classes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = np.full((48, 64, 3), (40, 90, 160)) + rng.normal(0, 10, (48, 64, 3))
        label = np.zeros((48, 64), np.uint8)
        picture[10:30, 10:30], label[10:30, 10:30] = (200, 40, 40), 1
        Image.fromarray(np.uint8(np.clip(picture, 0, 255))).save(folder / f"{number}_img.png")
        Image.fromarray(label).save(folder / f"{number}_label.png")
    return folder


@pytest.mark.parametrize("style", ["{}={}", "--{}={}", "--{} {}"])
def test_correspondences_in_each_style_of_options(photos: Path, tmp_path: Path, style: str) -> None:
    options = {
        "image_dir": photos, "output_root": tmp_path, "config": "pictures_bank", "plot_movie": "gif", "frames": 2,
        "res": 48,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in style.format(name, value).split(" ")]
    assert main_of("plot_dino_correspondence")([*arguments, "prepare.resize=48"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{number}_correspondence.{kind}" for number in (0, 1) for kind in ("png", "gif")
    }


def test_several_pictures_and_points_and_the_movie_alone(photos: Path, tmp_path: Path) -> None:
    pictures = [str(photos / f"{number}_img.png") for number in (0, 1)]
    arguments = [
        "--image_dir",
        *pictures,
        "--points",
        "0.3,0.3",
        "0.9,0.9",
        "--frames",
        "4",
        "--config",
        "pictures_bank",
    ]
    told = [f"output_root={tmp_path}", "plot_correspondence=False", "plot_movie=True"]
    assert main_of("plot_dino_correspondence")([*arguments, *told]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0_correspondence.mp4"]


@pytest.mark.parametrize("wrong", [["points=1"], ["points=a,b"], ["plot_correspondence=false"], ["points=2,2"]])
def test_a_wrong_option_is_an_error_that_names_it(photos: Path, tmp_path: Path, wrong: list[str]) -> None:
    arguments = [f"image_dir={photos}", f"output_root={tmp_path}", "config=pictures_bank", *wrong]
    with pytest.raises(MedsegError, match=wrong[0].partition("=")[0]):
        main_of("plot_dino_correspondence")(arguments)


def test_precision_and_recall(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"image_dir={photos}", f"output_root={tmp_path}", "config=pictures_bank", "points=40"]
    assert main_of("plot_pr_curves")(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"precision_recall.png", "precision_recall.json"}
    assert "pairs within a picture: feature " in capsys.readouterr().out


def test_tiles_are_stitched(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for number in range(6):
        Image.fromarray(np.full((4, 4), number % 2, np.uint8)).save(results / f"town_{number}_seg.png")
    write_classes(results / "classes.yaml", Naming((ClassEntry(1, "a", "#ff0000"),), "hand"))
    arguments = [f"results={results}", f"output_root={tmp_path / 'out'}", "grid=2x3"]
    assert main_of("plot_potsdam")(arguments) == 0
    assert np.asarray(Image.open(tmp_path / "out" / "town_map_seg.png"))[::4, ::4].tolist() == [[0, 1, 0], [1, 0, 1]]
    with pytest.raises(MedsegError, match="30x30"):
        main_of("plot_potsdam")([f"results={results}", "grid=0x3"])
