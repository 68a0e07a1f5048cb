"""This file writes down a training: `metrics.csv`, TensorBoard, and the checkpoint that a stopped one goes on from.

A resumed run first drops the rows it will write again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medseg.errors import MedsegError
from medseg.files import replacing, write_text


class Records:
    """The writers of one run; with `active` false (all processes but the first) it writes nothing.

    Args:
        run_dir: the run folder.
        columns: of the CSV, `step` first; values of other names go to TensorBoard only.
        start: first step that will be written; rows from there on are dropped.
        active: whether to write.
    """

    def __init__(self, run_dir: Path, columns: Sequence[str], *, start: int, active: bool = True) -> None:
        self._writer = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._columns = tuple(columns)
        self._path = run_dir / "metrics.csv"
        rows = self._path.read_text(encoding="utf-8").splitlines()[1:] if self._path.exists() and start else []
        kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) < start]
        write_text(self._path, "\n".join([",".join(self._columns), *kept]) + "\n")
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row; what has no value stays empty."""
        if self._writer is None:
            return
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(
            [step, *(f"{values[name]:.8g}" if name in values else "" for name in self._columns[1:])]
        )
        with self._path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(line.getvalue())
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def histogram(self, step: int, name: str, values: Tensor) -> None:
        """Add a histogram of all values."""
        if self._writer is not None:
            self._writer.add_histogram(name, values.detach().float().flatten(), step)

    def picture(self, step: int, name: str, picture: Float[Tensor, "3 h w"]) -> None:
        """Add a picture with values in [0, 1]."""
        if self._writer is not None:
            self._writer.add_image(name, picture, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it."""
    with replacing(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """Read the checkpoint of the run `key`; None where there is none yet.

    Raises:
        MedsegError: the file is broken, holds anything but tensors and plain values, or belongs to another run.
    """
    if not path.exists():
        return None
    state = read_state(path)
    if state.get("key") != key:
        raise MedsegError(
            f"{path} must be a checkpoint of the same settings, seed, backbone and patches, got another one's; "
            "choose another run folder or remove it"
        )
    return state


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint of whatever run; nothing in it is executed.

    Raises:
        MedsegError: the file is broken, or holds anything but tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise MedsegError(
            f"{path} must be a checkpoint of this program, got {str(error).splitlines()[0]}; remove it"
        ) from error
    return state if isinstance(state, dict) else {}
