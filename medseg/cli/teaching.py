"""This file declares `medseg teach`: a few labels make a probe of a trained run.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.naming import ClickCommand
from medseg.cli.options import (
    MASKS,
    AsJson,
    Channel,
    Decisions,
    Frame,
    Overrides,
    Pseudonyms,
    Quiet,
    Resample,
    Scans,
    Series,
    Space,
    Verbose,
)
from medseg.errors import MedsegError
from medseg.scans.picks import Pick


@app.command(
    rich_help_panel=MASKS,
    cls=ClickCommand,
    epilog="Examples:  medseg teach runs/mine scans/ --labels accepted/\n\nmedseg teach runs/mine scans/ --labels labels/ --cases P1 --slices 3\n\nmedseg teach runs/mine scans/ --rough rough/\n\nmedseg teach runs/mine scans/ --click P1 12 -30 8.5 vessel --click P1 40 -30 8.5 background",
)
def teach(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `medseg train`.", show_default=False)
    ],
    scans: Scans,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="DIR",
            help="Masks, CASE_label.nii.gz: yours, or those that `medseg review --collect` filed.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        str | None,
        typer.Option(
            "--cases",
            metavar="A,B,...",
            help="Whose labels may be read; default: all that have one, but for those that the run holds out.",
            show_default=False,
        ),
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            "--slices",
            metavar="N|drawn",
            help="Of each mask only N axial slices (chosen without labels), or those in which something is drawn. "
            "Default: the whole mask, in which 0 is background.",
            show_default=False,
        ),
    ] = None,
    rough: Annotated[
        Path | None,
        typer.Option(
            "--rough",
            metavar="DIR",
            help="Rough masks of ticked cells, by `medseg annotate`.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    clicks: Annotated[
        list[str],
        typer.Option(
            "--click",
            metavar="CASE X Y Z CLASS",
            help="A place and its class, or background; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    space: Space = "mm",
    decisions: Decisions = None,
    head: Annotated[
        str,
        typer.Option(
            "--head",
            help="linear: in seconds, on any features; volume: two 3-D convolutions on features of volumes, for masks.",
        ),
    ] = "linear",
    loss: Annotated[
        str, typer.Option("--loss", help="Of a linear head: cross_entropy (vessels weigh more) or generalised_dice.")
    ] = "cross_entropy",
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="Also teach a gate: it says by grey values which patches of 16 x 16 voxels hold no vessel; networks do "
            "not look at them, and nothing is marked there.",
        ),
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            metavar="N",
            help="Teach so often; from the second time on, places of which the probe was sure are labels too. On "
            "simulated scans a second round cost .01 to .02 of Dice.",
        ),
    ] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="What the labels took you, for the score table; default: what the pages measured.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Teach a small head on a run's features by a few labels; the label-free masks are where it begins."""
    start_logging(quiet, verbose)
    from medseg.naming.clicks import parse_click
    from medseg.workflows.intake import Intake
    from medseg.workflows.taught_labels import DRAWN, Sources
    from medseg.workflows.teaching import teach_run

    if slices is not None and slices != DRAWN and not slices.isdecimal():
        raise MedsegError(f"--slices must be a number or {DRAWN}, got {slices}; 3 is a good start")
    sources = Sources(
        labels,
        slices if slices is None or slices == DRAWN else int(slices),
        rough,
        [parse_click(shlex.split(click), space) for click in clicks],
        decisions,
        minutes,
    )
    answer = teach_run(
        run_folder,
        scans,
        sources,
        cases=None if cases is None else [name.strip() for name in cases.split(",") if name.strip()],
        head=head,
        loss=loss,
        gate=gate,
        rounds=rounds,
        overrides=overrides,
        intake=Intake(Pick(frame, channel, series, resample), pseudonyms),
    )
    return answer_with(answer, as_json)
