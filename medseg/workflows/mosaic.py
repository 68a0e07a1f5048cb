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
from medseg.naming.classes import colour_of, read_classes
from medseg.review.mosaic import Numbering, Place, TileName, mosaic, place_tiles, read_tile_name, side_by_side
from medseg.scans.cases import Listing
from medseg.scans.folders import find_cases
from medseg.scans.picture_labels import read_picture_labels
from medseg.scans.picture_masks import write_index_png
from medseg.scans.pictures import read_picture

_log = logging.getLogger(__name__)
_MISSING_SHOWN = 5


def stitch_tiles(
    results: Path,
    out: Path,
    *,
    images: Path | None = None,
    grid: tuple[int, int] | None = None,
    numbering: Numbering = "auto",
) -> dict[str, Any]:
    """Stitch each area's predicted tiles, and beside them its images and labels where `images` holds them.

    Args:
        results: folder with `CASE_seg.png` and `classes.yaml`; CASE says area and place, see `read_tile_name`.
        out: receives `AREA_map.png` (image, label and prediction side by side) and `AREA_map_seg.png` (indices, full
            size).
        images: the tiles that were segmented, with or without labels.
        grid: rows and columns of an area; None: as the names say.
        numbering: how names are read.

    Returns:
        `lines` for the terminal, `written` files, `failed` areas.

    Raises:
        MedsegError: no tile.
    """
    require_folder(out, "-o")
    masks = {path.name.removesuffix("_seg.png"): path for path in sorted(results.glob("*_seg.png"))}
    listing = Listing((), {}) if images is None else find_cases(images, skip=(results, out))
    areas: dict[str, dict[TileName, str]] = defaultdict(dict)
    for case in masks:
        name = read_tile_name(case, numbering)
        if name is None:
            _log.info("%s says no place and is left out", case)
        else:
            areas[name.area][name] = case
    if not areas:
        raise MedsegError(f"{results} must hold masks such as 2_10_0_3_seg.png, got {len(masks)} PNG masks; name tiles")
    colours = {entry.value: entry.colour for entry in read_classes(results / "classes.yaml").classes}
    lines, written, failed = list[str](), list[str](), dict[str, str]()
    for area, cases in sorted(areas.items()):
        try:
            said, path = _write_area(area, cases, masks, listing, colours, out, grid)
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
    colours: Mapping[int, str],
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
    names = {} if scheme is None else {value: colour for value, _, colour in scheme.classes}
    predicted = whole(lambda case: np.asarray(Image.open(masks[case])), masks)
    assert predicted is not None  # an area has a tile
    image = whole(lambda case: _picture(images[case].image), images)
    label = whole(lambda case: np.asarray(read_picture_labels(listing.labels[case], scheme))[0, ..., 0], listing.labels)
    maps = {"image": image} if image is not None else {}
    if label is not None:
        maps["label"] = _coloured(label, names or colours)
    maps["prediction"] = _coloured(predicted, colours)
    stem = f"{area}_map" if area else "map"
    side_by_side(maps, out / f"{stem}.png")
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


def _coloured(labels: np.ndarray, colours: Mapping[int, str]) -> np.ndarray:
    """Labels in their colours; background and what is unlabelled are black."""
    top = max(int(labels.max()), 0)
    table = np.zeros((top + 1, 3), np.uint8)
    for value in range(1, top + 1):
        table[value] = np.round(np.multiply(to_rgb(colours.get(value, colour_of(value - 1))), 255))
    return table[np.clip(labels, 0, None).astype(int)]
