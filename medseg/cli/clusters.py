"""This file declares the verb that shows the clusters of a run, and gives it another number of them.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import RESULTS, AsJson, Quiet, Verbose
from medseg.errors import MedsegError


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:  medseg clusters runs/mine\n\nmedseg clusters runs/mine -o gallery.html --method kmeans\n\nmedseg clusters runs/mine --set-clusters 6",
)
def clusters(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `medseg train`.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE|DIR", help="The page, or its folder; default: RUN.", show_default=False
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Whose clusters: stego or kmeans.")] = "stego",
    patches: Annotated[int, typer.Option(min=1, help="Patches to show at most.")] = 64,
    to_set: Annotated[
        int | None,
        typer.Option(
            "--set-clusters",
            metavar="K",
            help="Instead: give the run so many clusters, in seconds.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Show what each cluster of a run is: places, measurements, name and why, on one page with a slider for their number."""
    start_logging(quiet, verbose)
    from medseg.workflows.clusters import set_clusters, show_clusters

    if to_set is None:
        return answer_with(show_clusters(run_folder, out, method=method, patches=patches), as_json)
    if method != "stego" or out is not None:
        raise MedsegError(
            "--set-clusters must stand without --method and -o, got one of them; it changes stego, and the gallery is "
            "made again without it"
        )
    return answer_with(set_clusters(run_folder, to_set), as_json)
