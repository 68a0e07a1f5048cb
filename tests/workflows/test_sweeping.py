"""This file tests sweeps: each cell really trained, without labels, paired, resumable, and mistakes before any work."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from medseg.cli import run
from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms
from medseg.runs import open_run
from medseg.workflows import sweep_jobs
from medseg.workflows.sweep_cells import Ground, done_cell, find_ground, is_shared, run_cell, share_seed
from medseg.workflows.sweep_jobs import Job, jobs_at_once, run_job, run_jobs
from medseg.workflows.sweep_plan import Cell

SMALL = (
    "stego.steps=8", "stego.batch=4", "patches.per_case=12", "patches.size=16", "stego.fit_points=400",
    "prepare.brain_mask=none", "run.checkpoint_every=2",
)  # fmt: skip
CONFIG = "tof_mra_bank"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, cases=4, seed=5, shape=(36, 32, 28), spacing=(0.8, 0.8, 0.8))
    return folder


def ground_in(out: Path, scans: Path, references: Path | None = None) -> Ground:
    return find_ground(CONFIG, scans, out, references=references, overrides=SMALL)[0]


def weights(folder: Path) -> str:
    return hash_file(folder / "run" / "methods" / "stego" / "weights.safetensors")


@pytest.fixture(scope="module")
def made(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of R and CFX at 50 % with seed 1, in this process."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    ground = ground_in(out, scans)
    share_seed(ground, 1, out / "shared")
    for scheme in ("R", "CFX"):
        cell = Cell(scheme, 0.5, 1)
        run_cell(ground, cell, out / cell.name, shared=out / "shared")
    return out


def test_a_cell_that_takes_shared_features_is_the_one_that_computes_its_own(
    made: Path, scans: Path, tmp_path: Path
) -> None:
    cell = Cell("CFX", 0.5, 1)
    alone = run_cell(ground_in(tmp_path, scans), cell, tmp_path / cell.name)["cell"]
    shared = done_cell(ground_in(made, scans), cell, made / cell.name)
    assert shared is not None
    assert (alone.checkpoint, alone.cases, alone.patches) == (shared.checkpoint, shared.cases, shared.patches)
    assert alone.patches == 18  # half of 12 patches of each of 3 cases
    assert not (made / cell.name / "run" / "features").exists()
    seg = f"{next(iter(alone.cases))}_seg.nii.gz"
    assert hash_file(tmp_path / cell.name / seg) == hash_file(made / cell.name / seg)


def test_another_scheme_is_another_model_on_the_same_patients(made: Path) -> None:
    assert weights(made / "R_0.5_1") != weights(made / "CFX_0.5_1")
    splits = [json.loads((made / name / "cell.json").read_text(encoding="utf-8")) for name in ("R_0.5_1", "CFX_0.5_1")]
    assert splits[0]["patients"] == splits[1]["patients"]
    assert len(splits[0]["patients"]) == 1


def test_all_cells_share_a_split_that_only_the_configs_own_seed_draws(made: Path, scans: Path, tmp_path: Path) -> None:
    ground = ground_in(tmp_path, scans)
    assert sorted(ground.split.values()) == ["train", "train", "train", "val"]
    for name in ("R_0.5_1", "CFX_0.5_1"):
        inputs = open_run(made / name / "run").inputs
        assert {case: entry["split"] == "train" for case, entry in inputs.items()} == {
            case: part == "train" for case, part in ground.split.items()
        }
    drawn = [find_ground(CONFIG, scans, tmp_path, overrides=(*SMALL, f"run.seed={n}"))[0].patients for n in range(5)]
    assert len({tuple(patients) for patients in drawn}) > 1


def test_a_case_outside_the_split_and_results_in_the_sweeps_folder_are_no_scans(scans: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(scans, tmp_path / "mine"))
    out = mine / "out"
    shutil.copytree(scans, out / "phantoms_again")
    ground = ground_in(out, mine)
    assert sorted(ground.split) == [f"phantom_00{n}" for n in range(1, 5)]
    fewer = replace(ground, split={"phantom_002": "val", "phantom_003": "train"})
    cases = fewer.intake().cases(mine, skip=()).cases
    assert [(case.case_id, case.split) for case in cases] == [("phantom_002", "val"), ("phantom_003", "train")]


def test_what_is_done_is_known_and_what_was_touched_is_not(made: Path, scans: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    cell, folder = Cell("R", 0.5, 1), out / "R_0.5_1"
    ground = ground_in(out, scans)
    assert done_cell(ground, cell, folder) is not None
    assert done_cell(ground, Cell("R", 0.5, 42), folder) is None  # another request
    assert is_shared(ground, 1, out / "shared")
    assert not is_shared(ground, 42, out / "shared")
    for path in (folder / "scores.json", folder / "run" / "methods" / "stego" / "weights.safetensors"):
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert done_cell(ground, cell, folder) is None
        path.write_bytes(before)
    (folder / "cell.json").write_text("{", encoding="utf-8")
    assert done_cell(ground, cell, folder) is None


def test_other_references_change_scores_and_no_mask(made: Path, scans: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    rng = np.random.default_rng(0)
    for path in scans.glob("*_label.nii.gz"):
        label = nibabel.load(path)
        random = (rng.random(label.shape) < 0.3).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(random, label.affine), noise / path.name)
    cell, out = Cell("R", 0.5, 1), Path(shutil.copytree(made, tmp_path / "out"))
    before = done_cell(ground_in(made, scans), cell, made / cell.name)
    ground = ground_in(out, scans, references=noise)
    assert done_cell(ground, cell, out / cell.name) is None  # scored against something else
    after = run_cell(ground, cell, out / cell.name, shared=out / "shared")["cell"]
    assert before is not None
    (case,) = after.cases
    assert after.cases[case]["dice"] < before.cases[case]["dice"]
    assert after.checkpoint == before.checkpoint
    assert hash_file(out / cell.name / f"{case}_seg.nii.gz") == hash_file(made / cell.name / f"{case}_seg.nii.gz")


def test_a_cell_is_trained_without_the_labels_beside_its_scans(made: Path) -> None:
    assert (made / "R_0.5_1" / "run" / "methods" / "kmeans").is_dir()
    assert not (made / "R_0.5_1" / "run" / "methods" / "linear").exists()  # the probe, which labels would make


def sweep_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which a sweep fails."""
    assert run(["sweep", *arguments, "-q"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("medseg: ")
    return line


def test_a_mistake_is_one_line_before_any_work(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    usual = [CONFIG, "--scans", str(scans), "-o", str(out)]
    assert "leave at least one patch, got 0.1% of 60" in sweep_line([*usual, "--sizes", "50%,0.1%"], capsys)
    assert "write 5% perhaps" in sweep_line([*usual, "--sizes", "5"], capsys)
    assert "'X'" in sweep_line([*usual, "--schemes", "R,X"], capsys)
    assert "--jobs must be auto or a number" in sweep_line([*usual, "--jobs", "0", "--sizes", "50%"], capsys)
    assert "got student" in sweep_line([*usual, "--set", "reconstruct.method=student"], capsys)
    assert "naming.source must be rules" in sweep_line([*usual, "--set", "naming.source=clusters"], capsys)
    assert "run.held_out" in sweep_line([*usual, "--set", "run.held_out=0"], capsys)
    ground = ground_in(out, scans)
    seen = next(case for case, part in ground.split.items() if part == "train")
    line = sweep_line([*usual, "--references", str(scans / f"{seen}_label.nii.gz")], capsys)
    assert f"must hold a label of a held-out case, {next(iter(ground.patients))}, got none" in line
    one = tmp_path / "one"
    one.mkdir()
    for path in scans.glob("phantom_001_*"):
        shutil.copy(path, one)
    line = sweep_line([CONFIG, "--scans", str(one), "-o", str(out)], capsys)
    assert "must leave a patient to hold out, got 1 of 1 case" in line
    assert not out.exists()


def test_a_folder_with_another_sweep_is_refused(made: Path, scans: Path, tmp_path: Path) -> None:
    from medseg.workflows.sweeping import sweep

    out = Path(shutil.copytree(made, tmp_path / "out"))
    asked = {"schemes": ("R", "CFX"), "sizes": (0.5,), "seeds": (1,)}
    answer = sweep(CONFIG, scans, out, **asked, overrides=SMALL)
    assert (answer["different_checkpoints"], answer["failed"]) == (2, {})  # nothing was left to do
    with pytest.raises(MedsegError, match="must hold a sweep of the same config"):
        sweep(CONFIG, scans, out, **asked, overrides=(*SMALL, "stego.steps=6"))
    assert weights(out / "R_0.5_1") == weights(made / "R_0.5_1")


def test_the_tables_say_what_was_found(
    made: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    command = ["sweep", CONFIG, "--scans", str(scans), "-o", str(out), "--schemes", "R,CFX", "--sizes", "50%"]
    command += ["--seeds", "1", *(word for key in SMALL for word in ("--set", key))]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "2 different checkpoints of 2 cells" in said
    assert "label-free" in said
    with (out / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["scheme"], row["seed"], row["patches"]) for row in rows] == [("R", "1", "18"), ("CFX", "1", "18")]
    assert {row["checkpoint_sha256"] for row in rows} == {weights(made / name) for name in ("R_0.5_1", "CFX_0.5_1")}
    content = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert [test["unit"] for test in content["tests"]] == ["patients", "patients"]
    assert content["summaries"][0]["mean"]["dice"] == pytest.approx(float(rows[0]["dice"]), abs=1e-5)
    assert imread(out / "sweep.png").shape[1] > 1000


def fake(code: dict[str, str], started: list[str]) -> Callable[..., subprocess.Popen[bytes]]:
    """In place of `_start`: small programs by the names of jobs."""

    def start(job: Job, ground: Ground, threads: int) -> subprocess.Popen[bytes]:
        started.append(job.name)
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / "log.txt").open("wb") as log:
            return subprocess.Popen([sys.executable, "-c", code[job.name]], stdin=subprocess.PIPE, stderr=log)

    return start


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_job_that_fails_or_is_killed_is_one_line_and_the_others_go_on(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {
        "one": "import sys; sys.exit('medseg: a must be b, got c; d')",
        "two": "import os; os.kill(os.getpid(), 9)",
        "three": "",
        "base": "import sys; sys.exit('medseg: the disk is full')",
    }
    started: list[str] = []
    monkeypatch.setattr(sweep_jobs, "_start", fake(code, started))
    jobs = [Job(name, tmp_path / name, None, 1, None) for name in code]
    jobs.append(Job("on base", tmp_path / "on", None, 1, None, after=("base",)))
    jobs.append(Job("on that", tmp_path / "on that", None, 1, None, after=("on base",)))
    ended = {job.name: problem for job, problem in run_jobs(jobs, ground_in(tmp_path, scans), at_once=2, threads=1)}
    assert ended["one"] == "a must be b, got c; d"
    assert "killed by signal 9" in str(ended["two"])
    assert ended["three"] is None
    assert ended["on that"] == ended["on base"] == ended["base"] == "the disk is full"
    assert started == ["one", "two", "three", "base"]


def test_no_more_jobs_than_allowed_run_and_all_end_with_the_sweep(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"short": "", "long": "import time; time.sleep(60)", "never": ""}
    started: list[str] = []
    running: list[subprocess.Popen[bytes]] = []
    start = fake(code, started)

    def start_and_keep(*given: Any) -> subprocess.Popen[bytes]:
        running.append(start(*given))
        return running[-1]

    monkeypatch.setattr(sweep_jobs, "_start", start_and_keep)
    jobs = [Job(name, tmp_path / name, None, 1, None) for name in code]
    with closing(run_jobs(jobs, ground_in(tmp_path, scans), at_once=2, threads=1)) as ended:
        first, _ = next(ended)
    assert first.name == "short"
    assert started == ["short", "long"]
    assert [process.poll() is not None for process in running] == [True, True]


def test_as_many_run_at_a_time_as_memory_and_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_jobs, "cores", lambda: 8)
    memory = type("Memory", (), {"available": 10 * 2**30})
    monkeypatch.setattr(sweep_jobs.psutil, "virtual_memory", lambda: memory)
    assert jobs_at_once("auto", need_gb=3.0, device="cpu", cells=99)[0] == 3
    assert jobs_at_once("auto", need_gb=0.5, device="cpu", cells=99)[0] == 8
    assert jobs_at_once("auto", need_gb=0.5, device="cpu", cells=2)[0] == 2
    assert jobs_at_once("auto", need_gb=30.0, device="cpu", cells=99)[0] == 1
    assert jobs_at_once("auto", need_gb=0.5, device="cuda", cells=99)[0] == 1
    assert jobs_at_once("5", need_gb=30.0, device="cpu", cells=99)[0] == 5


def test_a_job_is_what_its_file_says(scans: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        sweep_jobs,
        "run_cell",
        lambda ground, cell, folder, shared: seen.append((ground, cell, folder, shared)) or {"lines": [], "failed": {}},
    )
    ground, cell = ground_in(tmp_path, scans), Cell("R", 0.5, 1)
    run_job(Job(cell.name, tmp_path / cell.name, cell, 1, tmp_path / "shared").write(ground))
    assert seen == [(ground, cell, tmp_path / cell.name, tmp_path / "shared")]
