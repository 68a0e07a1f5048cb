from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from stego.fakes import fake_dataset, one_process, small_settings, train_in_processes

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.stego import checkpoints
from medseg.stego.model import ClusterModel
from medseg.stego.settings import StegoSettings
from medseg.stego.step import build_parts
from medseg.stego.training import StegoRun, measure_shifts, train


def run(folder: Path, settings: StegoSettings, dataset: PatchDataset | None = None, **more: Any) -> StegoRun:
    dataset = dataset or fake_dataset()
    pairs = find_pairs(dataset, neighbours=settings.neighbours)
    return train(dataset, pairs, settings, run_dir=folder, fabric=one_process(), seed=3, **more)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of everything that must not depend on interruptions."""
    kept = [*sorted(folder.glob("methods/*/*")), folder / "metrics.csv"]
    return {str(path.relative_to(folder)): hash_file(path) for path in kept}


class Stop(Exception):
    """Stands for a kill."""


class StopsAt(PatchDataset):
    """A dataset that ends the program at its n-th read."""

    def __init__(self, dataset: PatchDataset, reads: int) -> None:
        super().__init__(dataset.stores, dataset.reference)
        self.left = reads

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().__getitem__(index)


@pytest.mark.parametrize("sampling", ["maps", "corners", "pixels"])
def test_training_finds_the_tissues_and_beats_the_untrained_start(tmp_path: Path, sampling: str) -> None:
    found = run(tmp_path, small_settings(steps=40, sampling=sampling, learning_rate=5e-3))
    dataset = fake_dataset()
    points = found.points
    truth = np.array(
        [dataset.stores[c].tissue[p, y, x] for c, p, (y, x) in zip(points.case, points.patch, points.cell, strict=True)]
    )
    assert set(found.assignments) == {"stego", "kmeans", "untrained"}
    for name, clusters in found.assignments.items():
        table = np.zeros((3, 3))
        np.add.at(table, (clusters, truth), 1)
        assert table.max(1).sum() / len(truth) > (0.6 if name == "untrained" else 0.9), name
    totals = [float(row["loss/total"]) for row in rows(tmp_path)]
    assert np.mean(totals[-5:]) < np.mean(totals[:5]) - 0.05


def test_every_method_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = run(tmp_path, small_settings(cluster_fit="kmeans", code_metric="euclidean"))
    features = fake_dataset()[0]["features"][None]
    for name, method in found.methods.items():
        again = ClusterModel.load(tmp_path / "methods" / name)
        assert torch.equal(again.probabilities(features), method.probabilities(features))
        assert torch.allclose(again.probabilities(features).sum(1), torch.ones(1, 8, 8))
        points = features[0].flatten(1).T
        assert torch.equal(again.probabilities(features).argmax(1).flatten(), again.assign(points))


@pytest.mark.parametrize("reads", [3, 40, 58, 72, 84])
def test_a_killed_training_goes_on_bit_by_bit(tmp_path: Path, reads: int) -> None:
    settings = small_settings(shifts="auto", rec_weight=0.2, crf_weight=0.3, crf_samples=20, reset_probe_steps=4)
    whole = run(tmp_path / "whole", settings)
    with pytest.raises(Stop):
        run(tmp_path / "cut", settings, StopsAt(fake_dataset(), reads))
    again = run(tmp_path / "cut", settings)
    assert again.shifts == whole.shifts
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_kill_while_the_checkpoint_is_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", small_settings())
    save, calls = torch.save, []

    def save_half(state: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise Stop
        save(state, path)

    monkeypatch.setattr(checkpoints.torch, "save", save_half)
    with pytest.raises(Stop):
        run(tmp_path / "cut", small_settings())
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["last.pt"]
    run(tmp_path / "cut", small_settings())
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_labels_change_nothing_but_the_report(tmp_path: Path) -> None:
    run(tmp_path / "without", small_settings(sampling="corners"))
    run(tmp_path / "with", small_settings(sampling="corners"), fake_dataset(labelled=True))
    without, with_labels = hashes(tmp_path / "without"), hashes(tmp_path / "with")
    assert without.pop("metrics.csv") != with_labels.pop("metrics.csv")
    reported = {name for name in with_labels if name.startswith("methods/linear/")}
    assert reported
    assert without == {name: value for name, value in with_labels.items() if name not in reported}


@pytest.mark.parametrize("labels", ["none", "some", "all"])
def test_no_number_is_nan_whatever_is_labelled(tmp_path: Path, labels: str) -> None:
    dataset = fake_dataset(labelled=labels != "none")
    if labels == "some":
        dataset.reference[0] = None
        dataset.reference[1] = np.full_like(dataset.stores[1].tissue, -1)
    run(tmp_path, small_settings(), dataset)
    values = [value for row in rows(tmp_path) for value in row.values() if value]
    assert all(np.isfinite(float(value)) for value in values)
    linear = [row["loss/linear"] for row in rows(tmp_path)]
    assert all(linear) if labels != "none" else not any(linear)
    assert any(row["test/cluster/mIoU"] for row in rows(tmp_path)) == (labels != "none")


def test_steps_are_counted_in_batches(tmp_path: Path) -> None:
    assert [int(row["step"]) for row in (run(tmp_path, small_settings()), rows(tmp_path))[1]] == list(range(6))
    settings = small_settings(epochs=2)
    assert settings.steps_for(10) == 4
    assert settings.steps_for(3) == 2


@pytest.mark.parametrize(("cases", "count"), [(1, 1), (1, 2), (2, 1)])
def test_a_set_smaller_than_a_batch_trains(
    tmp_path: Path, cases: int, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(tmp_path, small_settings(shifts="auto", steps=2), fake_dataset(cases=cases, count=count))
    assert "the batch is lowered" in caplog.text
    assert ("the random term is left out" in caplog.text) == (cases * count == 1)
    assert [bool(row["loss/neg_inter"]) for row in rows(tmp_path)] == [cases * count > 1] * 2


def test_measured_shifts_are_the_quantiles_of_the_centred_correspondences() -> None:
    dataset, settings = fake_dataset(), small_settings(dropout=0.0)
    pairs = find_pairs(dataset, neighbours=3)
    found = measure_shifts(dataset, pairs, settings, threshold=0.5, seed=0)
    extreme = measure_shifts(
        dataset, pairs, small_settings(dropout=0.0, random_quantile=1.0, self_quantile=0.0), threshold=0.5, seed=0
    )
    assert extreme.self_ < found.self_ < 1
    assert found.random < extreme.random
    assert found == measure_shifts(dataset, pairs, settings, threshold=0.5, seed=0)


def test_a_collapse_warns_once_and_says_what_to_try(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A negative shift attracts everything to everything.
    settings = small_settings(
        steps=60, random_shift=-5.0, knn_shift=-5.0, self_shift=-5.0, learning_rate=5e-2, log_every=5
    )
    found = run(tmp_path, settings)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert found.health.alarms
    assert len(warnings) == 1
    assert "stego.shifts: auto" in warnings[0]


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, small_settings(), identity="filterbank")
    with pytest.raises(MedsegError, match="same settings, seed, backbone"):
        run(tmp_path, small_settings(), identity="dino")
    with pytest.raises(MedsegError, match="same settings"):
        run(tmp_path, small_settings(learning_rate=1e-3), identity="filterbank")
    run(tmp_path, small_settings(cluster_fit="kmeans"), identity="filterbank")


def test_a_checkpoint_with_code_inside_is_refused_and_not_run(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = tmp_path / "checkpoints" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(MedsegError, match=r"last\.pt must be a checkpoint"):
        run(tmp_path, small_settings())
    assert not (tmp_path / "ran").exists()


def test_aug_alignment_is_refused_without_a_slice_backbone_and_trains_with_one(tmp_path: Path) -> None:
    settings = small_settings(aug_alignment_weight=0.5, steps=2)
    with pytest.raises(MedsegError, match=r"aug_alignment_weight must be 0 with a volume backbone"):
        run(tmp_path, settings)
    run(tmp_path, settings, view_features=lambda image: image[:, None].expand(-1, 6, -1, -1))
    assert all(row["loss/aug_alignment"] for row in rows(tmp_path))


def test_weights_of_step_0_depend_on_the_seed_alone() -> None:
    plain, labelled = (build_parts(6, small_settings(), classes=classes, seed=1) for classes in (0, 4))
    other = build_parts(6, small_settings(), classes=0, seed=2)
    state = torch.get_rng_state()
    for name, value in plain.head.state_dict().items():
        assert torch.equal(value, labelled.head.state_dict()[name])
        assert not torch.equal(value, other.head.state_dict()[name])
    assert torch.equal(plain.probes.prototypes, labelled.probes.prototypes)
    build_parts(6, small_settings(), classes=0, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_two_processes_take_the_same_steps_as_one(tmp_path: Path) -> None:
    changes = {"maps": {"rec_weight": 0.1}, "corners": {"sampling": "corners"}}
    common = {"steps": 3, "shifts": "auto"}
    runs = [{str(tmp_path / n / name): common | changes[name] for name in changes} for n in ("one", "two")]
    train_in_processes(one_process(), runs[0])
    Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(train_in_processes, runs[1])
    for name in changes:
        for one, two in zip(rows(tmp_path / "one" / name), rows(tmp_path / "two" / name), strict=True):
            for column in (column for column in one if column.startswith(("loss/", "cd/")) and one[column]):
                assert float(two[column]) == pytest.approx(float(one[column]), abs=1e-5), (name, one["step"], column)
        first, second = (
            ClusterModel.load(tmp_path / n / name / "methods" / "stego").state_dict() for n in ("one", "two")
        )
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, atol=1e-4, rtol=1e-4)
