"""This file stores students: `student.safetensors` with all tensors and `student.json` with plain values, in a folder.

The *format* says whose student it is and which version of its files; the *card* how it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load, save
from torch import Tensor

from medseg.errors import MedsegError
from medseg.files import read_record, replacing, write_json

WEIGHTS, CARD = "student.safetensors", "student.json"
"""Files of a student; the card is written last and makes it complete."""
ADVICE = "train the student anew"

_Made = TypeVar("_Made")


def write_student(
    folder: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write a student into a folder, of its own or with other files.

    Args:
        folder: where.
        tensors: contiguous.
        content: `format` and `fingerprint`, and whatever else is needed to make it again.
        card: how it was trained.
    """
    with replacing(folder / WEIGHTS) as beside:
        # save_file would make a file that nobody else may read.
        beside.write_bytes(save(dict(tensors)))
    write_json(folder / CARD, {**content, "card": dict(card)})


def read_student(
    folder: Path,
    wanted: str,
    keys: tuple[str, ...],
    make: Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[_Made, str]],
) -> _Made:
    """Read a student that `write_student` wrote.

    Args:
        folder: where it lies.
        wanted: its format.
        keys: further keys of its content.
        make: builds it from tensors and content, and says its fingerprint.

    Raises:
        MedsegError: the folder holds no such student, or one whose files are damaged or do not belong together.
    """
    path = folder / CARD
    content = read_record(path, "format", "fingerprint", "card", *keys, advice=ADVICE)
    if content["format"] != wanted:
        raise MedsegError(f"{path} must be a {wanted} file, got {content['format']!r}; {ADVICE}")
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
        student, fingerprint = make(tensors, content)
        if not all(value.isfinite().all() for value in tensors.values()):
            raise ValueError("values that are no numbers")
    except MedsegError:
        raise
    except Exception as error:  # safetensors raises its own kinds, torch many
        reason = " ".join(str(error).split())[:160]
        raise MedsegError(f"{folder / WEIGHTS} must hold the student's weights, got {reason}; {ADVICE}") from error
    if fingerprint != content["fingerprint"]:
        raise MedsegError(f"{folder / WEIGHTS} must belong to {path}, got other weights; {ADVICE}")
    return student


def format_of(folder: Path) -> str:
    """The format of the student in a folder.

    Raises:
        MedsegError: the folder holds no student.
    """
    return str(read_record(folder / CARD, "format", advice=ADVICE)["format"])


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name.`, without that."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def as_part(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under names that begin with `name.`; contiguous, because no file keeps the order in memory."""
    return {f"{name}.{key}": value.contiguous() for key, value in weights.items()}
