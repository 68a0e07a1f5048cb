"""This file tests that the clusters of voters mean the same before they vote, where nobody or a person names them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from medseg.files import read_json
from medseg.naming.classes import Naming, one_class_a_cluster, read_classes, write_classes
from medseg.phantoms.vessels import write_phantoms
from medseg.runs import RunRecord, open_run
from medseg.stego.clustering import PointSample, sample_points
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel
from medseg.workflows.choosing import choose_checkpoint
from medseg.workflows.naming import name_method
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import train_run

SMALL = (
    "stego.steps=4", "stego.batch=4", "patches.per_case=10", "patches.size=24", "stego.fit_points=600",
    "stego.clusters=5", "stego.voters=3", "prepare.brain_mask=none", "run.checkpoint_every=4",
    "naming.source=clusters", "reconstruct.refine=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voters")
    write_phantoms(folder / "scans", cases=1, seed=5, shape=(44, 40, 32), spacing=(0.7, 0.7, 0.8))
    train_run("tof_mra_bank", folder / "scans", folder / "run", overrides=SMALL)
    return folder / "run"


def assigned(record: RunRecord, method: str) -> tuple[PointSample, list[np.ndarray]]:
    """Points of the run and each voter's clusters there."""
    dataset = kept_patches(record)
    points = sample_points(dataset, 2000, 0.5, seed=99)
    found = []
    for folder in record.method_folders(method):
        model = ClusterModel.load(folder)
        codes = points.features if model.head is None else codes_at(model.head, dataset, points)
        found.append(model.assign_codes(codes).numpy())
    return points, found


def values(folder: Path, clusters: np.ndarray) -> np.ndarray:
    return read_classes(folder / "classes.yaml").values(5)[clusters]


@pytest.mark.parametrize("method", ["stego", "kmeans", "untrained"])
def test_a_cluster_without_a_name_has_the_class_of_its_match_in_every_voter(run: Path, method: str) -> None:
    record = open_run(run)
    _, found = assigned(record, method)
    folders = record.method_folders(method)
    first = values(folders[0], found[0])
    assert np.array_equal(first, found[0] + 1)  # the first voter's numbers stay
    for folder, clusters in zip(folders[1:], found[1:], strict=True):
        agreement = (values(folder, clusters) == first).mean()
        best = max((np.array(order)[clusters] == found[0]).mean() for order in permutations(range(5)))  # all 120 ways
        assert agreement > best - 0.05  # matched on other points than these
    unmatched = max((clusters == found[0]).mean() for clusters in found[1:])
    assert min((values(f, c) == first).mean() for f, c in zip(folders[1:], found[1:], strict=True)) > unmatched - 0.05


def test_without_the_match_voters_would_disagree(run: Path) -> None:
    record = open_run(run)
    _, found = assigned(record, "kmeans")
    matched = [
        values(folder, clusters) for folder, clusters in zip(record.method_folders("kmeans"), found, strict=True)
    ]
    assert np.mean([(other == matched[0]).mean() for other in matched[1:]]) > 0.7
    assert np.mean([(other == found[0]).mean() for other in found[1:]]) < 0.6


def test_names_by_hand_are_about_the_first_voters_clusters(run: Path, tmp_path: Path) -> None:
    record = open_run(run)
    one = one_class_a_cluster(5).classes[2]
    write_classes(tmp_path / "mine.yaml", Naming((one,), "hand"))
    by_hand = record.config.naming.model_copy(update={"source": "hand", "classes": tmp_path / "mine.yaml"})
    for folder in record.method_folders("kmeans"):
        expected = {n: 3 for n, value in read_classes(folder / "classes.yaml").class_of_cluster.items() if value == 3}
        assert name_method(folder, by_hand, clusters=5).class_of_cluster == expected


def test_a_choice_matches_anew_and_masks_hold_the_first_voters_classes(run: Path, tmp_path: Path) -> None:
    record = open_run(run)
    choose_checkpoint(run, clusters=[4])
    for folder in record.method_folders("stego")[1:]:
        assert len(read_json(folder / "matches.json")["of_first"]) == 4
    answer = reconstruct_run(run, run.parent / "scans", tmp_path / "out")
    assert not answer["failed"]
    manifest = read_json(tmp_path / "out" / "phantom_001_manifest.json")
    assert [entry["clusters"] for entry in manifest["classes"]] == [[0], [1], [2], [3]]
