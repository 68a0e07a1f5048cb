"""This file stitches the masks of tiles back to maps of the whole areas that the tiles were cut from."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.naming.classes import Naming, colour_of, read_classes
from medseg.review.mosaic import Numbering, Place, TileName, mosaic, place_tiles, read_tile_name, side_by_side
from medseg.scans.arrays import read_label_values
from medseg.scans.cases import Listing
from medseg.scans.folders import find_cases
from medseg.scans.picture_masks import write_index_png
from medseg.scans.readers import read_picture

_log = logging.getLogger(__name__)
_MISSING_SHOWN = 5
Classes = Mapping[int, tuple[str, str]]
"""Name and colour of each class value."""


def stitch_tiles(
    results: Path,
    out: Path,
    *,
    images: Path | None = None,
    grid: tuple[int, int] | None = None,
    numbering: Numbering = "auto",
    method: str | None = None,
) -> dict[str, Any]:
    """Stitch each area's predicted tiles, and beside them its images and labels where `images` holds them.

    Args:
        results: folder with `CASE_seg.png` and `classes.yaml`; CASE says area and place, see `read_tile_name`. Or the
            folder `export` of an evaluation.
        out: receives `AREA_map.png` (image, label and prediction side by side) and `AREA_map_seg.png` (indices, full
            size).
        images: the tiles that were segmented, with or without labels.
        grid: rows and columns of an area; None: as the names say.
        numbering: how names are read.
        method: whose masks of an evaluation, `CASE_METHOD.png`; None: `CASE_seg.png`.

    Returns:
        `lines` for the terminal, `written` files, `failed` areas.

    Raises:
        MedsegError: no tile.
    """
    require_folder(out, "-o")
    ending = f"_{method or 'seg'}.png"
    masks = {path.name.removesuffix(ending): path for path in sorted(results.glob(f"[!.]*{ending}"))}
    listing = Listing((), {}) if images is None else find_cases(images, skip=(results, out))
    areas: dict[str, dict[TileName, str]] = defaultdict(dict)
    for case in masks:
        name = read_tile_name(case, numbering)
        if name is None:
            _log.info("%s says no place and is left out", case)
        else:
            areas[name.area][name] = case
    if not areas:
        raise MedsegError(
            f"{results} must hold masks such as 2_10_0_3{ending}, got {len(masks)} PNG masks; name tiles so, or give "
            "the method of an evaluation's export"
        )
    naming = read_classes(results / "classes.yaml")
    lines, written, failed = list[str](), list[str](), dict[str, str]()
    for area, cases in sorted(areas.items()):
        try:
            said, path = _write_area(area, cases, masks, listing, naming, out, grid)
        except MedsegError as error:
            failed[area] = str(error)
            _log.error(str(error))
            continue
        lines.append(said)
        written.append(str(path))
    return {"lines": [*lines, f"maps of {len(written)} areas: {out}"], "written": written, "failed": failed}


def _write_area(
    area: str,
    cases: Mapping[TileName, str],
    masks: Mapping[str, Path],
    listing: Listing,
    naming: Naming,
    out: Path,
    grid: tuple[int, int] | None,
) -> tuple[str, Path]:
    """Write one area's pictures; a sentence about it and where the picture is."""
    places, grid = place_tiles(cases.keys(), grid)
    at = {places[name]: case for name, case in cases.items()}
    images = {case.case_id: case for case in listing.cases}

    def whole(read: Callable[[str], np.ndarray], known: Any) -> np.ndarray | None:
        """The map of what is known of the tiles; None where nothing is."""
        tiles = {place: read(case) for place, case in at.items() if case in known}
        return mosaic(tiles, grid) if tiles else None

    scheme = listing.scheme
    predicted_classes = {entry.value: (entry.name, entry.colour) for entry in naming.classes}
    # A cluster's number says nothing of a label with the same number.
    label_classes = {} if naming.named_by == "clusters" else predicted_classes
    if scheme is not None:
        label_classes = {value: (name, colour) for value, name, colour in scheme.classes}
    predicted = whole(lambda case: np.asarray(Image.open(masks[case])), masks)
    assert predicted is not None  # an area has a tile
    image = whole(lambda case: _picture(images[case].image), images)
    label = whole(lambda case: read_label_values(listing.labels[case], scheme)[0][..., 0], listing.labels)
    maps = {"image": image} if image is not None else {}
    legends = {}
    if label is not None:
        maps["label"], legends["label"] = _coloured(label, label_classes)
    maps["prediction"], legends["prediction"] = _coloured(predicted, predicted_classes)
    stem = f"{area}_map" if area else "map"
    side_by_side(maps, out / f"{stem}.png", legends=legends)
    colours = {value: colour for value, (_, colour) in predicted_classes.items()}
    write_index_png(out / f"{stem}_seg.png", predicted.astype(np.uint8), colours)
    missing = [place for place in np.ndindex(*grid) if place not in at]
    return _said(area, len(at), grid, missing), out / f"{stem}.png"


def _said(area: str, count: int, grid: Place, missing: list[tuple[int, ...]]) -> str:
    words = f"{area or 'area'}: {count} tiles on {grid[0]} rows x {grid[1]} columns"
    if not missing:
        return words
    shown = ", ".join(f"({row}, {column})" for row, column in missing[:_MISSING_SHOWN])
    more = ", ..." if len(missing) > _MISSING_SHOWN else ""
    return f"{words}; {len(missing)} missing, left black: (row, column) {shown}{more}"


def _picture(path: Path) -> np.ndarray:
    """A tile's first frame in display colours."""
    values = np.moveaxis(np.asarray(read_picture(path)[..., 0]), 0, -1)
    return np.round(np.broadcast_to(values, (*values.shape[:2], 3)) * 255).astype(np.uint8)


def _coloured(labels: np.ndarray, classes: Classes) -> tuple[np.ndarray, dict[str, str]]:
    """Labels in their colours, and the colour of each name that occurs; background and what is unlabelled are black."""
    top = max(int(labels.max()), 0)
    table, legend = np.zeros((top + 1, 3), np.uint8), {}
    for value in np.unique(labels[labels > 0]).tolist():
        name, colour = classes.get(value, (f"class {value}", colour_of(value - 1)))
        table[value], legend[name] = np.round(np.multiply(to_rgb(colour), 255)), colour
    if (labels <= 0).any():
        legend["background or none"] = "#000000"
    return table[np.clip(labels, 0, None).astype(int)], legend
