"""Bad input through the command line: one clear line, a status that is not zero, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml

from medseg.cli import run
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms
from medseg.workflows import training

SMALL = [
    "--set", "stego.steps=3", "--set", "stego.batch=4", "--set", "patches.per_case=8", "--set", "patches.size=24",
    "--set", "stego.fit_points=300", "--set", "stego.clusters=4", "--set", "prepare.brain_mask=none",
]  # fmt: skip
CASES = ("phantom_001", "phantom_002")
CapSys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, cases=2, seed=5, shape=(36, 32, 28), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(train(scans, folder, "-q")) == 0
    return folder


@pytest.fixture(scope="module")
def results(scans: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "out"
    assert run(reconstruct(trained, scans, folder, "-q")) == 0
    return folder


@pytest.fixture
def image(scans: Path) -> Path:
    return scans / "phantom_001_img.nii.gz"


def train(scans: Path, folder: Path, *more: str, config: str | Path = "tof_mra_bank") -> list[str]:
    return ["train", str(config), "--scans", str(scans), "--run", str(folder), *SMALL, *more]


def reconstruct(folder: Path, scans: Path, out: Path, *more: str) -> list[str]:
    return ["reconstruct", str(folder), str(scans), "-o", str(out), *more]


def score(out: Path, references: Path, *more: str) -> list[str]:
    return ["score", str(out), str(references), *more]


def mistake(capsys: CapSys, arguments: list[str], *, lines: int = 1) -> str:
    """The line (or lines, one a bad case) on which a command fails, in the form every error has."""
    capsys.readouterr()
    status = run(arguments)
    said = capsys.readouterr()
    assert status == 1, said.err
    assert "Traceback" not in said.out + said.err
    errors = [line for line in said.err.splitlines() if line.startswith("medseg: ")]
    assert len(errors) == lines, said.err
    for line in errors:
        assert re.search("must .+, got .+; .+", line), line
    return "\n".join(errors)


def said(capsys: CapSys, arguments: list[str]) -> str:
    """Everything that a command which succeeds says."""
    capsys.readouterr()
    assert run(arguments) == 0
    spoken = capsys.readouterr()
    return spoken.out + spoken.err


def contents(folder: Path) -> dict[Path, str]:
    return {path: hash_file(path) for path in folder.rglob("*") if path.is_file()}


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def one_case(scans: Path, target: Path) -> Path:
    """A folder with one scan, its mask and its label."""
    target.mkdir()
    for path in scans.glob("phantom_001_*.nii.gz"):
        shutil.copy(path, target)
    return target


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def same_weights(one: Path, other: Path) -> bool:
    # but the linear probe's, which is made of labels
    weights = [path.relative_to(one) for path in one.rglob("*.safetensors") if path.parent.name != "linear"]
    return len(weights) == 3 and all(hash_file(one / path) == hash_file(other / path) for path in weights)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    affine = np.diag([0.7, 0.7, 0.8, 1]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    resource = pytest.importorskip("resource", reason="only POSIX limits the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- scans


def broken_scan(kind: str, folder: Path, image: Path) -> Path:
    values = np.random.default_rng(0).normal(100, 10, (20, 18, 16)).astype(np.float32)
    path = folder / f"{kind}.nii.gz"
    match kind:
        case "nan":
            return save(path, values * np.nan)
        case "constant":
            return save(path, values * 0 + 7)
        case "frames":
            return save(path, np.stack([values] * 3, axis=-1))
        case "cut":
            shutil.copy(image, path)
            cut(path)
        case "empty":
            path.touch()
        case "text":
            path.write_text("no scan", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["nan", "constant", "frames", "cut", "empty", "text"])
def test_a_broken_scan_is_one_line_that_names_it(
    kind: str, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    scan = broken_scan(kind, tmp_path, image)
    assert str(scan) in mistake(capsys, reconstruct(trained, scan, tmp_path / "out", "-q"))
    assert str(scan) in mistake(capsys, train(scan, tmp_path / "run", "-q"))
    assert not (tmp_path / "out").exists()


def test_broken_scans_do_not_stop_the_others(
    trained: Path, scans: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    mixed, one = copied(scans, tmp_path / "scans"), one_case(scans, tmp_path / "one")
    for kind in ("nan", "text"):
        broken_scan(kind, mixed, image)
        broken_scan(kind, one, image)
    assert "nan.nii.gz" in mistake(capsys, reconstruct(trained, one, tmp_path / "out"), lines=2)
    assert [path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")] == ["phantom_001_seg.nii.gz"]
    assert "text.nii.gz" in mistake(capsys, train(mixed, tmp_path / "run"), lines=2)
    assert same_weights(trained, tmp_path / "run")
    assert "text.nii.gz" in mistake(capsys, ["info", str(mixed)])


@pytest.mark.parametrize("verb", ["train", "reconstruct", "info"])
def test_a_folder_without_an_image_is_one_line(
    verb: str, trained: Path, scans: Path, tmp_path: Path, capsys: CapSys
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    arguments = {
        "train": train(nothing, tmp_path / "run"),
        "reconstruct": reconstruct(trained, nothing, tmp_path / "out"),
        "info": ["info", str(nothing)],
    }[verb]
    assert str(nothing) in mistake(capsys, arguments)
    shutil.copy(scans / "phantom_001_label.nii.gz", nothing)
    assert "label without a scan: phantom_001_label.nii.gz" in mistake(capsys, arguments)


def test_a_scan_that_is_not_there_any_more_is_left_out(
    trained: Path, scans: Path, tmp_path: Path, capsys: CapSys
) -> None:
    linked = one_case(scans, tmp_path / "scans")
    try:
        (linked / "gone_img.nii.gz").symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("no right to make links")
    assert "gone_img.nii.gz" in mistake(capsys, reconstruct(trained, linked, tmp_path / "out"))
    assert (tmp_path / "out" / "phantom_001_seg.nii.gz").is_file()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="who may read everything")
def test_a_folder_that_may_not_be_read_is_said(trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert "no permission" in mistake(capsys, reconstruct(trained, closed, tmp_path / "out"))


def test_the_same_scan_twice_is_an_error_of_that_case(
    trained: Path, scans: Path, tmp_path: Path, capsys: CapSys
) -> None:
    twice = copied(scans, tmp_path / "scans")
    shutil.copy(twice / "phantom_001_img.nii.gz", twice / "phantom_001_tof.nii.gz")
    assert "phantom_001_tof" in mistake(capsys, reconstruct(trained, twice, tmp_path / "out", "-q"))
    assert [path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")] == ["phantom_002_seg.nii.gz"]


def test_of_two_labels_beside_one_given_scan_none_is_taken(
    trained: Path, scans: Path, tmp_path: Path, capsys: CapSys
) -> None:
    for name in ("a_img.nii.gz", "a_label.nii.gz", "a_seg.nii.gz"):
        shutil.copy(scans / f"phantom_001_{'img' if 'img' in name else 'label'}.nii.gz", tmp_path / name)
    assert "2 labels beside" in said(capsys, reconstruct(trained, tmp_path / "a_img.nii.gz", tmp_path / "out"))


# --- labels


def moved_label(scans: Path, target: Path, voxels: float) -> Path:
    folder = copied(scans, target)
    path = folder / "phantom_001_label.nii.gz"
    label = nibabel.load(path)
    affine = label.affine.copy()
    affine[:3, 3] += voxels * affine[:3, 0]
    save(path, np.asarray(label.dataobj), affine)
    return folder


def test_a_label_on_another_grid_is_refused_and_the_others_are_scored(
    scans: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    moved = moved_label(scans, tmp_path / "moved", 1)
    line = mistake(capsys, score(results, moved, "-o", str(tmp_path / "scores")))
    assert "phantom_001_label.nii.gz must lie on the grid" in line
    table = json.loads((tmp_path / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert {row["case_id"] for row in table["rows"]} == {"phantom_002"}


def test_a_training_label_on_another_grid_is_left_out_and_changes_nothing(
    scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    moved = moved_label(scans, tmp_path / "moved", 1)
    line = mistake(capsys, train(moved, tmp_path / "run"))
    assert "phantom_001_label.nii.gz must lie on the grid" in line
    assert same_weights(trained, tmp_path / "run")


def test_a_label_that_is_hardly_off_is_taken_and_that_is_said(
    scans: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    moved = moved_label(scans, tmp_path / "moved", 1e-4)
    assert "which is tolerated" in said(capsys, score(results, moved, "-o", str(tmp_path / "scores")))


def test_references_may_be_a_csv_one_file_or_an_nnunet_folder(
    scans: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    label = scans / "phantom_001_label.nii.gz"
    table = tmp_path / "references.csv"
    image = scans / "phantom_001_img.nii.gz"
    table.write_text(f"case,patient,image,mask,label\nphantom_001,p,{image},,{label}\n", encoding="utf-8")
    nnunet = tmp_path / "nnunet"
    for folder, role, ending in (("imagesTr", "img", "_0000"), ("labelsTr", "label", "")):
        (nnunet / folder).mkdir(parents=True)
        shutil.copy(scans / f"phantom_001_{role}.nii.gz", nnunet / folder / f"phantom_001{ending}.nii.gz")
    for number, references in enumerate((table, label, nnunet)):
        into = tmp_path / str(number)
        said(capsys, score(results, references, "-o", str(into)))
        assert "phantom_001" in (into / "evaluation_results.txt").read_text(encoding="utf-8")
    tables = [(tmp_path / f"{number}" / "scores.csv").read_bytes() for number in range(3)]
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--region", "foot"], "--region"), (["--scans", "nowhere"], "--scans")],
    ids=lambda value: str(value[-1]),
)
def test_a_wrong_option_of_score_is_said(
    more: list[str], words: str, scans: Path, results: Path, capsys: CapSys
) -> None:
    assert words in mistake(capsys, score(results, scans, *more))


def test_wrong_references_are_said_before_training(scans: Path, tmp_path: Path, capsys: CapSys) -> None:
    everything = ["run", "tof_mra_bank", "--scans", str(scans), "-o", str(tmp_path / "out"), *SMALL]
    assert "nowhere" in mistake(capsys, [*everything, "--references", str(tmp_path / "nowhere")])
    assert "--region" in mistake(capsys, [*everything, "--region", "foot"])
    assert not (tmp_path / "out").exists()


# --- config and weights


def test_rules_that_ask_the_student_want_its_features(scans: Path, tmp_path: Path, capsys: CapSys) -> None:
    run = tmp_path / "run"
    words = ["train", "tof_mra_bank", "--scans", str(scans), "--run", str(run), "--set", "naming.rules=tof_mra_student"]
    line = mistake(capsys, words)
    assert "mean_answer" in line and "filter_bank" in line and "naming.rules" in line
    assert not run.exists()


@pytest.mark.parametrize(
    "change",
    [
        "reconstruct.plane=axial", "reconstruct.planes=[]", "reconstruct.planes=[oblique]", "reconstruct.method=best",
        "stego.steps=3", "naming.rules=nowhere", "naming.source=hand", "prepare.spacing=[0, 1, 1]",
        "prepare.spacing=[.nan, 1, 1]", "prepare.spacing=[.inf, 1, 1]", "run.devices=0", "reconstruct.refine=[3]",
    ],
)  # fmt: skip
def test_a_wrong_change_is_refused(change: str, trained: Path, image: Path, tmp_path: Path, capsys: CapSys) -> None:
    key = change.partition("=")[0]
    line = mistake(capsys, reconstruct(trained, image, tmp_path / "out", "--set", change))
    assert key in line or key.partition(".")[0] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stego: {stepz: 3}", "did you mean stego.steps?"), ("- 1", "must hold sections"), ("stego: 3", "stego"),
        ("stego: [", "readable YAML"), ("3: {4: 5}", "strings"), ("extends: [a]", "extends"),
        ("features: {backbone: []}", "backbone"),
        ("prepare: {spacing: !!python/object/apply:os.system ['touch UNSAFE_LOAD_HAPPENED']}", "constructor"),
    ],
)  # fmt: skip
def test_a_wrong_config_file_is_one_line(
    text: str, words: str, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.yaml"
    config.write_text(text, encoding="utf-8")
    line = mistake(capsys, [*train(scans, tmp_path / "run", config=config)[:6]])
    assert "mine.yaml" in line
    assert words in line
    assert not (tmp_path / "UNSAFE_LOAD_HAPPENED").exists()
    assert not (tmp_path / "run").exists()


def test_hand_written_classes_of_another_run_are_refused(
    trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    classes = tmp_path / "classes.yaml"
    by_hand = ["--set", "naming.source=hand", "--set", f"naming.classes={classes}"]
    assert str(classes) in mistake(capsys, reconstruct(trained, image, tmp_path / "out", *by_hand))
    classes.write_text("classes:\n  - {value: 1, name: vessel, clusters: [99]}\n", encoding="utf-8")
    assert "got 99" in mistake(capsys, reconstruct(trained, image, tmp_path / "out", *by_hand))


def test_a_device_that_is_not_there_is_one_line(trained: Path, image: Path, tmp_path: Path, capsys: CapSys) -> None:
    device = next(
        (name for name, has in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if not has.is_available()), None
    )
    if device is None:
        pytest.skip("this machine has every device")
    assert device in mistake(capsys, reconstruct(trained, image, tmp_path / "out", "--set", f"run.device={device}"))


class _Unsafe:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch UNSAFE_LOAD_HAPPENED",)


def test_missing_weights_and_a_pickle_with_code_are_refused_and_nothing_is_run(
    scans: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: CapSys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert "features.checkpoint" in mistake(capsys, train(scans, tmp_path / "run", config="tof_mra_dino"))
    weights = tmp_path / "weights.ckpt"
    chosen = ["--set", f"features.checkpoint={weights}"]
    assert str(weights) in mistake(capsys, train(scans, tmp_path / "run", *chosen, config="tof_mra_dino"))
    for write in (lambda path: path.write_bytes(pickle.dumps(_Unsafe())), lambda path: torch.save(_Unsafe(), path)):
        write(weights)
        assert str(weights) in mistake(capsys, train(scans, tmp_path / "run", *chosen, config="tof_mra_dino"))
        resumed = copied(trained, tmp_path / "resumed")
        shutil.copy(weights, resumed / "checkpoints" / "last.pt")
        assert "last.pt" in mistake(capsys, train(scans, resumed))
        shutil.rmtree(resumed)
    assert not (tmp_path / "UNSAFE_LOAD_HAPPENED").exists()
    assert not (tmp_path / "run").exists()


# --- places to write to


@pytest.mark.parametrize("below", [False, True], ids=["itself", "above it"])
def test_a_file_where_a_folder_should_be_is_said_before_any_work(
    below: bool, scans: Path, trained: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    out = file / "out" if below else file
    for arguments in (
        train(scans, out),
        train(scans, tmp_path / "run", "--set", f"features.store={out}"),
        reconstruct(trained, scans, out),
        score(results, scans, "-o", str(out)),
        ["run", "tof_mra_bank", "--scans", str(scans), "-o", str(out)],
        ["demo", "-o", str(out)],
        ["phantom", "vessels", "-o", str(out)],
    ):
        assert str(out) in mistake(capsys, arguments)
    assert file.read_text(encoding="utf-8") == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_stops_reconstruction_with_one_line_and_keeps_earlier_results(
    image: Path, trained: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    new, earlier = tmp_path / "new", copied(results, tmp_path / "earlier")
    with full_disk(200):
        assert str(new / "phantom_001_seg") in mistake(capsys, reconstruct(trained, image, new, "-q"))
    with full_disk(30_000):
        again = reconstruct(trained, image, earlier, "-q", "--set", "reconstruct.method=kmeans")
        assert str(earlier / "phantom_001_prob") in mistake(capsys, again)
    assert not list(tmp_path.rglob("*.part.*"))
    assert hash_file(earlier / "phantom_001_prob.nii.gz") == hash_file(results / "phantom_001_prob.nii.gz")
    said(capsys, reconstruct(trained, image, new, "-q"))
    mask = "phantom_001_seg.nii.gz"
    assert hash_file(new / mask) == hash_file(results / mask)


@pytest.mark.parametrize("size", [500, 50_000])
def test_a_full_disk_stops_training_with_one_line_and_it_goes_on_later(
    size: int, scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    with full_disk(size):
        line = mistake(capsys, train(scans, tmp_path / "run", "-q"))
    assert str(tmp_path / "run") in line
    assert "SCANS" not in line  # no scan is to blame
    assert not list(tmp_path.rglob("*.part.*"))
    said(capsys, train(scans, tmp_path / "run", "-q"))
    assert same_weights(trained, tmp_path / "run")


@pytest.mark.parametrize("file", ["tensorboard", "last.pt"])
def test_a_full_disk_in_the_middle_of_training_is_one_line_too(
    file: str, scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    begun = copied(trained, tmp_path / "run")
    for folder in ("checkpoints", "methods", "tensorboard"):
        shutil.rmtree(begun / folder)
    sizes = [path.stat().st_size for path in trained.glob("tensorboard/*" if file == "tensorboard" else "*/last.pt")]
    with full_disk(sizes[0] - 500):
        assert str(begun) in mistake(capsys, train(scans, begun, "-q"))
    assert not list(begun.rglob("*.part.*"))
    said(capsys, train(scans, begun, "-q"))
    assert same_weights(trained, begun)


def test_a_full_disk_keeps_earlier_scores(scans: Path, results: Path, tmp_path: Path, capsys: CapSys) -> None:
    out = copied(results, tmp_path / "out")
    said(capsys, score(out, scans, "-q"))
    before = contents(out)
    with full_disk(500):
        assert str(out / "scores.csv") in mistake(capsys, score(out, scans, "-q", "--region", "brain"))
    assert contents(out) == before


def test_results_never_replace_a_file_beside_the_scans(
    scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    mine = copied(scans, tmp_path / "mine")
    (mine / "phantom_001_label.nii.gz").rename(mine / "phantom_001_seg.nii.gz")
    before = contents(mine)
    assert "phantom_001_seg.nii.gz" in mistake(capsys, reconstruct(trained, mine, mine))
    assert contents(mine) == before


def test_results_inside_the_scans_are_skipped_and_that_is_said(
    scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    mine = one_case(scans, tmp_path / "mine")
    said(capsys, reconstruct(trained, mine, mine / "out"))
    before = contents(mine)
    again = said(capsys, reconstruct(trained, mine, mine / "out"))
    assert "out is where results go and is skipped" in again
    assert "1 of 1 cases are done already" in again
    assert contents(mine) == before
    assert "out holds results of medseg and is skipped" in said(capsys, ["info", str(mine)])


def test_what_lacks_a_partner_is_said_and_no_error(scans: Path, tmp_path: Path, capsys: CapSys) -> None:
    mine = copied(scans, tmp_path / "mine")
    (mine / "phantom_001_mask.nii.gz").unlink()
    (mine / "phantom_002_label.nii.gz").rename(mine / "alone_label.nii.gz")
    spoken = said(capsys, train(mine, tmp_path / "run"))
    for words in ("label without a scan: alone_label", "no brain mask for phantom_001", "no label for phantom_002"):
        assert words in spoken


def test_no_held_out_case_is_one_line(scans: Path, trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    assert "--held-out" in mistake(capsys, reconstruct(trained, scans, tmp_path / "out", "--held-out"))


# --- runs and results that were changed


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("patches", "size", 32),
        ("patches", "magnification", 2),
        ("patches", "neighbours", 1),
        ("features", "backbone", ["no_such"]),
    ],
)
def test_a_run_of_another_backbone_or_patch_geometry_is_refused(
    section: str, key: str, value: Any, scans: Path, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    other = copied(trained, tmp_path / "run")
    content = yaml.safe_load((other / "run.yaml").read_text(encoding="utf-8"))
    content["config"][section][key] = value
    (other / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    mistake(capsys, reconstruct(other, image, tmp_path / "out"))
    before = contents(trained)
    mistake(capsys, train(scans, trained, "--set", f"{section}.{key}={json.dumps(value)}"))
    (other / "run.yaml").unlink()
    mistake(capsys, train(scans, other, "--set", f"{section}.{key}={json.dumps(value)}"))
    assert contents(trained) == before


def test_later_sections_may_change(trained: Path, image: Path, tmp_path: Path, capsys: CapSys) -> None:
    changes = ("prepare.spacing=[1, 1, 1]", "naming.source=training_labels", "reconstruct.refine=[]")
    before = contents(trained)
    said(capsys, reconstruct(trained, image, tmp_path / "out", "-q", *(f"--set={change}" for change in changes)))
    assert contents(trained) == before


@pytest.mark.parametrize("text", [None, "", "words", "[1, 2]", "{config: 3}", "\x00"], ids=repr)
def test_a_damaged_run_record_is_one_line(
    text: str | None, scans: Path, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(trained, tmp_path / "run")
    record = damaged / "run.yaml"
    cut(record) if text is None else record.write_text(text, encoding="utf-8")
    for arguments in (reconstruct(damaged, image, tmp_path / "out"), train(scans, damaged), ["info", str(damaged)]):
        assert str(record) in mistake(capsys, arguments)


@pytest.mark.parametrize("inputs", [3, {"a": 3}, {"a": {}}], ids=str)
def test_damaged_inputs_of_a_run_are_one_line(inputs: Any, trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    damaged = copied(trained, tmp_path / "run")
    content = yaml.safe_load((damaged / "run.yaml").read_text(encoding="utf-8"))
    (damaged / "run.yaml").write_text(yaml.safe_dump({**content, "inputs": inputs}), encoding="utf-8")
    assert "run.yaml" in mistake(capsys, ["info", str(damaged)])


@pytest.mark.parametrize("text", [None, "[]", "{}", '{"cards": [{}]}', '{"cards": []}'], ids=repr)
@pytest.mark.parametrize("name", ["cards.json", "features.json"])
def test_a_damaged_file_of_a_method_is_one_line(
    name: str, text: str | None, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(trained, tmp_path / "run")
    file = damaged / "methods" / "stego" / name
    cut(file) if text is None else file.write_text(text, encoding="utf-8")
    assert str(file) in mistake(capsys, reconstruct(damaged, image, tmp_path / "out"))


@pytest.mark.parametrize("name", ["method.json", "weights.safetensors"])
def test_a_cut_file_of_a_method_is_one_line(
    name: str, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(trained, tmp_path / "run")
    cut(damaged / "methods" / "stego" / name)
    assert str(damaged / "methods" / "stego") in mistake(capsys, reconstruct(damaged, image, tmp_path / "out"))


def test_a_cut_checkpoint_is_one_line(scans: Path, trained: Path, tmp_path: Path, capsys: CapSys) -> None:
    damaged = copied(trained, tmp_path / "run")
    cut(damaged / "checkpoints" / "last.pt")
    assert "last.pt" in mistake(capsys, train(scans, damaged))


@pytest.mark.parametrize("name", ["features.npy", "locations.npy", "index.json"])
def test_damaged_features_are_computed_again(
    name: str, scans: Path, trained: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(trained, tmp_path / "run")
    for file in damaged.glob(f"features/*/{name}"):
        cut(file)
    said(capsys, train(scans, damaged, "-q"))
    assert same_weights(trained, damaged)
    for file in damaged.glob(f"features/*/{name}"):
        assert hash_file(file) == hash_file(trained / file.relative_to(damaged))


def test_a_damaged_manifest_is_one_line_for_score_and_made_again_by_reconstruct(
    scans: Path, trained: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(results, tmp_path / "out")
    manifest, foreign = (damaged / f"{case}_manifest.json" for case in ("phantom_001", "foreign"))
    whole = manifest.read_text(encoding="utf-8")
    label = scans / "phantom_001_label.nii.gz"
    for text in (whole[:-9], "[]", "{}", '{"case": "phantom_001"}', whole.replace('"case": "', '"case": "../')):
        manifest.write_text(text, encoding="utf-8")
        assert str(manifest) in mistake(capsys, score(damaged, label))
    foreign.write_text("{}", encoding="utf-8")
    assert foreign.name in said(capsys, reconstruct(trained, scans, damaged))
    cases = json.loads((damaged / "summary.json").read_text(encoding="utf-8"))["cases"]
    assert [entry["case"] for entry in cases] == list(CASES)


@pytest.mark.parametrize("name", ["summary.json", "classes.yaml"])
@pytest.mark.parametrize("text", [None, "[]", "words"], ids=repr)
def test_a_damaged_shared_file_is_one_line_for_score(
    name: str, text: str | None, scans: Path, results: Path, tmp_path: Path, capsys: CapSys
) -> None:
    damaged = copied(results, tmp_path / "out")
    cut(damaged / name) if text is None else (damaged / name).write_text(text, encoding="utf-8")
    assert str(damaged / name) in mistake(capsys, score(damaged, scans))


def test_a_run_that_failed_before_its_first_step_makes_way_for_a_corrected_one(
    scans: Path, trained: Path, image: Path, tmp_path: Path, capsys: CapSys
) -> None:
    mistake(capsys, train(broken_scan("constant", tmp_path, image), tmp_path / "run"))
    said(capsys, train(scans, tmp_path / "run", "-q"))
    assert same_weights(trained, tmp_path / "run")


def test_an_interrupted_preparation_is_not_repeated_and_changes_nothing(
    scans: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = train(scans, tmp_path / "run", "-q")
    with monkeypatch.context() as patch:
        patch.setattr(training, "extract_case", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(arguments) == 130
    prepared = list((tmp_path / "run" / "features" / "prepared").iterdir())
    assert len(prepared) == 1
    calls: list[str] = []
    prepare = training.parts.prepare_case
    monkeypatch.setattr(
        training.parts, "prepare_case", lambda case, chain: calls.append(case.case_id) or prepare(case, chain)
    )
    assert run(arguments) == 0
    assert calls == ["phantom_002"]
    assert same_weights(trained, tmp_path / "run")
    assert not prepared[0].exists()
