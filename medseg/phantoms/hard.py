"""This file holds two families of hard phantoms: one to train on, drawn at random, and one to test on, fixed and named.

A benchmark on phantoms that are made like those of the training could be won by knowing the generator. So the families
share the difficulties (noise, contrast, spacing, slabs, fat, veins, aneurysms, a huge object, no vessels, a stripped
background) but not the *hand* that draws them: radial profile, end of k-space, grain of the noise, lengths of the
texture and growth of the tree. `TRAINING_RANGES` says what the training family draws those from; every test case lies
outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.phantoms.vessels import VesselPhantom, make_vessel_phantom, write_phantom
from medseg.progress import track

TRAINING_RANGES: Mapping[str, tuple[float, float]] = {
    "profile_power": (1.6, 2.8),
    "murray": (2.7, 3.2),
    "tortuosity": (0.7, 1.4),
    "twig_length": (0.8, 1.25),
    "looseness": (0.7, 1.4),
    "texture_coarse_mm": (5.0, 9.0),
    "texture_fine_mm": (1.8, 3.5),
    "grain_mm": (0.0, 0.4),
    "apodise": (0.35, 1.0),
}
"""What the training family draws the hand from: the settings of this name, the two lengths of `texture_mm` apart."""

_LARGE, _SMALL = (132, 132, 112), (112, 112, 104)
_BLUNT: Mapping[str, Any] = {  # plug flow, short wavy twigs, cloudy tissue with fine grit, coarse noise
    "profile_power": 6.0,
    "laminar": 0.4,
    "murray": 2.5,
    "tortuosity": 1.75,
    "twig_length": 0.7,
    "looseness": 1.8,
    "texture_sd": 0.07,
    "texture_mm": (12.0, 1.3),
    "grain_mm": 0.48,
    "psf_mm": 0.26,
}
_PEAKED: Mapping[str, Any] = {  # brightest on the axis, long straight twigs, patchy tissue, sampled coarser and ringing
    "profile_power": 1.1,
    "laminar": 0.7,
    "murray": 3.4,
    "tortuosity": 0.45,
    "twig_length": 1.35,
    "looseness": 0.5,
    "texture_sd": 0.08,
    "texture_mm": (4.2, 1.2),
    "grain_mm": 0.0,
    "apodise": 0.05,
    "psf_mm": 0.12,
}
_ZERO_FILL = 1.4
"""Acquired voxel size of the peaked hand as a multiple of the grid's."""


@dataclass(frozen=True)
class HardCase:
    """One case of the test family: the arguments of `make_vessel_phantom` and a name."""

    name: str
    seed: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    settings: Mapping[str, Any]

    def make(self, series: int = 0) -> VesselPhantom:
        """The phantom; another series has other trees, heads and noise under the same settings."""
        seed = self.seed + 1000 * series
        phantom = make_vessel_phantom(seed=seed, shape=self.shape, spacing=self.spacing, **self.settings)
        phantom.facts["case"] = self.name
        return phantom


def _case(
    name: str,
    seed: int,
    hand: Mapping[str, Any],
    spacing: tuple[float, float, float] = (0.55, 0.55, 0.6),
    shape: tuple[int, int, int] = _LARGE,
    **settings: Any,
) -> HardCase:
    drawn = {"noise_sd": 0.12, "contrast": 3.0, "thin_dimming": 0.3, **hand}
    if hand is _PEAKED:
        drawn["acquired_mm"] = tuple(round(_ZERO_FILL * size, 3) for size in spacing)
    return HardCase(name, seed, shape, spacing, {**drawn, **settings})


TEST_FAMILY: tuple[HardCase, ...] = (
    # One tree under rising noise, so that a curve shows the noise alone.
    *(
        _case(f"noise_{round(100 * sd):03d}", 9001, _BLUNT, shape=_SMALL, noise_sd=sd)
        for sd in (0.05, 0.15, 0.3, 0.45, 0.6)
    ),
    _case("spacing_030", 9011, _PEAKED, (0.3, 0.3, 0.3), (144, 144, 128), smallest_mm=0.32),
    _case("spacing_045", 9012, _PEAKED, (0.45, 0.45, 0.5), (132, 132, 120)),
    _case("spacing_065", 9013, _PEAKED, (0.65, 0.65, 0.7), (112, 112, 104)),
    _case("spacing_090", 9014, _PEAKED, (0.9, 0.9, 0.9), (108, 108, 92), smallest_mm=0.5),
    _case("faint", 9021, _BLUNT, contrast=1.5, noise_sd=0.1, thin_dimming=0.2),
    _case("thick_slices", 9022, _BLUNT, (0.45, 0.45, 1.5), (144, 144, 52), psf_mm=(0.25, 0.25, 0.6)),
    _case("slabs", 9023, _PEAKED, slabs=4, inflow=0.35, slab_dip=0.35, ghost=0.05, noise_spread=0.3, contrast=4.0),
    _case("bright_fat", 9024, _BLUNT, fat=3.4, fat_pads=True, shading=0.25),
    _case("veins", 9025, _PEAKED, venous=2.4, small_veins=30, small_vein_level=1.9),
    _case("aneurysm", 9026, _BLUNT, aneurysms=3, contrast=6.0),
    _case("huge_object", 9027, _PEAKED, huge_mm=15.0, huge_level=8.0, contrast=2.5),
    _case("huge_outside", 9028, _BLUNT, huge_mm=13.0, huge_level=6.0, huge_inside=False, contrast=2.5),
    _case("no_vessels", 9029, _BLUNT, arteries=False, venous=1.0, noise_sd=0.15),
    _case("stripped", 9030, _PEAKED, (0.6, 0.6, 0.65), stripped=True, small_veins=10),
    _case("head", 9031, _BLUNT, (0.85, 0.85, 0.9), (136, 152, 96), anatomy="head", fat_pads=True, smallest_mm=0.5),
)
"""Each hard case once, a series of noise and a series of spacing."""


def hard_case(name: str) -> HardCase:
    """The case of the test family with this name.

    Raises:
        MedsegError: there is none.
    """
    for case in TEST_FAMILY:
        if case.name == name:
            return case
    raise MedsegError(
        f"the name of a hard phantom must be one of those known, got {name}; "
        f"take one of {', '.join(case.name for case in TEST_FAMILY)}"
    )


def training_settings(rng: np.random.Generator, *, side: int = 128) -> dict[str, Any]:
    """Draw one phantom of the training family: all arguments of `make_vessel_phantom`.

    Args:
        rng: the source of every choice.
        side: voxels along i and j, and at most along k.
    """
    in_plane = round(float(rng.uniform(0.3, 0.9)), 3)
    thick = in_plane * rng.uniform(1, 1.5) if rng.random() < 0.7 else rng.uniform(in_plane, 1.5)
    slice_mm = round(float(thick), 3)
    spacing = (in_plane, in_plane, slice_mm)
    slices = int(np.clip(round(rng.uniform(50, 85) / slice_mm), min(48, side), side))
    is_head = in_plane * side > 102 and rng.random() < 0.6
    settings = {**_draw_hand(rng, spacing), **_draw_scan(rng), **_draw_contents(rng)}
    smallest = max(float(rng.uniform(0.31, 0.55)), 0.5 * in_plane)
    return {
        "seed": int(rng.integers(2**31)),
        "shape": (side, side, slices),
        "spacing": spacing,
        "anatomy": "head" if is_head else "box",
        "smallest_mm": round(smallest, 2),
        **settings,
    }


def _draw_hand(rng: np.random.Generator, spacing: tuple[float, float, float]) -> dict[str, Any]:
    """How the phantom is drawn; all of it within `TRAINING_RANGES`."""
    drawn = {name: round(float(rng.uniform(*limits)), 2) for name, limits in TRAINING_RANGES.items()}
    in_plane, _, slice_mm = spacing
    blur, blur_k = in_plane * rng.uniform(0.3, 0.8), slice_mm * rng.uniform(0.25, 0.6)
    acquired = None
    if rng.random() < 0.4:
        blur, blur_k = 0.5 * blur, 0.5 * blur_k
        coarse, coarse_k = in_plane * rng.uniform(1.15, 2), slice_mm * rng.uniform(1, 1.8)
        acquired = (round(float(coarse), 3), round(float(coarse), 3), round(float(coarse_k), 3))
    return {
        **{name: value for name, value in drawn.items() if not name.startswith("texture")},
        "texture_mm": (drawn["texture_coarse_mm"], drawn["texture_fine_mm"]),
        "texture_sd": round(float(rng.uniform(0.01, 0.09)), 3),
        "laminar": round(float(rng.uniform(0, 0.8)), 2),
        "psf_mm": (round(float(blur), 3), round(float(blur), 3), round(float(blur_k), 3)),
        "acquired_mm": acquired,
    }


def _draw_scan(rng: np.random.Generator) -> dict[str, Any]:
    """Contrast, noise and artefacts, from a good scan to a poor one."""
    slabs = int(rng.integers(1, 5))
    return {
        "noise_sd": round(float(np.exp(rng.uniform(np.log(0.04), np.log(0.45)))), 3),
        "noise_spread": round(float(rng.uniform(0, 0.4)), 2) if rng.random() < 0.4 else 0.0,
        "contrast": round(float(np.exp(rng.uniform(np.log(1.5), np.log(6)))), 2),
        "thin_dimming": round(float(rng.uniform(0, 0.5)), 2),
        "inflow": round(float(rng.uniform(0.35, 0.95)), 2),
        "slabs": slabs,
        "slab_dip": round(float(rng.uniform(0, 0.4)), 2) if slabs > 1 and rng.random() < 0.5 else 0.0,
        "ghost": round(float(rng.uniform(0, 0.06)), 3) if rng.random() < 0.25 else 0.0,
        "shading": round(float(rng.uniform(0.03, 0.3)), 2),
    }


def _draw_contents(rng: np.random.Generator) -> dict[str, Any]:
    """What else is bright, and what is missing."""
    has_huge = rng.random() < 0.12
    return {
        "fat": round(float(rng.uniform(1.2, 3.2)), 2),
        "fat_pads": bool(rng.random() < 0.5),
        "venous": round(float(rng.uniform(0.9, 2.2)), 2),
        "small_veins": int(rng.integers(4, 36)) if rng.random() < 0.5 else 0,
        "small_vein_level": round(float(rng.uniform(1.1, 1.8)), 2),
        "aneurysms": int(rng.integers(1, 4)) if rng.random() < 0.3 else 0,
        "huge_mm": round(float(rng.uniform(6, 18)), 1) if has_huge else 0.0,
        "huge_level": round(float(rng.uniform(1.8, 7)), 1),
        "huge_inside": bool(rng.random() < 0.5),
        "arteries": bool(rng.random() > 0.04),
        "stripped": bool(rng.random() < 0.15),
    }


def write_training_phantoms(folder: Path, *, cases: int, seed: int, side: int = 128) -> list[Path]:
    """Write phantoms of the training family; the first cases of a longer series equal a shorter one.

    Args:
        folder: made where it is missing.
        cases: how many.
        seed: decides all of them.
        side: as in `training_settings`.

    Returns:
        The images, in order.
    """
    images = []
    for number in track(range(1, cases + 1), "phantoms", cases):
        settings = training_settings(np.random.default_rng([seed, number]), side=side)
        images.append(write_phantom(Path(folder), f"training_{number:03d}", make_vessel_phantom(**settings)))
    return images


def write_hard_phantoms(folder: Path, *, names: Sequence[str] = (), series: int = 0) -> list[Path]:
    """Write cases of the test family as `NAME_img.nii.gz` and so on.

    Args:
        folder: made where it is missing.
        names: of the cases; none for all.
        series: another number gives other trees under the same settings.

    Returns:
        The images, in order.
    """
    cases = [hard_case(name) for name in names] or list(TEST_FAMILY)
    return [write_phantom(Path(folder), case.name, case.make(series)) for case in track(cases, "phantoms", len(cases))]
