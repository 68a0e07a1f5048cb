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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from medseg.errors import MedsegError

Plane = Literal["axial", "coronal", "sagittal"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Run(Section):
    """Machine, seed and which patients are held out."""

    seed: Count
    device: Literal["auto", "cpu", "cuda", "mps"]
    devices: Positive
    nodes: Positive
    precision: Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed"]
    strategy: Literal["auto", "ddp"]
    workers: Count
    held_out: Annotated[float, Field(ge=0, lt=1)]
    checkpoint_every: Positive

    @model_validator(mode="after")
    def _no_float16_on_a_cpu(self) -> Run:
        if self.device == "cpu" and self.precision == "16-mixed":
            raise ValueError("precision 16-mixed takes minutes per step on a CPU; use bf16-mixed or 32-true")
        return self


class Prepare(Section):
    """Scan to standardised volume."""

    modality: Literal["tof", "ce_mra", "cta"]
    radii_mm: Annotated[tuple[Rate, ...], Field(min_length=1)]
    spacing: tuple[Rate, Rate, Rate] | None
    n4: bool
    n4_shrink: Positive
    brain_mask: Literal["auto", "given", "builtin", "deepbet", "none"]

    @field_validator("radii_mm")
    @classmethod
    def _one_background_for_all_radii(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if max(value) > 10 * min(value):
            raise ValueError("the longest radius is over 10 times the shortest, and no background fits both; run twice")
        return value

    @model_validator(mode="after")
    def _ct_is_no_mr(self) -> Prepare:
        if self.modality == "cta" and self.n4:
            raise ValueError("n4 removes the shading of MR coils, which CT has none of; set n4: false")
        if self.modality == "cta" and self.brain_mask == "deepbet":
            raise ValueError("brain_mask deepbet knows MR only; use builtin, given or none")
        return self


class Patches(Section):
    """Volume to 2-D patches."""

    plane: Plane
    size: Annotated[int, Field(ge=8)]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    magnification: Positive
    neighbours: Count
    per_case: Positive
    salient_fraction: Share
    empty: Literal["drop", "keep"] | Share
    scheme: Literal["R", "C", "CF", "CFW", "CFX", "CFWX", "all"]
    scheme_fraction: Annotated[float, Field(gt=0, le=1)]


class Features(Section):
    """Which frozen features."""

    backbone: Annotated[tuple[str, ...], Field(min_length=1)]
    checkpoint: Path | None
    feature: Literal["feat", "KK"]
    store: Path | None

    @field_validator("backbone", mode="before")
    @classmethod
    def _one_name_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Student(Section):
    """A network that the flux rule teaches on the user's own scans; for the backbone and the method of that name."""

    start: str
    rounds: Positive
    steps: Count
    batch: Positive
    window: Annotated[int, Field(ge=16, multiple_of=4)]
    learning_rate: Rate
    painted: Share

    @model_validator(mode="after")
    def _scratch_needs_steps(self) -> Student:
        if self.start == "scratch" and self.steps == 0:
            raise ValueError("steps: 0 keeps the weights of student.start, and scratch has none; give steps")
        return self


class Stego(Section):
    """Head, loss and clusters, under the names of `StegoSettings`; None takes the preset's value."""

    preset: str
    shifts: Literal["auto", "preset"]
    random_quantile: Share
    knn_quantile: Share
    self_quantile: Share
    random_weight: Weight | None
    knn_weight: Weight | None
    self_weight: Weight | None
    random_shift: float | None
    knn_shift: float | None
    self_shift: float | None
    voters: Positive
    steps: Positive
    epochs: Positive | None
    batch: Positive | None
    learning_rate: Rate | None
    probe_learning_rate: Rate | None
    reset_probe_steps: Positive | None
    code_dim: Positive | None
    projection: Literal["linear", "nonlinear", "none"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    clusters: Annotated[int, Field(ge=2)] | None
    extra_clusters: Count
    neighbours: Positive | None
    neighbour_slices: Count
    negatives: Count
    feature_samples: Positive
    sampling: Literal["maps", "corners", "pixels"]
    salient_share: Share
    salient_top: Share
    pointwise: bool
    zero_clamp: bool
    stabilise: bool
    rec_weight: Weight
    aug_alignment_weight: Weight
    crf_weight: Weight | None
    cluster_fit: Literal["probe", "kmeans"]
    cluster_alpha: Rate
    code_metric: Literal["cosine", "euclidean"]
    feature_metric: Literal["cosine", "euclidean"]
    fit_points: Positive
    fit_salient_share: Share


class Naming(Section):
    """How clusters get class names."""

    source: Literal["rules", "training_labels", "hand"]
    rules: str
    classes: Path | None

    @model_validator(mode="after")
    def _hand_needs_a_file(self) -> Naming:
        if self.source == "hand" and self.classes is None:
            raise ValueError("source: hand needs naming.classes, the path of a classes.yaml")
        return self


class Reconstruct(Section):
    """Patches back to 3-D masks."""

    method: Literal["stego", "kmeans", "untrained", "student", "flux"]
    planes: Annotated[tuple[Plane, ...], Field(min_length=1)]
    batch: Positive
    refine: tuple[tuple[str, Mapping[str, float]], ...]

    @field_validator("refine", mode="before")
    @classmethod
    def _steps_as_name_and_numbers(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        steps: list[Any] = []
        for step in value:
            if isinstance(step, str):
                steps.append((step, {}))
            elif isinstance(step, Mapping) and len(step) == 1:
                ((name, numbers),) = step.items()
                steps.append((name, numbers or {}))
            else:
                steps.append(step)
        return tuple(steps)


class Config(Section):
    """The whole config: one section per stage."""

    run: Run
    prepare: Prepare
    patches: Patches
    features: Features
    student: Student
    stego: Stego
    naming: Naming
    reconstruct: Reconstruct


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
            changes.setdefault(section, {})[key] = yaml.safe_load(value)
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
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
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
    reason = mistake["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    return f"{source}: {name} must be valid, got {mistake['input']!r}; {reason}"
