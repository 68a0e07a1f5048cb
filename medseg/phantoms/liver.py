"""This file makes B-mode ultrasound pictures whose liver is known exactly, for the demo and the tests.

A score on them checks the pipeline; it is no forecast for patients. A phantom is a single picture, a *cine* in which
the liver slides as the patient breathes, or a *sweep* of parallel planes as a volume. Labels: 0 outside the sector, 1
tissue in the sector, 2 liver with its vessels, 3 mass. Where bone, gas or missing contact has taken so much of the echo
that nobody could tell what is there, the label is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.abdomen import (
    MASSES,
    WITHOUT_LIVER,
    MassKind,
    draw_scene,
)
from medseg.phantoms.bmode import (
    HIDDEN_DB,
    Scanner,
    Tissue,
    display,
    echoes,
    scan_converted,
    tinted,
    tissue_points,
)
from medseg.phantoms.burnt_in import burn_in, draw_marks
from medseg.phantoms.probes import PROBES, ProbeKind, View, draw_view
from medseg.phantoms.scenes import MASS, TISSUE, Scene, SceneKind

Size = Literal["small", "normal"]
SIZES: dict[Size, tuple[tuple[int, int], ...]] = {
    "small": ((240, 320),),
    "normal": ((480, 640), (576, 720), (576, 768), (600, 800), (768, 1024)),
}
"""Rows and columns of the pictures, of which one is drawn."""
_PROBE_CHANCE = (0.72, 0.18, 0.10)
_TINTS = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.92, 0.97, 1.0), (0.95, 1.0, 0.94), (1.0, 0.95, 0.85))
_MASS_CHANCE = (0.4, 0.2, 0.15, 0.15, 0.1)
_BREATH_MM = (4.0, 14.0)
"""How far the liver slides along the picture from breathing in to breathing out."""
_DRIFT_SHARE = 0.015
"""Share of the grains that is new in the next frame of a cine: nothing moves in one plane alone."""
_PLANE_MM = 2.2
"""Distance of planes over which grains change: the beam's thickness."""


@dataclass(frozen=True)
class LiverPhantom:
    """Frames with their truth; a single picture has one frame.

    Attributes:
        pictures: red, green and blue.
        labels: see the words of this file.
        vessels: 1 in the vessels of the liver.
        overlays: 1 where marks are burnt in.
        facts: sector, scale and whatever else was drawn, as plain values.
    """

    pictures: UInt8[np.ndarray, "n h w 3"]
    labels: UInt8[np.ndarray, "n h w"]
    vessels: UInt8[np.ndarray, "n h w"]
    overlays: UInt8[np.ndarray, "n h w"]
    facts: dict[str, Any]


def make_liver_phantom(
    *,
    seed: int,
    shape: tuple[int, int] | None = None,
    size: Size = "normal",
    probe: ProbeKind | None = None,
    scene: SceneKind | None = None,
    mass: MassKind | None = None,
    overlays: bool = True,
    frames: int = 1,
    sweep_mm: float | None = None,
    **scanner: Any,
) -> LiverPhantom:
    """Make one phantom; the same arguments give the same pixels.

    Args:
        seed: decides whatever is not given.
        shape: rows and columns; drawn from those of `size` without it.
        size: `small` or `normal`.
        probe: `curved`, `phased` or `linear`.
        scene: `liver`, or `thyroid`, `muscle` or `water`, which hold none.
        mass: `none`, `dark`, `bright`, `cyst` or `target`.
        overlays: burn text and marks in.
        frames: how many; several are a cine over one breath, or the planes of a sweep.
        sweep_mm: distance of the planes of a sweep; None for a cine.
        scanner: fields of `Scanner`; what is left out is drawn.

    Raises:
        MedsegError: a value is not one of those that are known, or no picture could be drawn with it.
    """
    _require_known(shape, size, probe, scene, mass, frames, sweep_mm)
    # One stream for each matter, so that choosing one of them leaves the others as they were.
    streams = [np.random.default_rng([seed, part]) for part in range(5)]
    view_rng, scene_rng, scan_rng, mark_rng, grain_rng = streams
    sizes = SIZES[size]
    drawn_shape = sizes[int(view_rng.integers(len(sizes)))]
    drawn_probe = PROBES[int(view_rng.choice(len(PROBES), p=_PROBE_CHANCE))]
    drawn_mass = MASSES[int(scene_rng.choice(len(MASSES), p=_MASS_CHANCE))]
    view = draw_view(view_rng, probe or drawn_probe, shape or drawn_shape)
    what = draw_scene(scene_rng, view, scene or "liver", mass or drawn_mass)
    settings = replace(_draw_scanner(scan_rng), **scanner)
    marks = draw_marks(mark_rng)
    tissue = Tissue(grain_rng, view, settings.looks)
    amplitude, tilt = float(scan_rng.uniform(*_BREATH_MM)), float(scan_rng.uniform(-0.25, 0.25))
    made = []
    for number in range(frames):
        # A breath starts half way, so that the first frame is like a single picture.
        slide = 0.5 * amplitude * np.sin(2 * np.pi * number / frames)
        slides = (0.0, 0.0) if sweep_mm else (slide, tilt * slide)
        y = (number - (frames - 1) / 2) * sweep_mm if sweep_mm else 0.0
        if number:
            tissue.age(1 - np.exp(-((sweep_mm / _PLANE_MM) ** 2)) if sweep_mm else _DRIFT_SHARE)
        made.append(_frame(scan_rng, view, what, tissue, settings, y, slides))
    pictures, labels, vessels = (np.stack(part) for part in zip(*made, strict=True))
    hidden = np.zeros(labels.shape, np.uint8)
    if overlays:
        target = _calliper_target(labels[0])
        seed_of_marks = int(mark_rng.integers(2**31))
        for number in range(frames):  # the same marks on each frame
            marked = burn_in(np.random.default_rng(seed_of_marks), pictures[number], view, marks, target)
            pictures[number], hidden[number] = marked
    facts = {
        "seed": seed,
        "scene": what.kind,
        "probe": view.kind,
        "shape": list(view.shape),
        "frames": frames,
        "sector": view.sector(),
        "mm_per_px": 1 / view.px_per_mm,
        "depth_mm": view.depth_mm,
        "scanner": asdict(settings),
        "marks": list(marks) if overlays else [],
        "anatomy": what.facts,
        "sweep_mm": sweep_mm,
        "breath_mm": amplitude if frames > 1 and not sweep_mm else 0.0,
        "label_share": {str(value): float((labels == value).mean()) for value in range(4)},
    }
    return LiverPhantom(pictures, labels, vessels, hidden, facts)


def _frame(
    rng: np.random.Generator,
    view: View,
    scene: Scene,
    tissue: Tissue,
    scanner: Scanner,
    y: float,
    slide: tuple[float, float],
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Picture, label and vessels of one plane at one moment."""
    still = scene.liver.top if scene.liver else 0.0
    samples = int(np.clip(view.depth_mm * view.px_per_mm * 0.95, 160, 640))
    lines = int(np.clip(samples * 0.62, 128, 352))
    grid = view.beam_grid(samples, lines)
    points = tissue_points(view, grid, y, slide, still)
    envelope, shadow = echoes(rng, view, scene, tissue, scanner, points, grid[0, :, 0])
    picture = tinted(scanner, scan_converted(view, display(scanner, envelope)))
    labels, vessels = scene.labels(tissue_points(view, view.polar, y, slide, still))
    hidden = scan_converted(view, ndimage.gaussian_filter1d(shadow, 1.5, axis=1)) > HIDDEN_DB
    labels[hidden] = TISSUE
    labels[~view.mask] = 0
    return picture, labels, (vessels & (labels > TISSUE)).astype(np.uint8)


def _draw_scanner(rng: np.random.Generator) -> Scanner:
    """Settings from a good machine in good hands to a poor one."""
    contact = np.zeros(5)
    if rng.random() < 0.3:
        contact[0 if rng.random() < 0.5 else -1] = rng.uniform(15, 45)
    return Scanner(
        liver_grey=float(rng.uniform(0.2, 0.46)),
        range_db=float(rng.uniform(54, 72)),
        looks=int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3])),
        noise_db=float(rng.uniform(-34, -14)),
        gain_db=tuple(rng.normal(0, 2.5, 5).tolist()),
        contact_db=tuple(contact.tolist()),
        smooth=float(rng.uniform(0.3, 0.8)),
        tint=_TINTS[int(rng.integers(len(_TINTS)))],
    )


def _calliper_target(labels: UInt8[np.ndarray, "h w"]) -> tuple[float, float, float] | None:
    """Row, column and radius (px) of the mass."""
    mass: Bool[np.ndarray, "h w"] = labels == MASS
    if not mass.any():
        return None
    row, column = (float(at.mean()) for at in np.nonzero(mass))
    return row, column, float(np.sqrt(mass.sum() / np.pi))


def _require_known(
    shape: tuple[int, int] | None,
    size: str,
    probe: str | None,
    scene: str | None,
    mass: str | None,
    frames: int,
    sweep_mm: float | None,
) -> None:
    known: Sequence[tuple[str, str | None, Sequence[str]]] = (
        ("size", size, tuple(SIZES)),
        ("probe", probe, PROBES),
        ("scene", scene, ("liver", *WITHOUT_LIVER)),
        ("mass", mass, MASSES),
    )
    for name, value, choices in known:
        if value is not None and value not in choices:
            raise MedsegError(f"{name} must be one of {', '.join(choices)}, got {value}; choose one of them")
    if shape is not None and min(shape) < 96:
        raise MedsegError(f"the picture must have at least 96 rows and columns, got {shape}; ask for a larger one")
    if frames < 1:
        raise MedsegError(f"the number of frames must be at least 1, got {frames}; ask for one or more")
    if sweep_mm is not None and sweep_mm <= 0:
        raise MedsegError(f"the distance of planes must be above 0 mm, got {sweep_mm}; give some mm")
