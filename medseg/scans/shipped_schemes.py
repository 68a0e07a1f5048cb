"""This file reads the label schemes of known data sets, which ride in the package as `schemes_data/NAME.yaml`.

A scheme lists its classes with the stored *ids* and *stored colours* that mean them, or it is a part of another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import MedsegError
from medseg.scans.schemes import UNLABELLED, LabelScheme, scheme_from_classes_yaml


def scheme_names() -> tuple[str, ...]:
    """Names of the schemes that ride in the package."""
    return tuple(sorted(Path(item.name).stem for item in _folder().iterdir() if item.name.endswith(".yaml")))


def load_scheme(name_or_path: str | Path) -> LabelScheme:
    """A scheme by its name, or the classes of a `classes.yaml`.

    Raises:
        MedsegError: no such scheme or file, or the file breaks the schema.
    """
    if str(name_or_path) in scheme_names():
        return shipped_scheme(str(name_or_path))
    if not Path(name_or_path).is_file():
        raise MedsegError(
            f"label scheme must be one of {', '.join(scheme_names())} or a classes.yaml, got {name_or_path}; "
            "check the name"
        )
    return scheme_from_classes_yaml(Path(name_or_path))


@cache
def shipped_scheme(name: str) -> LabelScheme:
    """A scheme that rides in the package.

    >>> shipped_scheme("cocostuff3").classes[0][:2], shipped_scheme("cityscapes").values[7]
    ((1, 'sky'), 1)
    """
    content = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    if "part_of" in content:
        return _part(shipped_scheme(content["part_of"]), name, content["classes"])
    entries: list[Mapping[str, Any]] = content["classes"]
    values = {stored: entry["value"] for entry in entries for stored in entry.get("ids", ())}
    values |= dict.fromkeys(content.get("unlabelled", ()), UNLABELLED)
    colours = {_rgb(text): 0 for text in content.get("background_colours", ())}
    colours |= {_rgb(text): entry["value"] for entry in entries for text in entry.get("stored_colours", ())}
    classes = tuple((entry["value"], entry["name"], entry["colour"]) for entry in entries)
    return LabelScheme(name, classes, values or None, colours or None)


def stored_as_values(scheme: LabelScheme) -> LabelScheme:
    """The same classes where a file stores class values, and 0 for what nobody labelled, as cropped sets do."""
    return replace(scheme, values={0: UNLABELLED} | {value: value for value, _, _ in scheme.classes}, colours=None)


def _part(whole: LabelScheme, name: str, class_names: Iterable[str]) -> LabelScheme:
    """Some classes of a scheme, numbered from 1 in the order given; all else is unlabelled."""
    by_name = {class_name: (value, colour) for value, class_name, colour in whole.classes}
    kept = {by_name[class_name][0]: n for n, class_name in enumerate(class_names, start=1)}
    classes = tuple((kept[value], class_name, colour) for value, class_name, colour in whole.classes if value in kept)
    values = {stored: kept.get(value, UNLABELLED) for stored, value in (whole.values or {}).items()}
    return LabelScheme(name, tuple(sorted(classes)), values)


def _folder() -> Any:
    return resources.files("medseg.scans") / "schemes_data"


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue
