"""This file writes what a case gets, in the format that its source asks for: NIfTI for volumes, PNG for pictures.

A picture with several frames (a cine, the pages of a TIFF) gets a PNG a frame in `CASE_frames/` and one NIfTI stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medseg.review.picture_overlay import draw_overlay
from medseg.scans.masks import write_labels, write_map
from medseg.scans.names import is_picture
from medseg.scans.picture_masks import write_colour_png, write_grey_png, write_index_png
from medseg.scans.pictures import read_picture
from medseg.scans.readers import read_labels
from medseg.scans.stacks import read_stack, write_stack


@dataclass(frozen=True)
class CaseFiles:
    """Where the results of one case go, and on whose grid.

    Attributes:
        out: result folder.
        case_id: of the case.
        source: its scan or picture.
        frame: the frame that was taken of it, if one was.
        colours: `#rrggbb` by class value.
    """

    out: Path
    case_id: str
    source: Path
    frame: int | None
    colours: Mapping[int, str]

    @property
    def is_picture(self) -> bool:
        """Whether the results are pictures."""
        return is_picture(self.source)

    def labels(self, kind: str, labels: UInt8[np.ndarray, "i j k"]) -> list[Path]:
        """Write a mask on the stored grid: `CASE_KIND`, or another name with a folder in front."""
        if not self.is_picture:
            path = self._path(kind, ".nii.gz")
            write_labels(path, labels, source=self.source)
            return [path]
        written = []
        colours = {1: "#ffffff"} if kind == "region" else self.colours
        for index, path in self._frames(kind, labels.shape[2]):
            write_index_png(path, labels[:, :, index], colours)
            written.append(path)
        return written + self._stack(kind, labels)

    def share(self, kind: str, values: Float[np.ndarray, "i j k *c"]) -> list[Path]:
        """Write values from 0 to 1 on the stored grid, in float32, or as 8-bit grey."""
        if not self.is_picture:
            path = self._path(kind, ".nii.gz")
            write_map(path, values, source=self.source)
            return [path]
        written = []
        for index, path in self._frames(kind, values.shape[2]):
            write_grey_png(path, np.asarray(values[:, :, index], np.float32))
            written.append(path)
        return written + self._stack(kind, np.asarray(values, np.float32))

    def looks(self, labels: UInt8[np.ndarray, "h w n"]) -> list[Path]:
        """Write the coloured mask and the picture under it, at the picture's own size."""
        picture = np.asarray(read_picture(self.source, frame=self.frame))
        written = []
        for index, path in self._frames("colour", labels.shape[2]):
            write_colour_png(path, labels[:, :, index], self.colours)
            written.append(path)
        for index, path in self._frames("overlay", labels.shape[2]):
            draw_overlay(np.moveaxis(picture[..., index], 0, -1), labels[:, :, index], path, colours=self.colours)
            written.append(path)
        return written

    def _frames(self, kind: str, count: int) -> list[tuple[int, Path]]:
        if count == 1:
            return [(0, self._path(kind, ".png"))]
        folder = self.out / f"{self.case_id}_frames"
        return [(index, folder / f"{index + 1:04d}_{kind.replace('/', '_')}.png") for index in range(count)]

    def _stack(self, kind: str, values: np.ndarray) -> list[Path]:
        if values.shape[2] == 1:
            return []
        path = self._path(kind, ".nii.gz")
        write_stack(path, values)
        return [path]

    def _path(self, kind: str, extension: str) -> Path:
        folder, _, name = kind.rpartition("/")
        return self.out / folder / f"{self.case_id}_{name}{extension}"


def read_mask(out: Path, name: str) -> UInt8[np.ndarray, "i j k"]:
    """Read a mask of a result folder by its name without extension, on the grid of its source.

    Raises:
        MedsegError: it is missing or broken.
    """
    png, stack = out / f"{name}.png", out / f"{name}.nii.gz"
    if png.is_file():
        return np.asarray(read_labels(png)[0]).astype(np.uint8)
    return np.asarray(read_labels(stack)[0])


def read_frames(out: Path, name: str) -> UInt8[np.ndarray, "h w n"]:
    """Read the mask of a picture, of one frame or many, by its name without extension.

    Raises:
        MedsegError: it is missing or broken.
    """
    png = out / f"{name}.png"
    return read_mask(out, name) if png.is_file() else read_stack(out / f"{name}.nii.gz").astype(np.uint8)
