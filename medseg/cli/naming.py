"""This file declares `medseg name`: a person names clusters by clicking places.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import (
    MASKS,
    AsJson,
    Channel,
    Decisions,
    Frame,
    Pseudonyms,
    Quiet,
    Resample,
    Series,
    Space,
    Verbose,
)
from medseg.scans.picks import Pick

_WORDS = 5
"""Words after `--click`: the case, three numbers, the class."""


class ClickCommand(TyperCommand):
    """Takes the five words of each `--click`; Typer itself has no option of several words that may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_joined(args)))


def _joined(arguments: list[str]) -> Iterator[str]:
    """The arguments, with the words after each `--click` as one; an option among them ends it early."""
    rest = list(arguments)
    while rest:
        yield (word := rest.pop(0))
        if word == "--click":
            count = next((n for n, part in enumerate(rest[:_WORDS]) if part.startswith("--")), len(rest[:_WORDS]))
            if count and len(rest[0].split()) == _WORDS:  # somebody put quotes around them
                yield rest.pop(0)
                continue
            yield shlex.join(rest[:count])
            del rest[:count]


@app.command(
    rich_help_panel=MASKS,
    cls=ClickCommand,
    epilog="Examples:  medseg name runs/mine --click P1 12 -30 8.5 vessel --click P1 40 -30 8.5 background --space mm\n\nmedseg name runs/mine --decisions ~/Downloads/medseg_decisions.json\n\nmedseg name runs/pictures --click reef 120 64 0 coral --space voxel --new-class coral",
)
def name(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `medseg train`.", show_default=False)
    ],
    clicks: Annotated[
        list[str],
        typer.Option(
            "--click",
            metavar="CASE X Y Z CLASS",
            help="A place and its class, or background; may be repeated. An earlier set of clicks is replaced.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    space: Space = "mm",
    decisions: Decisions = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            "--scans", help="Where the scans are; default: where they were.", readable=False, show_default=False
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="Whose clusters are named: stego, kmeans or untrained.")
    ] = "stego",
    new_classes: Annotated[
        list[str],
        typer.Option(
            "--new-class", metavar="NAME[=VALUE]", help="A class that the run does not know.", show_default=False
        ),
    ] = [],  # noqa: B006
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="What the clicks took you, for the score table.", show_default=False),
    ] = None,
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Name, merge or split the clusters of a run by a handful of places that you name; its masks stay as they are."""
    start_logging(quiet, verbose)
    from medseg.naming.clicks import parse_click
    from medseg.workflows.clicking import name_by_clicks
    from medseg.workflows.intake import Intake

    answer = name_by_clicks(
        run_folder,
        [parse_click(shlex.split(click), space) for click in clicks],
        decisions=decisions,
        scans=scans,
        method=method,
        new_classes=new_classes,
        minutes=minutes,
        intake=Intake(Pick(frame, channel, series, resample), pseudonyms),
    )
    return answer_with(answer, as_json)
