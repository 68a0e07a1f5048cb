"""This file declares the verb that segments pictures and slices without training.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import PICTURES, AsJson, Frame, Out, Overrides, Quiet, Scans, Verbose
from medseg.cli.pictures import Classes, ConfigOption
from medseg.scans.picks import Pick


@app.command(
    rich_help_panel=PICTURES,
    epilog="Examples:  medseg datus images/ -o results/datus --clusters 20 --merge-to 8 --classes suim\n\nmedseg datus images/ -o results/datus --config pictures_dino --set features.checkpoint=dino.pth\n\nmedseg datus scans/ -o results/datus --config tof_mra_bank --slices 5",
)
def datus(
    scans: Scans,
    out: Out,
    config: ConfigOption = "pictures",
    crop_backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The network that sees the crops; default: the config's.", show_default=False
        ),
    ] = None,
    crop_checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its weights, such as MoCo's ResNet-50.", readable=False, show_default=False),
    ] = None,
    resolution: Annotated[float, typer.Option(help="Of the communities: more gives more and smaller segments.")] = 1.0,
    clusters: Annotated[int, typer.Option(help="Groups of segments that look alike.")] = 8,
    merge_to: Annotated[
        int | None,
        typer.Option(metavar="N", help="Classes that clusters are merged into; default: none is.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the clusters.")] = 0,
    slices: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of each volume or cine, evenly spread; default: all.", show_default=False),
    ] = None,
    crf: Annotated[bool, typer.Option(help="Sharpen with the dense CRF.")] = True,
    processes: Annotated[int, typer.Option(min=0, help="Processes for the CRF; 0: none beside this one.")] = 2,
    until: Annotated[str, typer.Option(help="Last stage: segments, crops, labels or masks.")] = "masks",
    classes: Classes = None,
    frame: Frame = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Segment pictures or slices without training; stages are kept, so that another --clusters takes seconds."""
    start_logging(quiet, verbose)
    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.datus import run_datus
    from medseg.workflows.intake import Intake

    answer = run_datus(
        scans, out, config=config, overrides=overrides, crop_backbone=crop_backbone, crop_checkpoint=crop_checkpoint,
        resolution=resolution, clusters=clusters, merge_to=merge_to, seed=seed, slices=slices, crf=crf,
        processes=processes, until=until, scheme=load_scheme(classes) if classes else None, intake=Intake(Pick(frame)),
    )  # fmt: skip
    return answer_with(answer, as_json)
