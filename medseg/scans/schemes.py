"""This file describes what the values and colours of label pictures mean.

A *stored* value is what the file holds, a *class* value what it means: 1 to 255, 0 for everything
else, -1 for pixels that nobody labelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from medseg.errors import MedsegError

UNLABELLED = -1
"""Class value of pixels that nobody labelled; they neither train nor count."""


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
    """The classes that a `classes.yaml` lists, and their colours where it gives them; black is 0 unless listed.

    Raises:
        MedsegError: the file cannot be read, or a class lacks a value, a name or a colour that can be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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
            colour = entry["colour"]
            red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MedsegError(
                f'class {number} in {path} must have value, name and a colour such as "#e6194b", got {entry!r}; '
                "put the colour in quotes"
            ) from error
        if type(value) is not int or not 0 <= value <= 255:
            raise MedsegError(f"value of class {number} in {path} must be in 0..255, got {value!r}; correct it")
        if colours.get((red, green, blue), 0) not in (0, value) or value in [known for known, _, _ in classes]:
            raise MedsegError(f"{path} must use each value and colour once, got {entry!r} again; change one of them")
        classes.append((value, str(name), f"#{red:02x}{green:02x}{blue:02x}"))
        colours[red, green, blue] = value
    return LabelScheme(name=path.name, classes=tuple(classes), colours=colours)
