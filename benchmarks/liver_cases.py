"""This file gives the liver benchmark its pictures, its work folder, and what is already done.

A *cell* is one row with one seed, kept as JSON with its masks in the work folder and never computed twice. What a row
learns from are the *learn* pictures, what it is scored on the *report* ones. A *frame* is a picture in the grid of its
sector, as the application prepares it. Labels are read by what asks for them by name, and by the scores.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from liver_scores import score_picture

from medseg.errors import MedsegError
from medseg.files import read_json, write_json
from medseg.prepare.chain import prepare_case
from medseg.prepare.sector import POLAR, Sector, from_sector, to_sector
from medseg.prepare.ultrasound import ultrasound_transforms
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.picture_masks import write_index_png
from medseg.scans.readers import read_labels
from medseg.workflows.results import read_mask

Masks = Mapping[str, UInt8[np.ndarray, "_h _w"]]
"""Class values at a picture's own size, by its name."""

DATA = "us_liver_aul"
COLOURS = {1: "#4363d8", 2: "#e6194b", 3: "#ffe119"}
SETS = ("val", "check", "trial")
"""`val`: learn on all training pictures, report on the others. `check`: learn on every second training picture, report
on the rest of them, for development. `trial`: the same with a few of the former, to see that it runs."""
_TRIAL_LEARN, _TRIAL_REPORT = 8, 4


@dataclass(frozen=True)
class Picture:
    """A picture of the data set.

    Attributes:
        name: without extension.
        image: its file.
        label_path: file of its label.
    """

    name: str
    image: Path
    label_path: Path

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width, _ = read_grid(self.image).shape
        return height, width

    @cached_property
    def label(self) -> UInt8[np.ndarray, "h w"]:
        """The label's values."""
        return np.asarray(read_labels(self.label_path)[0, :, :, 0]).astype(np.uint8)

    @cached_property
    def frame(self) -> Frame:
        """The picture as the application prepares it."""
        try:
            sample = prepare_case(Case(self.name, self.image, self.name), ultrasound_transforms())
        except MedsegError as error:
            if "must show the sector" not in str(error):
                raise
            return Frame(np.zeros((POLAR, POLAR), np.float32), np.zeros((POLAR, POLAR), bool), None, self.shape)
        return Frame(
            np.asarray(sample["image"][0, :, :, 0], np.float32),
            np.asarray(sample["region"][0, :, :, 0]) > 0,
            Sector.from_dict(sample["facts"]["sectors"][0]),
            self.shape,
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture in the grid of its sector.

    Attributes:
        image: grey, 0 to 1.
        region: where the grid lies inside the picture.
        sector: where it lies there; None where none was found, and then every mask is empty.
        shape: rows and columns of the picture.
    """

    image: Float[np.ndarray, "160 160"]
    region: Bool[np.ndarray, "160 160"]
    sector: Sector | None
    shape: tuple[int, int]

    @cached_property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Pixels of the picture inside the sector."""
        return np.zeros(self.shape, bool) if self.sector is None else self.sector.mask(self.shape)

    def gathered(self, labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "160 160"]:
        """Labels of the picture in the grid; 0 without a sector."""
        if self.sector is None:
            return np.zeros(self.image.shape, np.uint8)
        return to_sector(labels[None].astype(np.float32), self.sector, nearest=True)[0].astype(np.uint8)

    def spread(self, values: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "h w"]:
        """Values on a sector grid of any size in the picture, smoothly; 0 outside the sector."""
        if self.sector is None:
            return np.zeros(self.shape, np.float32)
        return from_sector(values[None].astype(np.float32), self.sector, self.shape, nearest=False)[0]

    def placed(self, values: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "h w"]:
        """Class values on a sector grid in the picture; 0 outside the sector."""
        if self.sector is None:
            return np.zeros(self.shape, np.uint8)
        return from_sector(values[None].astype(np.float32), self.sector, self.shape, nearest=True)[0].astype(np.uint8)


@dataclass(frozen=True)
class Plan:
    """What is learnt from, what is reported on, and where everything is kept.

    Attributes:
        work: folder of this set.
        learn: pictures to learn from.
        report: pictures to score.
        trial: whether only to see that it runs.
    """

    work: Path
    learn: Sequence[Picture]
    report: Sequence[Picture]
    trial: bool

    @cached_property
    def taught(self) -> list[Picture]:
        """The pictures to learn from whose sector was found."""
        return [picture for picture in self.learn if picture.frame.sector is not None]

    @classmethod
    def of_set(cls, data: Path, work: Path, name: str) -> Plan:
        """The pictures of one of `SETS`.

        Args:
            data: folder of the data set.
            work: folder for all sets; each gets its own below it.
            name: of the set.
        """
        train = pictures_in(data, "train")
        if name == "val":
            return cls(work / name, train, pictures_in(data, "val"), False)
        if name == "check":
            return cls(work / name, train[::2], train[1::2], False)
        few = train[::2][: _TRIAL_LEARN + _TRIAL_REPORT]
        return cls(work / name, few[:_TRIAL_LEARN], few[_TRIAL_LEARN:], True)

    def cell(self, row: str, seed: int, compute: Callable[[], Masks]) -> dict[str, Any]:
        """The finished cell of this row and seed, or a new one; it also says how many seconds it took."""
        path = self.work / "cells" / row / f"{seed}.json"
        if path.is_file():
            return read_json(path)
        start = time.monotonic()
        masks = compute()
        scores = {}
        for picture in self.report:
            target = self._mask_path(row, seed, picture.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_index_png(target, masks[picture.name], COLOURS)
            scores[picture.name] = score_picture(masks[picture.name], picture.label)
        seconds = round(time.monotonic() - start, 1)
        write_json(path, {"row": row, "seed": seed, "seconds": seconds, "scores": scores})
        print(f"{row}, seed {seed}: {seconds:.0f} s", flush=True)
        return read_json(path)

    def mask(self, row: str, seed: int, name: str) -> UInt8[np.ndarray, "h w"]:
        """The mask of a finished cell."""
        path = self._mask_path(row, seed, name)
        return read_mask(path.parent, path.stem)[..., 0]

    def folder(self, which: str) -> Path:
        """A folder of the images of `learn` or `report`, with no label in reach."""
        folder = self.work / "images" / which
        folder.mkdir(parents=True, exist_ok=True)
        for picture in self.learn if which == "learn" else self.report:
            if not (target := folder / picture.image.name).is_file():
                shutil.copyfile(picture.image, target)
        return folder

    def _mask_path(self, row: str, seed: int, name: str) -> Path:
        return self.work / "masks" / row / str(seed) / f"{name}.png"


def pictures_in(data: Path, split: str) -> list[Picture]:
    """The pictures of a split, sorted by name.

    Raises:
        MedsegError: the folder is not the data set.
    """
    images = sorted((data / "imgs" / split).glob("*.jpg"))
    if not images:
        raise MedsegError(
            f"{data} must hold imgs/{split}/*.jpg and labels/{split}/*.png, got no image; give its folder"
        )
    return [Picture(path.stem, path, data / "labels" / split / f"{path.stem}.png") for path in images]
