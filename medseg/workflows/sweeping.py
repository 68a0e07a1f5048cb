"""This file runs a sweep: every cell really trained, as far as it is not done, then a table, paired tests and a plot.

A sweep goes on where it stopped: a cell is done when its `cell.json` answers the same request and its weights and
scores are those that were written, and a cell that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medseg.errors import MedsegError
from medseg.files import read_record, require_folder, write_json
from medseg.naming.effort import in_words
from medseg.review.sweep_plot import sweep_plot
from medseg.runs import versions
from medseg.scoring.sweeps import (
    CellScores,
    SchemeAtSize,
    percent,
    summarise,
    sweep_table,
    sweep_tests,
    write_sweep_csv,
)
from medseg.scoring.tables import without_nan
from medseg.workflows import parts
from medseg.workflows.intake import AS_IT_IS
from medseg.workflows.sweep_cells import Ground, done_cell, find_ground, is_shared, left_out, measured_gb
from medseg.workflows.sweep_jobs import Job, cores, jobs_at_once, run_jobs
from medseg.workflows.sweep_plan import EVERYTHING, Cell, cells_of

_log = logging.getLogger(__name__)
_WIDTH = 80
"""Columns of a plain terminal."""


def sweep(
    config: str,
    scans: Path,
    out: Path,
    *,
    schemes: Sequence[str],
    sizes: Sequence[float],
    seeds: Sequence[int],
    jobs: str = "auto",
    references: Path | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a cell for each scheme, size and seed without labels, score the held-out patients, and compare.

    Args:
        config: path or shipped name.
        scans: folder, datalist, CSV or one scan.
        out: receives a folder a cell (`SCHEME_SIZE_SEED`), `sweep.csv`, `sweep.json`, `sweep.png`, and `shared`.
        schemes: names of `SCHEMES`; `all` has one size.
        sizes: shares of the patches.
        seeds: of the trainings.
        jobs: cells at a time, `auto` or a number.
        references: labels of the held-out cases; those beside the scans when None.
        overrides: `section.key=value`.

    Returns:
        `lines` for the terminal, `cells`, `summaries`, `tests`, `failed` cells and cases.

    Raises:
        MedsegError: config or scans cannot be used, a size leaves no patch, or `out` holds another sweep.
    """
    require_folder(out, "-o")
    ground, failed = find_ground(config, scans, out, references=references, overrides=overrides)
    trained = [case for case, part in ground.split.items() if part == "train"]
    usual = ground.config_of(Cell(EVERYTHING, 1.0, 0))
    cells = cells_of(schemes, sizes, seeds, per_case=usual.patches.per_case, cases=len(trained))
    if EVERYTHING in schemes and len(schemes) > 1:
        _log.info("%s takes every patch: it has one size, 100%%, and is not repeated over the others", EVERYTHING)
    folders = {cell: out / cell.name for cell in cells}
    found = {cell: done for cell in cells if (done := done_cell(ground, cell, folders[cell])) is not None}
    need = measured_gb([*folders.values(), *(out / "shared" / str(seed) for seed in seeds)])
    need = need or parts.memory_gb(
        [case for case in AS_IT_IS.cases(scans, skip=(out,)).cases if case.case_id in ground.split]
    )
    at_once, why = jobs_at_once(jobs, need_gb=need, device=usual.run.device, cells=len(cells))
    _claim(ground, out)
    _log.info("trained on %s; held out and scored: %s", ", ".join(trained), ", ".join(ground.patients))
    _log.info("%d cells, %d of them done; %d at a time (%s)", len(cells), len(found), at_once, why)
    todo = _jobs(ground, [cell for cell in cells if cell not in found], out)
    with closing(run_jobs(todo, ground, at_once=at_once, threads=max(1, cores() // at_once))) as ended:
        for job, problem in ended:
            done = None if job.cell is None else done_cell(ground, job.cell, job.folder)
            if job.cell is not None and done is not None:
                found[job.cell] = done
                _log.info("%d of %d: %s", len(found), len(cells), _in_words(done))
            elif problem is not None or job.cell is not None:
                failed[job.name] = f"{job.name}: {problem or 'ended without a result'}"
                _log.error(failed[job.name])
    for cell in found:
        failed |= left_out(folders[cell])
    if not found:
        return {"lines": ["no cell was finished"], "failed": failed}
    return _report([found[cell] for cell in cells if cell in found], ground, out, failed)


def _claim(ground: Ground, out: Path) -> None:
    """Say in `out` which sweep it holds; another one may not mix with it.

    Raises:
        MedsegError: it holds another.
    """
    path = out / "shared" / "ground.json"
    if path.is_file() and read_record(path).get("training") != ground.training():
        raise MedsegError(f"{out} must hold a sweep of the same config and scans, got another; choose another -o")
    write_json(path, {"training": ground.training(), **ground.as_dict()})


def _jobs(ground: Ground, cells: Sequence[Cell], out: Path) -> list[Job]:
    """What is to be done, seed by seed: what its cells share, then the cells."""
    shared = out / "shared"
    names = {seed: f"shared by seed {seed}" for seed in dict.fromkeys(cell.seed for cell in cells)}
    missing = [seed for seed in names if not is_shared(ground, seed, shared)]
    # The first one prepares the scans for all; two at a time would write the same files.
    first = [] if len(missing) < len(names) else missing[:1]
    jobs = []
    for seed, name in names.items():
        if seed in missing:
            after = tuple(names[one] for one in first if one != seed)
            jobs.append(Job(name, shared / str(seed), None, seed, shared, after))
        after = (name,) if seed in missing else ()
        jobs += [Job(cell.name, out / cell.name, cell, seed, shared, after) for cell in cells if cell.seed == seed]
    return jobs


def _in_words(cell: CellScores) -> str:
    scores = f"Dice {cell.mean('dice'):.3f}, clDice {cell.mean('cldice'):.3f}"
    return (
        f"{cell.scheme} {percent(cell.size)} seed {cell.seed}: {scores}, {cell.patches} patches, {cell.seconds:.0f} s"
    )


def _report(cells: Sequence[CellScores], ground: Ground, out: Path, failed: dict[str, str]) -> dict[str, Any]:
    """Write the tables and the plot."""
    summaries, tests = summarise(cells), sweep_tests(cells)
    same = [
        [cell for cell in cells if cell.checkpoint == checkpoint]
        for checkpoint, count in Counter(cell.checkpoint for cell in cells).items()
        if count > 1
    ]
    different = len({cell.checkpoint for cell in cells})
    patients = len(set(ground.patients.values()))
    held_out = f"{patients} held-out {'patient' if patients == 1 else 'patients'}"
    write_sweep_csv(out / "sweep.csv", cells)
    content = {
        "schema": "medseg-sweep/1",
        "versions": versions(),
        "config": ground.config,
        "overrides": list(ground.overrides),
        "split": dict(ground.split),
        "different_checkpoints": different,
        "cells": [cell.as_dict() for cell in cells],
        "summaries": [_plain(row) for row in summaries],
        "tests": [asdict(test) for test in tests],
        "failed": failed,
    }
    write_json(out / "sweep.json", without_nan(content))
    sweep_plot(summaries, out / "sweep.png", title=f"{Path(ground.config).stem}, {held_out}")
    lines = [
        *_as_lines(sweep_table(summaries, tests, f"Sweep of {Path(ground.config).stem}, {held_out}")),
        f"{different} different checkpoints of {len(cells)} cells",
        *(f"  the same: {', '.join(Cell(c.scheme, c.size, c.seed).name for c in members)}" for members in same),
        f"tables: {out}/sweep.csv, {out}/sweep.json; plot: {out}/sweep.png",
    ]
    return {
        "lines": lines,
        "cells": content["cells"],
        "summaries": without_nan(content["summaries"]),
        "tests": without_nan(content["tests"]),
        "different_checkpoints": different,
        "failed": failed,
    }


def _plain(row: SchemeAtSize) -> dict[str, Any]:
    return {**asdict(row), "effort": in_words(row.naming, row.effort)}


def _as_lines(table: Table) -> list[str]:
    console = Console(width=_WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip().splitlines()
