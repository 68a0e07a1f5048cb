"""This file declares the verb with which a person ticks where vessels are.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import (
    MASKS,
    AsJson,
    Channel,
    Frame,
    Out,
    Pseudonyms,
    Quiet,
    Resample,
    Scans,
    Series,
    Verbose,
)
from medseg.errors import MedsegError
from medseg.scans.picks import Pick


@app.command(
    rich_help_panel=MASKS,
    epilog="Examples:  medseg annotate scans/ -o ticks\n\nmedseg annotate scans/ -o ticks --collect ~/Downloads\n\nmedseg annotate scans/ -o ticks --cell 32 --slices 5 --modality cta",
)
def annotate(
    scans: Scans,
    out: Out,
    cell: Annotated[
        int | None, typer.Option("--cell", help="Voxels along a side of a cell, 4 to 128; default: 16.")
    ] = None,
    slices: Annotated[int | None, typer.Option("--slices", help="Of each case, spread evenly; default: 3.")] = None,
    modality: Annotated[
        str | None, typer.Option("--modality", help="tof, ce_mra or cta: how slices are shown.", show_default=False)
    ] = None,
    max_mb: Annotated[int | None, typer.Option("--max-mb", min=1, help="Largest page; default: 300.")] = None,
    collect: Annotated[
        Path | None,
        typer.Option(
            "--collect",
            metavar="DOWNLOADS",
            help="Instead: make rough masks of what was ticked.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="With --collect: kmeans (default) or mixture finds the vessel in a cell.",
            show_default=False,
        ),
    ] = None,
    patches: Annotated[
        bool, typer.Option("--patches", help="With --collect: write each cell as .png, .mat and .npy, too.")
    ] = False,
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write an offline page on which one ticks the cells that hold a vessel; or make rough masks of the ticks."""
    start_logging(quiet, verbose)
    from medseg.workflows.annotating import annotation_page, collect_annotations
    from medseg.workflows.intake import Intake

    intake = Intake(Pick(frame, channel, series, resample), pseudonyms)
    of_page: dict[str, Any] = {"cell": cell, "slices": slices, "modality": modality, "max_mb": max_mb}
    given = {name: value for name, value in of_page.items() if value is not None}
    if collect is None:
        if method is not None or patches:
            raise MedsegError("--method and --patches must go with --collect DOWNLOADS, got none; give it")
        return answer_with(annotation_page(scans, out, intake=intake, **given), as_json)
    if given:
        name = next(iter(given)).replace("_", "-")
        raise MedsegError(f"--{name} must be given when the page is written, got it with --collect; leave it out")
    answer = collect_annotations(collect, scans, out, method=method or "kmeans", patches=patches, intake=intake)
    return answer_with(answer, as_json)
