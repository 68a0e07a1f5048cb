"""This file tests `medseg name` on tiny runs: names by clicks, splits, what stays, and every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.cli import run as medseg
from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.naming.classes import read_classes
from medseg.naming.clicks import Click
from medseg.naming.effort import Effort
from medseg.phantoms.vessels import write_phantoms
from medseg.runs import open_run
from medseg.stego.model import ClusterModel, nearness
from medseg.workflows import parts
from medseg.workflows.clicking import name_by_clicks
from medseg.workflows.intake import AS_IT_IS
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.training import train_run
from medseg.workflows.voxel_features import features_at

SMALL = (
    "stego.steps=4", "stego.batch=4", "patches.per_case=10", "patches.size=24", "stego.fit_points=600",
    "stego.clusters=5", "stego.voters=2", "prepare.brain_mask=none", "run.checkpoint_every=4", "reconstruct.refine=[]",
)  # fmt: skip
BY_CLICKS = ("reconstruct.method=clicks",)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=1, seed=5, shape=(44, 40, 32), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train_run("tof_mra_bank", scans, run, overrides=SMALL)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def label(scans: Path) -> np.ndarray:
    """The phantom's own label says where this test clicks, as a person sees it; nothing else reads it."""
    (path,) = scans.rglob("*label*")
    return np.asarray(nibabel.load(path).dataobj)


def click(voxel: tuple[int, ...] | np.ndarray, name: str) -> Click:
    i, j, k = map(float, voxel)
    return Click("phantom_001", (i, j, k), "voxel", name)


def cluster_map(run: Path, scans: Path, method: str, voter: int = 0) -> np.ndarray:
    """The cluster of every voxel, by a slow way that shares nothing with the clicks: windows of the whole volume."""
    record = open_run(run)
    (case,) = AS_IT_IS.cases(scans, skip=()).cases
    model = ClusterModel.load(record.method_folders(method)[voter])
    backbones = parts.load_backbones(record.config.features, torch.device("cpu"))
    shape = nibabel.load(case.image).shape
    voxels = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    codes = features_at(case, voxels, record, backbones, torch.device("cpu"), read=model.codes)
    return model.assign_codes(codes).numpy().reshape(shape)


def state(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_clicks_name_the_clusters_they_lie_in_in_every_voter(run: Path, scans: Path, label: np.ndarray) -> None:
    clusters = cluster_map(run, scans, "kmeans")
    vessel, tissue = np.argwhere(label > 0)[40], np.argwhere(label == 0)[40]
    assert clusters[tuple(vessel)] != clusters[tuple(tissue)]
    before = open_run(run).run_hash()
    answer = name_by_clicks(run, [click(vessel, "vessel"), click(tissue, "background")], method="kmeans", minutes=0.5)
    record = open_run(run)
    for voter, folder in enumerate(record.method_folders("clicks")):
        named = read_classes(folder / "classes.yaml")
        of_voter = cluster_map(run, scans, "kmeans", voter)
        assert named.named_by == "clicks"
        assert named.class_of_cluster.get(of_voter[tuple(vessel)]) == 1
        assert of_voter[tuple(tissue)] not in named.class_of_cluster
        kept = read_classes(record.method_folders("kmeans")[voter] / "classes.yaml").class_of_cluster
        clicked = {of_voter[tuple(vessel)], of_voter[tuple(tissue)]}
        assert {k for k in named.class_of_cluster if k not in clicked} == {k for k in kept if k not in clicked}
        assert Effort.from_dict(read_json(folder / "effort.json")) == Effort({"clicks": 2}, 0.5)
    assert record.run_hash() == before and record.run_hash(["clicks"]) != before
    assert answer["split"] == [] and f"medseg reconstruct {run} {scans.resolve()} -o OUT" in answer["lines"][-1]


def test_two_classes_in_one_cluster_split_it_and_the_mask_follows(run: Path, scans: Path, tmp_path: Path) -> None:
    clusters = cluster_map(run, scans, "stego")
    largest = np.argwhere(clusters == np.bincount(clusters.ravel()).argmax())
    one, other = largest[5], largest[-5]
    assert clusters[tuple(one)] == clusters[tuple(other)]
    clicks = [click(one, "vessel"), click(other, "background")]
    answer = name_by_clicks(run, clicks)
    assert clusters[tuple(one)] in answer["split"]
    folder = open_run(run).method_folders("clicks")[0]
    after, named = cluster_map(run, scans, "clicks"), read_classes(folder / "classes.yaml").class_of_cluster
    assert named.get(after[tuple(one)]) == 1 and after[tuple(other)] not in named
    cards = read_json(folder / "cards.json")["cards"]
    assert len(cards) == ClusterModel.load(folder).clusters and sum(card["facts"]["share"] for card in cards) == 1
    written = state(folder)
    name_by_clicks(run, clicks)
    assert state(folder) == written  # the same clicks, the same method
    answer = reconstruct_run(run, scans, tmp_path / "out", overrides=BY_CLICKS)
    assert not answer["failed"]
    manifest = read_json(tmp_path / "out" / "phantom_001_manifest.json")
    assert manifest["method"] == "clicks" and manifest["named_by"] == "clicks"
    assert manifest["effort"] == {"counts": {"clicks": 2}, "minutes": None}


def test_masks_of_other_methods_stay_done_and_those_of_changed_clicks_are_made_anew(
    run: Path, scans: Path, tmp_path: Path, label: np.ndarray
) -> None:
    vessel, tissue = np.argwhere(label > 0)[40], np.argwhere(label == 0)[40]
    reconstruct_run(run, scans, tmp_path / "stego")
    name_by_clicks(run, [click(vessel, "vessel")])
    assert reconstruct_run(run, scans, tmp_path / "stego")["skipped"] == ["phantom_001"]
    reconstruct_run(run, scans, tmp_path / "clicks", overrides=BY_CLICKS)
    name_by_clicks(run, [click(vessel, "vessel"), click(tissue, "background")])
    assert reconstruct_run(run, scans, tmp_path / "clicks", overrides=BY_CLICKS)["done"] == ["phantom_001"]


def test_decisions_bring_their_minutes(run: Path, scans: Path, tmp_path: Path, label: np.ndarray) -> None:
    (case,) = AS_IT_IS.cases(scans, skip=()).cases
    vessel = np.argwhere(label > 0)[40]
    place = nibabel.affines.apply_affine(nibabel.load(case.image).affine, vessel).tolist()
    entry = {"case": "phantom_001", "seconds": 45, "clicks": [{"xyz_mm": place, "class": "vessel"}]}
    path = tmp_path / "medseg_decisions.json"
    path.write_text(json.dumps({"schema": "medseg-decisions/1", "decisions": [entry]}))
    name_by_clicks(run, decisions=path)
    in_mm = state(run / "methods" / "clicks")
    assert read_json(run / "methods" / "clicks" / "effort.json") == {"counts": {"clicks": 1}, "minutes": 0.75}
    name_by_clicks(run, [click(vessel, "vessel")], minutes=0.75)
    assert state(run / "methods" / "clicks") == in_mm


def test_a_new_class_gets_a_value_and_a_colour(run: Path, label: np.ndarray) -> None:
    vessel, tissue = np.argwhere(label > 0)[40], np.argwhere(label == 0)[40]
    name_by_clicks(run, [click(vessel, "vessel"), click(tissue, "tissue")], new_classes=["tissue=7", "fat"])
    entries = {entry.name: entry for entry in read_classes(run / "methods" / "clicks" / "classes.yaml").classes}
    assert {name: entry.value for name, entry in entries.items()} == {"vessel": 1, "tissue": 7, "fat": 8}
    assert entries["tissue"].clusters and not entries["fat"].clusters
    assert len({entry.colour for entry in entries.values()}) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--click", "phantom_001", "500", "0", "0", "vessel"], "must lie in the volume"),
        (["--click", "phantom_001", "1", "1", "1", "vesel"], "did you mean vessel?"),
        (["--click", "phantom_01", "1", "1", "1", "vessel"], "did you mean phantom_001?"),
        (
            ["--click", "phantom_001", "1", "1", "1", "vessel", "--click", "phantom_001", "1", "1", "1", "background"],
            "clicks must give each voxel one class",
        ),
        (["--click", "phantom_001", "1", "1", "vessel"], "must be CASE x y z CLASS"),
        ([], "a click must be given"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--method", "linear"], "--method must be one of"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--new-class", "vessel=9"], "must use each name once"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--new-class", "fat=1"], "must use each value once"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--new-class", "fat=x"], "NAME or NAME=VALUE"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--minutes", "-1"], "minutes"),
        (["--click", "phantom_001", "1", "1", "1", "vessel", "--scans", "nowhere"], "name them with --scans"),
        (["--decisions", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(
    run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(run)
    assert medseg(["name", str(run), *arguments, "--space", "voxel", "-q"]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert state(run) == before


def test_clicks_that_look_the_same_cannot_have_two_classes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.workflows.clicking.features_at", lambda *_, **__: torch.ones(2, 2 * _code_dim(run)))
    before = state(run)
    with pytest.raises(MedsegError, match="must look different"):
        name_by_clicks(run, [click((1, 1, 1), "vessel"), click((9, 9, 9), "background")])
    assert state(run) == before


def test_a_scan_without_vessels_gets_empty_masks_and_a_line(
    run: Path, tmp_path: Path, label: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    name_by_clicks(run, [click(np.argwhere(label > 0)[40], "vessel")])
    random = np.random.default_rng(0)
    noise = np.hypot(random.normal(300, 60, (44, 40, 32)), random.normal(0, 60, (44, 40, 32)))
    (tmp_path / "empty").mkdir()
    affine = np.diag([0.7, 0.7, 0.8, 1])
    nibabel.save(nibabel.Nifti1Image(noise.astype(np.float32), affine), tmp_path / "empty" / "noise.nii.gz")
    out = tmp_path / "out"
    with caplog.at_level("WARNING"):
        reconstruct_run(
            run, tmp_path / "empty", out, compare=True, overrides=["reconstruct.refine=[region,flux_alarm]"]
        )
    masks = [out / "noise_seg.nii.gz", *(out / "comparison" / f"noise_{name}.nii.gz" for name in ("kmeans", "clicks"))]
    assert [np.count_nonzero(np.asarray(nibabel.load(mask).dataobj)) for mask in masks] == [0, 0, 0]
    assert any(
        "nothing stands out from the noise; the mask is left empty" in record.message for record in caplog.records
    )


def _code_dim(run: Path) -> int:
    return ClusterModel.load(run / "methods" / "stego").prototypes.shape[1]


def test_without_clicks_the_method_is_missed_with_advice(run: Path, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"must have the method clicks, got none; make it with `medseg name`"):
        reconstruct_run(run, scans, tmp_path / "out", overrides=BY_CLICKS)


def test_a_click_is_in_the_cluster_that_the_mask_shows(run: Path, scans: Path) -> None:
    """Features at voxels are those of the stored patches at the same place."""
    record = open_run(run)
    stored = next(path for path in (run / "features").iterdir() if (path / "locations.npy").is_file())
    locations, features = np.load(stored / "locations.npy"), np.load(stored / "features.npy")
    slice_, row, column = locations[3]
    (case,) = AS_IT_IS.cases(scans, skip=()).cases
    voxel = np.array([[row + 12, column + 11, slice_]])  # the phantoms are stored as RAS, patches are axial
    backbones = parts.load_backbones(record.config.features, torch.device("cpu"))
    found = features_at(case, voxel, record, backbones, torch.device("cpu"))
    assert np.abs(found[0].numpy() - features[3, :, 12, 11].astype(np.float32)).max() < 2e-3 * np.abs(features[3]).max()
    model = ClusterModel.load(run / "methods" / "kmeans")
    assert nearness(found, model.prototypes, model.metric).shape == (1, 5)
