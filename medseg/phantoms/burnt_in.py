"""This file burns marks into a simulated picture as scanners and users do: text, ruler, grey bar, callipers, marks.

The *truth* of the marks is every pixel that they changed. Names and dates are made up.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from medseg.phantoms.probes import View

Mark = Literal["text", "ruler", "grey_bar", "callipers", "marker", "body_mark", "ticks"]
MARKS: tuple[Mark, ...] = ("text", "ruler", "grey_bar", "callipers", "marker", "body_mark", "ticks")

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NAMES = ("PHANTOM ANNA", "PHANTOM BRUNO", "TEST, CARLA", "NOBODY DORA", "EXAMPLE EMIL")
_DATES = ("01.01.2000", "2000-02-30", "31/12/99")
_LINES = ("ABD", "C5-2", "MI 1.1", "TIS 0.4", "FR 24", "Gn 62", "2D", "DR 60", "RS", "LIVER")
_COLOURS = ((90, 200, 90), (230, 200, 40), (220, 60, 50), (60, 160, 230), (240, 130, 40))
_CHANCE = {
    "text": 0.8,
    "ruler": 0.85,
    "grey_bar": 0.6,
    "callipers": 0.4,
    "marker": 0.7,
    "body_mark": 0.35,
    "ticks": 0.3,
}


def draw_marks(rng: np.random.Generator) -> tuple[Mark, ...]:
    """Which marks a picture has."""
    return tuple(mark for mark in MARKS if rng.random() < _CHANCE[mark])


def burn_in(
    rng: np.random.Generator,
    picture: UInt8[np.ndarray, "h w 3"],
    view: View,
    marks: tuple[Mark, ...],
    target: tuple[float, float, float] | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The picture with its marks, and where they are.

    Args:
        rng: decides texts, colours and places.
        picture: without marks.
        view: where the sector lies.
        marks: which to draw.
        target: row, column and radius (px) of what the callipers measure; None for anything.
    """
    height, width = view.shape
    layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    font = ImageFont.load_default(_letter_px(view))
    grey = tuple([int(rng.integers(150, 255))] * 3)
    draw = {
        "text": lambda: _text(rng, pen, font, view, grey),
        "ruler": lambda: _ruler(rng, pen, font, view, grey),
        "grey_bar": lambda: _grey_bar(rng, pen, view),
        "callipers": lambda: _callipers(rng, pen, font, view, target),
        "marker": lambda: _marker(rng, pen, view),
        "body_mark": lambda: _body_mark(rng, pen, view, grey),
        "ticks": lambda: _ticks(pen, view, grey),
    }
    for mark in marks:
        draw[mark]()
    drawn = np.asarray(layer)
    alpha = drawn[..., 3:] / 255
    mixed = np.rint(picture * (1 - alpha) + drawn[..., :3] * alpha).astype(np.uint8)
    return mixed, drawn[..., 3] > 0


def _letter_px(view: View) -> int:
    return max(9, round(view.shape[0] / 42))


def _text(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    font: _Font,
    view: View,
    colour: tuple[int, ...],
) -> None:
    height, width = view.shape
    line = _letter_px(view) * 1.25
    name, date = str(rng.choice(_NAMES)), str(rng.choice(_DATES))
    pen.text((width * 0.02, height * 0.012), f"{name}  {date}  ID 000-{rng.integers(100):02d}", colour, font)
    column = width * (0.02 if rng.random() < 0.5 else 0.84)
    for number, text in enumerate(rng.permutation(_LINES)[: int(rng.integers(2, 7))]):
        pen.text((column, height * 0.07 + number * line), str(text), colour, font)


def _ruler(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    font: _Font,
    view: View,
    colour: tuple[int, ...],
) -> None:
    """Ticks every cm of depth, longer ones with a number every 5 cm."""
    height, width = view.shape
    column = width * float(rng.choice([0.03, 0.93]))
    face = view.apex_row + view.radius_mm * view.px_per_mm
    small = max(1, height // 240)
    for centimetre in range(int(view.depth_mm // 10) + 1):
        row = face + centimetre * 10 * view.px_per_mm
        long = 3 * small if centimetre % 5 else 6 * small
        pen.line((column, row, column + long, row), colour, max(1, height // 400))
        if centimetre % 5 == 0 and centimetre:
            pen.text((column + 8 * small, row - _letter_px(view) / 2), str(centimetre), colour, font)


def _grey_bar(rng: np.random.Generator, pen: ImageDraw.ImageDraw, view: View) -> None:
    height, width = view.shape
    left, top = width * float(rng.choice([0.015, 0.975])), height * 0.3
    long, wide = round(height * 0.22), max(4, width // 90)
    for step in range(long):
        value = round(255 * (1 - step / long))
        pen.line((left, top + step, left + wide, top + step), (value, value, value, 255), 1)
    pen.rectangle((left - 1, top - 1, left + wide + 1, top + long + 1), outline=(160, 160, 160))


def _callipers(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    font: _Font,
    view: View,
    target: tuple[float, float, float] | None,
) -> None:
    """Two crosses with a dotted line between them, and the length that they measure."""
    height, width = view.shape
    colour = (240, 240, 120) if rng.random() < 0.5 else (250, 250, 250)
    if target is None:
        depth = (view.radius_mm + float(rng.uniform(0.35, 0.7)) * view.depth_mm) * view.px_per_mm
        turn = float(rng.uniform(-0.5, 0.5)) * view.half_angle
        target = (view.apex_row + depth * np.cos(turn), view.apex_col + depth * np.sin(turn), height * 0.07)
    row, column, radius = target
    turn = float(rng.uniform(0, np.pi))
    step = np.array([np.cos(turn), np.sin(turn)]) * max(radius, 6)
    ends = np.array([column, row]) + np.array([-step, step])
    arm = max(3, height // 110)
    for x, y in ends.tolist():
        pen.line((x - arm, y, x + arm, y), colour, 1)
        pen.line((x, y - arm, x, y + arm), colour, 1)
    dots = int(np.linalg.norm(ends[1] - ends[0]) / max(4, height / 100))
    for share in np.linspace(0, 1, max(dots, 2))[1:-1].tolist():
        x, y = (ends[0] + share * (ends[1] - ends[0])).tolist()
        pen.rectangle((x, y, x + height // 500, y + height // 500), colour)
    length_mm = float(np.linalg.norm(ends[1] - ends[0])) / view.px_per_mm
    pen.text((width * 0.02, height * 0.94), f"+ D1 {length_mm / 10:.2f} cm", colour, font)


def _marker(rng: np.random.Generator, pen: ImageDraw.ImageDraw, view: View) -> None:
    """The coloured sign beside the probe that says where its marked side is."""
    height, _ = view.shape
    size = max(5, height // 50)
    face = (view.radius_mm * view.px_per_mm) * np.array([np.cos(view.half_angle), -np.sin(view.half_angle)])
    row, column = np.array([view.apex_row, view.apex_col]) + face
    x, y = float(column - 1.8 * size), float(max(row - 0.4 * size, size))
    colour = tuple(rng.choice(_COLOURS).tolist())
    if rng.random() < 0.5:
        pen.ellipse((x - size, y - size / 2, x, y + size / 2), outline=colour, width=max(2, size // 4))
    else:
        pen.polygon(((x - size, y - size), (x, y), (x - size, y + size)), colour)


def _body_mark(rng: np.random.Generator, pen: ImageDraw.ImageDraw, view: View, colour: tuple[int, ...]) -> None:
    """A small trunk with a bar where the probe stood."""
    height, width = view.shape
    size = height * 0.06
    x, y = width * float(rng.choice([0.06, 0.88])), height * 0.86
    pen.arc((x - size, y - size, x, y + size), -60, 60, colour, 1)
    pen.arc((x + 0.4 * size, y - size, x + 1.4 * size, y + size), 120, 240, colour, 1)
    pen.line((x, y, x + 0.3 * size, y + 0.25 * size), tuple(rng.choice(_COLOURS).tolist()), 3)


def _ticks(pen: ImageDraw.ImageDraw, view: View, colour: tuple[int, ...]) -> None:
    """Dots along the left edge of the sector, one a cm."""
    for centimetre in range(1, int(view.depth_mm // 10) + 1):
        radius = (view.radius_mm + 10 * centimetre) * view.px_per_mm
        row = view.apex_row + radius * np.cos(view.half_angle)
        column = view.apex_col - radius * np.sin(view.half_angle) - 3
        pen.rectangle((column, row, column + 1, row + 1), colour)
