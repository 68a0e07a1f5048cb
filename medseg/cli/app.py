"""This file declares the main verbs of `medseg`: their arguments, help and examples.

It imports nothing heavy, so `--help` answers at once; the work lives in `medseg.workflows`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg import __version__
from medseg.cli.answers import answer_with, start_logging
from medseg.cli.options import (
    MASKS,
    RESULTS,
    START,
    AsJson,
    Channel,
    Compare,
    ConfigName,
    Frame,
    HeldOut,
    KeepIdentity,
    Out,
    Overrides,
    Pseudonyms,
    Quiet,
    Region,
    Resample,
    Scans,
    ScansOption,
    Series,
    Verbose,
)
from medseg.scans.picks import Pick

app = typer.Typer(
    help="Segment medical volumes and pictures with few or no labels. Research use only.",
    epilog="Start here:  medseg demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(show: bool | None) -> None:
    if show:
        print(f"medseg {__version__}")
        raise typer.Exit


@app.callback()
def _medseg(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass


@app.command(rich_help_panel=START, epilog="Example:  medseg demo -o demo")
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for phantoms, run and results.")] = Path("demo"),
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Make phantoms, train on them without labels, write masks and a score table."""
    start_logging(quiet, verbose)
    from medseg.workflows.demo import run_demo

    return answer_with(run_demo(out), as_json=False)


@app.command(
    rich_help_panel=MASKS,
    epilog="Examples:  medseg segment scan.nii.gz -o results/one\n\nmedseg segment scans/ -o results/mine --adapt\n\nmedseg segment frames/ -o results/liver --modality liver_ultrasound --spacing 0.3",
)
def segment(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCANS...",
            help="Folders, datalists (.json), .csv or single scans.",
            readable=False,
            show_default=False,
        ),
    ],
    out: Out,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="student: a network that a rule taught; flux (vessels), teacher (liver): the rule alone. Default: student.",
            show_default=False,
        ),
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Train the student on these scans first (minutes; needs no label).")
    ] = False,
    modality: Annotated[
        str | None,
        typer.Option(
            "--modality",
            help="tof, ce_mra, cta or liver_ultrasound. Default: volumes are tof, pictures ultrasound if they look so.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", help="A config file or a shipped name, instead of the one of the modality.", show_default=False
        ),
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option("--spacing", metavar="MM", help="Millimetres a pixel of pictures, for areas.", show_default=False),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    keep_identity: KeepIdentity = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write masks of vessels (TOF-MRA) or of the liver (ultrasound) with one command, without labels."""
    start_logging(quiet, verbose)
    from medseg.workflows.intake import Intake
    from medseg.workflows.segmentation import segment_scans

    answer = segment_scans(
        scans,
        out,
        config=config,
        modality=modality,
        method=method,
        adapt=adapt,
        pixel_mm=spacing,
        overrides=overrides,
        intake=Intake(Pick(frame, channel, series, resample), pseudonyms, keep_identity),
    )
    return answer_with(answer, as_json)


@app.command(
    rich_help_panel=MASKS,
    epilog="Examples:  medseg run tof_mra --scans scans/ -o results/mine\n\nmedseg run pictures_bank --scans images/ -o results/pictures\n\nmedseg run tof_mra --scans scans/ -o results/mine --references labels/ --set run.seed=1",
)
def run(
    config: ConfigName,
    scans: ScansOption,
    out: Out,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references",
            help="Labels to score against; default: labels beside the scans, if any.",
            show_default=False,
        ),
    ] = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", help="Run folder; default: OUT/run.", show_default=False)
    ] = None,
    region: Region = "all",
    overrides: Overrides = [],  # noqa: B006 (Typer copies it)
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    keep_identity: KeepIdentity = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Train, reconstruct and score in one go."""
    start_logging(quiet, verbose)
    from medseg.workflows.intake import Intake
    from medseg.workflows.whole import run_all

    summary = run_all(
        config,
        scans,
        out,
        run=run_folder,
        references=references,
        region=region,
        overrides=overrides,
        intake=Intake(Pick(frame, channel, series, resample), pseudonyms, keep_identity),
    )
    return answer_with(summary, as_json)


@app.command(
    rich_help_panel=MASKS,
    epilog="Examples:  medseg train tof_mra --scans scans/ --run runs/mine\n\nmedseg train my.yaml --scans scans.csv --run runs/mine --set stego.steps=800",
)
def train(
    config: ConfigName,
    scans: ScansOption,
    run_folder: Annotated[
        Path, typer.Option("--run", help="Folder for the run; an interrupted run there goes on.", show_default=False)
    ],
    overrides: Overrides = [],  # noqa: B006
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    keep_identity: KeepIdentity = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Train STEGO on a folder of scans or pictures; needs no label."""
    start_logging(quiet, verbose)
    from medseg.workflows.intake import Intake
    from medseg.workflows.training import train_run

    return answer_with(
        train_run(
            config,
            scans,
            run_folder,
            overrides=overrides,
            intake=Intake(Pick(frame, channel, series, resample), pseudonyms, keep_identity),
        ),
        as_json,
    )


@app.command(
    rich_help_panel=MASKS,
    epilog="Examples:  medseg reconstruct runs/mine scans/ -o results/mine\n\nmedseg reconstruct runs/mine one.nii.gz -o results/one --set reconstruct.method=kmeans",
)
def reconstruct(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder made by `medseg train`.", show_default=False)
    ],
    scans: Scans,
    out: Out,
    compare: Compare = False,
    held_out: HeldOut = False,
    overrides: Overrides = [],  # noqa: B006
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    pseudonyms: Pseudonyms = None,
    keep_identity: KeepIdentity = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write masks on the grid of each scan, or at the size of each picture, with a trained run."""
    start_logging(quiet, verbose)
    from medseg.workflows.intake import Intake
    from medseg.workflows.reconstruction import reconstruct_run

    return answer_with(
        reconstruct_run(
            run_folder,
            scans,
            out,
            compare=compare,
            held_out=held_out,
            overrides=overrides,
            intake=Intake(Pick(frame, channel, series, resample), pseudonyms, keep_identity),
        ),
        as_json,
    )


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:  medseg score results/mine labels/\n\nmedseg score results/mine labels/ --region brain --json",
)
def score(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A result folder made by `medseg reconstruct`.", show_default=False)
    ],
    references: Annotated[
        Path, typer.Argument(help="Folder, datalist, CSV or one label file.", readable=False, show_default=False)
    ],
    into: Annotated[
        Path | None, typer.Option("-o", "--into", help="Folder for the tables; default: OUT.", show_default=False)
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            "--scans", help="The scans, for the baseline rows; default: where the manifests say.", show_default=False
        ),
    ] = None,
    region: Region = "all",
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="FILE|NAME",
            help="What label pictures mean: a classes.yaml, or a known data set.",
            show_default=False,
        ),
    ] = None,
    pseudonyms: Pseudonyms = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Score masks with Dice, clDice and more, beside baselines."""
    start_logging(quiet, verbose)
    from medseg.workflows.scoring import score_results

    return answer_with(
        score_results(out, references, into=into, scans=scans, region=region, classes=classes, pseudonyms=pseudonyms),
        as_json,
    )


@app.command(
    rich_help_panel=START,
    epilog="Examples:  medseg phantom vessels -o phantoms --cases 3 --seed 0\n\nmedseg phantom vessels -o hard --hard all\n\nmedseg phantom vessels -o some --hard noise_060,aneurysm\n\nmedseg phantom liver -o liver --count 20 --seed 0\n\nmedseg phantom liver -o cines --cine 24 --size small",
)
def phantom(
    out: Out,
    kind: Annotated[
        str, typer.Argument(help="vessels: TOF-like volumes; liver: B-mode ultrasound; both with exact labels.")
    ] = "vessels",
    cases: Annotated[int, typer.Option("--cases", "--count", min=1, help="How many.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same phantoms.")] = 0,
    hard: Annotated[
        str | None,
        typer.Option(
            metavar="all|NAMES",
            help="vessels: the fixed hard cases (noise, thick slices, aneurysm, no vessels ...) instead of --cases.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="small|normal", help="liver: size of the pictures.", show_default=False)
    ] = None,
    cine: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, help="liver: cines of N frames over one breath.", show_default=False),
    ] = None,
    volume: Annotated[bool, typer.Option("--volume", help="liver: volumes of parallel planes.")] = False,
    without_liver: Annotated[
        bool, typer.Option("--without-liver", help="liver: other body parts and a water bath.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write known-truth phantoms of brain vessels or of the liver in ultrasound, with labels."""
    start_logging(quiet, verbose)
    from medseg.workflows.phantom_folder import write_phantom_folder

    answer = write_phantom_folder(
        kind,
        out,
        cases=cases,
        seed=seed,
        hard=hard,
        size=size,
        cine=cine,
        volume=volume,
        without_liver=without_liver,
    )
    return answer_with(answer, as_json)


@app.command(rich_help_panel=START, epilog="Examples:  medseg info scans/\n\nmedseg info runs/mine --json")
def info(
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|SCANS]", help="A run folder, or scans; nothing: this installation.", show_default=False
        ),
    ] = None,
    frame: Frame = None,
    channel: Channel = None,
    series: Series = None,
    resample: Resample = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Say what a run, a folder of scans or this installation holds."""
    start_logging(quiet, verbose)
    from medseg.workflows.information import describe

    return answer_with(describe(what, pick=Pick(frame, channel, series, resample)), as_json)
