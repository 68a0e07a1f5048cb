"""This file declares the verbs around results: checks of what goes in, proofs, exports and review of what came out.

It imports nothing heavy, like `medseg.cli.app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.answers import answer_with, start_logging
from medseg.cli.app import app
from medseg.cli.options import RESULTS, START, AsJson, Channel, Frame, Quiet, Resample, Series, Verbose
from medseg.errors import MedsegError
from medseg.scans.picks import Pick

Results = Annotated[
    Path, typer.Argument(metavar="OUT", help="A result folder made by medseg.", readable=False, show_default=False)
]
ScansOfResults = Annotated[
    Path | None,
    typer.Option("--scans", help="Where the scans are; default: where they were.", readable=False, show_default=False),
]


@app.command(
    rich_help_panel=START,
    epilog="Examples:  medseg check scans/\n\nmedseg check dicom_folder/ --series 4\n\nmedseg check label.nii.gz --for scan.nii.gz",
)
def check(
    what: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|FOLDER...", help="Scans, or one label.", readable=False, show_default=False),
    ],
    image: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="IMAGE",
            help="The scan that a label must fit: a file, or the folder of a DICOM series.",
            readable=False,
            show_default=False,
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
    """Read scans to the end and say what they are, what belongs to them, and what is wrong; or whether a label fits."""
    start_logging(quiet, verbose)
    from medseg.workflows.checking import check_path

    return answer_with(check_path(what, image=image, pick=Pick(frame, channel, series, resample)), as_json)


@app.command(
    rich_help_panel=RESULTS, epilog="Examples:  medseg verify results/mine\n\nmedseg verify results/mine --scans scans/"
)
def verify(
    out: Results,
    scans: ScansOfResults = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Prove that every mask is the one that was written, and lies where its scan lies."""
    start_logging(quiet, verbose)
    from medseg.workflows.verification import verify_results

    return answer_with(verify_results(out, scans), as_json)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:  medseg export results/mine --to slicer\n\nmedseg export results/mine --to dicom-seg --to mesh\n\nmedseg export results/mine --to nnunet --labels accepted/ -o nnUNet_raw",
)
def export(
    out: Results,
    targets: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="nifti, slicer, dicom-seg, mesh, bids, nnunet or monai; may be repeated.",
            show_default=False,
        ),
    ],
    into: Annotated[
        Path | None, typer.Option("-o", "--into", help="Folder for the files; default: OUT/export.", show_default=False)
    ] = None,
    scans: ScansOfResults = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Reviewed masks (of `medseg review --collect`), for nnunet and monai.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    keep_identity: Annotated[
        bool, typer.Option("--keep-identity", help="dicom-seg: copy the patient's identity, as a PACS needs it.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Hand masks over in the format of another program."""
    start_logging(quiet, verbose)
    from medseg.workflows.exporting import export_results

    answer = export_results(out, targets, into=into, scans=scans, labels=labels, keep_identity=keep_identity)
    return answer_with(answer, as_json)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples:  medseg review results/mine\n\nmedseg review results/mine --serve\n\nmedseg review results/mine --collect ~/Downloads --into accepted",
)
def review(
    out: Results,
    scans: ScansOfResults = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page from this computer, for cases too large to embed.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="With --serve: the port; 0 takes a free one.")
    ] = 0,
    max_mb: Annotated[
        int, typer.Option("--max-mb", min=1, help="Largest page; beyond it there are several, with an index.")
    ] = 300,
    collect: Annotated[
        Path | None,
        typer.Option(
            "--collect",
            metavar="DOWNLOADS",
            help="Instead: check what a reviewer downloaded.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="DIR", help="With --collect: folder of the accepted labels.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Write one page on which a radiologist reviews the masks, offline; or collect what they decided."""
    start_logging(quiet, verbose)
    from medseg.workflows.reviewing import collect_reviews, review_results

    if (collect is None) != (into is None):
        raise MedsegError("--collect and --into must go together, got one of them; give both")
    if collect is not None and into is not None:
        return answer_with(collect_reviews(collect, into, out), as_json)
    return answer_with(review_results(out, scans=scans, max_mb=max_mb, serve=serve, port=port), as_json)
