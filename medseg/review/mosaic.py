"""This file puts tiles of a large picture back in their places.

A *tile* is one piece of an *area*, which was cut into rows and columns of pieces of one size. Its *place* is (row,
column), counted from 0 at the top left. In *reading order* tiles are numbered from 0, row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from medseg.errors import MedsegError
from medseg.files import replacing

Numbering = Literal["auto", "row_column", "number"]
Place = tuple[int, int]

_LETTERED = re.compile(r"^(.*?)[ _-]*r(?:ow)?[ _-]*(\d+)[ _-]*c(?:ol(?:umn)?)?[ _-]*(\d+)$", re.IGNORECASE)
_SIDE_PIXELS = 1200
"""Longest side of a map in a picture that shows several side by side."""
_HEAD, _GAP = 30, 8  # pixels above the maps, and around them
_LINE, _SWATCH = 20, 12  # pixels of a line of a legend, and of the side of a class's colour


class TileName(NamedTuple):
    """What a tile's name says: its area, and its place (row and column, or one number)."""

    area: str
    place: tuple[int, ...]


def read_tile_name(name: str, numbering: Numbering = "auto") -> TileName | None:
    """Area and place from a name such as `2_10_0_3` (area 2_10, row 0, column 3), `town_r0_c3` or `town_17`.

    Args:
        name: of a case, without extension.
        numbering: `row_column`: the last two numbers; `number`: the last one, in reading order; `auto`: row and column
            where letters name them or where at least three numbers end the name, else the number.

    Returns:
        None for a name without the numbers.
    """
    if numbering != "number" and (found := _LETTERED.match(name)):
        return TileName(_area(found[1]), (int(found[2]), int(found[3])))
    run = re.search(r"\d+(?:[ _-]\d+)*$", name)
    numbers = re.findall(r"\d+", run[0]) if run else []
    wanted = 2 if numbering == "row_column" or (numbering == "auto" and len(numbers) >= 3) else 1
    if run is None or len(numbers) < wanted:
        return None
    ends = [match.start() for match in re.finditer(r"\d+", name)]
    return TileName(_area(name[: ends[-wanted]]), tuple(int(number) for number in numbers[-wanted:]))


def place_tiles(names: Collection[TileName], grid: tuple[int, int] | None) -> tuple[dict[TileName, Place], Place]:
    """Row and column of every tile of an area, and how many rows and columns the area has.

    Args:
        names: of tiles of one area.
        grid: rows and columns of the area; None: as far as the names reach, and for numbers the smallest square.

    Raises:
        MedsegError: a tile lies outside the grid.
    """
    if grid is None:
        if all(len(name.place) == 2 for name in names):
            rows, columns = (max(name.place[axis] for name in names) + 1 for axis in (0, 1))
        else:
            rows = columns = math.isqrt(max(name.place[-1] for name in names)) + 1
    else:
        rows, columns = grid
    places = {
        name: (name.place[0], name.place[1]) if len(name.place) == 2 else divmod(name.place[0], columns)
        for name in names
    }
    for name, (row, column) in places.items():
        if row >= rows or column >= columns:
            raise MedsegError(
                f"--grid must hold every tile of area {name.area or 'without a name'}, got {rows} x {columns} and a "
                f"tile at row {row}, column {column}; give rows x columns, such as 30x30"
            )
    return places, (rows, columns)


def mosaic(
    tiles: Mapping[Place, Shaped[np.ndarray, "h w *c"]], grid: tuple[int, int]
) -> Shaped[np.ndarray, "height width *c"]:
    """One array of all tiles in their places; what is missing stays 0.

    Args:
        tiles: by row and column, all of one shape and type.
        grid: rows and columns.

    Raises:
        MedsegError: tiles differ in shape.
    """
    first = next(iter(tiles.values()))
    height, width = first.shape[:2]
    whole = np.zeros((grid[0] * height, grid[1] * width, *first.shape[2:]), first.dtype)
    for (row, column), tile in tiles.items():
        if tile.shape != first.shape:
            raise MedsegError(
                f"tiles of one area must have one shape, got {tile.shape} at row {row}, column {column} and "
                f"{first.shape} before; stitch tiles that were cut alike"
            )
        whole[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return whole


def side_by_side(
    maps: Mapping[str, UInt8[np.ndarray, "_ _ 3"]],
    path: Path,
    *,
    legends: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write maps of one area beside each other as one PNG, each with its name above, large ones made smaller.

    Args:
        maps: by name.
        path: the PNG to write.
        legends: what stands below a map: `#rrggbb` of each class, by the map's name and the class's.
    """
    columns = []
    for name, values in maps.items():
        picture = Image.fromarray(values)
        picture.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS), Image.Resampling.BOX)
        columns.append((name, picture, _legend_rows((legends or {}).get(name, {}), picture.width)))
    width = sum(picture.width + _GAP for _, picture, _ in columns) + _GAP
    height = _HEAD + max(picture.height + _GAP + _LINE * len(rows) for _, picture, rows in columns)
    sheet = Image.new("RGB", (width, height), "white")
    draw, left = ImageDraw.Draw(sheet), _GAP
    for name, picture, rows in columns:
        draw.text((left, 6), name, fill="black", font=ImageFont.load_default(16))
        sheet.paste(picture, (left, _HEAD))
        for number, row in enumerate(rows):
            top = _HEAD + picture.height + _GAP + _LINE * number
            for offset, words, colour in row:
                x = left + offset
                draw.rectangle((x, top, x + _SWATCH, top + _SWATCH), fill=colour, outline="#5f6368")
                draw.text((x + _SWATCH + 6, top - 2), words, fill="black", font=_font())
        left += picture.width + _GAP
    with replacing(path) as beside:
        sheet.save(beside, format="PNG")


def _legend_rows(legend: Mapping[str, str], width: int) -> list[list[tuple[int, str, str]]]:
    """The classes in lines no wider than the map: where each begins, its name and its colour."""
    rows: list[list[tuple[int, str, str]]] = []
    offset = width
    for words, colour in legend.items():
        needed = _SWATCH + 6 + math.ceil(_font().getlength(words)) + 12
        if offset + needed > width:
            rows.append([])
            offset = 0
        rows[-1].append((offset, words, colour))
        offset += needed
    return rows


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _area(words: str) -> str:
    return words.rstrip(" _-")
