"""This file reads cases that a table names: a CSV file or a MONAI datalist (JSON).

Both name files relative to their own folder. A *draft* is a case before it has its final name.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_json
from medseg.scans.names import Split, is_usable_name, parse_name, split_extension

MASK_MODES = ("none", "builtin", "deepbet")
_COLUMNS = ("case", "patient", "image", "mask", "label")
_SECTIONS: dict[str, Split | None] = {"training": "train", "train": "train", "validation": "val", "val": "val"}
_SECTIONS |= {"testing": "test", "test": "test"}


@dataclass
class Draft:
    """A case before its final name is known.

    Args:
        base: its name, or what the file name says it is.
        group: folders that may go in front of the name.
        is_named: whether the user gave the name, so that nothing goes in front.
        images, masks, labels: the files of each role; more than one is an error of this case.
        is_said: whether the image is called one by its name or folder.
        problems: what else makes the case unusable.
    """

    base: str
    group: tuple[str, ...] = ()
    is_named: bool = False
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    is_said: bool = True
    patient: str | None = None
    mask_mode: str | None = None
    split: Split | None = None
    problems: list[str] = field(default_factory=list)


def read_csv(path: Path) -> tuple[list[Draft], list[str]]:
    """Drafts and notes of a CSV with the header `case,patient,image,mask,label`; all but `image` may lack.

    Raises:
        MedsegError: it is not such a table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(f"{path} must be a CSV file in UTF-8, got {error}; save it again") from error
    first = text.partition("\n")[0]
    separator = ";" if ";" in first and "," not in first else ","  # spreadsheets of some countries write semicolons
    try:
        rows = list(csv.DictReader(text.splitlines(), delimiter=separator, skipinitialspace=True))
        columns = [(name or "").strip().lower() for name in next(csv.reader([first.strip()], delimiter=separator), [])]
    except csv.Error as error:  # a cell without end, or larger than any file name
        raise MedsegError(f"{path} must be a CSV file, got {error}; save it again") from error
    if "image" not in columns:
        raise MedsegError(
            f"{path} must have the header {','.join(_COLUMNS)}, got {first.strip()[:80] or 'none'}; add a column image"
        )
    unknown = [name for name in columns if name not in _COLUMNS]
    notes = [f"columns of {path.name} without meaning here: {', '.join(unknown)}"] if unknown else []
    drafts = []
    for number, row in enumerate(rows, start=2):
        entry = {(key or "").strip().lower(): value.strip() for key, value in row.items() if isinstance(value, str)}
        drafts.append(_draft(entry, path, f"row {number}", notes))
    return drafts, notes


def read_datalist(path: Path) -> tuple[list[Draft], list[str]]:
    """Drafts and notes of a MONAI datalist: lists under `training`, `validation`, `test`, or one list.

    An entry is a file name or a mapping with `image` and, if there are, `label`, `mask`, `patient`,
    `case`. Two or more of the three lists are a given split.

    Raises:
        MedsegError: it is not such a list.
    """
    content = read_json(path)
    if isinstance(content, list):
        content = {"training": content}
    if not isinstance(content, Mapping) or not any(isinstance(content.get(name), list) for name in _SECTIONS):
        raise MedsegError(f"{path} must be a datalist with a list under 'training', got none; see data_templates")
    drafts: list[Draft] = []
    notes: list[str] = []
    sections = [name for name in _SECTIONS if isinstance(content.get(name), list) and content[name]]
    is_given = len({_SECTIONS[name] for name in sections}) > 1
    for section in sections:
        for number, value in enumerate(content[section], start=1):
            where = f"{section} entry {number}"
            entry = {"image": value} if isinstance(value, str) else value
            if not isinstance(entry, Mapping):
                raise MedsegError(
                    f"{path} must hold file names or mappings, got {value!r} ({where}); see data_templates"
                )
            draft = _draft({key: _text(item) for key, item in entry.items()}, path, where, notes)
            draft.split = _SECTIONS[section] if is_given else None
            drafts.append(draft)
    return drafts, notes


def _draft(entry: Mapping[str, str], table: Path, where: str, notes: list[str]) -> Draft:
    image, mask, label = (entry.get(name, "") for name in ("image", "mask", "label"))
    base = entry.get("case", "")
    draft = Draft(base or parse_name(split_extension(Path(image).name)[0])[0], is_named=bool(base))
    draft.patient = entry.get("patient") or None
    if not image:
        draft.base = base or f"{table.name} {where}"
        draft.problems.append(f"{table} must name an image in {where}, got none; fill it in")
        return draft
    if not is_usable_name(draft.base, everywhere=True):
        draft.problems.append(f"case in {table} must be usable as a file name, got {base!r} ({where}); rename it")
    path = table.parent / image
    draft.images.append(path)
    draft.group = tuple(part for part in Path(image).parent.parts if part not in (".", "..", Path(image).anchor))
    if not path.is_file():
        draft.problems.append(f"{path} must exist, got no such file; mend {where} of {table.name}")
    if mask.lower() in MASK_MODES:
        draft.mask_mode = mask.lower()
    elif mask:
        draft.masks.append(table.parent / mask)
        if not draft.masks[0].is_file():
            draft.problems.append(f"{draft.masks[0]} must exist, got no such file; mend {where} of {table.name}")
    if label and (table.parent / label).is_file():
        draft.labels.append(table.parent / label)
    elif label:
        notes.append(f"label {label} of {draft.base} is not there ({where} of {table.name})")
    return draft


def _text(value: Any) -> str:
    """One file name of a datalist; MONAI also allows a list with one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else "" if value is None else str(value)
