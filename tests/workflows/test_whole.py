"""This file tests the main job end to end on tiny phantoms: scans in, scored masks out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.cli import run
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms

SMALL = [
    "--set", "stego.steps=6", "--set", "stego.batch=4", "--set", "patches.per_case=12", "--set", "patches.size=24",
    "--set", "student.steps=4", "--set", "student.window=16", "--set", "stego.voters=2",
    "--set", "stego.fit_points=800", "--set", "prepare.brain_mask=none", "--set", "run.checkpoint_every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=2, seed=5, shape=(56, 52, 40), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def whole(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(["run", "tof_mra", "--scans", str(scans), "-o", str(out), "-q", *SMALL]) == 0
    return out


def test_a_mask_has_the_grid_of_its_scan_bit_for_bit(whole: Path, scans: Path) -> None:
    for image_path in scans.glob("*_img.nii.gz"):
        case = image_path.name.removesuffix("_img.nii.gz")
        image, mask = nibabel.load(image_path), nibabel.load(whole / f"{case}_seg.nii.gz")
        assert mask.shape == image.shape
        for name in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
            assert np.array_equal(mask.header[name], image.header[name]), name
        assert set(np.unique(mask.dataobj)) <= {0, 1}


def test_everything_the_formats_promise_is_there(whole: Path) -> None:
    case = "phantom_001"
    of_the_case = ["seg.nii.gz", "prob.nii.gz", "uncertainty.nii.gz", "region.nii.gz", "manifest.json"]
    others = [
        *(f"comparison/{case}_{name}.nii.gz" for name in ("kmeans", "untrained", "student", "flux")),
        "labels.txt", "labels.ctbl", "run/student/student.safetensors", "run/voters/2/methods/stego/classes.yaml",
        "classes.yaml", f"plots/{case}_mip.png", f"plots/{case}_overlay.png", "scores.csv", "scores.json",
        "evaluation_results.txt", "summary.json", "run/run.yaml", "run/metrics.csv", "run/classes.yaml",
    ]  # fmt: skip
    for name in [f"{case}_{end}" for end in of_the_case] + others:
        assert (whole / name).is_file(), name
    assert not list(whole.rglob("*.part.*"))


def test_the_manifest_says_what_was_done(whole: Path, scans: Path) -> None:
    manifest = json.loads((whole / "phantom_001_manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"] == "phantom_001_img.nii.gz"
    assert manifest["source_sha256"] == hash_file(scans / "phantom_001_img.nii.gz")
    assert manifest["trained_on_this_case"] is True
    assert (manifest["method"], manifest["named_by"]) == ("stego", "rules")
    mask = nibabel.load(whole / "phantom_001_seg.nii.gz")
    voxel_ml = np.prod(mask.header.get_zooms()) / 1000
    assert manifest["ml"]["vessel"] == pytest.approx(np.asarray(mask.dataobj).sum() * voxel_ml, rel=1e-4)


def test_the_table_holds_our_method_its_rivals_and_the_thresholds(whole: Path) -> None:
    scores = json.loads((whole / "scores.json").read_text(encoding="utf-8"))
    methods = {row["method"] for row in scores["rows"]}
    assert {"stego", "kmeans", "untrained", "brightest 1 %", "Otsu", "median + 6 MAD", "Frangi top .5 %"} <= methods


def test_a_second_run_skips_what_is_done_and_a_changed_mask_is_made_again(
    whole: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    shutil.copytree(whole, out)
    mask = out / "phantom_001_seg.nii.gz"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")}
    mask.write_bytes(mask.read_bytes()[:-1])
    assert run(["reconstruct", str(out / "run"), str(scans), "-o", str(out), "--compare", "-q"]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")}
    assert after["phantom_001_seg.nii.gz"] != before["phantom_001_seg.nii.gz"]
    assert after["phantom_002_seg.nii.gz"] == before["phantom_002_seg.nii.gz"]
    assert hash_file(mask) == hash_file(whole / "phantom_001_seg.nii.gz")


@pytest.mark.parametrize("labels", ["none", "wrong"])
def test_masks_are_the_same_whatever_labels_lie_beside_the_scans(
    labels: str, whole: Path, scans: Path, tmp_path: Path
) -> None:
    other = tmp_path / "scans"
    shutil.copytree(scans, other)
    for path in other.glob("*_label.nii.gz"):
        if labels == "none":
            path.unlink()
        else:
            label = nibabel.load(path)
            noise = np.random.default_rng(0).random(label.shape) > 0.5
            nibabel.save(nibabel.Nifti1Image(noise.astype(np.uint8), label.affine, label.header), path)
    assert run(["run", "tof_mra", "--scans", str(other), "-o", str(tmp_path / "out"), "-q", *SMALL]) == 0
    for mask in (*whole.glob("*_seg.nii.gz"), *whole.glob("comparison/*.nii.gz"), *whole.glob("*_prob.nii.gz")):
        if mask.name.endswith("_linear.nii.gz"):  # the linear probe is made of labels
            continue
        assert hash_file(tmp_path / "out" / mask.relative_to(whole)) == hash_file(mask), mask.name


def test_a_bad_case_is_reported_and_the_others_go_on(
    whole: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "scans"
    mixed.mkdir()
    shutil.copy(scans / "phantom_001_img.nii.gz", mixed)
    (mixed / "broken_img.nii.gz").write_bytes((scans / "phantom_002_img.nii.gz").read_bytes()[:4000])
    assert run(["reconstruct", str(whole / "run"), str(mixed), "-o", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "phantom_001_seg.nii.gz").is_file()
    assert not (tmp_path / "out" / "broken_seg.nii.gz").exists()
    said = capsys.readouterr().err
    assert "broken" in said
    assert "Traceback" not in said


def test_a_trained_run_is_not_trained_over_with_other_settings(
    whole: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [
        "train",
        "tof_mra",
        "--scans",
        str(scans),
        "--run",
        str(whole / "run"),
        "-q",
        *SMALL,
        "--set",
        "stego.code_dim=3",
    ]
    assert run(again) == 1
    assert "stego.code_dim 16 there and 3 now" in capsys.readouterr().err


def test_later_sections_may_change_after_training(whole: Path, scans: Path, tmp_path: Path) -> None:
    one = str(scans / "phantom_001_img.nii.gz")
    changed = ["--set", "reconstruct.method=kmeans", "--set", "reconstruct.planes=[axial, coronal]"]
    assert run(["reconstruct", str(whole / "run"), one, "-o", str(tmp_path), "-q", *changed]) == 0
    manifest = json.loads((tmp_path / "phantom_001_manifest.json").read_text(encoding="utf-8"))
    assert (manifest["method"], manifest["planes"]) == ("kmeans", ["axial", "coronal"])


def test_an_interrupted_training_ends_with_the_same_weights(
    whole: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "tof_mra", "--scans", str(scans), "--run", str(tmp_path), "-q", *SMALL]
    steps = iter(range(4))
    backward = torch.Tensor.backward

    def interrupted(*arguments: object, **named: object) -> None:
        if next(steps) == 3:
            raise KeyboardInterrupt
        backward(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", interrupted)
        assert run(train) == 130
    assert run(train) == 0
    for weights in (whole / "run" / "methods").rglob("weights.safetensors"):
        assert hash_file(tmp_path / weights.relative_to(whole / "run")) == hash_file(weights), weights
