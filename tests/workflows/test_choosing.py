"""This file tests the label-free choice of checkpoint and K on a tiny run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.phantoms.vessels import write_phantoms
from medseg.runs import open_run
from medseg.stego.choice import SIGNALS
from medseg.stego.losses import Terms
from medseg.stego.model import ClusterModel
from medseg.workflows.choosing import Candidate, best_of, choose_checkpoint
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import train_run

SMALL = (
    "stego.steps=6", "stego.batch=4", "stego.keep_every=2", "patches.per_case=12", "patches.size=24",
    "stego.fit_points=600", "stego.clusters=5", "prepare.brain_mask=none", "run.checkpoint_every=6",
    "naming.source=training_labels",
)  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=1, seed=5, shape=(56, 52, 40), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def trained(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train_run("tof_mra_bank", scans, run, overrides=SMALL)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def candidate(step: int, clusters: int, stability: float) -> Candidate:
    model = ClusterModel("stego", None, torch.eye(clusters), "cosine", 1.0)
    return Candidate(step, model, {"stability": stability}, Terms(0.0, 0.0, 0.0))


def test_every_checkpoint_meets_every_k_and_the_best_becomes_the_method(run: Path, scans: Path, tmp_path: Path) -> None:
    before = open_run(run).run_hash()
    answer = choose_checkpoint(run, clusters=[3, 7, 3])
    assert [(c["step"], c["clusters"]) for c in answer["candidates"]] == [(s, k) for s in (2, 4, 6) for k in (3, 7)]
    highest = max(answer["candidates"], key=lambda each: each["signals"]["stability"])
    assert answer["chosen"] == highest
    method = ClusterModel.load(run / "methods" / "stego")
    assert method.clusters == highest["clusters"] and method.head is not None
    state = torch.load(run / "checkpoints" / f"step_{highest['step']:06d}.pt", weights_only=True)
    assert all(torch.equal(method.head.state_dict()[name], value) for name, value in state["head"].items())
    kept = read_json(run / "methods" / "stego" / "choice.json")
    assert kept["chosen"] == highest and kept["candidates"] == answer["candidates"]
    assert any(line.startswith("chosen by stability: step") for line in answer["lines"])
    record = open_run(run)
    assert record.has_method("stego") and record.run_hash() != before
    out = tmp_path / "out"
    assert not reconstruct_run(run, scans, out)["failed"]
    assert (out / "phantom_001_seg.nii.gz").is_file()


def test_names_come_from_the_labels_of_the_training_when_the_config_says_so(run: Path) -> None:
    choose_checkpoint(run, clusters=[7])
    cards = read_json(run / "methods" / "stego" / "cards.json")
    assert np.shape(cards["label_table"])[0] == 7 and np.sum(cards["label_table"]) > 0


def test_labels_change_no_signal_and_no_choice(run: Path) -> None:
    with np.load(run / "patches.npz") as content:
        arrays = dict(content)
    shuffled = np.random.default_rng(0).permutation(arrays["0"].ravel()).reshape(arrays["0"].shape)
    first = choose_checkpoint(run, clusters=[3, 5], write=False)
    np.savez_compressed(run / "patches.npz", **{**arrays, "0": shuffled})
    assert kept_patches(open_run(run)).reference[0] is not None
    assert choose_checkpoint(run, clusters=[3, 5], write=False) == first


def test_without_writing_the_run_stays_as_it_is_and_with_the_last_checkpoint_only_k_is_chosen(run: Path) -> None:
    for path in (run / "checkpoints").glob("step_*.pt"):
        path.unlink()
    before = open_run(run).run_hash()
    answer = choose_checkpoint(run, clusters=[3, 4], signal="silhouette", write=False)
    assert {each["step"] for each in answer["candidates"]} == {6}
    assert open_run(run).run_hash() == before
    assert f"{run} stays as it is" in answer["lines"]


def test_the_runs_own_k_at_its_last_step_is_what_the_training_left(run: Path) -> None:
    for path in (run / "checkpoints").glob("step_*.pt"):
        path.unlink()
    before = ClusterModel.load(run / "methods" / "stego").prototypes
    cards, classes = ((run / "methods" / "stego" / name).read_bytes() for name in ("cards.json", "classes.yaml"))
    choose_checkpoint(run)
    assert torch.equal(ClusterModel.load(run / "methods" / "stego").prototypes, before)
    assert (run / "methods" / "stego" / "cards.json").read_bytes() == cards
    assert (run / "methods" / "stego" / "classes.yaml").read_bytes() == classes


def test_checkpoints_that_an_earlier_training_left_are_no_candidates(run: Path) -> None:
    state = torch.load(run / "checkpoints" / "step_000002.pt", weights_only=True)
    torch.save(state | {"key": "another"}, run / "checkpoints" / "step_000002.pt")
    answer = choose_checkpoint(run, write=False)
    assert [each["step"] for each in answer["candidates"]] == [4, 6]


def test_equal_signals_are_settled_by_steps_and_then_by_fewer_clusters() -> None:
    found = [candidate(2, 3, 0.5), candidate(4, 5, 0.5), candidate(4, 3, 0.5), candidate(6, 3, 0.4)]
    assert best_of(found, "stability") is found[2]
    assert best_of([candidate(2, 3, float("nan")), found[3]], "stability") is found[3]
    with pytest.raises(MedsegError, match="measurable"):
        best_of([candidate(2, 3, float("nan"))], "stability")


def test_what_cannot_be_chosen_from_is_said(run: Path) -> None:
    with pytest.raises(MedsegError, match=f"one of {next(iter(SIGNALS))}"):
        choose_checkpoint(run, signal="dice")
    with pytest.raises(MedsegError, match="at least 2, got 1"):
        choose_checkpoint(run, clusters=[4, 1])
    record, text = run / "run.yaml", (run / "run.yaml").read_text()
    record.write_text(
        text.replace(
            "source: training_labels\n    rules: tof_mra\n    classes: null",
            "source: hand\n    rules: tof_mra\n    classes: x",
        )
    )
    with pytest.raises(MedsegError, match="another than hand"):
        choose_checkpoint(run)
    record.write_text(text)
    (run / "checkpoints" / "step_000004.pt").write_bytes(b"no checkpoint")
    with pytest.raises(MedsegError, match="step_000004"):
        choose_checkpoint(run)
    for path in (run / "checkpoints").glob("*.pt"):
        path.unlink()
    with pytest.raises(MedsegError, match=r"last\.pt"):
        choose_checkpoint(run)
    shutil.rmtree(run / "features")
    with pytest.raises(MedsegError, match="patches that are stored"):
        choose_checkpoint(run)
    shutil.rmtree(run / "methods")
    with pytest.raises(MedsegError, match="trained to the end"):
        choose_checkpoint(run)
