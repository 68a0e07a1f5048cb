"""This file turns YAML into typed, frozen sections; nothing else in medseg reads a config.

A *config* is one YAML file with a section per stage. It may name one parent (`extends:`), so an
experiment holds only what differs from `default.yaml`. The command line unpacks a section into
plain arguments; no stage ever sees a config object.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medseg.config.sections import Config
from medseg.errors import MedsegError
from medseg.files import load_yaml

CHANGEABLE_AFTER_TRAINING = ("prepare", "naming", "reconstruct")


def shipped_configs() -> dict[str, Path]:
    """Name to path of every config that comes with medseg, from the wheel or the checkout."""
    inside = Path(str(files("medseg"))) / "configs"
    folder = inside if inside.is_dir() else inside.parent.parent / "configs"
    return {path.stem: path for path in sorted(folder.rglob("*.yaml"))}


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config by path or shipped name, apply its parents and `section.key=value` overrides.

    Raises:
        MedsegError: no such config, not YAML, an unknown or mistyped key, a value out of range.
    """
    return _validated(_merged(_read_with_parents(_find(source)), parse_overrides(overrides)), str(source))


def change_config(config: Config, overrides: Sequence[str], *, sections: Sequence[str]) -> Config:
    """The same config with overrides, which may touch the named sections only.

    Raises:
        MedsegError: an override touches another section, or is wrong.
    """
    changes = parse_overrides(overrides)
    for section in changes:
        if section in Config.model_fields and section not in sections:
            raise MedsegError(
                f"--set {section}.* must be one of the sections {', '.join(sections)} once a run is trained, "
                f"got {section}; train a new run to change it"
            )
    return _validated(_merged(as_plain(config), changes), "--set")


def config_from_plain(content: Mapping[str, Any], source: str) -> Config:
    """Validate a config that was read back from a run folder."""
    return _validated(content, source)


def as_plain(config: Config) -> dict[str, Any]:
    """The config as plain values, ready for YAML and for hashing."""
    plain = config.model_dump(mode="json")
    plain["reconstruct"]["refine"] = [
        {name: dict(numbers)} if numbers else name for name, numbers in config.reconstruct.refine
    ]
    return plain


def parse_overrides(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`["stego.steps=10"]` as `{"stego": {"steps": 10}}`; values are YAML.

    Raises:
        MedsegError: an entry is not `section.key=value`.
    """
    changes: dict[str, dict[str, Any]] = {}
    for entry in overrides:
        name, equals, value = entry.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise MedsegError(f"--set must be section.key=value, got {entry!r}; for example stego.steps=300")
        try:
            changes.setdefault(section, {})[key] = load_yaml(value)
        except yaml.YAMLError as error:
            raise MedsegError(f"--set {name} must be a YAML value, got {value!r}; quote it") from error
    return changes


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if str(source) in shipped:
        return shipped[str(source)]
    names = ", ".join(name for name in shipped if name != "default")
    raise MedsegError(f"CONFIG must be a YAML file or one of {names}, got {source}; check the name")


def _read_with_parents(path: Path, seen: tuple[Path, ...] = ()) -> dict[Any, Any]:
    if path in seen:
        raise MedsegError(
            f"{path} must not extend itself, got {' -> '.join(p.name for p in (*seen, path))}; cut the circle"
        )
    try:
        content = load_yaml(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise MedsegError(f"{path} must be readable YAML, got {reason}; mend the file") from error
    if not isinstance(content, dict):
        raise MedsegError(f"{path} must hold sections such as `stego:`, got {type(content).__name__}; mend the file")
    parent = content.pop("extends", None if path.stem == "default" else "default")
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise MedsegError(f"extends in {path} must be the name of one config, got {parent!r}; name one")
    beside = path.parent / f"{parent}.yaml"
    return _merged(_read_with_parents(beside if beside.is_file() else _find(parent), (*seen, path)), content)


def _merged(base: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = dict(base)
    for section, values in changes.items():
        known = merged.get(section)
        merged[section] = {**known, **values} if isinstance(known, Mapping) and isinstance(values, Mapping) else values
    return merged


def _validated(content: Mapping[Any, Any], source: str) -> Config:
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise MedsegError(_first_mistake(error, source)) from error


def _first_mistake(error: ValidationError, source: str) -> str:
    mistakes = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    mistake = mistakes[0]
    where = [str(part) for part in mistake["loc"]]
    name = ".".join(where if mistake["type"] == "extra_forbidden" else where[:2])
    if mistake["type"] == "extra_forbidden":
        section = Config.model_fields.get(where[0])
        fields = Config.model_fields if len(where) == 1 else section.annotation.model_fields  # type: ignore[union-attr]
        near = difflib.get_close_matches(where[-1], fields, n=1, cutoff=0.4)
        prefix = "".join(f"{part}." for part in where[:-1])
        advice = f"did you mean {prefix}{near[0]}?" if near else f"the keys here are {', '.join(fields)}"
        return f"{source}: {name} must be a known key, got {name}; {advice}"
    if mistake["type"] == "missing":  # only in a run's own record: every config that is read from YAML has the defaults
        return f"{source}: {name} must be given, got nothing; another version of medseg wrote this, train a new run"
    reason = mistake["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    return f"{source}: {name} must be valid, got {mistake['input']!r}; {reason}"
