"""This file tests that the published program's scripts hand to the workflows what their command lines ask for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import main_of
from PIL import Image
from skimage.io import imread

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.workflows import downloads, importing, precomputing, published_commands, reconstruction, training
from medseg.workflows.published_commands import read_config_file, read_request

PUBLISHED = """
output_root: OUT
pytorch_data_dir: DATA
experiment_name: "exp1"
log_dir: "voc12"
azureml_logging: True
num_workers: 2
max_steps: 5000
precompute_batch_size: 128
dataset_name: "directory"
dir_dataset_name: suim
dir_dataset_n_classes: 8
has_labels: False
crop_type: None
lr: 5e-4
pretrained_weights: ~
stop_at_zero: True
reset_probe_steps: ~
hydra:
  run:
    dir: "."
"""


class Recorder:
    """Stands for a workflow: keeps what it was called with."""

    def __init__(self, failed: dict[str, str] | None = None) -> None:
        self.calls: list[SimpleNamespace] = []
        self.failed = failed or {}

    def __call__(self, *args: Any, **named: Any) -> dict[str, Any]:
        self.calls.append(SimpleNamespace(args=args, **named))
        return {"lines": ["done"], "failed": self.failed}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(training, "train_run", recorder)
    return recorder


def test_options_are_written_in_three_ways_and_the_own_keys_come_last():
    for line in (
        ["max_steps=7", "stego.steps=9", "--scans", "a folder"],
        ["--max_steps", "7", "--stego.steps", "9", "--scans=a folder"],
        ["--max-steps=7", "+stego.steps=9", "--scans", "a folder"],
    ):
        asked = read_request(line, "train", "about")
        assert asked.overrides == ("stego.steps=7", "stego.steps=9") and asked.own_overrides == ("stego.steps=9",)
        assert asked.scans == Path("a folder") and asked.config == "pictures_dino"


@pytest.mark.parametrize("line", [["steps"], ["--max_steps"], ["folder", "max_steps=3"]])
def test_what_is_no_option_is_one_line(line: list[str]) -> None:
    with pytest.raises(MedsegError, match="options must be key=value or --key value"):
        read_request(line, "train", "about")


def test_a_published_file_is_read_and_the_command_line_beats_it(trained: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "train_config.yml"
    file.write_text(PUBLISHED, encoding="utf-8")
    main = main_of("train_segmentation")
    assert main(["--config_file", str(file), "--config", "pictures", "max_steps=70", "stego.batch=3"]) == 0
    (call,) = trained.calls
    assert call.args == ("pictures", Path("DATA/suim"), Path("OUT/checkpoints/voc12/suim_exp1"))
    expected = {"stego.steps=70", "stego.clusters=8", "stego.learning_rate=0.0005", "features.checkpoint=null"}
    assert expected < set(call.overrides) and "stego.steps=5000" not in call.overrides
    assert call.overrides[-1] == "stego.batch=3"
    assert call.labels is False  # has_labels of the file


def test_labels_are_read_unless_the_user_has_none(trained: Recorder) -> None:
    main = main_of("train_segmentation")
    assert main(["--scans", "x", "--run", "y"]) == 0
    assert main(["--scans", "x", "--run", "y", "has_labels=True"]) == 0
    assert not any(hasattr(call, "labels") for call in trained.calls)


def test_a_failed_case_is_in_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train_run", Recorder({"case": "reason"}))
    assert main_of("train_segmentation")(["--scans", "x", "--run", "y"]) == 1


def test_a_refused_and_a_missing_thing_stop_the_script(trained: Recorder) -> None:
    main = main_of("train_segmentation")
    with pytest.raises(MedsegError, match="use_true_labels must be left out"):
        main(["--scans", "x", "use_true_labels=True"])
    with pytest.raises(MedsegError, match="images must be given, got none; write --scans FOLDER"):
        main(["max_steps=5"])
    assert not trained.calls


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a: [", "must be a readable YAML file"), ("- a\n", "must hold options, got list"), (None, "No such file")],
)
def test_a_config_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "c.yml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(MedsegError, match=reason):
        read_config_file(file, "train")


def test_a_file_with_a_section_a_command_gives_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "master.yaml"
    file.write_text(
        "defaults: [base]\noutput_root: o\ntrain: {res: 224, lr: 1e-4}\neval: {res: 320, model_paths: [a, b]}\n"
        "dataset: {dir_dataset_name: d, crop_knn: {image_sets: [train]}}\n",
        encoding="utf-8",
    )
    train = {"output_root": "o", "res": "224", "lr": "1e-4", "dir_dataset_name": "d"}
    assert read_config_file(file, "train") == read_config_file(file, "knns") == train
    assert read_config_file(file, "eval") == {
        "output_root": "o", "res": "320", "model_paths": "a,b", "dir_dataset_name": "d"
    }  # fmt: skip


def test_a_config_file_builds_no_object(tmp_path: Path) -> None:
    file = tmp_path / "c.yml"
    file.write_text("lr: !!python/object/apply:os.system ['exit 3']\n", encoding="utf-8")
    assert read_config_file(file, "train") == {"lr": "exit 3"}  # a list of one word, nothing was run


def test_partners_are_computed_with_the_options_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(precomputing, "precompute_pairs", recorder)
    line = ["pytorch_data_dir=d", "dir_dataset_name=suim", "num_neighbors=9", "--frame", "2"]
    assert main_of("precompute_knns")(line) == 0
    (call,) = recorder.calls
    assert call.args == ("pictures_dino", Path("d/suim"), Path("checkpoints/suim_exp1"))
    assert "stego.neighbours=9" in call.overrides and call.intake.pick.frame == 2


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for a run which held nothing out."""
    monkeypatch.setattr(published_commands, "open_run", lambda folder: SimpleNamespace(inputs={}))
    monkeypatch.setattr("medseg.runs.open_run", lambda folder: SimpleNamespace(inputs={"a": {"split": "train"}}))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_the_demo_works_as_published_unless_told_otherwise(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(reconstruction, "reconstruct_run", recorder)
    line = [f"model_path={run}", "image_dir=photos", "experiment_name=mine", "res=320"]
    assert main_of("demo_segmentation")([*line, "reconstruct.refine=[]", "features.feature=KK"]) == 0
    (call,) = recorder.calls
    assert call.args == (run, Path("photos"), Path("results/predictions/mine"))
    assert call.overrides == (
        "reconstruct.flip=true", "reconstruct.refine=[crf]", "prepare.resize=320", "reconstruct.refine=[]"
    )  # fmt: skip
    with pytest.raises(MedsegError, match="model_path must name one run folder or STEGO checkpoint, got 0"):
        main_of("demo_segmentation")(["image_dir=photos"])


def test_a_checkpoint_becomes_a_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[tuple[Path, list[str]]] = []

    def import_stego(checkpoint: Path, folder: Path, *, config: str, overrides: list[str]) -> dict[str, Any]:
        imported.append((folder, overrides))
        folder.mkdir(parents=True)
        (folder / "run.yaml").touch()
        return {"lines": [config]}

    recorder = Recorder()
    monkeypatch.setattr(importing, "import_stego", import_stego)
    monkeypatch.setattr(reconstruction, "reconstruct_run", recorder)
    checkpoint = tmp_path / "potsdam_test.ckpt"
    checkpoint.write_bytes(b"one")
    line = [f"model_path={checkpoint}", "image_dir=p", f"output_root={tmp_path}", "patches.size=320", "naming.rules=x"]
    main = main_of("demo_segmentation")
    assert main(line) == main(line) == 0
    assert len(imported) == 1 and imported[0][1] == ["patches.size=320"]
    first = recorder.calls[0].args[0]
    assert first.parent == tmp_path / "checkpoints" / "imported" and first == recorder.calls[1].args[0]
    checkpoint.write_bytes(b"another")
    assert main(line) == 0 and len(imported) == 2 and recorder.calls[2].args[0] != first


def test_evaluation_scores_each_model_into_its_own_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = pytest.importorskip("medseg.workflows.evaluation")
    recorder = Recorder()
    monkeypatch.setattr(evaluation, "evaluate_run", recorder)
    other = run.parent / "other"
    other.mkdir()
    line = [
        f"model_paths=[{run}, {other}]", "--scans", "x", "run_crf=False", "dark_mode=True", "num_workers=3",
        "n_images=4", "res=96", "dataset_name=cocostuff3", "run_picie=False", "run_prediction=True",
    ]  # fmt: skip
    assert main_of("eval_segmentation")(line) == 0
    first, second = recorder.calls
    out = Path("results/predictions/exp1")
    assert first.args == (run, Path("x"), out / "run") and second.args == (other, Path("x"), out / "other")
    assert (first.crf, first.dark, first.processes, first.panels, first.export) == (False, True, 3, 4, True)
    assert first.scheme.name == "cocostuff3" and first.overrides == ("prepare.resize=96",) and not first.held_out
    with pytest.raises(MedsegError, match="model_paths must name a run folder or a STEGO checkpoint"):
        main_of("eval_segmentation")(["--scans", "x"])


def test_evaluation_of_a_run_that_held_images_out_scores_those(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = pytest.importorskip("medseg.workflows.evaluation")
    recorder = Recorder()
    monkeypatch.setattr(evaluation, "evaluate_run", recorder)
    monkeypatch.setattr("medseg.runs.open_run", lambda folder: SimpleNamespace(inputs={"a": {"split": "held_out"}}))
    assert main_of("eval_segmentation")(["--run", str(run), "--scans", "x", "-o", "y"]) == 0
    (call,) = recorder.calls
    assert call.held_out and call.args == (run, Path("x"), Path("y")) and not hasattr(call, "scheme")


def test_pictures_are_cropped_beside_the_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "my set" / "imgs" / "train"
    folder.mkdir(parents=True)
    Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)).save(folder / "a.png")
    line = [f"pytorch_data_dir={tmp_path}", "dir_dataset_name=my set", "crop_type=random", "crop_ratio=.25"]
    assert main_of("crop_datasets")(line) == 0
    made = tmp_path / "cropped" / "my set_random_crop_0.25"
    crops = sorted(made.rglob("*.png"))
    assert len(crops) == 5 and {imread(path).shape for path in crops} == {(16, 12)}
    assert main_of("crop_datasets")(["--scans", str(tmp_path / "my set"), "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o" / "my set_five_crop_0.5").is_dir()


def test_a_file_brought_another_way_is_checked_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brought = tmp_path / "x.pth"
    brought.write_bytes(b"weights")
    line = ["dino_deitsmall8_pretrain", "--from", str(brought), f"output_root={tmp_path / 'new'}"]
    assert main_of("download_models")(line) == 0
    written = tmp_path / "new" / "models" / "dino_deitsmall8_pretrain.pth"
    assert written.read_bytes() == b"weights"
    assert hash_file(brought) in written.with_name(f"{written.name}.sha256").read_text(encoding="utf-8")
    assert "no hash is published" in capsys.readouterr().out


def test_the_lists_name_every_address_and_fetch_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "build_opener", None)
    for script, known in (("download_models", downloads.MODELS), ("download_datasets", downloads.DATASETS)):
        assert main_of(script)(["--list"]) == 0
        shown = capsys.readouterr().out
        assert all(item.address in shown for item in known)


def test_data_sets_are_unpacked_where_the_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(downloads, "fetch", recorder)
    assert main_of("download_datasets")(["potsdam", f"pytorch_data_dir={tmp_path}"]) == 0
    (call,) = recorder.calls
    assert [item.name for item in call.args[0]] == ["potsdam.zip"] and call.args[1] == tmp_path and call.unpack
