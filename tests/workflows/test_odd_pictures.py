"""Odd folders of pictures through the command line: good ones work, a bad one is one clear line and harms no other."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from workflows.scenes import scene

from medseg.cli import run
from medseg.files import hash_file

SMALL = [
    "--set", "prepare.resize=32", "--set", "patches.size=24", "--set", "patches.per_case=2", "--set", "stego.steps=3",
    "--set", "stego.batch=4", "--set", "stego.clusters=3", "--set", "stego.fit_points=300",
]  # fmt: skip
SIZE = (40, 48)
CapSys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("trained") / "run"
    write_good(source)
    assert run(train(source, folder)) == 0
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures with labels, `g0` and `g1`."""
    write_good(tmp_path / "pictures")
    return tmp_path / "pictures"


def write_good(folder: Path) -> None:
    for n in range(2):
        picture, labels = scene(n, SIZE)
        save(folder / "images" / f"g{n}.png", picture)
        save(folder / "labels" / f"g{n}.png", labels)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def train(folder: Path, to: Path, *more: str) -> list[str]:
    return ["train", "pictures_bank", "--scans", str(folder), "--run", str(to), "-q", *SMALL, *more]


def reconstruct(trained: Path, folder: Path, out: Path) -> list[str]:
    return ["reconstruct", str(trained), str(folder), "-o", str(out), "-q", "--set", "reconstruct.refine=[]"]


def evaluate(trained: Path, folder: Path, out: Path) -> list[str]:
    return ["evaluate", str(trained), str(folder), "-o", str(out), "-q", "--no-crf", "--panels", "0"]


def errors(capsys: CapSys, arguments: list[str]) -> list[str]:
    """The lines on which a command ends with status 1; each says what must be, what is there and what to do."""
    capsys.readouterr()
    status = run(arguments)
    said = capsys.readouterr()
    found = [line for line in said.err.splitlines() if line.startswith("medseg: ")]
    assert status == 1, said.err
    assert "Traceback" not in said.out + said.err
    assert found and all(re.search("must .+, got .+; .+", line) for line in found), said.err
    assert len(set(found)) == len(found), said.err
    return found


def masks(out: Path) -> dict[str, tuple[int, int]]:
    """Rows and columns of each mask by the name of its picture."""
    found = {}
    for path in out.glob("*_seg.png"):
        with Image.open(path) as mask:
            found[path.name.removesuffix("_seg.png")] = (mask.height, mask.width)
    return found


def contents(folder: Path) -> dict[Path, str]:
    return {path: hash_file(path) for path in folder.rglob("*") if path.is_file()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def bad_jpeg(path: Path) -> None:
    content = bytearray(save(path, scene(7, SIZE)[0]).read_bytes())
    content[20:200] = bytes(180)  # the tables that all pixels are decoded with
    path.write_bytes(content)


def cut_jpeg(path: Path) -> None:
    cut(save(path, scene(7, SIZE)[0]))


def text(path: Path) -> None:
    path.write_text("no picture")


def cut_video(path: Path) -> None:
    iio.imwrite(path, np.stack([scene(n, (48, 64))[0] for n in range(3)]), fps=5, codec="libx264")
    path.write_bytes(path.read_bytes()[:600])


BAD_PICTURES: dict[str, Callable[[Path], None]] = {
    "corrupt.jpg": bad_jpeg,
    "cut.jpg": cut_jpeg,
    "empty.png": Path.touch,
    "text.png": text,
    "video.mp4": cut_video,
}


# --- pictures that cannot be read


def test_bad_pictures_are_one_line_each_and_the_others_are_done(
    folder: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    for name, write in BAD_PICTURES.items():
        write(folder / "images" / name)
    lines = errors(capsys, reconstruct(trained, folder, tmp_path / "out"))
    assert [line.split()[1] for line in sorted(lines)] == [str(folder / "images" / name) for name in BAD_PICTURES]
    assert masks(tmp_path / "out") == {"g0": SIZE, "g1": SIZE}
    stems = tuple(Path(name).stem for name in BAD_PICTURES)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(stems)]


def test_many_pictures_of_which_none_can_be_read_are_a_line_each(tmp_path: Path, capsys: CapSys) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        text(tmp_path / "pictures" / f"{name}.png")
    lines = errors(capsys, train(tmp_path / "pictures", tmp_path / "run"))
    assert [Path(line.split()[1]).name for line in lines[:2]] == ["a.png", "b.png"]
    assert "got none of 2" in lines[2]


def test_training_goes_on_without_bad_pictures_and_labels(folder: Path, tmp_path: Path, capsys: CapSys) -> None:
    bad_jpeg(folder / "images" / "bad.jpg")
    small_label(folder / "labels" / "g1.png")
    lines = errors(capsys, train(folder, tmp_path / "run"))
    assert [line.split()[1] for line in lines] == [str(folder / "images/bad.jpg"), str(folder / "labels/g1.png")]
    assert run(reconstruct(tmp_path / "run", folder / "images" / "g0.png", tmp_path / "out")) == 0
    assert masks(tmp_path / "out") == {"g0": SIZE}


def test_the_command_of_stego_goes_on_too(folder: Path, trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    text(folder / "images" / "bad.png")
    capsys.readouterr()
    script = Path(__file__).parents[2] / "scripts" / "demo_segmentation.py"
    main = runpy.run_path(str(script))["main"]
    assert main(["--run", str(trained), "--scans", str(folder), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"medseg: {folder / 'images' / 'bad.png'} must be" in said
    assert masks(tmp_path / "out") == {"g0": SIZE, "g1": SIZE}


def test_a_picture_that_went_bad_leaves_its_earlier_result(
    folder: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    out = tmp_path / "out"
    assert run(reconstruct(trained, folder, out)) == 0
    before = {path: sha for path, sha in contents(out).items() if path.name != "summary.json"}
    cut(folder / "images" / "g1.png")
    assert "g1.png" in errors(capsys, reconstruct(trained, folder, out))[0]
    assert before.items() <= contents(out).items()


def test_a_folder_without_pictures_is_refused_by_every_command(trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    folder, out = tmp_path / "empty", tmp_path / "out"
    folder.mkdir()
    commands = (reconstruct(trained, folder, out), evaluate(trained, folder, out), train(folder, tmp_path / "run"))
    for arguments in (["info", str(folder)], *commands):
        [line] = errors(capsys, arguments)
        assert f"{folder} must hold at least one scan" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


# --- names


def test_any_name_works(trained: Path, tmp_path: Path) -> None:
    names = ["with space", "Größe ü", "no #1", "100%", "it's [1]", "-dash", "画像", "a{b}c"]
    for name in names:
        save(tmp_path / "pictures" / f"{name}.png", scene(1, SIZE)[0])
    assert run(reconstruct(trained, tmp_path / "pictures", tmp_path / "out")) == 0
    assert masks(tmp_path / "out") == dict.fromkeys(names, SIZE)


def test_equal_names_in_two_folders_are_two_cases(trained: Path, tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/c/d/y.png"):
        save(tmp_path / "pictures" / name, scene(1, SIZE)[0])
    assert run(reconstruct(trained, tmp_path / "pictures", tmp_path / "out")) == 0
    assert masks(tmp_path / "out") == dict.fromkeys(["a_x", "b_x", "y"], SIZE)


def test_two_photographs_of_one_name_are_named_and_the_others_are_done(
    folder: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    shutil.copy(folder / "images" / "g0.png", folder / "images" / "twin.png")
    save(folder / "images" / "twin.jpg", scene(3, SIZE)[0])
    [line] = errors(capsys, reconstruct(trained, folder, tmp_path / "out"))
    assert str(folder / "images" / "twin.png") in line
    assert str(folder / "images" / "twin.jpg") in line
    assert masks(tmp_path / "out") == {"g0": SIZE, "g1": SIZE}


# --- sizes and contents


def test_masks_of_tiny_thin_dark_and_large_pictures_have_their_size(trained: Path, tmp_path: Path) -> None:
    sizes = {"pixel": (1, 1), "flat": (1, 200), "thin": (200, 2), "large": (600, 900)}
    for name, size in sizes.items():
        save(tmp_path / "pictures" / f"{name}.png", np.resize(scene(1, SIZE)[0], (*size, 3)))
    save(tmp_path / "pictures" / "dark.png", np.zeros((*SIZE, 3), np.uint8))
    assert run(reconstruct(trained, tmp_path / "pictures", tmp_path / "out")) == 0
    assert masks(tmp_path / "out") == sizes | {"dark": SIZE}


@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_a_run_can_be_trained_on_one_odd_picture(size: tuple[int, int], tmp_path: Path) -> None:
    save(tmp_path / "pictures" / "only.png", np.resize(scene(1, SIZE)[0], (*size, 3)))
    assert run(train(tmp_path / "pictures", tmp_path / "run")) == 0


def test_videos_and_animations_get_a_mask_a_frame(trained: Path, tmp_path: Path) -> None:
    frames = np.stack([scene(n, (48, 64))[0] for n in range(3)])
    (tmp_path / "pictures").mkdir()
    iio.imwrite(tmp_path / "pictures" / "v.mp4", frames, fps=5, codec="libx264")
    iio.imwrite(tmp_path / "pictures" / "w.gif", frames)
    assert run(reconstruct(trained, tmp_path / "pictures", tmp_path / "out")) == 0
    for name in "vw":
        written = sorted((tmp_path / "out" / f"{name}_frames").glob("*_seg.png"))
        assert len(written) == len(frames)
        with Image.open(written[0]) as mask:
            assert mask.size == (64, 48)


# --- labels


def jpeg_label(label: Path) -> Path:
    label.unlink()
    return save(label.with_suffix(".jpg"), scene(1, SIZE)[1])


def small_label(label: Path) -> Path:
    return save(label, scene(1, SIZE)[1][::2, ::2])


def colour_label(label: Path) -> Path:
    return save(label, np.repeat(scene(1, SIZE)[1][..., None], 3, axis=-1) * np.array([80, 0, 3], np.uint8))


def text_label(label: Path) -> Path:
    label.write_text("no label")
    return label


def test_bad_labels_are_one_line_each_and_the_others_count(
    folder: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    spoilt = []
    for name, spoil in enumerate((colour_label, jpeg_label, small_label, text_label)):
        save(folder / "images" / f"{name}.png", scene(1, SIZE)[0])
        spoilt.append(str(spoil(save(folder / "labels" / f"{name}.png", scene(1, SIZE)[1]))))
    save(folder / "labels" / "g1.png", np.full(SIZE, 2, np.uint8))  # one class alone is none of them
    bad_jpeg(folder / "images" / "bad.jpg")
    save(folder / "labels" / "bad.png", scene(7, SIZE)[1])
    lines = errors(capsys, evaluate(trained, folder, tmp_path / "scores"))
    assert [line.split()[1] for line in lines] == [*spoilt, str(folder / "images" / "bad.jpg")]
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["images"] == 2
    (folder / "images" / "bad.jpg").unlink()
    assert run(reconstruct(trained, folder, tmp_path / "out")) == 0  # which looks at no label
    assert masks(tmp_path / "out") == dict.fromkeys(["0", "1", "2", "3", "g0", "g1"], SIZE)


def test_a_value_that_nobody_named_is_told_with_its_file(folder: Path, tmp_path: Path, capsys: CapSys) -> None:
    classes = "".join(f"  - {{value: {n}, name: class {n}, colour: '#0000{n}0'}}\n" for n in (1, 2, 3))
    (folder / "classes.yaml").write_text(f"classes:\n{classes}")
    labels = scene(1, SIZE)[1]
    labels[0, :5] = 77
    save(folder / "labels" / "g1.png", labels)
    [line] = errors(capsys, train(folder, tmp_path / "run"))
    assert str(folder / "labels" / "g1.png") in line
    assert "got 77 in 5 pixels" in line


# --- where results go


def test_a_result_folder_that_is_a_file_is_refused(folder: Path, trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    target = tmp_path / "taken"
    target.write_text("mine")
    for arguments in (reconstruct(trained, folder, target), evaluate(trained, folder, target), train(folder, target)):
        [line] = errors(capsys, arguments)
        assert str(target) in line
    assert target.read_text() == "mine"


def test_a_result_folder_that_cannot_be_written_is_refused(
    folder: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    target = tmp_path / "closed"
    target.mkdir(mode=0o500)
    if os.access(target, os.W_OK):
        pytest.skip("who may write everywhere")
    for arguments in (reconstruct(trained, folder, target), evaluate(trained, folder, target), train(folder, target)):
        [line] = errors(capsys, arguments)
        assert str(target) in line
    assert not any(target.iterdir())


# --- shared pictures


def test_all_kinds_of_stored_pictures_get_masks_of_their_size(trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    shared = Path(os.environ.get("MEDSEG_TEST_DATA", "")) / "awkward" / "two_d_images"
    if "MEDSEG_TEST_DATA" not in os.environ or not shared.is_dir():
        pytest.skip("MEDSEG_TEST_DATA names no folder with them")
    [line] = errors(capsys, reconstruct(trained, shared, tmp_path))
    assert "gray must have one image, got 4" in line
    assert len(masks(tmp_path)) == 11  # the twelfth has pages
    assert masks(tmp_path)["wide_1500x40"] == (40, 1500)
    assert len(list((tmp_path / "four_pages_frames").glob("*_seg.png"))) == 4
