"""This file declares the verb that trains many times: a sweep over sampling schemes, sizes and seeds.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import RESULTS, AsJson, ConfigName, Overrides, Quiet, ScansOption, Verbose


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:  medseg sweep tof_mra --scans scans/ -o results/sweep\n\nmedseg sweep tof_mra_bank --scans scans/ -o results/sweep --schemes R,CFX,all --sizes 1%,5%,25% --seeds 1,42,97\n\nmedseg sweep tof_mra --scans scans/ -o results/sweep --references labels/ --set patches.per_case=500 --jobs 4",
)
def sweep(
    config: ConfigName,
    scans: ScansOption,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the cells and tables; goes on there.", show_default=False)
    ],
    schemes: Annotated[
        str,
        typer.Option(
            "--schemes",
            metavar="NAMES",
            help="How training patches are picked: R random, C stratified, CF, CFW, CFX, CFWX farthest points; all: every patch (one size).",
        ),
    ] = "R,C,CF,CFW,CFX,CFWX,all",
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="SHARES", help="Shares of the patches that a scheme picks: 5% or 0.05.")
    ] = "0.1%,0.5%,1%,5%,10%,25%,50%,75%",
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="NUMBERS", help="A training for each of them.")
    ] = "1,42,97,123,256,333,555,666",
    jobs: Annotated[
        str, typer.Option("--jobs", metavar="auto|N", help="Trainings at a time; auto: what memory and cores allow.")
    ] = "auto",
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            metavar="DIR",
            help="Labels of the held-out patients, for scores only; default: those beside the scans.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Train, without labels, for each sampling scheme, size and seed; score held-out patients; compare with tests."""
    start_logging(quiet, verbose)
    from medseg.workflows.sweep_plan import listed, scheme_of_name, seed_of, share_of
    from medseg.workflows.sweeping import sweep as run_sweep

    answer = run_sweep(
        config,
        scans,
        out,
        schemes=listed(schemes, "--schemes", scheme_of_name),
        sizes=listed(sizes, "--sizes", lambda text: share_of(text, "--sizes")),
        seeds=listed(seeds, "--seeds", seed_of),
        jobs=jobs,
        references=references,
        overrides=overrides,
    )
    return answer_with(answer, as_json)


@app.command("sweep-job", hidden=True, epilog="Example:  medseg sweep-job results/sweep/R_0.05_42/job.json")
def sweep_job(
    job: Annotated[Path, typer.Argument(metavar="JOB.json", help="What a running sweep wrote.", show_default=False)],
) -> int:
    """Do one job of a running sweep, which starts this command itself and ends with it."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()  # before imports that take seconds
    start_logging(quiet=False, verbose=False)
    from medseg.workflows.sweep_jobs import run_job

    return answer_with(run_job(job), as_json=False)


def _end_with_the_sweep() -> None:
    """End this process as soon as its standard input does, which a sweep holds open, even if the sweep was killed."""
    while os.read(0, 1):  # not sys.stdin: Python cannot end while a thread holds its lock
        pass
    os._exit(1)
