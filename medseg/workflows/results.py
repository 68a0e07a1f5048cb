"""This file writes what a case gets, in the format that its source asks for: NIfTI for volumes, PNG for pictures.

A picture with several frames (a cine, the pages of a TIFF) gets a PNG a frame in `CASE_frames/` and one NIfTI stack.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medseg.review.picture_overlay import draw_overlay
from medseg.scans.arrays import read_label_values
from medseg.scans.masks import write_labels, write_map
from medseg.scans.names import is_picture
from medseg.scans.picks import Pick
from medseg.scans.picture_masks import write_colour_png, write_grey_png, write_index_png
from medseg.scans.stacks import open_stack, read_stack


@dataclass(frozen=True)
class CaseFiles:
    """Where the results of one case go, and on whose grid.

    Attributes:
        out: result folder.
        case_id: of the case.
        source: its scan or picture.
        pick: what was taken of it.
        colours: `#rrggbb` by class value.
        backdrop: classes that are not drawn over the picture, because they are what remains of it.
        keep_identity: hand down the free text of the source's header.
    """

    out: Path
    case_id: str
    source: Path
    pick: Pick
    colours: Mapping[int, str]
    backdrop: Collection[int] = ()
    keep_identity: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether the results are pictures."""
        return is_picture(self.source)

    def labels(self, kind: str, labels: UInt8[np.ndarray, "i j k"]) -> list[Path]:
        """Write a mask on the stored grid: `CASE_KIND`, or another name with a folder in front."""
        if not self.is_picture:
            path = self._path(kind, ".nii.gz")
            write_labels(path, labels, source=self.source, pick=self.pick, keep_identity=self.keep_identity)
            return [path]
        count = labels.shape[2]
        with self.open_frames(count) as frames:
            for index in range(count):
                frames.labels(kind, index, labels[:, :, index])
        return frames.written

    def share(self, kind: str, values: Float[np.ndarray, "i j k *c"]) -> list[Path]:
        """Write values from 0 to 1 on the stored grid of a volume, in float32."""
        path = self._path(kind, ".nii.gz")
        write_map(path, values, source=self.source, pick=self.pick, keep_identity=self.keep_identity)
        return [path]

    @contextmanager
    def open_frames(self, count: int) -> Iterator[FrameFiles]:
        """Take the results of a picture frame by frame; its stacks are whole when the block ends well."""
        with ExitStack() as stacks:
            yield FrameFiles(self, count, stacks)

    def path_of_frame(self, kind: str, index: int, count: int) -> Path:
        """Where a PNG goes: beside those of other cases, or among the frames of its cine."""
        if count == 1:
            return self._path(kind, ".png")
        return self.out / f"{self.case_id}_frames" / f"{index + 1:04d}_{kind.replace('/', '_')}.png"

    def mask_of(self, files: Collection[Path]) -> Path:
        """The one file among those of this case that is its mask: NIfTI, or the PNG of a picture of one frame."""
        return next(path for path in (self._path("seg", ".nii.gz"), self._path("seg", ".png")) if path in files)

    def path_of_stack(self, kind: str) -> Path:
        """Where all frames of a cine go together."""
        return self._path(kind, ".nii.gz")

    def _path(self, kind: str, extension: str) -> Path:
        folder, _, name = kind.rpartition("/")
        return self.out / folder / f"{self.case_id}_{name}{extension}"


class FrameFiles:
    """Writes the results of a picture frame by frame, so that a long cine needs the memory of one frame.

    Args:
        files: names and colours.
        count: frames of the picture; each kind of result must get all of them, in their order.
        stacks: closes the NIfTI stacks, which a picture with several frames gets.
    """

    def __init__(self, files: CaseFiles, count: int, stacks: ExitStack) -> None:
        self.written: list[Path] = []
        self._files, self._count, self._stacks = files, count, stacks
        self._open: dict[str, Callable[[np.ndarray], None]] = {}

    def labels(self, kind: str, index: int, labels: UInt8[np.ndarray, "h w"]) -> None:
        """Write the mask of a frame, as a PNG of indices and into the stack."""
        colours = {1: "#ffffff"} if kind == "region" else self._files.colours
        write_index_png(self._path(kind, index), labels, colours)
        self._add_to_stack(kind, labels)

    def share(self, kind: str, index: int, values: Float[np.ndarray, "h w"]) -> None:
        """Write the values of a frame, from 0 to 1, as 8-bit grey and in float32 into the stack."""
        values = np.asarray(values, np.float32)
        write_grey_png(self._path(kind, index), values)
        self._add_to_stack(kind, values)

    def looks(self, index: int, labels: UInt8[np.ndarray, "h w"], picture: Float[np.ndarray, "h w c"]) -> None:
        """Write the coloured mask of a frame, and the picture under it."""
        write_colour_png(self._path("colour", index), labels, self._files.colours)
        drawn = {value: colour for value, colour in self._files.colours.items() if value not in self._files.backdrop}
        draw_overlay(picture, labels, self._path("overlay", index), colours=drawn)

    def _path(self, kind: str, index: int) -> Path:
        path = self._files.path_of_frame(kind, index, self._count)
        self.written.append(path)
        return path

    def _add_to_stack(self, kind: str, values: np.ndarray) -> None:
        if self._count == 1:
            return
        if kind not in self._open:
            path = self._files.path_of_stack(kind)
            stack = open_stack(path, (*values.shape, self._count), values.dtype)
            self._open[kind] = self._stacks.enter_context(stack)
            self.written.append(path)
        self._open[kind](values)


def read_mask(out: Path, name: str) -> UInt8[np.ndarray, "i j k"]:
    """Read a mask of a result folder by its name without extension, on the grid of its source.

    Raises:
        MedsegError: it is missing or broken.
    """
    png, stack = out / f"{name}.png", out / f"{name}.nii.gz"
    labels, _ = read_label_values(png if png.is_file() else stack)
    return labels.astype(np.uint8)


def read_frames(out: Path, name: str) -> UInt8[np.ndarray, "h w n"]:
    """Read the mask of a picture, of one frame or many, by its name without extension.

    Raises:
        MedsegError: it is missing or broken.
    """
    png = out / f"{name}.png"
    return read_mask(out, name) if png.is_file() else read_stack(out / f"{name}.nii.gz").astype(np.uint8)
