"""This file tests the command line: help without weight, mistakes as one line, and the right status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medseg.cli import run
from medseg.cli.verbs import app

VERBS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in app.registered_commands
    if command.callback
]


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_answers_without_torch_or_monai(arguments: list[str]) -> None:
    code = (
        "import sys; from medseg.cli import run; status = run(sys.argv[1:]);"
        "print(sorted({'torch', 'monai', 'numpy', 'scipy'} & set(sys.modules)), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Example" in done.stdout or arguments == ["--help"]


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train"], ["train", "tof_mra"], ["run", "--steps", "3"]], ids=" ".join
)
def test_wrong_usage_ends_with_status_2_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def mistake(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which a command fails."""
    assert run(["-q"] if not arguments else [*arguments, "-q"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medseg: ")]
    assert len(lines) == 1
    return lines[0]


def test_an_empty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "tof_mra", "--scans", str(tmp_path), "--run", str(tmp_path / "run")]
    assert str(tmp_path) in mistake(train, capsys)


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in mistake(["info", str(tmp_path / "nowhere")], capsys)


def test_an_unknown_config_names_the_shipped_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "tof", "--scans", str(tmp_path), "--run", str(tmp_path / "run")]
    assert "tof_mra" in mistake(train, capsys)


def test_a_wrong_key_names_the_right_one_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "tof_mra", "--scans", str(tmp_path), "--run", str(tmp_path / "run"), "--set", "stego.step=3"]
    assert "did you mean stego.steps?" in mistake(train, capsys)


def test_a_refinement_step_that_does_not_exist_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "tof_mra", "--scans", str(tmp_path), "--run", str(tmp_path / "run")]
    assert "radius_edge" in mistake([*train, "--set", "reconstruct.refine=[radius_egde]"], capsys)
    assert "q_min" in mistake([*train, "--set", "reconstruct.refine=[{radius_edge: {q: 1}}]"], capsys)


def test_a_file_where_the_output_folder_should_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    assert "got a file" in mistake(["demo", "-o", str(tmp_path / "out")], capsys)


def test_a_folder_that_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run.yaml" in mistake(["reconstruct", str(tmp_path), str(tmp_path), "-o", str(tmp_path / "out")], capsys)


def test_a_folder_without_results_cannot_be_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "medseg reconstruct" in mistake(["score", str(tmp_path), str(tmp_path)], capsys)


def test_an_unknown_phantom_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "vessels" in mistake(["phantom", "bones", "-o", str(tmp_path)], capsys)


@pytest.mark.parametrize(("words", "kind"), [([], "vessels"), (["vessels"], "vessels"), (["liver"], "liver")])
def test_phantoms_are_of_vessels_unless_another_kind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: str
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "medseg.workflows.phantom_folder.write_phantom_folder",
        lambda *given, **wanted: asked.append((*given, wanted["cases"], wanted["seed"])) or {"lines": []},
    )
    assert run(["phantom", *words, "-o", str(tmp_path), "--count", "2", "--seed", "5", "-q"]) == 0
    assert run(["phantom", *words, "--out", str(tmp_path), "--cases", "4", "-q"]) == 0
    assert asked == [(kind, tmp_path, 2, 5), (kind, tmp_path, 4, 0)]


def test_info_answers_a_program_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "--json", "-q"]) == 0
    assert "tof_mra" in json.loads(capsys.readouterr().out)["configs"]


def test_ctrl_c_leaves_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.workflows.information.describe", interrupted)
    assert run(["info", "-q"]) == 130
    assert capsys.readouterr().err.strip().count("\n") == 0
