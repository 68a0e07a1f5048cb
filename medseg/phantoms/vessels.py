"""This file makes TOF-MRA-like volumes whose arteries are known exactly, for the demo and the tests.

A score on them checks the pipeline; it is no forecast for patients. Noise, contrast and other brightness are in units
of the brain's median (*tissue median*). The image is int16 with the tissue near 110.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, UInt8
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.files import replacing, write_text
from medseg.phantoms.anatomy import add_rician_noise, paint_head, smooth_field
from medseg.phantoms.trees import Envelope, grow_circle_of_willis
from medseg.phantoms.tubes import draw_tubes
from medseg.progress import track

Anatomy = Literal["box", "head"]
_TISSUE_LEVEL = 110
# Where the ring lies, as a share of the volume's height; a head reaches higher above it than a box.
_RING_HEIGHT: Mapping[Anatomy, float] = {"box": 0.45, "head": 0.33}
_BRAIN_SEMI_AXES_MM = (66.0, 82.0, 62.0)
_BRAIN_CENTRE_MM = (0.0, -12.0, 8.0)
_AROUND_BRAIN_MM = 15.0


@dataclass(frozen=True)
class VesselPhantom:
    """One volume with its truth.

    Attributes:
        image: brightness.
        label: 1 in the arteries (voxel centre inside, or more than half of the voxel filled), else 0.
        brain_mask: 1 in the brain, vessels and ventricles included.
        affine: voxel to RAS mm, oblique.
        facts: settings and measures as plain values.
    """

    image: Integer[np.ndarray, "i j k"]
    label: UInt8[np.ndarray, "i j k"]
    brain_mask: UInt8[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    facts: dict[str, Any]


def make_vessel_phantom(
    *,
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 120),
    spacing: tuple[float, float, float] = (0.5, 0.5, 0.6),
    anatomy: Anatomy = "box",
    noise_sd: float = 0.1,
    grain_mm: float = 0.3,
    contrast: float = 3.0,
    inflow: float = 0.6,
    slabs: int = 1,
    shading: float = 0.12,
    fat: float = 1.8,
    venous: float = 1.5,
    psf_mm: float = 0.3,
    smallest_mm: float = 0.36,
) -> VesselPhantom:
    """Make one TOF-like phantom; the same arguments give the same voxels.

    Args:
        seed: decides the tree, the head and the noise.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        anatomy: `box` is cut from a head around the arterial circle; `head` shrinks the head into the field of view.
        noise_sd: of the Rician noise, in each of its two channels.
        grain_mm: length over which the noise is alike; 0 for independent voxels.
        contrast: how much brighter than tissue the axis of a large artery is where the blood enters.
        inflow: share of the contrast that is left at the top of a slab.
        slabs: number of slabs; the inflow starts anew in each.
        shading: sd of the coil's slow gain.
        fat: brightness of fat.
        venous: brightness of the venous sinuses, which are not in the label.
        psf_mm: sigma of the scanner's blur.
        smallest_mm: radius of the thinnest arteries.

    Raises:
        MedsegError: the volume is smaller than 16 voxels along an axis, or a value is out of its range.
    """
    _require_sane(shape, spacing, anatomy, noise_sd, contrast, slabs)
    tree_rng, head_rng, scan_rng = (np.random.default_rng([seed, part]) for part in range(3))
    extent = np.asarray(shape) * np.asarray(spacing)
    origin = -extent * [0.5, 0.5, _RING_HEIGHT[anatomy]] + np.asarray(spacing) / 2
    origin[:2] += tree_rng.normal(size=2)
    # The circle lies in front of the middle of the brain; the field of view of a head is centred on the brain.
    if anatomy == "head":
        origin[1] += _BRAIN_CENTRE_MM[1]
    axes = np.asarray(_BRAIN_SEMI_AXES_MM) * tree_rng.normal(1, 0.03, size=3)
    if anatomy == "head":
        axes[:2] = np.minimum(axes[:2], extent[:2] / 2 - _AROUND_BRAIN_MM)
    envelope = Envelope(np.asarray(_BRAIN_CENTRE_MM), axes, origin, origin + extent)

    tree = grow_circle_of_willis(tree_rng, envelope, smallest_mm=smallest_mm)
    coverage, flow, inside = draw_tubes(tree.branches, shape, spacing, origin, laminar=0.5)
    head = paint_head(head_rng, envelope, shape, spacing, origin, fat=fat)

    image = head.tissue
    vein_share, _, _ = draw_tubes(head.veins, shape, spacing, origin)
    image = image + (venous - image) * vein_share
    fresh = contrast * _inflow(shape[2], inflow, slabs)
    scalp_share, scalp_flow, _ = draw_tubes(head.scalp_arteries, shape, spacing, origin, laminar=0.5)
    image = image + (1 - image) * scalp_share + 0.6 * fresh * scalp_flow
    image = image + (1 - image) * coverage + fresh * flow
    image = ndimage.gaussian_filter(image, [psf_mm / size for size in spacing])
    image *= np.exp(shading * smooth_field(scan_rng, shape, spacing, 45.0))
    image /= float(np.median(image[head.brain]))
    image = add_rician_noise(scan_rng, image, spacing, sd=noise_sd, grain_mm=grain_mm)
    stored = np.clip(np.rint(image * _TISSUE_LEVEL), 0, np.iinfo(np.int16).max).astype(np.int16)

    radii = np.concatenate([branch.radii_mm for branch in tree.branches])
    facts = {
        "seed": seed,
        "anatomy": anatomy,
        "shape": list(shape),
        "spacing_mm": list(spacing),
        "noise_sd": noise_sd,
        "grain_mm": grain_mm,
        "contrast": contrast,
        "inflow": inflow,
        "slabs": slabs,
        "shading": shading,
        "fat": fat,
        "venous": venous,
        "psf_mm": psf_mm,
        "smallest_mm": smallest_mm,
        "tissue_level": _TISSUE_LEVEL,
        "branches": len(tree.branches),
        "radius_range_mm": [float(radii.min()), float(radii.max())],
        "murray_error": max(tree.murray_errors()),
        "label_share": float(inside.mean()),
        "label_share_in_brain": float(head.brain[inside].mean()) if inside.any() else float("nan"),
        "brain_share": float(head.brain.mean()),
    }
    affine = _oblique_affine(scan_rng, spacing, origin)
    return VesselPhantom(stored, inside.astype(np.uint8), head.brain.astype(np.uint8), affine, facts)


def write_phantoms(
    folder: Path,
    *,
    cases: int,
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 120),
    spacing: tuple[float, float, float] | None = None,
    anatomy: Anatomy = "box",
    vary: bool = True,
    **settings: Any,
) -> list[Path]:
    """Write `phantom_001_img.nii.gz`, `..._mask.nii.gz`, `..._label.nii.gz` and `..._facts.json` and so on.

    Args:
        folder: made where it is missing.
        cases: how many.
        seed: decides all of them; the first cases of a longer series equal a shorter one.
        shape: voxels along i, j, k.
        spacing: voxel size in mm; None draws one between .45 and .7 mm in the slice.
        anatomy: `box` or `head`.
        vary: draw noise, contrast, inflow, slabs, shading and fat anew for each case.
        settings: of `make_vessel_phantom`; they hold for all cases and win over what is drawn.

    Returns:
        The images, in order.
    """
    if cases < 1:
        raise MedsegError(f"the number of phantoms must be at least 1, got {cases}; ask for one or more")
    images = []
    for number in track(range(1, cases + 1), "phantoms", cases):
        rng = np.random.default_rng([seed, number])
        drawn = _drawn_settings(rng) if vary else {}
        in_plane = float(rng.uniform(0.45, 0.7))
        size = spacing or (round(in_plane, 3), round(in_plane, 3), round(in_plane * float(rng.uniform(1, 1.4)), 3))
        case_seed = int(rng.integers(2**31))
        phantom = make_vessel_phantom(
            seed=case_seed, shape=shape, spacing=size, anatomy=anatomy, **{**drawn, **settings}
        )
        images.append(write_phantom(Path(folder), f"phantom_{number:03d}", phantom))
    return images


def write_phantom(folder: Path, name: str, phantom: VesselPhantom) -> Path:
    """Write one phantom under `name`; return the path of its image."""
    image_path = folder / f"{name}_img.nii.gz"
    for path, values in (
        (image_path, phantom.image),
        (folder / f"{name}_mask.nii.gz", phantom.brain_mask),
        (folder / f"{name}_label.nii.gz", phantom.label),
    ):
        nifti = nib.Nifti1Image(values, phantom.affine)
        nifti.set_sform(phantom.affine, code="scanner")
        nifti.set_qform(phantom.affine, code="scanner")
        nifti.header.set_xyzt_units("mm", "sec")
        with replacing(path) as beside:
            nib.save(nifti, beside)
    write_text(folder / f"{name}_facts.json", json.dumps(phantom.facts, indent=1) + "\n")
    return image_path


def _drawn_settings(rng: np.random.Generator) -> dict[str, Any]:
    """Settings of one case, from a good scan to a poor one."""
    return {
        "noise_sd": round(float(rng.uniform(0.06, 0.16)), 3),
        "contrast": round(float(np.exp(rng.uniform(np.log(2), np.log(5)))), 2),
        "inflow": round(float(rng.uniform(0.5, 0.9)), 2),
        "slabs": int(rng.integers(1, 3)),
        "shading": round(float(rng.uniform(0.05, 0.25)), 2),
        "fat": round(float(rng.uniform(1.4, 2.4)), 2),
    }


def _inflow(slices: int, remaining: float, slabs: int) -> Float[np.ndarray, " k"]:
    """Share of fresh signal in each slice: 1 where a slab starts, `remaining` where it ends."""
    through = (np.arange(slices) * slabs / slices) % 1.0
    return (1 - (1 - remaining) * through).astype(np.float32)


def _oblique_affine(
    rng: np.random.Generator, spacing: tuple[float, float, float], origin_mm: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "4 4"]:
    """The grid turned by 2 to 8 degrees about each axis, as a technician angles a slab."""
    affine = np.eye(4)
    turned = np.eye(3)
    for axis in range(3):
        angle = np.deg2rad(rng.uniform(2, 8)) * rng.choice([-1, 1])
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turned = step @ turned
    affine[:3, :3] = turned * np.asarray(spacing)
    affine[:3, 3] = turned @ origin_mm
    return affine


def _require_sane(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    anatomy: Anatomy,
    noise_sd: float,
    contrast: float,
    slabs: int,
) -> None:
    if min(shape) < 16:
        raise MedsegError(
            f"the shape of a phantom must be at least 16 voxels a side, got {shape}; ask for a larger one"
        )
    if min(spacing) <= 0:
        raise MedsegError(f"the spacing of a phantom must be above 0 mm, got {spacing}; give three sizes in mm")
    if anatomy == "head" and min(n * h for n, h in zip(shape[:2], spacing[:2], strict=True)) < 100:
        raise MedsegError(
            f"a head must have a field of view of 100 mm, got {shape} at {spacing} mm; add voxels or take a box"
        )
    if noise_sd < 0 or contrast <= 0 or slabs < 1:
        raise MedsegError(
            "noise must be at least 0, contrast above 0 and slabs at least 1, "
            f"got {noise_sd}, {contrast}, {slabs}; change the one that is off"
        )
