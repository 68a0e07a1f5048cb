"""A few labels make a probe of a trained run, and nothing but these labels has any influence on its masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from workflows.scenes import write_scenes

from medseg.cli import run
from medseg.errors import MedsegError
from medseg.fewshot import volume
from medseg.files import hash_file
from medseg.naming.classes import read_classes
from medseg.phantoms.vessels import write_phantoms
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.scoring import score_results
from medseg.workflows.taught_labels import Gathered, Sources
from medseg.workflows.teaching import teach_run
from medseg.workflows.training import train_run

SMALL = [
    "--set", "stego.steps=2", "--set", "stego.batch=4", "--set", "patches.per_case=8", "--set", "patches.size=24",
    "--set", "stego.fit_points=400", "--set", "prepare.brain_mask=none", "--set", "run.held_out=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=3, seed=5, shape=(44, 40, 32), spacing=(0.8, 0.8, 0.9))
    return folder


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert run(["train", "demo", "--scans", str(scans), "--run", str(folder), "-q", *SMALL]) == 0
    return folder


def held_out(folder: Path) -> str:
    """The case that the run holds out."""
    inputs = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))["inputs"]
    return next(case for case, entry in inputs.items() if entry["split"] == "held_out")


def taught(trained: Path, into: Path, *arguments: str) -> Path:
    """A copy of the run with a probe."""
    folder = into / "run"
    shutil.copytree(trained, folder)
    assert run(["teach", str(folder), *arguments, "-q"]) == 0
    return folder


def effort(folder: Path) -> dict[str, object]:
    return json.loads((folder / "methods" / "probe" / "effort.json").read_text(encoding="utf-8"))


def test_a_labelled_case_makes_masks_of_the_others(trained: Path, scans: Path, tmp_path: Path) -> None:
    unseen = held_out(trained)
    probed = taught(trained, tmp_path, str(scans), "--labels", str(scans))
    out = tmp_path / "out"
    given = ["--set", "reconstruct.method=probe", "-q"]
    assert run(["reconstruct", str(probed), str(scans), "-o", str(out), *given]) == 0
    manifests = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*_manifest.json")}
    assert len(manifests) == 3
    for manifest in manifests.values():
        assert (manifest["method"], manifest["named_by"]) == ("probe", "training_labels")
        assert manifest["effort"] == {"counts": {"cases": 2}, "minutes": None}  # the held-out label was not read
        assert manifest["trained_on_this_case"] is (manifest["case"] != unseen)
    mask = np.asarray(nibabel.load(out / f"{unseen}_seg.nii.gz").dataobj)
    truth = np.asarray(nibabel.load(scans / f"{unseen}_label.nii.gz").dataobj)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.6
    assert read_classes(probed / "methods" / "probe" / "classes.yaml").named_by == "training_labels"
    assert run(["reconstruct", str(probed), str(scans), "-o", str(tmp_path / "one"), "--held-out", *given]) == 0
    assert [path.name for path in (tmp_path / "one").glob("*_manifest.json")] == [f"{unseen}_manifest.json"]


def test_references_of_other_cases_have_no_influence_on_any_mask(trained: Path, scans: Path, tmp_path: Path) -> None:
    unseen = held_out(trained)
    named, absent = (path.name.split("_img")[0] for path in sorted(scans.glob("*_img*")) if unseen not in path.name)
    other = tmp_path / "scans"
    shutil.copytree(scans, other)
    (other / f"{absent}_label.nii.gz").unlink()
    label = nibabel.load(other / f"{unseen}_label.nii.gz")
    noise = np.random.default_rng(0).random(label.shape) > 0.5
    noisy = nibabel.Nifti1Image(noise.astype(np.uint8), label.affine, label.header)
    nibabel.save(noisy, other / f"{unseen}_label.nii.gz")
    assert run(["train", "demo", "--scans", str(other), "--run", str(tmp_path / "again"), "-q", *SMALL]) == 0
    found = []
    for number, (folder, before) in enumerate(((scans, trained), (other, tmp_path / "again"))):
        into = tmp_path / str(number)
        probed = taught(before, into, str(folder), "--labels", str(folder), "--cases", named, "--slices", "3")
        given = ["--held-out", "--compare", "--set", "reconstruct.method=probe", "-q"]
        assert run(["reconstruct", str(probed), str(folder), "-o", str(into / "out"), *given]) == 0
        masks = {str(path.relative_to(into)): hash_file(path) for path in sorted((into / "out").rglob("*.nii.gz"))}
        # The linear probe of the training is made of all labels, and reported beside the others.
        found.append({name: sha for name, sha in masks.items() if "_linear" not in name})
    assert {f"out/{unseen}_seg.nii.gz", f"out/comparison/{unseen}_stego.nii.gz"} <= found[0].keys()
    assert found[0] == found[1]


def test_the_head_for_volumes_is_taught_and_asked(
    trained: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "STEPS", 4)
    probed = taught(trained, tmp_path, str(scans), "--labels", str(scans), "--head", "volume")
    scan = next(scans.glob(f"{held_out(trained)}_img*"))
    given = ["--set", "reconstruct.method=probe", "-q"]
    assert run(["reconstruct", str(probed), str(scan), "-o", str(tmp_path / "out"), *given]) == 0
    assert nibabel.load(next((tmp_path / "out").glob("*_seg.nii.gz"))).get_fdata().any()


def test_slices_and_clicks_count_as_what_they_are(trained: Path, scans: Path, tmp_path: Path) -> None:
    case = next(path.name.split("_img")[0] for path in scans.glob("*_img*") if held_out(trained) not in path.name)
    mine = tmp_path / "mine"
    mine.mkdir()
    label = nibabel.load(scans / f"{case}_label.nii.gz")
    values = np.asarray(label.dataobj).copy()
    shown = np.flatnonzero(values.any((0, 1)))[:2]
    values[..., np.setdiff1d(np.arange(values.shape[2]), shown)] = 0
    nibabel.save(nibabel.Nifti1Image(values, label.affine, label.header), mine / f"{case}_label.nii.gz")
    place = " ".join(map(str, np.argwhere(values)[0]))
    arguments = ["--slices", "drawn", "--minutes", "4", "--space", "voxel", "--click", case, *place.split(), "vessel"]
    probed = taught(trained, tmp_path, str(scans), "--labels", str(mine), *arguments)
    assert effort(probed) == {"counts": {"slices": 2, "clicks": 1}, "minutes": 4.0}


def test_time_of_a_review_is_counted(trained: Path, scans: Path, tmp_path: Path) -> None:
    case = next(path.name.split("_img")[0] for path in scans.glob("*_img*") if held_out(trained) not in path.name)
    accepted = tmp_path / "accepted"
    accepted.mkdir()
    shutil.copy(scans / f"{case}_label.nii.gz", accepted)
    decision = {
        "case": case, "source_sha256": "a", "run_hash": "b", "verdict": "accept", "reviewer": "r",
        "time": "2026-11-22T00:00:00Z", "seconds": 90, "comment": "", "clicks": [], "mask": None,
    }  # fmt: skip
    content = {"schema": "medseg-decisions/1", "decisions": [decision], "cases": {}}
    (accepted / "decisions.json").write_text(json.dumps(content), encoding="utf-8")
    assert effort(taught(trained, tmp_path, str(scans), "--labels", str(accepted)))["minutes"] == 1.5


def test_a_mistake_is_one_line_and_changes_nothing(
    trained: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = held_out(trained)
    case = next(path.name.split("_img")[0] for path in scans.glob("*_img*") if unseen not in path.name)
    label = nibabel.load(scans / f"{case}_label.nii.gz")
    values = np.asarray(label.dataobj)

    def labels(name: str, array: np.ndarray, affine: np.ndarray = label.affine) -> str:
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), tmp_path / name / f"{case}_label.nii.gz")
        return str(tmp_path / name)

    mistakes = {
        "a label must be given": [],
        "must be a folder": ["--labels", str(tmp_path / "nowhere")],
        "must have something drawn": ["--labels", labels("empty", 0 * values)],
        "got the value 7": ["--labels", labels("strange", 7 * values)],
        "grid": ["--labels", labels("moved", values, label.affine + np.eye(4) * 0.5)],
        "must be of cases in the scans": ["--labels", str(scans), "--cases", ""],
        "must name cases of the scans": ["--labels", str(scans), "--cases", "nobody"],
        "does not hold out": ["--labels", str(scans), "--cases", unseen],
        "--slices must be at least 1": ["--labels", str(scans), "--slices", "0"],
        "--slices must be a number": ["--labels", str(scans), "--slices", "some"],
        "must lie in the volume": ["--click", case, "9999", "0", "0", "vessel"],
        "class of a click": ["--click", case, "1", "1", "1", "bone", "--space", "voxel"],
        "one class": ["--space", "voxel", "--click", case, "9", "9", "9", "vessel", "--click", case, "9", "9", "9",
                      "background"],
        "--head must be": ["--labels", str(scans), "--head", "cubic"],
        "--loss must be": ["--labels", str(scans), "--loss", "hinge"],
        "--loss must go with --head linear": ["--labels", str(scans), "--head", "volume", "--loss", "generalised_dice"],
        "--slices must go with --labels": ["--slices", "2", "--click", case, "1", "1", "1", "vessel"],
        "must be a method without labels": ["--labels", str(scans), "--set", "reconstruct.method=probe"],
    }  # fmt: skip
    for words, arguments in mistakes.items():
        assert run(["teach", str(trained), str(scans), *arguments, "-q"]) == 1, words
        said = capsys.readouterr().err.strip()
        assert words in said and len(said.splitlines()) == 1, (words, said)
    assert run(["teach", str(tmp_path), str(scans), "--labels", str(scans), "-q"]) == 1
    assert not (trained / "methods" / "probe").exists()


@pytest.mark.parametrize("head", ["linear", "volume"])
def test_labels_outside_the_region_alone_are_one_line(
    trained: Path, scans: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Gathered.labels
    monkeypatch.setattr(Gathered, "labels", lambda *given: (0 * read(*given)[0] - 1, 0))  # nothing is left of them
    with pytest.raises(MedsegError, match="labels must hold a class where one looks"):
        teach_run(trained, scans, Sources(labels=scans), head=head)
    assert not (trained / "methods" / "probe").exists()


def test_masks_of_the_run_stay_done_when_a_probe_is_added(trained: Path, scans: Path, tmp_path: Path) -> None:
    probed = tmp_path / "run"
    shutil.copytree(trained, probed)
    scan, out = str(next(scans.glob("*_img*"))), tmp_path / "out"
    assert run(["reconstruct", str(probed), scan, "-o", str(out), "-q"]) == 0
    before = next(out.glob("*_seg.nii.gz")).stat().st_mtime_ns
    assert run(["teach", str(probed), str(scans), "--labels", str(scans), "-q"]) == 0
    assert run(["reconstruct", str(probed), scan, "-o", str(out), "-q"]) == 0
    assert next(out.glob("*_seg.nii.gz")).stat().st_mtime_ns == before


def test_one_labelled_picture_names_what_is_in_the_others(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    write_scenes(scenes, train=3, val=1, labelled=1)
    small = [
        "prepare.resize=48", "patches.size=32", "patches.per_case=4", "stego.steps=2", "stego.batch=4",
        "stego.clusters=4", "stego.fit_points=400", "stego.code_dim=8", "reconstruct.refine=[]",
    ]  # fmt: skip
    probed = tmp_path / "run"
    train_run("pictures_bank", scenes, probed, overrides=small, labels=False)
    answer = teach_run(probed, scenes, Sources(labels=scenes / "labels" / "train"))
    assert answer["head"] == "linear" and answer["effort"] == {"counts": {"cases": 1}, "minutes": None}
    reconstruct_run(probed, scenes, tmp_path / "out", held_out=True, overrides=["reconstruct.method=probe"])
    scored = score_results(tmp_path / "out", scenes / "labels")["aggregates"]
    means = {row["structure"]: row["spreads"]["dice"]["mean"] for row in scored if row["method"] == "probe"}
    assert means["class 1"] > 0.9 and means["class 2"] > 0.85  # sky and meadow
    with pytest.raises(MedsegError, match="--head must be linear on features of slices"):
        teach_run(probed, scenes, Sources(labels=scenes / "labels" / "train"), head="volume")
