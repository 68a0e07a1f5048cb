"""This file holds the classes of a mask, their clusters, and reads and writes `classes.yaml`.

    classes:
      - {value: 1, name: vessel, colour: "#e6194b", clusters: [3], code: {scheme: SCT, value: "59820001",
         meaning: "Blood vessel"}}
    named_by: rules            # rules | clusters | training_labels | clicks | hand | oracle

A person may write one too: without `named_by` it counts as `hand`; without `clusters` it only says what labels mean.
`background: true` marks what remains where one looked (the tissue around a liver): a class with a value and a name, but
no part of the union that scores are about. `inside: liver` marks a class that has no clusters, because a refine step
finds it inside another one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8

from medseg.errors import MedsegError
from medseg.files import load_yaml, write_text
from medseg.scans.schemes import colour_of

NAMED_BY = ("rules", "clusters", "training_labels", "clicks", "hand", "oracle")
"""Who gave the names. `clusters`: nobody, each cluster is a class. `oracle`: matched to the labels that are scored; no
result, only a bound."""


def one_class_a_cluster(clusters: int) -> Naming:
    """Each cluster as a class of its own, with the value after its number, because 0 is the background."""
    entries = (ClassEntry(n + 1, f"cluster {n}", colour_of(n), (n,)) for n in range(clusters))
    return Naming(tuple(entries), "clusters")


@dataclass(frozen=True)
class Code:
    """A term of a coding scheme, as DICOM writes it (`SCT`, `59820001`, `Blood vessel`)."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class ClassEntry:
    """One class of the mask.

    Attributes:
        value: its voxel value, 1 to 255.
        name: its name.
        colour: `#rrggbb`.
        clusters: the clusters that carry it; none when nothing fitted, and then the mask is empty of it.
        code: its term in a coding scheme, where known.
        background: whether it is what remains of the region, and so no part of the union of all classes.
        inside: the class in which a refine step finds this one.
    """

    value: int
    name: str
    colour: str
    clusters: tuple[int, ...] = ()
    code: Code | None = None
    background: bool = False
    inside: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order and with the keys of `classes.yaml`."""
        entry: dict[str, Any] = {
            "value": self.value,
            "name": self.name,
            "colour": self.colour,
            "clusters": list(self.clusters),
        }
        if self.code:
            entry["code"] = {"scheme": self.code.scheme, "value": self.code.value, "meaning": self.code.meaning}
        if self.background:
            entry["background"] = True
        if self.inside:
            entry["inside"] = self.inside
        return entry


@dataclass(frozen=True)
class Naming:
    """Which cluster carries which class, who said so, and why.

    Attributes:
        classes: the classes; every cluster they do not list is background.
        named_by: one of `NAMED_BY`.
        reasons: plain sentences, one or more a class; not kept in `classes.yaml`.
    """

    classes: tuple[ClassEntry, ...]
    named_by: str
    reasons: tuple[str, ...] = ()

    @property
    def class_of_cluster(self) -> dict[int, int]:
        """Class value by cluster; clusters that are background are left out."""
        return {cluster: entry.value for entry in self.classes for cluster in entry.clusters}

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Names of the classes that no cluster carries, but for those that need none."""
        return tuple(entry.name for entry in self.classes if not entry.clusters and not entry.inside)

    def values(self, clusters: int) -> UInt8[np.ndarray, " clusters"]:
        """Class value of each cluster as a lookup table: `naming.values(5)[assignments]` are labels.

        Raises:
            MedsegError: a class lists a cluster that the model does not have.
        """
        table = np.zeros(clusters, dtype=np.uint8)
        for cluster, value in self.class_of_cluster.items():
            if cluster >= clusters:
                raise MedsegError(
                    f"classes.yaml must list clusters in 0..{clusters - 1}, got {cluster}; "
                    "it belongs to a model with more clusters"
                )
            table[cluster] = value
        return table


def write_classes(path: Path, naming: Naming) -> None:
    """Write `classes.yaml`, one line a class."""
    lines = ["classes:"] if naming.classes else ["classes: []"]
    for entry in naming.classes:
        plain = yaml.safe_dump(
            entry.as_dict(), default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
        )
        lines.append(f"  - {plain.strip()}")
    lines.append(f"named_by: {naming.named_by}            # {' | '.join(NAMED_BY)}")
    write_text(path, "\n".join(lines) + "\n")


def read_classes(path: Path) -> Naming:
    """Read `classes.yaml`, ours or one written by hand.

    Raises:
        MedsegError: the file is missing, no YAML, or breaks the schema; an unknown key names the nearest right one.
    """
    content = read_yaml(path)
    require_keys(content, required=("classes",), optional=("named_by",), where=str(path))
    entries = content["classes"]
    if not isinstance(entries, list):
        raise MedsegError(f"classes in {path} must be a list, got {type(entries).__name__}; begin each class with `- `")
    named_by = content.get("named_by", "hand")
    if named_by not in NAMED_BY:
        raise MedsegError(
            f"named_by in {path} must be one of {', '.join(NAMED_BY)}, got {named_by!r}{_nearest(named_by, NAMED_BY)}"
        )
    classes = []
    for index, entry in enumerate(entries):
        where = f"class {index + 1} in {path}"
        require_keys(
            entry,
            required=("value", "name"),
            optional=("clusters", "colour", "code", "background", "inside"),
            where=where,
        )
        classes.append(class_entry(entry, position=index, where=where))
    require_distinct(classes, where=str(path))
    return Naming(classes=tuple(classes), named_by=named_by, reasons=(f"classes and clusters as listed in {path}",))


def class_entry(entry: Mapping[str, Any], *, position: int, where: str) -> ClassEntry:
    """Build a class from plain values; keys are checked by the caller, values here.

    Args:
        entry: `value`, `name`, and where given `colour`, `clusters`, `code`, `background`, `inside`.
        position: index of the class, which chooses its colour where it has none.
        where: what the errors call it.
    """
    value, name = entry["value"], entry["name"]
    colour = entry.get("colour", colour_of(position))
    clusters, code = entry.get("clusters", []), entry.get("code")
    if type(value) is not int or not 1 <= value <= 255:
        raise MedsegError(f"value of {where} must be a whole number in 1..255, got {value!r}; 0 is the background")
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise MedsegError(f"name of {where} must be a word or two, got {name!r}; write it on one line")
    if not isinstance(colour, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        raise MedsegError(f'colour of {where} must look like "#e6194b", got {colour!r}; put it in quotes')
    if not isinstance(clusters, list) or any(type(cluster) is not int or cluster < 0 for cluster in clusters):
        raise MedsegError(f"clusters of {where} must be a list of whole numbers, got {clusters!r}; write [3] or [1, 4]")
    if code is not None:
        require_keys(code, required=("scheme", "value", "meaning"), optional=(), where=f"code of {where}")
        if not all(isinstance(part, str) for part in code.values()):
            raise MedsegError(f"code of {where} must hold texts only, got {dict(code)!r}; put its value in quotes")
        code = Code(**code)
    background = entry.get("background", False)
    if not isinstance(background, bool):
        raise MedsegError(f"background of {where} must be true or false, got {background!r}; correct it")
    inside = entry.get("inside")
    if inside is not None and not isinstance(inside, str):
        raise MedsegError(f"inside of {where} must be the name of a class, got {inside!r}; correct it")
    return ClassEntry(value, name, colour, tuple(clusters), code, background, inside)


def require_distinct(classes: Sequence[ClassEntry], *, where: str) -> None:
    """Raise when two classes share a value, a name or a cluster."""
    used: tuple[tuple[str, list[Any]], ...] = (
        ("value", [entry.value for entry in classes]),
        ("name", [entry.name for entry in classes]),
        ("cluster", [cluster for entry in classes for cluster in entry.clusters]),
    )
    for what, found in used:
        twice = [one for one in dict.fromkeys(found) if found.count(one) > 1]
        if twice:
            raise MedsegError(f"{where} must use each {what} once, got {twice[0]!r} twice; change one of them")


def read_yaml(path: Path) -> Any:
    """Read a YAML file without ever building objects from it."""
    try:
        return load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise MedsegError(f"{path} must be a readable YAML file, got {problem}; correct or restore it") from error


def require_keys(content: Any, *, required: Collection[str], optional: Collection[str], where: str) -> None:
    """Raise when `content` is no mapping, lacks a required key or has an unknown one, naming the nearest right one."""
    if not isinstance(content, Mapping):
        raise MedsegError(f"{where} must be a mapping of keys, got {content!r}; write `key: value`")
    allowed = [*required, *optional]
    for key in content:
        if key not in allowed:
            raise MedsegError(
                f"key of {where} must be one of {', '.join(allowed)}, got {key!r}{_nearest(key, allowed)}"
            )
    for key in required:
        if key not in content:
            raise MedsegError(
                f"{where} must have the key {key!r}, got {', '.join(map(str, content)) or 'none'}; add it"
            )


def _nearest(word: Any, allowed: Collection[str]) -> str:
    """What the user may have meant, as the end of an error line."""
    close = difflib.get_close_matches(str(word), allowed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else "; remove it"
