"""This file describes what the values and colours of label pictures mean.

A *stored* value is what the file holds, a *class* value what it means: 1 to 255, 0 for everything
else, -1 for pixels that nobody labelled.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from medseg.errors import MedsegError
from medseg.files import load_yaml

UNLABELLED = -1
"""Class value of pixels that nobody labelled; they neither train nor count."""


PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#9a6324", "#808000")
"""Colours of classes that were given none."""


def colour_of(position: int) -> str:
    """The colour of the n-th class that was given none: of the palette, then ever new hues in golden steps."""
    if position < len(PALETTE):
        return PALETTE[position]
    hue = position * 0.618034 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.5 + 0.5 * (position % 2), 0.9 - 0.3 * (position % 3) / 2)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@dataclass(frozen=True)
class LabelScheme:
    """What the label pictures of a data set mean.

    Args:
        name: the data set, or the file that says so.
        classes: value, name and colour (`#rrggbb`) of each class.
        values: class value of each stored value; without it they are the same.
        colours: class value of each colour (red, green, blue), for labels that are colours.
        ignored: class values that count as unlabelled.
    """

    name: str
    classes: tuple[tuple[int, str, str], ...]
    values: Mapping[int, int] | None = None
    colours: Mapping[tuple[int, int, int], int] | None = None
    ignored: frozenset[int] = frozenset()


def scheme_from_classes_yaml(path: Path) -> LabelScheme:
    """The classes that a `classes.yaml` lists, and their colours where it gives them; black is then 0 unless listed.

    Raises:
        MedsegError: the file cannot be read, or a class lacks a value or a name, or its colour cannot be read.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise MedsegError(f"{path} must be a readable YAML file, got {problem}; correct or restore it") from error
    entries = content.get("classes") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise MedsegError(
            f"{path} must list classes, got {entries!r}; write `classes:` and one line `- {{...}}` for each"
        )
    classes: list[tuple[int, str, str]] = []
    colours: dict[tuple[int, int, int], int] = {(0, 0, 0): 0}
    for number, entry in enumerate(entries, start=1):
        try:
            value, name = entry["value"], entry["name"]
            colour = entry.get("colour", colour_of(number - 1))
            red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MedsegError(
                f"class {number} in {path} must have value, name and, if any, a readable colour, got {entry!r}; "
                'write the colour in quotes, such as "#e6194b"'
            ) from error
        if type(value) is not int or not 0 <= value <= 255:
            raise MedsegError(f"value of class {number} in {path} must be in 0..255, got {value!r}; correct it")
        taken = colours.get((red, green, blue), 0) not in (0, value) and "colour" in entry
        if taken or value in [known for known, _, _ in classes]:
            raise MedsegError(f"{path} must use each value and colour once, got {entry!r} again; change one of them")
        classes.append((value, str(name), f"#{red:02x}{green:02x}{blue:02x}"))
        if "colour" in entry:
            colours[red, green, blue] = value
    return LabelScheme(name=path.name, classes=tuple(classes), colours=colours if len(colours) > 1 else None)
