"""This file declares the verbs of `medseg` for pictures and for what STEGO's users bring along.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import PICTURES, AsJson, Frame, HeldOut, Out, Overrides, Quiet, Verbose
from medseg.scans.picks import Pick

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `medseg train`.", show_default=False)]
Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder or file of pictures.", readable=False, show_default=False)
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE|NAME",
        help="What labels mean: a classes.yaml, or a known data set (suim, suim_coarse, suim_fine, cocostuff27, ...).",
        show_default=False,
    ),
]
ConfigOption = Annotated[str, typer.Option("--config", help="A config file or a shipped name.")]
RunOption = Annotated[Path | None, typer.Option("--run", help="A trained run: adds its codes.", show_default=False)]


@app.command(
    rich_help_panel=PICTURES,
    epilog="Examples:  medseg evaluate runs/mine images/ -o results/evaluation\n\nmedseg evaluate runs/mine suim/ -o results/suim --classes suim --dark --export",
)
def evaluate(
    run_folder: Run,
    images: Images,
    out: Out,
    flip: Annotated[bool, typer.Option(help="Average over each picture and its mirror image.")] = True,
    crf: Annotated[bool, typer.Option(help="Sharpen with the dense CRF.")] = True,
    processes: Annotated[int, typer.Option(min=0, help="Processes for the CRF; 0: none beside this one.")] = 2,
    panels: Annotated[int, typer.Option(min=0, help="Pictures to draw beside their labels.")] = 8,
    export: Annotated[bool, typer.Option("--export", help="Write every method's masks at full size.")] = False,
    dark: Annotated[bool, typer.Option("--dark", help="Light letters on dark pages.")] = False,
    classes: Classes = None,
    held_out: HeldOut = False,
    frame: Frame = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Score every method of a run on labelled pictures, with each way of naming its clusters."""
    start_logging(quiet, verbose)
    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.evaluation import evaluate_run
    from medseg.workflows.intake import Intake

    answer = evaluate_run(
        run_folder, images, out, flip=flip, crf=crf, processes=processes, panels=panels, export=export, dark=dark,
        scheme=load_scheme(classes) if classes else None, held_out=held_out, intake=Intake(Pick(frame)), overrides=overrides,
    )  # fmt: skip
    return answer_with(answer, as_json)


@app.command(
    rich_help_panel=PICTURES,
    epilog="Examples:  medseg choose runs/mine --clusters 4,8,16\n\nmedseg choose runs/kept --dry        (a run trained with --set stego.keep_every=100)",
)
def choose(
    run_folder: Run,
    clusters: Annotated[
        str | None,
        typer.Option(metavar="K,K,...", help="Numbers of clusters to try; default: the run's.", show_default=False),
    ] = None,
    signal: Annotated[str, typer.Option(help="What to choose by; see docs/choosing.md.")] = "stability",
    dry: Annotated[bool, typer.Option("--dry", help="Only print the table; leave the run as it is.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Choose the checkpoint and the number of clusters of a run, without labels."""
    start_logging(quiet, verbose)
    from medseg.errors import MedsegError
    from medseg.workflows.choosing import choose_checkpoint

    try:
        numbers = [int(number) for number in clusters.split(",")] if clusters else None
    except ValueError as error:
        raise MedsegError(f"--clusters must be whole numbers with commas, got {clusters}; write 4,8,16") from error
    return answer_with(choose_checkpoint(run_folder, clusters=numbers, signal=signal, write=not dry), as_json)


@app.command(
    rich_help_panel=PICTURES,
    name="import",
    epilog="Examples:  medseg import potsdam_test.ckpt --run runs/potsdam\n\nmedseg reconstruct runs/potsdam images/ -o results/potsdam",
)
def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A Lightning checkpoint (.ckpt) of the published STEGO.", readable=False, show_default=False
        ),
    ],
    run_folder: Annotated[Path, typer.Option("--run", help="Folder for the run.", show_default=False)],
    config: ConfigOption = "pictures_dino",
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Make a run of a published STEGO checkpoint; nothing in the file is executed."""
    start_logging(quiet, verbose)
    from medseg.workflows.importing import import_stego

    return answer_with(import_stego(checkpoint, run_folder, config=config, overrides=overrides), as_json)


@app.command(
    rich_help_panel=PICTURES,
    epilog="Examples:  medseg correspond images/ -o results/points --config pictures\n\nmedseg correspond photo.jpg -o results/points --point 0.3,0.5 --movie gif",
)
def correspond(
    images: Images,
    out: Out,
    point: Annotated[
        list[str], typer.Option(metavar="ROW,COLUMN", help="A place to compare with, as shares; may be repeated.")
    ] = ["0.5,0.5"],  # noqa: B006
    movie: Annotated[str | None, typer.Option(help="mp4 or gif: the place wanders.", show_default=False)] = None,
    run_folder: RunOption = None,
    config: ConfigOption = "pictures",
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Draw which places of pictures have features like those of a given place."""
    start_logging(quiet, verbose)
    from medseg.errors import MedsegError
    from medseg.workflows.correspondence import plot_correspondence

    try:
        points = [(float(row), float(column)) for row, column in (text.split(",") for text in point)]
    except ValueError as error:
        raise MedsegError(f"--point must be two shares such as 0.3,0.5, got {' '.join(point)}; mend it") from error
    if movie not in (None, "mp4", "gif"):
        raise MedsegError(f"--movie must be mp4 or gif, got {movie}; choose one")
    kind: Any = movie
    answer = plot_correspondence(
        images, out, config=config, run=run_folder, points=points, movie=kind, overrides=overrides
    )
    return answer_with(answer, as_json)


@app.command(
    rich_help_panel=PICTURES,
    name="precision-recall",
    epilog="Examples:  medseg precision-recall images/ -o results/curves\n\nmedseg precision-recall images/ -o results/curves --run runs/mine",
)
def precision_recall(
    images: Images,
    out: Out,
    run_folder: RunOption = None,
    config: ConfigOption = "pictures",
    seed: Annotated[int, typer.Option(min=0, help="Of the places that are compared.")] = 0,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Draw how well features, codes and the CRF tell whether two places have the same label."""
    start_logging(quiet, verbose)
    from medseg.workflows.precision_recall import plot_precision_recall

    answer = plot_precision_recall(images, out, config=config, run=run_folder, seed=seed, overrides=overrides)
    return answer_with(answer, as_json)


@app.command(
    rich_help_panel=PICTURES, epilog="Example:  medseg clear-view underwater/ -o results/view --steps colour_cast,haze"
)
def clear_view(
    images: Images,
    out: Out,
    steps: Annotated[str, typer.Option(metavar="STEP,STEP,...", help="Any of colour_cast, haze, contrast.")] = (
        "colour_cast,haze,contrast"
    ),
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Draw pictures before and after their colour cast and haze are taken away."""
    start_logging(quiet, verbose)
    from medseg.workflows.clear_view import show_clear_view

    return answer_with(show_clear_view(images, out, steps=steps.split(",")), as_json)


@app.command(
    rich_help_panel=PICTURES,
    epilog="Examples:  medseg crop images/ -o cropped --name mine --type five --ratio 0.5\n\nmedseg train pictures --scans cropped/mine_five_crop_0.5 --run runs/mine",
)
def crop(
    scans: Images,
    out: Out,
    name: Annotated[str, typer.Option(help="Of the cropped set.")] = "pictures",
    crop_type: Annotated[str, typer.Option("--type", help="five (corners and centre) or random.")] = "five",
    ratio: Annotated[float, typer.Option(help="Side of a crop as a share of the picture's.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of random crops.")] = 0,
    classes: Classes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write a cropped copy of a set of pictures and labels."""
    start_logging(quiet, verbose)
    from medseg.scans.shipped_schemes import load_scheme
    from medseg.workflows.cropping import crop_pictures

    scheme = load_scheme(classes) if classes else None
    answer = crop_pictures(scans, out, name=name, crop_type=crop_type, ratio=ratio, seed=seed, scheme=scheme)
    return answer_with(answer, as_json)
