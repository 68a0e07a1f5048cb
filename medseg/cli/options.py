"""This file declares the arguments and options that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

START, MASKS, RESULTS, PICTURES = "Start here", "Masks", "Results", "Pictures, and what STEGO's users bring"
"""Groups of verbs in the help."""

# Inputs are checked where they are read (readable=False: not by Typer), so that every mistake is the same one line.
Scans = Annotated[
    Path, typer.Argument(help="Folder, datalist (.json), .csv or one scan.", readable=False, show_default=False)
]
ScansOption = Annotated[
    Path,
    typer.Option("--scans", help="Folder, datalist (.json), .csv or one scan.", readable=False, show_default=False),
]
ConfigName = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A config file, or the name of a shipped one: tof_mra, pictures_bank, pictures; all: medseg info.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Change one config key; may be repeated.", show_default=False
    ),
]
Frame = Annotated[
    int | None, typer.Option("--frame", help="Which frame (from 0) of scans that hold several.", show_default=False)
]
Channel = Annotated[
    int | None, typer.Option("--channel", help="Which channel (from 0) of scans in colour.", show_default=False)
]
Series = Annotated[
    str | None,
    typer.Option(
        "--series", metavar="N|TEXT", help="Which DICOM series: number, UID or part of the name.", show_default=False
    ),
]
Resample = Annotated[
    bool, typer.Option("--resample", help="Put irregular DICOM slices on a regular grid instead of refusing them.")
]
Pseudonyms = Annotated[
    Path | None,
    typer.Option(
        "--pseudonyms",
        metavar="FILE",
        help="CSV case,pseudonym: results carry pseudonyms; new cases are added to it.",
        readable=False,
        show_default=False,
    ),
]
KeepIdentity = Annotated[
    bool, typer.Option("--keep-identity", help="Hand down the free text of headers, which may name the patient.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say only warnings and errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more, with the place of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
Region = Annotated[str, typer.Option("--region", help="Score everywhere (all), or inside the brain mask only (brain).")]
HeldOut = Annotated[bool, typer.Option("--held-out", help="Only cases that training did not see.")]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also write k-means' and the untrained head's masks to OUT/comparison.")
]
Space = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="mm|voxel",
        help="What X Y Z are: mm of the scanner (R, A, S), or indices of a voxel in the file; of a picture row, column "
        "and frame.",
    ),
]
Decisions = Annotated[
    Path | None,
    typer.Option(
        "--decisions",
        metavar="FILE|FOLDER",
        help="Named places of the review page, with the time they took.",
        readable=False,
        show_default=False,
    ),
]
