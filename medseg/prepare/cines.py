"""This file goes through the frames of a cine, or the slices of a scan, one at a time.

A cine is not in memory, a scan is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float
from monai.data import MetaTensor

from medseg.scans.grids import Grid
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.picture_files import read_header
from medseg.scans.pictures import iterate_frames


class Cine:
    """Frames of a picture or a video, read anew whenever they are gone through; one is in memory at a time.

    Args:
        path: the file.
        pick: which frame of it; all without one.

    Raises:
        MedsegError: the file cannot be read.
    """

    def __init__(self, path: Path, pick: Pick = WHOLE) -> None:
        self.path, self.pick = path, pick
        header = read_header(path)
        self.shape: tuple[int, int] = (header.height, header.width)
        self._count = header.frames if pick.frame is None else 1

    def __len__(self) -> int:
        return self._count

    @property
    def grid(self) -> Grid:
        """Rows, columns and frames, in pixels."""
        return Grid(str(self.path), (*self.shape, len(self)), np.eye(4))

    def __iter__(self) -> Iterator[Float[np.ndarray, "h w *c"]]:
        for frame in iterate_frames(self.path, self.pick):
            yield frame[..., 0] if frame.shape[2] == 1 else frame

    def spread(self, count: int) -> Iterator[Float[np.ndarray, "h w *c"]]:
        """So many frames at even distances, the first and the last among them."""
        wanted = set(np.linspace(0, len(self) - 1, count).astype(int).tolist())
        return (frame for number, frame in enumerate(self) if number in wanted)


class Slices:
    """Slices of a scan that is in memory."""

    def __init__(self, image: MetaTensor) -> None:
        self._values = image.as_tensor()[0].numpy()
        self.shape: tuple[int, int] = self._values.shape[:2]

    def __len__(self) -> int:
        return int(self._values.shape[2])

    def __iter__(self) -> Iterator[Float[np.ndarray, "h w"]]:
        return (np.ascontiguousarray(self._values[..., k]) for k in range(len(self)))


def middle_frame(frames: Cine | Slices) -> Float[np.ndarray, "h w *c"]:
    """The frame in the middle."""
    return next(islice(frames, len(frames) // 2, None))
