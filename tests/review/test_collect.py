"""What reviewers download comes back as labels: checked, one for each case, with nothing lost."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from result_folders import HOSTILE, Results

from medseg.cli import run
from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.review.decisions import reviewer_folder
from medseg.scans.folders import find_cases, find_references
from medseg.scans.stacks import as_frames
from medseg.workflows.reviewing import collect_reviews

ONE, TWO = "phantom_001", "phantom_002"
STILL, MOVING = "still_train_liver_001", "moving_train_liver_001"


def decision(out: Path, case: str, verdict: str = "accept", **values: Any) -> dict[str, Any]:
    """As the page writes it."""
    manifest = json.loads((out / f"{case}_manifest.json").read_text(encoding="utf-8"))
    return {
        "case": case,
        "source_sha256": manifest["source_sha256"],
        "run_hash": manifest["run_hash"],
        "verdict": verdict,
        "reviewer": "Ada",
        "time": "2026-11-30T12:00:00.000Z",
        "seconds": 31,
        "comment": "",
        "clicks": [],
        "mask": f"{case}_corrected.nii.gz" if verdict == "correct" else None,
        **values,
    }


def write(folder: Path, *decisions: Any, name: str = "medseg_decisions.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"schema": "medseg-decisions/1", "software": "medseg", "page_created": "", "decisions": list(decisions)}
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def correct(out: Path, case: str, path: Path, *, value: int = 1, corner: int = 2) -> np.ndarray:
    """Paint a corner of the automatic mask, as the page would: header bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytearray(gzip.decompress((out / f"{case}_seg.nii.gz").read_bytes()))
    shape = nibabel.load(out / f"{case}_seg.nii.gz").shape
    voxels = np.frombuffer(content, np.uint8, offset=352).reshape(shape, order="F").copy()
    voxels[:corner, :corner, :corner] = value
    path.write_bytes(gzip.compress(bytes(content[:352]) + voxels.tobytes(order="F")))
    return voxels


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (hash_file(path), path.stat().st_mtime_ns) for path in files}


def test_accepted_corrected_and_rejected_cases_are_filed_and_a_second_time_changes_nothing(vessel_results, tmp_path):
    out, into = vessel_results.out, tmp_path / "accepted"
    painted = correct(out, TWO, tmp_path / "down" / f"{TWO}_corrected.nii.gz")
    places = [{"xyz_mm": [1.0, -2.5, 3], "class": "vessel"}]
    decisions = [
        decision(out, ONE),
        decision(out, TWO, "correct", comment="=cmd()", clicks=places),
        decision(out, HOSTILE, "reject", comment="no vessels here", new_key_of_a_newer_page=1),
    ]
    down = write(tmp_path / "down", *decisions)
    answer = collect_reviews(down, into, out)
    assert answer["failed"] == {}
    assert (into / f"{ONE}_label.nii.gz").read_bytes() == (out / f"{ONE}_seg.nii.gz").read_bytes()
    assert np.array_equal(labels_of(into / f"{TWO}_label.nii.gz"), painted)
    assert not (into / f"{HOSTILE}_label.nii.gz").exists()
    corrected, automatic = (
        nibabel.load(folder) for folder in (into / f"{TWO}_label.nii.gz", out / f"{TWO}_seg.nii.gz")
    )
    assert np.array_equal(corrected.affine, automatic.affine)
    assert {case: found["outcome"] for case, found in answer["cases"].items()} == {
        ONE: "one reviewer", TWO: "one reviewer", HOSTILE: "rejected",
    }  # fmt: skip
    assert f"{HOSTILE}: rejected by Ada (no vessels here); no label" in answer["lines"]
    kept = json.loads((into / "decisions.json").read_text(encoding="utf-8"))
    assert [entry["comment"] for entry in kept["decisions"] if entry["case"] == TWO] == ["=cmd()"]
    assert [entry["clicks"] for entry in kept["decisions"] if entry["case"] == TWO] == [places]
    assert all(
        entry["reviewer"] == "Ada" and entry["time"] == "2026-11-30T12:00:00+00:00" for entry in kept["decisions"]
    )
    before = snapshot(into)
    assert collect_reviews(down, into, out)["cases"] == answer["cases"]
    assert snapshot(into) == before


def test_labels_are_references_for_score_and_for_training(vessel_results, tmp_path):
    out, into = vessel_results.out, tmp_path / "labels"
    correct(out, TWO, tmp_path / "down" / f"{TWO}_corrected.nii.gz")
    write(tmp_path / "down", decision(out, ONE), decision(out, TWO, "correct"))
    write(tmp_path / "down" / "bob", decision(out, ONE, reviewer="Bob"))
    collect_reviews(tmp_path / "down", into, out)
    assert dict(find_references(into)) == {case: into / f"{case}_label.nii.gz" for case in (ONE, TWO)}
    assert dict(find_references(into / "reviewers" / "bob")) == {
        ONE: into / "reviewers" / "bob" / f"{ONE}_label.nii.gz"
    }
    assert run(["score", str(out), str(into), "-o", str(tmp_path / "scores"), "-q"]) == 0
    rows = json.loads((tmp_path / "scores" / "scores.json").read_text(encoding="utf-8"))["rows"]
    dices = {row["case_id"]: row["scores"]["dice"] for row in rows if row["method"] == "flux"}
    assert dices[ONE] == 1 and 0.9 < dices[TWO] < 1
    # Beside the scans, in a folder of labels, training finds them.
    scans = tmp_path / "scans"
    scans.mkdir()
    for case in (ONE, TWO):
        shutil.copy(vessel_results.scans / f"{case}_img.nii.gz", scans)
    shutil.copytree(into, scans / "labels")
    listing = find_cases(scans)
    assert dict(listing.labels) == {case: scans / "labels" / f"{case}_label.nii.gz" for case in (ONE, TWO)}
    assert not listing.problems


def test_two_reviewers_are_kept_and_compared(vessel_results, tmp_path):
    out, into, down = vessel_results.out, tmp_path / "into", tmp_path / "down"
    first = correct(out, ONE, down / "ada" / f"{ONE}_corrected.nii.gz", corner=2)
    second = correct(out, ONE, down / "bob" / f"{ONE}_corrected.nii.gz", corner=4)
    write(down / "ada", decision(out, ONE, "correct"), decision(out, TWO), decision(out, HOSTILE))
    later = {"reviewer": "Bob", "time": "2026-12-01T08:00:00Z"}
    disagreeing = decision(out, HOSTILE, "reject", **later)
    write(down / "bob", decision(out, ONE, "correct", **later), decision(out, TWO, **later), disagreeing)
    answer = collect_reviews(down, into, out)
    assert answer["failed"] == {}
    assert {case: found["outcome"] for case, found in answer["cases"].items()} == {
        ONE: "differ", TWO: "agreed", HOSTILE: "disputed",
    }  # fmt: skip
    one, other = first > 0, second > 0
    by_hand = 2 * (one & other).sum() / (one.sum() + other.sum())
    assert answer["cases"][ONE]["dice"] == {"Bob": pytest.approx(by_hand, abs=1e-4)}
    assert f"{ONE}: Ada and Bob differ (Dice {by_hand:.3f}); {ONE}_label.nii.gz is of the first" in answer["lines"]
    assert np.array_equal(labels_of(into / f"{ONE}_label.nii.gz"), first)
    assert np.array_equal(labels_of(into / "reviewers" / "bob" / f"{ONE}_label.nii.gz"), second)
    assert not (into / f"{HOSTILE}_label.nii.gz").exists()
    assert (into / "reviewers" / "ada" / f"{HOSTILE}_label.nii.gz").is_file()
    # Ada changes her mind; what was filed before counts without its downloads.
    shutil.rmtree(down)
    write(down, decision(out, HOSTILE, "reject", time="2026-12-02T08:00:00Z"))
    answer = collect_reviews(down, into, out)
    assert (answer["cases"][HOSTILE]["outcome"], answer["cases"][ONE]["outcome"]) == ("rejected", "differ")
    assert not (into / "reviewers" / "ada" / f"{HOSTILE}_label.nii.gz").exists()
    assert np.array_equal(labels_of(into / f"{ONE}_label.nii.gz"), first)
    kept = json.loads((into / "decisions.json").read_text(encoding="utf-8"))["decisions"]
    ada = [
        (entry["verdict"], entry["counts"]) for entry in kept if (entry["case"], entry["reviewer"]) == (HOSTILE, "Ada")
    ]
    assert ada == [("accept", False), ("reject", True)]


def test_copies_that_a_browser_numbered_belong_together(vessel_results, tmp_path):
    out, down = vessel_results.out, tmp_path / "down"
    first = correct(out, ONE, down / f"{ONE}_corrected.nii.gz", corner=2)
    second = correct(out, ONE, down / f"{ONE}_corrected.nii (1).gz", corner=4)
    hostile = HOSTILE.replace("<", "_").replace(">", "_")
    third = correct(out, HOSTILE, down / f"{hostile}_corrected.nii.gz", corner=3)
    write(down, decision(out, ONE, "correct"), decision(out, HOSTILE, "correct"))
    write(down, decision(out, ONE, "correct", reviewer="Bob"), name="medseg_decisions (1).json")
    answer = collect_reviews(down, tmp_path / "into", out)
    assert answer["failed"] == {}
    assert np.array_equal(labels_of(tmp_path / "into" / "reviewers" / "ada" / f"{ONE}_label.nii.gz"), first)
    assert np.array_equal(labels_of(tmp_path / "into" / "reviewers" / "bob" / f"{ONE}_label.nii.gz"), second)
    assert np.array_equal(labels_of(tmp_path / "into" / f"{HOSTILE}_label.nii.gz"), third)


def test_one_mask_is_never_taken_for_that_of_two_reviewers(vessel_results, tmp_path):
    out, down = vessel_results.out, tmp_path / "down"
    correct(out, ONE, down / f"{ONE}_corrected.nii.gz")
    write(down, decision(out, ONE, "correct"), decision(out, TWO))
    write(down, decision(out, ONE, "correct", reviewer="Bob"), name="medseg_decisions (1).json")
    correct(out, TWO, down / f"{TWO}_corrected.nii.gz")
    answer = collect_reviews(down, tmp_path / "into", out)
    (line,) = answer["failed"].values()
    assert "must be the mask of one decision, got ada (phantom_001) and bob (phantom_001)" in line
    assert list(answer["cases"]) == [TWO]
    assert f"{TWO}_corrected.nii.gz belongs to no decision and is left out" in answer["lines"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"verdict": "maybe"}, "one of the verdicts accept, correct, reject, got maybe"),
        ({"verdict": "correct"}, "the name of a mask beside the verdict correct"),
        ({"mask": "x_corrected.nii.gz"}, "no mask beside the verdict accept"),
        ({"time": "yesterday"}, "a time as 2026-11-30T12:00:00Z, got yesterday"),
        ({"time": 5}, "a time as"),
        ({"seconds": float("nan")}, "seconds that are a number from 0"),
        ({"seconds": True}, "seconds that are a number from 0"),
        ({"comment": None}, "a text of at most 10000 letters for comment"),
        ({"comment": "x" * 10_001}, "a text of at most 10000 letters for comment"),
        ({"reviewer": "\ud800"}, "a text of at most 1000 letters for reviewer"),
        ({"clicks": [{"xyz_mm": [1, 2, float("inf")], "class": "vessel"}]}, "three finite numbers"),
        ({"clicks": [{"xyz_mm": [1, 2], "class": "vessel"}]}, "three finite numbers"),
        ({"clicks": {}}, "a list of at most"),
        ({"case": "nobody"}, "must be on a case of these results"),
        ({"case": "../../etc/passwd"}, "must be on a case of these results"),
        ({"source_sha256": "0" * 64}, "must be on the scan of these results"),
        ({"run_hash": "0" * 64}, "must be on the model of these results"),
        ({"reviewer": "\x1b[2J", "run_hash": ""}, r"\x1b[2J"),
    ],
)
def test_a_decision_that_breaks_the_rules_is_one_line_and_the_others_go_on(changed, words, vessel_results, tmp_path):
    out, into = vessel_results.out, tmp_path / "into"
    write(tmp_path / "down", decision(out, ONE) | changed, decision(out, TWO), "no decision")
    answer = collect_reviews(tmp_path / "down", into, out)
    assert len(answer["failed"]) == 2
    assert any(words in line for line in answer["failed"].values())
    assert all(len(line.splitlines()) == 1 and line.isprintable() for line in answer["failed"].values())
    assert list(answer["cases"]) == [TWO]
    assert sorted(path.name for path in into.iterdir()) == [
        "classes.yaml", "decisions.json", f"{TWO}_label.nii.gz", "reviewers",
    ]  # fmt: skip


def damage(kind: str, out: Path, path: Path) -> None:
    image = nibabel.load(out / f"{ONE}_seg.nii.gz")
    voxels, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
    if kind == "moved":
        affine[0, 3] += 0.01
    elif kind == "mirrored":
        affine[0] *= -1
    elif kind == "cropped":
        voxels = voxels[:-1]
    elif kind == "class":
        voxels[0, 0, 0] = 7
    elif kind == "fraction":
        voxels = voxels.astype(np.float32) / 2
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "text":
        path.write_text("no mask", encoding="utf-8")
    elif kind == "missing":
        path.unlink()
    elif kind == "link":
        path.unlink()
        path.symlink_to(out / f"{ONE}_seg.nii.gz")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("moved", "must lie on the grid"),
        ("mirrored", "must lie on the grid"),
        ("cropped", "must have the"),
        ("class", "must hold the values 0, 1, got 7"),
        ("fraction", "must hold whole numbers"),
        ("cut", "phantom_001_corrected.nii.gz"),
        ("text", "must be a NIfTI file"),
        ("missing", "must have its mask phantom_001_corrected.nii.gz beside it, got none"),
        ("link", "must have its mask phantom_001_corrected.nii.gz beside it, got none"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_and_the_others_go_on(kind, words, vessel_results, tmp_path):
    out, down = vessel_results.out, tmp_path / "down"
    write(down, decision(out, ONE, "correct"), decision(out, TWO))
    damage(kind, out, down / f"{ONE}_corrected.nii.gz")
    answer = collect_reviews(down, tmp_path / "into", out)
    (line,) = answer["failed"].values()
    assert words in line
    assert list(answer["cases"]) == [TWO]
    assert not (tmp_path / "into" / f"{ONE}_label.nii.gz").exists()


def test_a_mask_that_another_program_saved_anew_on_the_same_grid_is_taken(vessel_results, tmp_path):
    out, down = vessel_results.out, tmp_path / "down"
    write(down, decision(out, ONE, "correct"))
    image = nibabel.load(out / f"{ONE}_seg.nii.gz")
    saved = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.int16), image.affine.round(6))
    saved.header["descrip"] = b"name of a patient"
    nibabel.save(saved, down / f"{ONE}_corrected.nii.gz")
    assert collect_reviews(down, tmp_path / "into", out)["failed"] == {}
    label = nibabel.load(tmp_path / "into" / f"{ONE}_label.nii.gz")
    assert np.array_equal(label.affine, image.affine) and label.get_data_dtype() == np.uint8
    assert b"name of a patient" not in gzip.decompress((tmp_path / "into" / f"{ONE}_label.nii.gz").read_bytes())


def test_damaged_files_are_lines_and_a_damaged_list_stops_everything(vessel_results, tmp_path):
    out, down = vessel_results.out, write(tmp_path / "down", decision(vessel_results.out, ONE))
    (down / "medseg_decisions (1).json").write_text("{", encoding="utf-8")
    (down / "medseg_decisions (2).json").write_text('{"schema": "other"}', encoding="utf-8")
    (down / "medseg_decisions (3).json").write_text("[" * 100_000, encoding="utf-8")
    (down / "holiday.json").write_text("{", encoding="utf-8")
    answer = collect_reviews(down, tmp_path / "into", out)
    assert [Path(name).name for name in answer["failed"]] == [f"medseg_decisions ({n}).json" for n in (1, 2, 3)]
    assert list(answer["cases"]) == [ONE]
    (tmp_path / "into" / "decisions.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MedsegError, match=r"decisions\.json must be a JSON object"):
        collect_reviews(down, tmp_path / "into", out)
    with pytest.raises(MedsegError, match="must hold medseg_decisions"):
        collect_reviews(write(tmp_path / "empty", name="other.json"), tmp_path / "new", out)


@pytest.mark.parametrize(
    "name", ["Ada", "../../etc", "a/b", "a\\b", "", "..", "con", "Dr. Ö", "x" * 500, "\x00", "ada.", "a b", "a_b"]
)
def test_every_reviewer_has_a_folder_of_their_own(name):
    folder = reviewer_folder(name)
    assert folder and folder == Path(folder).name and folder.isprintable() and len(folder) < 100
    assert not set(folder) & set('<>:"/\\|?*. ')
    assert reviewer_folder(name.upper()) == reviewer_folder(name.lower())
    others = ["Ada", "../../etc", "a/b", "a\\b", "con", "a b", "a b c"]
    assert [other for other in others if reviewer_folder(other) == folder] in ([], [name])


def test_labels_of_pictures_are_pictures_and_of_cines_pages(liver_results: Results, tmp_path):
    out, down, into = liver_results.out, tmp_path / "down", tmp_path / "into"
    correct(out, MOVING, down / f"{MOVING}_corrected.nii.gz", value=2, corner=3)
    write(down, decision(out, STILL), decision(out, MOVING, "correct"))
    answer = collect_reviews(down, into, out)
    assert answer["failed"] == {}
    with Image.open(into / f"{STILL}_label.png") as label, Image.open(out / f"{STILL}_seg.png") as mask:
        assert np.array_equal(np.asarray(label), np.asarray(mask))
    painted = as_frames(labels_of(down / f"{MOVING}_corrected.nii.gz"))
    with Image.open(into / f"{MOVING}_label.tif") as label:
        assert label.n_frames == painted.shape[2] == 3
        for number in range(3):
            label.seek(number)
            assert np.array_equal(np.asarray(label), painted[:, :, number])
    assert run(["score", str(out), str(into), "-o", str(tmp_path / "scores"), "-q"]) == 0
    rows = json.loads((tmp_path / "scores" / "scores.json").read_text(encoding="utf-8"))["rows"]
    dices = {row["case_id"]: row["scores"]["dice"] for row in rows if row["structure"] == "union"}
    assert dices[STILL] == 1 and 0.9 < dices[MOVING] < 1
    # A corrected still comes back as a stack of one frame.
    stack = np.zeros((320, 240, 1), np.uint8)
    stack[10:20, 30:40] = 3
    nibabel.save(nibabel.Nifti1Image(stack, np.diag([-1.0, 1, 1, 1])), down / f"{STILL}_corrected.nii.gz")
    write(down / "later", decision(out, STILL, "correct", time="2026-12-24T00:00:00Z"))
    shutil.move(down / f"{STILL}_corrected.nii.gz", down / "later")
    assert collect_reviews(down, into, out)["failed"] == {}
    with Image.open(into / f"{STILL}_label.png") as label:
        assert np.array_equal(np.asarray(label), as_frames(stack)[:, :, 0])
