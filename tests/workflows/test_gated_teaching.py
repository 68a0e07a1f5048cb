"""This file tests the gate and the rounds of a taught probe: where it looks, what is stored, what grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.config import change_config
from medseg.errors import MedsegError
from medseg.fewshot.gate import Gate
from medseg.phantoms.vessels import write_phantoms
from medseg.prepare.chain import prepare_case
from medseg.reconstruction.refine import Volume, refine
from medseg.runs import open_run
from medseg.scans.folders import find_cases
from medseg.workflows import parts, teaching
from medseg.workflows.predictors import predictor_of_run
from medseg.workflows.probing import behind_gate, steps_after
from medseg.workflows.taught_labels import Sources
from medseg.workflows.teaching import teach_run
from medseg.workflows.training import train_run

CPU = torch.device("cpu")
SMALL = [
    "student.steps=0", "stego.steps=1", "stego.batch=4", "patches.per_case=8", "patches.size=24",
    "stego.voters=1", "stego.fit_points=400", "prepare.brain_mask=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, cases=2, seed=5, shape=(56, 52, 40), spacing=(0.7, 0.7, 0.8))
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_run("tof_mra", scans, folder, overrides=SMALL, labels=False)
    return folder


def teach(run: Path, scans: Path, **options: Any) -> dict[str, Any]:
    return teach_run(run, scans, Sources(labels=scans), cases=["phantom_001"], head="linear", **options)


def answer(run: Path, sample: dict[str, Any]) -> np.ndarray:
    record = open_run(run)
    config = change_config(record.config, ["reconstruct.method=probe"], sections=("reconstruct",))
    return predictor_of_run(record, config, CPU, compare=False).predict(sample, config, CPU).probabilities["probe"][0]


def test_a_gate_closes_what_it_skips_and_leaves_the_rest_as_it_is(run: Path, scans: Path) -> None:
    case = find_cases(scans).cases[1]
    sample = prepare_case(case, parts.preparation(open_run(run).config.prepare))
    teach(run, scans)
    assert Gate.load(run / "methods" / "probe") is None
    everywhere = answer(run, sample)
    said = teach(run, scans, gate=True)
    gate = Gate.load(run / "methods" / "probe")
    assert gate is not None
    assert said["gate"] == {"recall": gate.recall, "skipped": gate.skipped}
    assert any(line.startswith("gate taught by") and f"{gate.recall:.1%}" in line for line in said["lines"])
    kept = behind_gate(sample, gate)["region"][0].numpy() > 0
    assert 0 < kept.sum() < 0.9 * (sample["region"][0] > 0).sum()
    gated = answer(run, sample)
    assert not gated[~kept].any()
    # What lies beside the kept patches has a say in the prior's wall at their borders.
    assert (np.abs(gated - everywhere)[kept] < 1e-4).mean() > 0.999
    teach(run, scans)  # without a gate the old one goes
    assert not (run / "methods" / "probe" / "gate.json").exists()


def test_later_rounds_learn_from_labels_that_grew(run: Path, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    learn = teaching._learn_case

    def watched(lesson: Any, sample: Any, labels: np.ndarray, *others: Any) -> None:
        seen.append(labels)
        learn(lesson, sample, labels, *others)

    monkeypatch.setattr(teaching, "_learn_case", watched)
    said = teach_run(run, scans, Sources(labels=scans, slices=3), cases=["phantom_001"], head="linear", rounds=2)
    given, grown = seen
    known = given >= 0
    assert np.array_equal(grown[known], given[known])
    assert ((grown >= 0) & ~known).any()
    assert said["effort"]["counts"] == {"slices": 3}
    assert not list((open_run(run).store / "prepared").glob("*.pt"))


def test_what_cannot_be_taught_is_one_line(run: Path, scans: Path) -> None:
    teach(run, scans)
    before = sorted(path.name for path in (run / "methods" / "probe").iterdir())
    with pytest.raises(MedsegError, match="--rounds must be at least 1, got 0"):
        teach(run, scans, rounds=0)
    with pytest.raises(MedsegError, match="the gate must learn from patches with and without a vessel"):
        teach_run(run, scans, Sources(labels=scans, slices=1), cases=["phantom_001"], head="linear", gate=True)
    assert sorted(path.name for path in (run / "methods" / "probe").iterdir()) == before


def test_the_gate_beside_a_probe_is_plain_numbers(run: Path, scans: Path) -> None:
    teach(run, scans, gate=True)
    content = json.loads((run / "methods" / "probe" / "gate.json").read_text())
    assert 0.95 < content["recall"] <= 1 and content["patches"] > 100


def test_after_a_probe_the_flux_rule_takes_away_and_adds_nothing() -> None:
    cores = [("tubes", {}), ("weak_sheets", {}), ("radius_edge", {})]  # they would take a drawn wall away
    steps = [("region", {}), ("gate", {"alone_mm3": 3.0}), *cores, ("region", {})]
    assert steps_after("stego", steps) == steps
    after = steps_after("probe", steps)
    assert [name for name, _ in after] == ["region", "gate", "region"]
    core = np.zeros((24, 24, 24), bool)
    core[8:16, 8:16, 4:20] = True
    filled = core.astype(np.float32)
    volume = Volume(
        image=1 + 3 * filled, region=np.ones_like(core), salience=filled, tubularity=filled, spacing=(0.5, 0.5, 0.5),
        alarm=None, signal=100.0, radii_mm=(1.0,),
    )  # fmt: skip
    share = np.full(core.shape, 0.4, np.float32)  # of the core the probe believes the middle only
    share[10:14, 10:14, 4:20] = 0.9
    assert refine(share, volume, steps[:2]).sum() == core.sum()
    assert np.array_equal(refine(share, volume, after), share > 0.5)
