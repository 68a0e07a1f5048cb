"""This file writes the folder of phantoms that `medseg phantom` is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.phantoms.hard import write_hard_phantoms
from medseg.phantoms.liver import SIZES
from medseg.phantoms.liver_files import Form, write_liver_phantoms
from medseg.phantoms.vessels import write_phantoms


def write_phantom_folder(
    kind: str,
    out: Path,
    *,
    cases: int,
    seed: int,
    hard: str | None = None,
    size: str | None = None,
    cine: int | None = None,
    volume: bool = False,
    without_liver: bool = False,
) -> dict[str, Any]:
    """Write phantoms with images and labels, vessels also with brain masks.

    Args:
        kind: `vessels` or `liver`.
        out: folder for the files.
        cases: how many; hard ones have their own number.
        seed: decides the anatomy and the noise.
        hard: vessels: `all` hard cases, or the names of some with commas between them; None for ordinary phantoms.
        size: liver: `small` or `normal`, which is the default.
        cine: liver: frames of each cine; None for pictures.
        volume: liver: write volumes.
        without_liver: liver: other body parts.

    Raises:
        MedsegError: the kind or a name is unknown, or an option belongs to another kind.
    """
    if kind not in ("vessels", "liver"):
        raise MedsegError(f"KIND must be vessels or liver, got {kind}; run `medseg phantom vessels -o DIR`")
    of_vessels = {"--hard": hard is not None}
    of_liver = {"--size": size is not None, "--cine": cine is not None, "--volume": volume}
    of_liver["--without-liver"] = without_liver
    for option, is_given in (of_liver if kind == "vessels" else of_vessels).items():
        if is_given:
            raise MedsegError(f"{option} must go with the other KIND, got {kind}; leave it out")
    if cine is not None and volume:
        raise MedsegError("a phantom must be a cine or a volume, got --cine and --volume; leave one out")
    if size not in (None, *SIZES):
        raise MedsegError(f"--size must be one of {', '.join(SIZES)}, got {size}; choose one of them")
    require_folder(out, "-o")
    if kind == "liver":
        form: Form = "volumes" if volume else "pictures" if cine is None else "cines"
        paths = write_liver_phantoms(
            out,
            cases=cases,
            seed=seed,
            size="small" if size == "small" else "normal",
            form=form,
            frames=cine or 1,
            without_liver=without_liver,
        )
    elif hard is None:
        paths = write_phantoms(out, cases=cases, seed=seed)
    else:
        names = [] if hard == "all" else [name.strip() for name in hard.split(",")]
        paths = write_hard_phantoms(out, names=names, series=seed)
    return {"lines": [f"{len(paths)} phantoms in {out}"], "images": [str(path) for path in paths]}
