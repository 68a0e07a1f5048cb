"""This file draws which places of pictures resemble the points asked about, as a picture or as a movie.

A *panel* is one picture with heat over it: grey and dark where nothing resembles, and in a point's own colour where a
place resembles the point. A *sheet* is a table of panels: the asked picture and its points at the left, then one panel
a searched picture; one row for features, one for codes. Points are (row, column) in 0 to 1, first to last pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont

from medseg.files import replacing

POINT_COLOURS = ("#ff3b30", "#ffd60a", "#2f8cff", "#32d74b", "#ff5cf4", "#64fff0")
"""Of the points in their order; a seventh point takes the first colour again."""
PANEL_PIXELS = 288
"""Height of a panel; its width follows the picture."""
_CAPTION, _GAP = 24, 6  # pixels above and between panels
_DIMMED = 0.45  # of the grey picture under the heat, so that the heat is the brightest
_INK, _PAPER = (232, 234, 237), (17, 18, 20)
_UNLIKE = 0.2
"""Share of the asked picture that gets no colour. Features of one picture are all alike to some degree, more so in some
networks than in others, so no fixed cosine would do."""
_FRAMES_A_SECOND = 12

Picture = Float[np.ndarray, "h w 3"]


def heat_panel(picture: Picture, heats: Float[np.ndarray, "p h w"], lows: Sequence[float]) -> Picture:
    """One picture with the heat of all points over it.

    Args:
        picture: display values 0 to 1.
        heats: cosine with each point, at every pixel.
        lows: the cosine of each point that gets no colour; a cosine of 1 gets it in full.
    """
    shown = np.repeat(picture.mean(-1, keepdims=True) * _DIMMED, 3, axis=-1)
    for number, (heat, low) in enumerate(zip(heats, lows, strict=True)):
        cover = np.clip((heat - low) / max(1 - low, 1e-6), 0, 1)[..., None] ** 2 * 0.9
        colour = np.asarray(ImageColor.getrgb(_colour(number)), float) / 255
        shown = shown * (1 - cover) + colour * cover
    return shown


def correspondence_sheet(
    pictures: Sequence[Float[np.ndarray, "_ _ 3"]],  # of any sizes
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    heats: Mapping[str, Sequence[Float[np.ndarray, "p _ _"]]],
) -> UInt8[np.ndarray, "height width 3"]:
    """The sheet of one set of points.

    Args:
        pictures: the one that holds the points, then the others that are searched.
        names: of the pictures.
        points: places in the first picture.
        heats: for each row (features, codes) and each picture the cosine with every point at every pixel. Colour
            begins at a quantile of the first picture, so panels of a row can be compared.
    """
    rows = []
    for kind, maps in heats.items():
        lows = [float(np.quantile(heat, _UNLIKE)) for heat in maps[0]]
        scale = "" if len(lows) > 1 else f", colour from {lows[0]:.2f} to 1"
        panels = [_panel(pictures[0], names[0], points)]
        for number, (picture, name, heat) in enumerate(zip(pictures, names, maps, strict=True)):
            caption = f"{kind}: {name}" if number else f"{kind}: the same picture{scale}"
            panels.append(_panel(heat_panel(picture, heat, lows), caption, () if number else points))
        rows.append(_beside(panels))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return np.asarray(sheet)


def path_through(points: Sequence[tuple[float, float]], frames: int) -> list[tuple[float, float]]:
    """A closed path at even speed: through the points, or round the middle where there is only one."""
    if len(points) == 1:
        turn = np.linspace(0, 2 * np.pi, frames, endpoint=False)
        return [(float(0.5 - 0.35 * np.cos(a)), float(0.5 + 0.35 * np.sin(a))) for a in turn]
    corners = np.asarray([*points, points[0]], float)
    lengths = np.append(0, np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1)))
    places = np.linspace(0, lengths[-1], frames, endpoint=False)
    rows, columns = (np.interp(places, lengths, corners[:, axis]) for axis in (0, 1))
    return [(float(row), float(column)) for row, column in zip(rows, columns, strict=True)]


def write_sheet(sheet: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Write a sheet as PNG."""
    with replacing(path) as beside:
        Image.fromarray(sheet).save(beside, format="PNG")


def write_movie(frames: Sequence[UInt8[np.ndarray, "h w 3"]], path: Path) -> None:
    """Write sheets as a movie: `.mp4` (H.264, plays everywhere) or `.gif` (loops)."""
    with replacing(path) as beside:
        if path.suffix == ".gif":
            # One palette for all frames: palettes of their own would flicker.
            palette = Image.fromarray(np.concatenate(frames[:: max(len(frames) // 8, 1)])).quantize(255)
            pictures = [Image.fromarray(frame).quantize(palette=palette) for frame in frames]
            duration = round(1000 / _FRAMES_A_SECOND)
            pictures[0].save(beside, save_all=True, append_images=pictures[1:], duration=duration, loop=0)
        else:
            import imageio.v3 as imageio

            height, width = (length // 2 * 2 for length in frames[0].shape[:2])  # H.264 halves the colours' grid
            even = np.stack([frame[:height, :width] for frame in frames])
            imageio.imwrite(beside, even, plugin="pyav", codec="libx264", fps=_FRAMES_A_SECOND)


def _colour(number: int) -> str:
    return POINT_COLOURS[number % len(POINT_COLOURS)]


def _panel(picture: Picture, caption: str, points: Sequence[tuple[float, float]]) -> Image.Image:
    """A captioned panel with a cross at each point."""
    height, width = picture.shape[:2]
    wide = max(round(PANEL_PIXELS * width / height), 1)
    small = Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    panel = Image.new("RGB", (wide + _GAP, PANEL_PIXELS + _CAPTION + _GAP), _PAPER)
    panel.paste(small.resize((wide, PANEL_PIXELS), Image.Resampling.BILINEAR), (_GAP // 2, _CAPTION))
    draw = ImageDraw.Draw(panel)
    draw.text((_GAP // 2 + 2, 4), _fitted(draw, caption, wide - 4), fill=_INK, font=_font())
    for number, (row, column) in enumerate(points):
        x, y = _GAP // 2 + column * (wide - 1), _CAPTION + row * (PANEL_PIXELS - 1)
        for pen, colour in ((5, "black"), (3, _colour(number))):  # a dark edge keeps it visible on its own heat
            draw.line((x - 8, y, x + 8, y), fill=colour, width=pen)
            draw.line((x, y - 8, x, y + 8), fill=colour, width=pen)
    return panel


def _beside(panels: Sequence[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height), _PAPER)
    left = 0
    for panel in panels:
        row.paste(panel, (left, 0))
        left += panel.width
    return row


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _fitted(draw: ImageDraw.ImageDraw, words: str, width: int) -> str:
    """The words, cut where the panel ends."""
    if draw.textlength(words, font=_font()) <= width:
        return words
    while words and draw.textlength(f"{words}...", font=_font()) > width:
        words = words[:-1]
    return f"{words}..."
