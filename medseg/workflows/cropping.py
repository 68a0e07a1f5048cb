"""This file makes a cropped copy of a data set of pictures: five places or random ones of each, labels alike.

The layout is that of the published program, `NAME_TYPE_crop_RATIO/{img,label}/{train,val}/N`, so either
program reads it; but images are PNG here, where JPEG would add its own edges to them, and `crops.csv` says
which picture, patient and place each number is.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, csv_text, hash_content, replacing, require_folder
from medseg.naming.classes import ClassEntry, Naming, colour_of, write_classes
from medseg.progress import track
from medseg.scans.cases import Case
from medseg.scans.grids import require_same_grid
from medseg.scans.names import is_picture
from medseg.scans.picture_masks import write_grey_png
from medseg.scans.readers import grid_of, read_image, read_labels
from medseg.scans.schemes import UNLABELLED, LabelScheme
from medseg.workflows.intake import AS_IT_IS, Intake

_log = logging.getLogger(__name__)
CROPS = 5
"""Crops of a picture, of both types, as the published program makes them."""
_UNLABELLED_PIXEL = 255
"""What a label crop holds where nothing is labelled; these pixels are transparent too, so that no reader errs."""
_COLUMNS = ("number", "split", "case", "patient", "frame", "row", "column", "height", "width")


@dataclass(frozen=True)
class Crop:
    """A window of a picture, in pixels."""

    row: int
    column: int
    height: int
    width: int

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The window of an array [..., h, w]."""
        return array[..., self.row : self.row + self.height, self.column : self.column + self.width]


def five_crops(shape: tuple[int, int], ratio: float) -> list[Crop]:
    """Four corners and the centre.

    >>> five_crops((4, 6), 0.5)[-1]
    Crop(row=1, column=2, height=2, width=3)
    """
    height, width = _size(shape, ratio)
    down, right = shape[0] - height, shape[1] - width
    places = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    return [Crop(row, column, height, width) for row, column in places]


def random_crops(shape: tuple[int, int], ratio: float, rng: np.random.Generator) -> list[Crop]:
    """Five places, each as likely as any other."""
    height, width = _size(shape, ratio)
    rows = rng.integers(shape[0] - height + 1, size=CROPS).tolist()
    columns = rng.integers(shape[1] - width + 1, size=CROPS).tolist()
    return [Crop(row, column, height, width) for row, column in zip(rows, columns, strict=True)]


def crop_pictures(
    scans: Path,
    out: Path,
    *,
    name: str,
    crop_type: str = "five",
    ratio: float = 0.5,
    seed: int = 0,
    intake: Intake = AS_IT_IS,
    scheme: LabelScheme | None = None,
) -> dict[str, Any]:
    """Write the crops of every picture, and of its label, to `out/NAME_TYPE_crop_RATIO`.

    Args:
        scans: a folder of pictures or whatever else lists them.
        out: folder above the cropped set.
        name: of the data set.
        crop_type: `five` (corners and centre) or `random`.
        ratio: side of a crop as a share of the picture's, in (0, 1].
        seed: of random places; a picture's places do not depend on the others.
        intake: what to take of files that hold several volumes, and what cases are called.
        scheme: what the labels' values and colours mean, instead of what the data set says.

    Returns:
        `lines` for the terminal, `folder`, `crops`, `failed` cases.

    Raises:
        MedsegError: nothing can be cropped, the set is there already, or it cannot be written.
    """
    if crop_type not in ("five", "random"):
        raise MedsegError(f"crop_type must be five or random, got {crop_type}; choose one of them")
    if not 0 < ratio <= 1:
        raise MedsegError(f"crop_ratio must be in (0, 1], got {ratio:g}; .5 is the published one")
    folder = out / f"{name}_{crop_type}_crop_{ratio:g}"
    if folder.exists():
        raise MedsegError(f"{folder} must be new, got a folder that is there; delete it or choose another --out")
    require_folder(out, "--out")
    listing = intake.cases(scans, skip=(out,))
    for line in listing.describe():
        _log.info(line)
    scheme = scheme or listing.scheme
    failed = dict(listing.problems)
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=f".{folder.name}.") as name_beside:
        beside = Path(name_beside) / folder.name
        for case in track(listing.cases, "cropping", len(listing.cases)):
            try:
                rows += _crop_case(
                    case, listing.labels.get(case.case_id), scheme, beside, crop_type, ratio, seed, first=len(rows)
                )
            except CannotWriteError:
                raise
            except MedsegError as error:
                failed[case.case_id] = str(error)
                _log.error("%s", error)
        if not rows:
            raise MedsegError(f"{scans} must hold a picture to crop, got none that can be read; check the folder")
        with replacing(beside / "crops.csv") as table, table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, _COLUMNS)
            writer.writeheader()
            writer.writerows({name: csv_text(value) for name, value in row.items()} for row in rows)
        if scheme:
            known = tuple(ClassEntry(value, name, colour) for value, name, colour in scheme.classes if value > 0)
            write_classes(beside / "classes.yaml", Naming(known, "hand", ()))
        beside.replace(folder)  # the whole set at once: an interrupted run leaves none
    labelled = sum(case.case_id in listing.labels for case in listing.cases if case.case_id not in failed)
    return {
        "lines": [f"{len(rows)} crops, {labelled} of {len(listing.cases)} pictures have a label: {folder}"],
        "folder": str(folder),
        "crops": len(rows),
        "failed": failed,
    }


def _crop_case(
    case: Case,
    label: Path | None,
    scheme: LabelScheme | None,
    folder: Path,
    crop_type: str,
    ratio: float,
    seed: int,
    *,
    first: int,
) -> list[dict[str, Any]]:
    """Write the crops of one case, numbered from `first`, and return their rows; all is read before any is written."""
    if not is_picture(case.image):
        raise MedsegError(f"{case.image} must be a picture, got a volume; its patches are drawn in training")
    image = read_image(case.image, case.pick)
    pixels = image.numpy()
    labels = None
    if label:
        read = read_labels(label, scheme)
        require_same_grid(grid_of(image), grid_of(read))
        labels = read.numpy()[0]
        if (labels == _UNLABELLED_PIXEL).any():
            raise MedsegError(f"{label} must keep 255 free, got a class of that value; renumber it")
    colours = {value: colour for value, _, colour in scheme.classes} if scheme else {}
    split, rows = case.split or "train", []
    for number, (index, crop) in enumerate(_places(case, pixels.shape, crop_type, ratio, seed), start=first):
        _write_image(folder / "img" / split / f"{number}.png", crop.cut(pixels[..., index]))
        if labels is not None:
            _write_labels(folder / "label" / split / f"{number}.png", crop.cut(labels[..., index]), colours)
        place = (crop.row, crop.column, crop.height, crop.width)
        rows.append(dict(zip(_COLUMNS, (number, split, case.case_id, case.patient, index, *place), strict=True)))
    return rows


def _places(case: Case, shape: Sequence[int], crop_type: str, ratio: float, seed: int) -> Iterator[tuple[int, Crop]]:
    """Frame and window of each crop of a picture [c, h, w, n]."""
    rng = np.random.default_rng(int(hash_content([seed, case.case_id])[:16], 16))
    size = (int(shape[1]), int(shape[2]))
    for index in range(shape[3]):
        for crop in five_crops(size, ratio) if crop_type == "five" else random_crops(size, ratio, rng):
            yield index, crop


def _size(shape: tuple[int, int], ratio: float) -> tuple[int, int]:
    return max(int(shape[0] * ratio), 1), max(int(shape[1] * ratio), 1)


def _write_image(path: Path, pixels: Float[np.ndarray, "c h w"]) -> None:
    """Colours of 8 bits; grey of 8 bits where these hold it exactly, else of 16."""
    if len(pixels) == 1:
        is_short = np.allclose(pixels * 255, np.rint(pixels * 255), atol=1e-3)  # float32 keeps 8 bits far better
        write_grey_png(path, pixels[0], 8 if is_short else 16)
        return
    colours = np.rint(np.moveaxis(pixels, 0, -1).clip(0, 1) * 255).astype(np.uint8)
    with replacing(path) as beside:
        Image.fromarray(colours).save(beside, format="PNG")


def _write_labels(path: Path, labels: Int[np.ndarray, "h w"], colours: dict[int, str]) -> None:
    """Class values as the indices of a palette, unlabelled pixels transparent; never interpolated, never lossy."""
    values = np.where(labels == UNLABELLED, _UNLABELLED_PIXEL, labels).astype(np.uint8)
    table = np.zeros((256, 3), np.uint8)
    for value in np.unique(values[values != _UNLABELLED_PIXEL]).tolist():
        if value:
            colour = colours.get(value, colour_of(value - 1))
            table[value] = list(bytes.fromhex(colour.removeprefix("#")))
    picture = Image.frombytes("P", (values.shape[1], values.shape[0]), values.tobytes())
    picture.putpalette(table.tobytes())
    clear = {"transparency": _UNLABELLED_PIXEL} if (values == _UNLABELLED_PIXEL).any() else {}
    with replacing(path) as beside:
        picture.save(beside, format="PNG", **clear)
