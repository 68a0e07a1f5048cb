"""This file writes a datalist of MONAI, which medseg reads too: images and masks by paths relative to the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg import __version__
from medseg.files import write_json
from medseg.naming.classes import ClassEntry
from medseg.review.exports.training_files import label_names

DATALIST = "datalist.json"


def write_datalist(
    folder: Path, classes: Sequence[ClassEntry], entries: Mapping[str, Sequence[Mapping[str, str]]], *, reviewed: bool
) -> None:
    """Write `datalist.json`.

    Args:
        folder: of the list.
        classes: what the values of the masks mean.
        entries: under `training`, `validation` and `testing`; each an `image`, and where there is one a `label`.
        reviewed: whether a person has accepted the masks.
    """
    by = "accepted by a reviewer" if reviewed else "automatic and not reviewed"
    content = {
        "description": f"Masks by medseg {__version__}, {by}. Research use only.",
        "labels": {str(value): name for name, value in label_names(classes).items()},
        **{section: list(given) for section, given in entries.items() if given},
    }
    write_json(folder / DATALIST, content)
