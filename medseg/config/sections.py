"""This file holds the sections of a config: every key with its type, its bounds and what cannot stand beside it.

The defaults are in `configs/default.yaml` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medseg.review.exports import TARGETS

SEEN = ("picture", "liver_ultrasound")
"""Modalities whose slices are looked at as pictures, in display values; the others are angiograms, measured in mm."""
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

    modality: Literal["tof", "ce_mra", "cta", "picture", "liver_ultrasound"]
    resize: Positive | None
    clear_view: tuple[Literal["colour_cast", "haze", "contrast"], ...]
    fill_overlays: bool
    despeckle: bool
    even_gain: bool
    pixel_mm: Rate | None
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

    @model_validator(mode="after")
    def _pictures_are_seen_not_measured(self) -> Prepare:
        if self.modality in SEEN and (self.spacing is not None or self.n4):
            raise ValueError("spacing and n4 are for volumes in mm; pictures take prepare.resize, in pixels")
        if self.modality != "picture" and (self.resize is not None or self.clear_view):
            raise ValueError("resize and clear_view are for pictures; set prepare.modality: picture, or leave them out")
        if self.modality not in SEEN and self.pixel_mm is not None:
            raise ValueError("pixel_mm is for pictures; volumes state their spacing")
        return self

    @model_validator(mode="after")
    def _only_ultrasound_has_a_sector(self) -> Prepare:
        if self.modality != "liver_ultrasound" and (self.despeckle or self.even_gain):
            raise ValueError("despeckle and even_gain are for ultrasound; leave them out")
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
    scheme: Literal["R", "C", "CF", "CFW", "CFX", "CFWX", "all", "five"]
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
    """A network that a rule teaches on the user's own scans; for the backbone and the method of that name."""

    start: str
    backbone: str | None
    rounds: Positive
    steps: Count
    product_steps: Count
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
    start: Path | None
    keep_every: Positive | Literal["epoch"] | None
    batch: Positive | None
    learning_rate: Rate | None
    probe_learning_rate: Rate | None
    reset_probe_steps: Positive | None
    code_dim: Positive | None
    projection: Literal["linear", "nonlinear", "none", "pyramid"]
    granularity: Annotated[int, Field(ge=1, le=4)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    clusters: Annotated[int, Field(ge=2)] | None
    extra_clusters: Count
    neighbours: Positive | None
    partners: Literal["other_patients", "nearest"]
    neighbour_slices: Count
    negatives: Count
    feature_samples: Positive
    sampling: Literal["maps", "corners", "pixels"]
    salient_share: Share
    salient_top: Share
    pointwise: bool
    zero_clamp: bool
    stabilise: bool
    correspondence_weight: Weight
    rec_weight: Weight
    aug_alignment_weight: Weight
    crf_weight: Weight | None
    crf_alpha: Rate
    crf_beta: Rate
    crf_gamma: Rate
    crf_w1: float
    crf_w2: float
    crf_shift: float
    crf_samples: Positive
    cluster_fit: Literal["probe", "kmeans"]
    cluster_alpha: Rate
    code_metric: Literal["cosine", "euclidean"]
    feature_metric: Literal["cosine", "euclidean"]
    fit_points: Positive
    fit_salient_share: Share
    log_every: Positive
    picture_every: Positive


class Naming(Section):
    """How clusters get class names."""

    source: Literal["rules", "clusters", "training_labels", "hand"]
    rules: str | None
    classes: Path | None

    @model_validator(mode="after")
    def _sources_need_their_files(self) -> Naming:
        if self.source == "rules" and self.rules is None:
            raise ValueError("source: rules needs naming.rules, shipped rules or the path of your own")
        if self.source == "hand" and self.classes is None:
            raise ValueError("source: hand needs naming.classes, the path of a classes.yaml")
        return self


class Reconstruct(Section):
    """Patches back to 3-D masks."""

    method: Literal["stego", "kmeans", "untrained", "linear", "clicks", "probe", "student", "flux", "teacher"]
    planes: Annotated[tuple[Plane, ...], Field(min_length=1)]
    windows: Literal["tiled", "whole"]
    flip: bool
    batch: Positive
    refine: tuple[tuple[str, Mapping[str, float]], ...]

    @model_validator(mode="after")
    def _whole_slices_can_be_mirrored(self) -> Reconstruct:
        if self.flip and self.windows == "tiled":
            raise ValueError("flip mirrors whole slices; set reconstruct.windows: whole")
        if self.windows == "whole" and self.planes != ("axial",):
            raise ValueError("windows: whole are slices as they are stored; set reconstruct.planes: [axial]")
        return self

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


class Review(Section):
    """What leaves with the masks."""

    exports: tuple[str, ...]

    @field_validator("exports")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        strange = [name for name in value if name not in TARGETS]
        if strange:
            raise ValueError(f"exports are {', '.join(TARGETS)}; {strange[0]} is none of them")
        return value


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
    review: Review

    @model_validator(mode="after")
    def _parts_fit_the_modality(self) -> Config:
        modality = self.prepare.modality
        kind = modality if modality in SEEN else "angiogram"
        asked = [("backbone", name) for name in self.features.backbone]
        asked += [("method", self.reconstruct.method)]
        asked += [("refine step", name) for name, _ in self.reconstruct.refine]
        for part, name in asked:
            fitting = _FOR[part].get(name, ("angiogram",) if part == "refine step" else (kind,))
            if kind not in fitting:
                kinds = " and ".join(_KINDS[fit] for fit in fitting)
                raise ValueError(f"{part} {name} is for {kinds}; {_KINDS[kind]} take {_TAKE[part][kind]}")
        return self

    @model_validator(mode="after")
    def _each_modality_has_its_student(self) -> Config:
        is_liver = self.prepare.modality == "liver_ultrasound"
        if is_liver and self.student.start == "shipped":
            raise ValueError(
                "the shipped student knows vessels; set student.start: scratch, or a folder with one of yours"
            )
        if not is_liver and self.student.backbone:
            raise ValueError("student.backbone is what the student of liver_ultrasound looks through; set null")
        return self


_KINDS = {"angiogram": "angiograms", "picture": "pictures", "liver_ultrasound": "ultrasound"}
_FOR: dict[str, dict[str, tuple[str, ...]]] = {
    "backbone": {"filter_bank": ("angiogram",), "student": ("angiogram", "liver_ultrasound")},
    "method": {
        "student": ("angiogram", "liver_ultrasound"),
        "flux": ("angiogram",),
        "teacher": ("liver_ultrasound",),
    },
    "refine step": {
        "crf": SEEN,
        "frames": ("liver_ultrasound",),
        "masses": ("liver_ultrasound",),
        "vessels": ("liver_ultrasound",),
    },
}
"""Parts that fit some kinds of images only; a refine step that is not named here is for angiograms."""
_TAKE = {
    "backbone": {
        "angiogram": "filter_bank, student or a slice backbone",
        "picture": "image_bank or a slice backbone",
        "liver_ultrasound": "student, image_bank or a slice backbone",
    },
    "method": {
        "angiogram": "stego, kmeans, student or flux",
        "picture": "stego or kmeans",
        "liver_ultrasound": "stego, kmeans, student or teacher",
    },
    "refine step": {
        "angiogram": "crf_2d or crf_3d",
        "picture": "crf, or none",
        "liver_ultrasound": "frames, crf, masses or vessels, or none",
    },
}
