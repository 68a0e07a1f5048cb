"""This file tests that a sweep that is killed ends its jobs, and that the same command goes on where it stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medseg.cli import run
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms
from medseg.workflows.sweep_cells import find_ground, run_cell, share_seed
from medseg.workflows.sweep_plan import Cell

SMALL = (
    "stego.steps=8", "stego.batch=4", "patches.per_case=12", "patches.size=16", "stego.fit_points=400",
    "prepare.brain_mask=none", "run.checkpoint_every=2",
)  # fmt: skip
CONFIG, CELL = "tof_mra_bank", Cell("R", 0.5, 1)


def jobs_of(out: Path) -> list[psutil.Process]:
    """Processes that do jobs of a sweep."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(out) in " ".join(one.info["cmdline"] or [])]


def start_and_kill_in_training(command: list[str], cell: Path, log: Path) -> None:
    """Start a sweep and kill it, and nothing else, once its first cell has a checkpoint."""
    with log.open("wb") as stream:
        sweep = subprocess.Popen([sys.executable, "-m", "medseg", *command], stderr=stream, start_new_session=True)
        until = time.monotonic() + 120
        while sweep.poll() is None and not any(cell.glob("run/checkpoints/*")) and time.monotonic() < until:
            time.sleep(0.02)
        assert sweep.poll() is None, log.read_text(encoding="utf-8")
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_sweep_that_is_killed_ends_its_jobs_and_goes_on(tmp_path: Path) -> None:
    scans, out, never_killed = tmp_path / "scans", tmp_path / "out", tmp_path / "never_killed"
    write_phantoms(scans, cases=2, seed=5, shape=(36, 32, 28), spacing=(0.8, 0.8, 0.8))
    ground, _ = find_ground(CONFIG, scans, never_killed, overrides=SMALL)
    share_seed(ground, CELL.seed, never_killed / "shared")
    shutil.copytree(never_killed / "shared", out / "shared")  # so that the sweep begins with the cell
    whole = run_cell(ground, CELL, never_killed / CELL.name, shared=never_killed / "shared")["cell"]
    command = ["sweep", CONFIG, "--scans", str(scans), "-o", str(out), "--schemes", CELL.scheme, "--sizes", "50%"]
    command += ["--seeds", str(CELL.seed), *(word for key in SMALL for word in ("--set", key))]
    cell = out / CELL.name
    start_and_kill_in_training(command, cell, tmp_path / "log.txt")
    time.sleep(0.5)
    assert jobs_of(out) == []  # the job has seen by itself that the sweep is gone
    assert not (cell / "cell.json").exists()
    assert run(command) == 0
    assert (cell / "cell.json").is_file()
    assert hash_file(cell / "run" / "methods" / "stego" / "weights.safetensors") == whole.checkpoint
