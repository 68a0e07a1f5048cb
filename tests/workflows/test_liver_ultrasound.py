"""Liver ultrasound goes from frames, cines and volumes to masks, areas and scores, on painted phantoms."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.cli import run
from medseg.features.packaged import is_installed
from medseg.files import hash_file
from medseg.naming.classes import read_classes
from medseg.phantoms.liver_files import write_liver_phantoms
from medseg.scans.stacks import read_stack
from medseg.scoring.overlap import UNION
from medseg.workflows.segmentation import LEAST_FRAMES

SHORT = [
    *("--set", "student.rounds=1", "--set", "student.steps=6", "--set", "student.product_steps=6"),
    *("--set", "student.batch=4"),
]
BARE = ["--config", "liver_ultrasound_bare", *SHORT]
RULE = ["--modality", "liver_ultrasound", "--method", "teacher"]
HEIGHT, WIDTH = 240, 320
LIVER, MASS, TISSUE = 2, 3, 1
KINDS = ("seg", "colour", "overlay", "uncertainty", "region")


def manifest_of(out: Path, case: str) -> dict[str, Any]:
    """A manifest whose files are all there and as it says."""
    manifest: dict[str, Any] = json.loads((out / f"{case}_manifest.json").read_text(encoding="utf-8"))
    assert all(hash_file(out / name) == sha for name, sha in manifest["files"].items())
    return manifest


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Overlap of liver and mass together."""
    one, other = found >= LIVER, truth >= LIVER
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_liver_phantoms(folder, cases=3, seed=3, size="small")
    return folder


@pytest.fixture(scope="module")
def frames(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures alone, in one folder."""
    folder = tmp_path_factory.mktemp("frames")
    for path in sorted(phantoms.glob("imgs/*/*.png")):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def segmented(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("segmented")
    assert run(["segment", str(frames), "-o", str(out), "--method", "student", "--spacing", "0.5", "-q", *BARE]) == 0
    return out


@pytest.fixture(scope="module")
def by_rule(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rule's masks of the phantoms with labels beside, and of three frames only."""
    out = tmp_path_factory.mktemp("rule")
    assert run(["segment", str(phantoms), "-o", str(out), "-q", *RULE]) == 0
    return out


def test_every_frame_gets_its_files_at_its_own_size(segmented: Path) -> None:
    for number in (1, 2, 3):
        case = f"liver_00{number}"
        for kind in KINDS:
            assert opened(segmented / f"{case}_{kind}.png").shape[:2] == (HEIGHT, WIDTH), kind
        labels, region = opened(segmented / f"{case}_seg.png"), opened(segmented / f"{case}_region.png")
        assert set(np.unique(labels)) <= {0, TISSUE, LIVER, MASS}
        assert (labels == LIVER).any()
        assert ((labels > 0) == (region > 0)).all()  # what is not liver is tissue, as far as the sector goes
        assert manifest_of(segmented, case)["files"].keys() == {f"{case}_{kind}.png" for kind in KINDS}
    names = {entry.value: (entry.name, entry.background) for entry in read_classes(segmented / "classes.yaml").classes}
    assert names[TISSUE] == ("sector tissue", True)
    assert (names[LIVER], names[MASS]) == (("liver", False), ("mass", False))


def test_the_manifest_says_how_large_the_liver_is_and_what_was_seen(segmented: Path) -> None:
    manifest = manifest_of(segmented, "liver_001")
    labels = opened(segmented / "liver_001_seg.png")
    pixels = int((labels == LIVER).sum())
    assert manifest["area_px"]["liver"] == pixels
    assert manifest["area_cm2"]["liver"] == pytest.approx(pixels * 0.25 / 100, abs=1e-3)
    assert manifest["share"]["liver"] == pytest.approx(pixels / labels.size)
    assert manifest["method"] == "student" and manifest["trained_on_this_case"] is True
    assert manifest["alarms"] == {}
    facts = manifest["facts"]
    assert (facts["modality"], facts["region_source"]) == ("liver_ultrasound", "sector")
    assert len(facts["sectors"]) == 1 and facts["sectors"][0]["near"] < facts["sectors"][0]["far"]
    summary = json.loads((segmented / "summary.json").read_text(encoding="utf-8"))
    assert {case["case"]: case["area_cm2"] for case in summary["cases"]}["liver_001"] == manifest["area_cm2"]


def test_a_second_call_skips_what_is_done(frames: Path, segmented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [segmented / "student" / "student.safetensors", segmented / "liver_002_seg.png"]
    before = [path.stat().st_mtime_ns for path in written]
    again = ["segment", str(frames), "-o", str(segmented), "--method", "student", "--spacing", "0.5", *BARE]
    assert run([*again, "-q"]) == 0
    assert "0 written, 3 skipped, 0 failed" in capsys.readouterr().out
    (segmented / "liver_002_seg.png").unlink()
    assert run([*again, "-q"]) == 0
    assert "1 written, 2 skipped, 0 failed" in capsys.readouterr().out
    assert written[0].stat().st_mtime_ns == before[0] and written[1].is_file()


def test_a_trained_student_segments_frames_it_has_not_seen(
    segmented: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_liver_phantoms(tmp_path / "new", cases=1, seed=8, size="small")
    start = ["--set", f"student.start={segmented / 'student'}"]
    arguments = [str(tmp_path / "new"), "-o", str(tmp_path / "out"), "--config", "liver_ultrasound_bare", *start]
    assert run(["segment", *arguments]) == 0
    assert "too few" not in capsys.readouterr().err
    manifest = manifest_of(tmp_path / "out", "liver_001")
    assert (manifest["method"], manifest["trained_on_this_case"]) == ("student", False)
    assert "area_cm2" not in manifest


def test_few_frames_are_answered_by_the_rule_and_it_is_said(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = frames / "liver_001.png"
    assert run(["segment", str(one), "-o", str(tmp_path), *BARE]) == 0
    assert f"1 frame is too few to train a student on ({LEAST_FRAMES})" in capsys.readouterr().err
    assert manifest_of(tmp_path, "liver_001")["method"] == "teacher"
    assert not (tmp_path / "student").exists()


def test_the_rule_finds_the_phantoms_liver_and_scores_leave_tissue_out(by_rule: Path, phantoms: Path) -> None:
    assert run(["score", str(by_rule), str(phantoms), "-q"]) == 0
    with (by_rule / "scores.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["method"] == "teacher"]
    union = {row["case"]: float(row["dice"]) for row in rows if row["structure"] == UNION}
    truths = {path.stem: opened(path) for path in phantoms.glob("labels/*/*.png")}
    assert union.keys() == truths.keys() == {"liver_001", "liver_002", "liver_003"}
    for case, truth in truths.items():
        labels = opened(by_rule / f"{case}_seg.png")
        assert union[case] == pytest.approx(dice(labels, truth), abs=1e-3)
        assert union[case] < dice(labels + 1, truth + 1)  # the same with tissue in it
        assert union[case] > 0.5
    assert {row["structure"] for row in rows} >= {UNION, "liver", "sector tissue"}


def test_the_rule_is_as_unsure_of_a_mass_as_of_the_liver_around_it_and_surer_of_tissue_far_off(by_rule: Path) -> None:
    for number in (1, 2, 3):
        labels, unsure = (opened(by_rule / f"liver_00{number}_{kind}.png") for kind in ("seg", "uncertainty"))
        assert not unsure[labels == 0].any()
        assert unsure[labels == LIVER].mean() < 0.4 * 255
        assert unsure[labels == TISSUE].mean() < 0.4 * 255
        if (labels == MASS).any():
            assert unsure[labels == MASS].mean() < 0.4 * 255


def test_a_cine_gets_frames_a_stack_and_a_table_of_areas(tmp_path: Path) -> None:
    write_liver_phantoms(tmp_path / "cine", cases=1, seed=1, size="small", form="cines", frames=3)
    (cine,) = tmp_path.glob("cine/imgs/*/*.mp4")
    out = tmp_path / "out"
    assert run(["segment", str(cine), "-o", str(out), "--spacing", "0.5", "-q", *RULE]) == 0
    stack = read_stack(out / "liver_001_seg.nii.gz")
    assert stack.shape == (HEIGHT, WIDTH, 3)
    with (out / "liver_001_areas.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for k in range(3):
        for kind in KINDS:
            assert (out / "liver_001_frames" / f"{k + 1:04d}_{kind}.png").is_file()
        frame = opened(out / "liver_001_frames" / f"{k + 1:04d}_seg.png")
        assert np.array_equal(frame, stack[..., k])
        (row,) = (row for row in rows if row["class"] == "liver" and int(row["frame"]) == k + 1)
        assert int(row["pixels"]) == (frame == LIVER).sum() > 1000
    manifest = manifest_of(out, "liver_001")
    assert {"liver_001_areas.csv", "plots/liver_001_areas.png"} <= manifest["files"].keys()
    assert manifest["area_px"]["liver"] == pytest.approx((stack == LIVER).sum() / 3, abs=0.1)
    assert len(manifest["facts"]["sectors"]) == 3 and manifest["alarms"] == {}


def test_a_volume_is_answered_on_its_own_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.phantoms.liver_files.PLANES", 6)
    write_liver_phantoms(tmp_path / "volumes", cases=1, seed=1, size="small", form="volumes")
    scan, label = (tmp_path / "volumes" / f"liver_001_{kind}.nii.gz" for kind in ("img", "label"))
    out = tmp_path / "out"
    assert run(["segment", str(scan), "-o", str(out), "-q", *RULE]) == 0
    image, found = nibabel.load(scan), nibabel.load(out / "liver_001_seg.nii.gz")
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine)
    labels, truth = (np.asarray(each.dataobj).astype(int) for each in (found, nibabel.load(label)))
    assert set(np.unique(labels)) <= {0, TISSUE, LIVER, MASS}
    assert dice(labels, truth) > 0.5
    manifest = manifest_of(out, "liver_001")
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    assert manifest["ml"]["liver"] == pytest.approx((labels == LIVER).sum() * voxel_ml, rel=1e-4)
    assert len(manifest["facts"]["sectors"]) == image.shape[2]


def test_bad_files_among_good_ones_are_named_and_the_others_done(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(frames / "liver_001.png", given / "good.png")
    whole = (frames / "liver_002.png").read_bytes()
    (given / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((64, 80), np.uint8)).save(given / "black.png")
    (given / "notes.txt").write_text("nothing to see", encoding="utf-8")
    out = tmp_path / "out"
    for expected in ("1 written, 0 skipped, 2 failed", "0 written, 1 skipped, 2 failed"):
        assert run(["segment", str(given), "-o", str(out), "-q", *RULE]) == 1
        said = capsys.readouterr()
        assert expected in said.out
        assert len(said.err.splitlines()) == 2
        assert "black.png must show the sector of an ultrasound probe, got an all black picture" in said.err
        assert "cut.png must be a whole, readable picture" in said.err
    assert manifest_of(out, "good")["area_px"]["liver"] > 0
    assert not (out / "black_manifest.json").exists()


def test_a_bad_file_does_not_keep_the_student_from_learning(frames: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(frames / "liver_001.png", given)
    Image.fromarray(np.zeros((64, 80), np.uint8)).save(given / "black.png")
    out = tmp_path / "out"
    assert run(["segment", str(given), "-o", str(out), "--method", "student", "-q", *BARE]) == 1
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in summary["cases"]] == ["liver_001"]
    assert summary["failed"].keys() == {"black"}


def test_run_trains_compares_and_scores_in_one_go(phantoms: Path, tmp_path: Path) -> None:
    small = [
        *SHORT,
        *("--set", "stego.steps=6", "--set", "stego.batch=4", "--set", "stego.fit_points=1000"),
        *("--set", "stego.code_dim=6", "--set", "reconstruct.refine=[frames]"),  # masses would be sought six times
    ]
    assert run(["run", "liver_ultrasound_bare", "--scans", str(phantoms), "-o", str(tmp_path), "-q", *small]) == 0
    manifest = manifest_of(tmp_path, "liver_001")
    assert {"stego", "kmeans", "student", "teacher"} <= {manifest["method"], *manifest["compared"]}
    for method in manifest["compared"]:
        labels = opened(tmp_path / "comparison" / f"liver_001_{method}.png")
        assert labels.shape == (HEIGHT, WIDTH) and set(np.unique(labels)) <= {0, TISSUE, LIVER, MASS}
    with (tmp_path / "scores.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {"stego", "student", "teacher"} <= {row["method"] for row in rows if row["structure"] == "liver"}


@pytest.mark.skipif(not is_installed(), reason="needs the extra `offline`")
def test_with_the_package_the_student_looks_through_its_network(frames: Path, tmp_path: Path) -> None:
    given = ["--modality", "liver_ultrasound", "--method", "student", *SHORT]
    assert run(["segment", str(frames / "liver_001.png"), "-o", str(tmp_path), "-q", *given]) == 0
    card = json.loads((tmp_path / "student" / "student.json").read_text(encoding="utf-8"))
    assert card["trunk"] == "efficientnet_lite0" and card["components"] == 24 + 40 + 40
    labels = opened(tmp_path / "liver_001_seg.png")
    assert labels.shape == (HEIGHT, WIDTH) and set(np.unique(labels)) <= {0, TISSUE, LIVER, MASS}
