"""This file runs the jobs of a sweep as processes of their own, as many at a time as memory allows.

A *job* is a cell, or what the cells of a seed share; it is written to a JSON file, done by `medseg sweep-job FILE`, and
says what it does in a log beside it. A job that fails, or is killed, takes nothing else with it. The command watches
its standard input, which the sweep holds open: when the sweep ends, however it ends, its jobs end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from medseg.errors import MedsegError
from medseg.files import read_record, write_json
from medseg.workflows.sweep_cells import Ground, run_cell, share_seed
from medseg.workflows.sweep_plan import Cell

_LOOK_S = 0.1
"""Seconds between looks at the running processes: short beside a cell."""
_PATIENCE_S = 5.0
"""Seconds that a process is given to end before it is killed."""


@dataclass(frozen=True)
class Job:
    """A cell, or what the cells of a seed share.

    Attributes:
        name: for messages.
        folder: receives the results, the job's file and its log.
        cell: what to train; None makes what the cells of `seed` share.
        seed: of the cell or cells.
        shared: where that lies; None for a cell that computes everything itself.
        after: names of jobs that must have ended well before.
    """

    name: str
    folder: Path
    cell: Cell | None
    seed: int
    shared: Path | None
    after: tuple[str, ...] = ()

    def write(self, ground: Ground) -> Path:
        """Write the job's file."""
        path = self.folder / "job.json"
        content = {
            "ground": ground.as_dict(),
            "cell": None if self.cell is None else asdict(self.cell),
            "seed": self.seed,
            "shared": None if self.shared is None else str(self.shared),
        }
        write_json(path, content)
        return path


def run_job(path: Path) -> dict[str, Any]:
    """Do what a job's file asks for, in this process.

    Raises:
        MedsegError: it cannot be done, or this is no job's file.
    """
    job = read_record(path, "ground", "cell", "seed", "shared", advice="run the sweep again")
    ground, shared = Ground.from_dict(job["ground"]), None if job["shared"] is None else Path(job["shared"])
    if job["cell"] is not None:
        answer = run_cell(ground, Cell(**job["cell"]), path.parent, shared=shared)
        return {"lines": answer["lines"], "failed": answer["failed"]}
    assert shared is not None  # there is nothing else to fill
    share_seed(ground, job["seed"], shared)
    return {"lines": []}


def run_jobs(jobs: Sequence[Job], ground: Ground, *, at_once: int, threads: int) -> Generator[tuple[Job, str | None]]:
    """Run jobs in their order, each as soon as those that it needs have ended well.

    Args:
        jobs: what to do.
        ground: of the sweep.
        at_once: processes at a time.
        threads: of each of them.

    Yields:
        Each job when it has ended: None, or in one line why it failed.
    """
    waiting = list(jobs)
    running: dict[Job, subprocess.Popen[bytes]] = {}
    lost: dict[str, str] = {}
    try:
        while waiting or running:
            for job in list(waiting):  # in their order: what needs a lost one is lost for those that need it
                if any(name in lost for name in job.after):
                    waiting.remove(job)
                    lost[job.name] = next(lost[name] for name in job.after if name in lost)
                    yield job, lost[job.name]
            names = {job.name for job in waiting} | {job.name for job in running}
            ready = [job for job in waiting if not names & set(job.after)]
            for job in ready[: at_once - len(running)]:
                waiting.remove(job)
                running[job] = _start(job, ground, threads)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                with running.pop(job) as process:  # closes its input
                    problem = _problem(job, process.returncode)
                if problem is not None:
                    lost[job.name] = problem
                yield job, problem
            time.sleep(_LOOK_S)
    finally:
        _end(running.values())


def _start(job: Job, ground: Ground, threads: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medseg", "sweep-job", str(job.write(ground))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    with _log_of(job).open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def _log_of(job: Job) -> Path:
    return job.folder / "log.txt"


def _problem(job: Job, status: int) -> str | None:
    """Why a process failed, in its own words where it had some."""
    if status == 0:
        return None
    lines = _log_of(job).read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("medseg: ") for line in lines if line.startswith("medseg: ")]
    if status < 0:
        return f"killed by signal {-status}, perhaps for want of memory; see {_log_of(job)}, lower --jobs"
    return said[-1] if said else f"{next((line for line in reversed(lines) if line), 'no word')}; see {_log_of(job)}"


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """End what still runs; a checkpoint is never half-written, so nothing is lost but steps."""
    for process in processes:
        process.terminate()
    for process in processes:
        with process:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def jobs_at_once(asked: str, *, need_gb: float, device: str, cells: int) -> tuple[int, str]:
    """How many processes to run at a time, and why.

    Args:
        asked: `auto`, or a number.
        need_gb: memory of one process.
        device: `run.device` of the config.
        cells: how many there are.

    Raises:
        MedsegError: `asked` is neither.
    """
    if asked != "auto":
        if not (asked.isascii() and asked.isdigit() and int(asked) > 0):
            raise MedsegError(f"--jobs must be auto or a number from 1, got {asked}; leave it out for auto")
        return int(asked), "as asked"
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return 1, "one GPU; --jobs N shares it"
    free_gb = psutil.virtual_memory().available / 2**30
    count = min(cores(), int(free_gb / need_gb), cells)
    return max(count, 1), f"{cores()} cores, {free_gb:.1f} GB free, {need_gb:.1f} GB each"


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
