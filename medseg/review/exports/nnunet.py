"""This file writes what surrounds the cases of a raw data set of nnU-Net v2: names, and `dataset.json`.

    Dataset501_medseg/dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, imagesTs/CASE_0000.nii.gz

Cases without an accepted mask go to `imagesTs`. A data set has one file format: volumes as NIfTI, or pictures as PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg import __version__
from medseg.errors import MedsegError
from medseg.files import write_json
from medseg.naming.classes import ClassEntry
from medseg.review.exports.training_files import consecutive, label_names

FIRST_CHANNEL = "_0000"
"""nnU-Net's ending of an image with one channel; a coloured PNG is one file too."""
_COLOURS = ("red", "green", "blue")
_LARGEST_ID = 999


def dataset_name(dataset_id: int) -> str:
    """`Dataset501_medseg`.

    Raises:
        MedsegError: the number cannot be the one of a data set.
    """
    if not 1 <= dataset_id <= _LARGEST_ID:
        raise MedsegError(f"the number of a data set must be 1 to {_LARGEST_ID}, got {dataset_id}; choose another")
    return f"Dataset{dataset_id:03d}_medseg"


def write_dataset_json(
    folder: Path,
    classes: Sequence[ClassEntry],
    *,
    training: int,
    ending: str,
    modality: str = "image",
    colour: bool = False,
    reviewed: bool,
) -> None:
    """Write `dataset.json`.

    Args:
        folder: the data set.
        classes: what the values of the masks mean.
        training: how many cases have a mask.
        ending: `.nii.gz` or `.png`.
        modality: name of the channel; nnU-Net scales `CT` by Hounsfield units and all others by each image's spread.
        colour: whether images have three channels.
        reviewed: whether a person has accepted the masks.
    """
    table = consecutive(classes)
    was = ", ".join(f"{table[entry.value]} was {entry.value} ({entry.name})" for entry in classes)
    by = "accepted by a reviewer" if reviewed else "automatic and not reviewed"
    content: dict[str, Any] = {
        "channel_names": {str(n): name for n, name in enumerate(_COLOURS if colour else (modality,))},
        "labels": label_names(classes),
        "numTraining": training,
        "file_ending": ending,
        "name": folder.name,
        "description": f"Masks by medseg {__version__}, {by}; values: {was}. Research use only.",
    }
    write_json(folder / "dataset.json", content)
