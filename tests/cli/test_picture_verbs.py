"""The verbs for pictures do what they say on small folders, and mistakes in their options are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from workflows.scenes import write_scenes

from medseg.cli import run
from medseg.scans.folders import find_cases


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=2, val=1)
    return folder


def test_the_clear_view_is_drawn_beside_the_pictures(scenes: Path, tmp_path: Path) -> None:
    assert run(["clear-view", str(scenes), "-o", str(tmp_path), "--steps", "colour_cast,haze", "-q"]) == 0
    with Image.open(tmp_path / "clear_view.png") as page:
        assert min(page.size) > 300


def test_five_crops_of_each_picture_are_written_with_their_labels(scenes: Path, tmp_path: Path) -> None:
    assert run(["crop", str(scenes), "-o", str(tmp_path), "--name", "mine", "-q"]) == 0
    found = find_cases(tmp_path)
    assert (len(found.cases), len(found.labels)) == (15, 15)


def test_similar_places_are_drawn(scenes: Path, tmp_path: Path) -> None:
    picture = scenes / "imgs" / "val" / "val ü #0.png"
    arguments = ["correspond", str(picture), "-o", str(tmp_path), "--config", "pictures_bank", "--point", "0.2,0.5"]
    assert run([*arguments, "-q"]) == 0
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["choose", "run", "--clusters", "4;8"], "--clusters must be whole numbers with commas, got 4;8"),
        (["correspond", ".", "-o", "out", "--point", "3"], "--point must be two shares"),
        (["correspond", ".", "-o", "out", "--movie", "avi"], "--movie must be mp4 or gif, got avi"),
        (["clear-view", ".", "-o", "out", "--steps", "magic"], "magic"),
        (["evaluate", "run", ".", "-o", "out", "--classes", "nonsense"], "label scheme must be one of"),
        (["import", "missing.ckpt", "--run", "run"], "missing.ckpt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medseg: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []
