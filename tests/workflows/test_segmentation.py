"""This file tests `medseg segment`: masks with one command, by the student or by the rule alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.cli import run
from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms
from medseg.scans.cases import Case
from medseg.scans.picks import Pick
from medseg.workflows.segmentation import LEAST_FRAMES, _method_for


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=2, seed=5, shape=(56, 52, 40), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def segmented(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("segmented")
    assert run(["segment", str(scans), "-o", str(out), "-q"]) == 0
    return out


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def dice(path: Path, label: Path) -> float:
    one, other = voxels(path) > 0, voxels(label) > 0
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_one_command_writes_mask_maps_pictures_and_manifest(segmented: Path, scans: Path) -> None:
    for case in ("phantom_001", "phantom_002"):
        for kind in ("seg.nii.gz", "prob.nii.gz", "uncertainty.nii.gz", "region.nii.gz", "manifest.json"):
            assert (segmented / f"{case}_{kind}").is_file(), kind
        assert (segmented / "plots" / f"{case}_mip.png").is_file()
        assert dice(segmented / f"{case}_seg.nii.gz", scans / f"{case}_label.nii.gz") > 0.5
    manifest = json.loads((segmented / "phantom_001_manifest.json").read_text(encoding="utf-8"))
    assert (manifest["method"], manifest["trained_on_this_case"]) == ("student", False)
    assert manifest["facts"]["region_source"] == "given"


def test_the_rule_alone_needs_no_network(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.workflows.segmentation.starting_student", lambda _: pytest.fail("asked for weights"))
    one = scans / "phantom_001_img.nii.gz"
    asked = ["--method", "flux", "--set", "review.exports=[nifti]", "-q"]
    assert run(["segment", str(one), "-o", str(tmp_path), *asked]) == 0
    assert len(list((tmp_path / "export" / "nifti").glob("*.nii.gz"))) == 1  # the config may ask for exports
    manifest = json.loads((tmp_path / "phantom_001_manifest.json").read_text(encoding="utf-8"))
    assert manifest["method"] == "flux"
    assert dice(tmp_path / "phantom_001_seg.nii.gz", scans / "phantom_001_label.nii.gz") > 0.5
    probability, mask = voxels(tmp_path / "phantom_001_prob.nii.gz"), voxels(tmp_path / "phantom_001_seg.nii.gz")
    assert np.array_equal(probability > 0.5, mask > 0)


def test_several_scans_of_one_name_keep_apart_and_a_scan_given_twice_counts_once(scans: Path, tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        (tmp_path / patient).mkdir()
        shutil.copy(scans / "phantom_001_img.nii.gz", tmp_path / patient / "tof.nii.gz")
    given = [str(tmp_path / patient / "tof.nii.gz") for patient in ("P1", "P2", "P2")]
    assert run(["segment", *given, "-o", str(tmp_path / "out"), "--method", "flux", "-q"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")) == [
        "P1_tof_seg.nii.gz",
        "P2_tof_seg.nii.gz",
    ]


@pytest.mark.parametrize("asked", [["--adapt"], ["--set", "student.start=scratch"]], ids=["adapt", "scratch"])
def test_adapting_trains_on_the_scans_and_says_so(asked: list[str], scans: Path, tmp_path: Path) -> None:
    short = [*asked, "--set", "student.steps=2", "--set", "student.window=16", "--set", "student.rounds=2"]
    assert run(["segment", str(scans), "-o", str(tmp_path), "-q", *short]) == 0
    manifest = json.loads((tmp_path / "phantom_001_manifest.json").read_text(encoding="utf-8"))
    assert manifest["trained_on_this_case"] is True
    weights = hash_file(tmp_path / "student" / "student.safetensors")
    before = (tmp_path / "phantom_001_seg.nii.gz").stat().st_mtime_ns
    assert run(["segment", str(scans), "-o", str(tmp_path), "-q", *short]) == 0
    assert hash_file(tmp_path / "student" / "student.safetensors") == weights
    assert (tmp_path / "phantom_001_seg.nii.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "stego"], "--method must be one of student, flux, got stego"),
        (["--method", "flux", "--adapt"], "--adapt must go with --method student"),
        (["--set", "student.start=nowhere"], "nowhere"),
        (["--config", "tof_mrb"], "tof_mra"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(
    arguments: list[str], words: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["segment", str(scans), "-o", str(out), "-q", *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not out.exists()


def pages(path: Path, count: int) -> Case:
    """A picture of so many frames."""
    first, *others = [Image.fromarray(np.full((8, 9), n, np.uint8)) for n in range(count)]
    first.save(path, save_all=True, append_images=others)
    return Case(path.stem, path, path.stem)


def test_a_liver_student_needs_enough_frames_wherever_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config("liver_ultrasound_bare")
    cine, one = pages(tmp_path / "cine.tif", LEAST_FRAMES - 1), pages(tmp_path / "one.tif", 1)
    assert _method_for(None, False, config, [cine, one]) == "student"
    assert not caplog.messages
    assert _method_for(None, False, config, [cine]) == "teacher"
    assert f"{LEAST_FRAMES - 1} frames are too few" in caplog.text
    taken = Case("taken", cine.image, "taken", pick=Pick(frame=3))
    assert _method_for(None, False, config, [taken] * (LEAST_FRAMES - 1)) == "teacher"
    assert _method_for(None, False, config, [taken] * LEAST_FRAMES) == "student"
    missing = Case("missing", tmp_path / "missing.png", "missing")
    assert _method_for(None, False, config, [cine, missing]) == "teacher"


def test_what_was_asked_for_or_trained_before_needs_no_number_of_frames(tmp_path: Path) -> None:
    config, few = load_config("liver_ultrasound_bare"), [pages(tmp_path / "one.tif", 1)]
    assert _method_for("student", False, config, few) == "student"
    assert _method_for("teacher", False, config, few * LEAST_FRAMES) == "teacher"
    assert _method_for(None, True, config, few) == "student"
    trained = load_config("liver_ultrasound_bare", [f"student.start={tmp_path}"])
    assert _method_for(None, False, trained, few) == "student"
    assert _method_for(None, False, load_config("tof_mra"), few) == "student"
    with pytest.raises(MedsegError, match="--method must be one of student, teacher, got flux"):
        _method_for("flux", False, config, few)
    with pytest.raises(MedsegError, match="must have a modality with a rule, got pictures"):
        _method_for(None, False, load_config("pictures"), few)
