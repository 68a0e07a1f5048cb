"""This file makes TOF-MRA-like volumes whose arteries are known exactly, for the demo and the tests.

A score on them checks the pipeline; it is no forecast for patients. Noise, contrast and other brightness are in units
of the brain's median (*tissue median*). The image is int16 with the tissue near 110.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.files import replacing, write_text
from medseg.phantoms.anatomy import Head, paint_head, smooth_field
from medseg.phantoms.lesions import grow_aneurysms, huge_object
from medseg.phantoms.scanner import add_rician_noise, cut_k_space, ghosts, inflow_shares, slab_gains
from medseg.phantoms.settings import Anatomy, PhantomSettings, Triple, require_grid
from medseg.phantoms.trees import SMALLEST_RADIUS_MM, Branch, Envelope, Tree, TreeStyle, grow_circle_of_willis
from medseg.phantoms.tubes import draw_tubes
from medseg.phantoms.veins import lay_small_veins
from medseg.progress import track

_TISSUE_LEVEL = 110
# Where the ring lies, as a share of the volume's height; a head reaches higher above it than a box.
_RING_HEIGHT: Mapping[Anatomy, float] = {"box": 0.45, "head": 0.33}
_BRAIN_SEMI_AXES_MM = (66.0, 82.0, 62.0)
_BRAIN_CENTRE_MM = (0.0, -12.0, 8.0)
_AROUND_BRAIN_MM = 15.0
_FULL_FLOW_MM = 0.9
"""Arteries this much wider in radius than the thinnest have the whole contrast."""
_DOME_FLOW = (0.65, 1.0)
"""Share of an artery's flow signal that is left in an aneurysm."""
_NOISE_SPREAD_MM = 30.0
"""Length over which the noise of parallel imaging differs, about the size of a coil element."""


@dataclass(frozen=True)
class VesselPhantom:
    """One volume with its truth.

    Attributes:
        image: brightness.
        label: 1 in the arteries (voxel centre inside, or more than half of the voxel filled), else 0.
        brain_mask: 1 in the brain, vessels and ventricles included.
        other_vessels: 1 in veins and in arteries of the scalp, which nothing local tells from the label's.
        affine: voxel to RAS mm, oblique.
        facts: settings and measures as plain values.
    """

    image: Integer[np.ndarray, "i j k"]
    label: UInt8[np.ndarray, "i j k"]
    brain_mask: UInt8[np.ndarray, "i j k"]
    other_vessels: UInt8[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    facts: dict[str, Any]


def make_vessel_phantom(
    *,
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 120),
    spacing: tuple[float, float, float] = (0.5, 0.5, 0.6),
    **settings: Any,
) -> VesselPhantom:
    """Make one TOF-like phantom; the same arguments give the same voxels.

    Args:
        seed: decides the tree, the head and the noise.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        settings: the fields of `PhantomSettings`; what is left out has its default.

    Raises:
        MedsegError: the volume is smaller than 16 voxels along an axis, or a value is out of its range.
    """
    chosen = PhantomSettings(**settings)
    require_grid(shape, spacing, chosen.anatomy)
    # Whatever a setting switches on draws from the last stream, so that it leaves tree, head and noise as they were.
    tree_rng, head_rng, scan_rng, extra_rng = (np.random.default_rng([seed, part]) for part in range(4))
    origin, envelope = _place(tree_rng, shape, spacing, chosen.anatomy)
    tree, arteries = _draw_arteries(tree_rng, extra_rng, envelope, shape, spacing, origin, chosen)
    head = paint_head(
        head_rng,
        envelope,
        shape,
        spacing,
        origin,
        fat=chosen.fat,
        fat_pads=chosen.fat_pads,
        texture_sd=chosen.texture_sd,
        texture_mm=chosen.texture_mm,
    )
    image, other = _paint(extra_rng, head, envelope, arteries, spacing, origin, chosen)
    image = _scan(scan_rng, extra_rng, image, head.brain, spacing, chosen)
    stored = np.clip(np.rint(image * _TISSUE_LEVEL), 0, np.iinfo(np.int16).max).astype(np.int16)
    label = arteries.inside
    if chosen.stripped:
        stored[~head.brain] = 0
        label = label & head.brain  # an artery that was cut off is not there to be found

    radii = np.concatenate([branch.radii_mm for branch in tree.branches]) if tree.branches else np.zeros(1)
    facts = {
        "seed": seed,
        "shape": list(shape),
        "spacing_mm": list(spacing),
        **asdict(chosen),
        "tissue_level": _TISSUE_LEVEL,
        "branches": len(tree.branches),
        "radius_range_mm": [float(radii.min()), float(radii.max())],
        "murray_error": max(tree.murray_errors(), default=0.0),
        "domes": [
            {"voxel": np.rint((b.points_mm[-1] - origin) / spacing).tolist(), "radius_mm": float(b.radii_mm[-1])}
            for b in arteries.domes
            if b.name == "aneurysm"
        ],
        "label_share": float(label.mean()),
        "label_share_in_brain": float(head.brain[label].mean()) if label.any() else None,
        "brain_share": float(head.brain.mean()),
    }
    affine = _oblique_affine(scan_rng, spacing, origin)
    masks = [mask.astype(np.uint8) for mask in (label, head.brain, other)]
    return VesselPhantom(stored, masks[0], masks[1], masks[2], affine, facts)


def _place(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: Triple, anatomy: Anatomy
) -> tuple[Float[np.ndarray, " 3"], Envelope]:
    """Where voxel (0, 0, 0) lies, and the brain."""
    extent = np.asarray(shape) * np.asarray(spacing)
    origin = -extent * [0.5, 0.5, _RING_HEIGHT[anatomy]] + np.asarray(spacing) / 2
    origin[:2] += rng.normal(size=2)
    # The circle lies in front of the middle of the brain; the field of view of a head is centred on the brain.
    if anatomy == "head":
        origin[1] += _BRAIN_CENTRE_MM[1]
    axes = np.asarray(_BRAIN_SEMI_AXES_MM) * rng.normal(1, 0.03, size=3)
    if anatomy == "head":
        axes[:2] = np.minimum(axes[:2], extent[:2] / 2 - _AROUND_BRAIN_MM)
    return origin, Envelope(np.asarray(_BRAIN_CENTRE_MM), axes, origin, origin + extent)


@dataclass(frozen=True)
class _Arteries:
    """Share of each voxel inside arteries, their flow, the voxels of the label, and what aneurysms were drawn."""

    coverage: Float[np.ndarray, "i j k"]
    flow: Float[np.ndarray, "i j k"]
    inside: Bool[np.ndarray, "i j k"]
    domes: tuple[Branch, ...]


def _draw_arteries(
    rng: np.random.Generator,
    extra_rng: np.random.Generator,
    envelope: Envelope,
    shape: tuple[int, int, int],
    spacing: Triple,
    origin_mm: Float[np.ndarray, " 3"],
    chosen: PhantomSettings,
) -> tuple[Tree, _Arteries]:
    """Grow the tree and draw it; no branch where the settings want no arteries."""
    style = TreeStyle(chosen.murray, chosen.tortuosity, chosen.twig_length, chosen.looseness)
    tree = Tree(style=style)
    if chosen.arteries:
        tree = grow_circle_of_willis(rng, envelope, smallest_mm=chosen.smallest_mm, style=style)
    width = [float(np.clip((b.radii_mm.mean() - SMALLEST_RADIUS_MM) / _FULL_FLOW_MM, 0, 1)) for b in tree.branches]
    coverage, flow, inside = draw_tubes(
        tree.branches,
        shape,
        spacing,
        origin_mm,
        laminar=chosen.laminar,
        power=chosen.profile_power,
        strengths=[1 - chosen.thin_dimming * (1 - share) for share in width],
    )
    domes = grow_aneurysms(extra_rng, tree, envelope, chosen.aneurysms)
    if domes:
        # Blood turns slowly in a dome: dimmer than the artery it sits on, with no axis that is brightest.
        strengths = [float(extra_rng.uniform(*_DOME_FLOW))] * len(domes)
        in_domes = draw_tubes(domes, shape, spacing, origin_mm, laminar=0.2, strengths=strengths)
        coverage, flow = np.maximum(coverage, in_domes[0]), np.maximum(flow, in_domes[1])
        inside = inside | in_domes[2]
    return tree, _Arteries(coverage, flow, inside, domes)


def _paint(
    rng: np.random.Generator,
    head: Head,
    envelope: Envelope,
    arteries: _Arteries,
    spacing: Triple,
    origin_mm: Float[np.ndarray, " 3"],
    chosen: PhantomSettings,
) -> tuple[Float[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """Tissue, veins, the huge object and arteries, before the scanner; and where other vessels than the label's lie."""
    shape = head.brain.shape
    image = head.tissue
    vein_share, _, other = draw_tubes(head.veins, shape, spacing, origin_mm)
    image = image + (chosen.venous - image) * vein_share
    if chosen.small_veins:
        small, _, inside = draw_tubes(lay_small_veins(rng, envelope, chosen.small_veins), shape, spacing, origin_mm)
        other = other | inside
        image = image + (chosen.small_vein_level - image) * small
    if chosen.huge_mm > 0:
        lump = huge_object(
            rng, spacing, arteries.coverage, head.brain, radius_mm=chosen.huge_mm, inside=chosen.huge_inside
        )
        image = image + (chosen.huge_level - image) * lump
    fresh = chosen.contrast * inflow_shares(shape[2], chosen.inflow, chosen.slabs)
    if chosen.arteries:
        scalp_share, scalp_flow, inside = draw_tubes(head.scalp_arteries, shape, spacing, origin_mm, laminar=0.5)
        other = other | inside
        image = image + (1 - image) * scalp_share + 0.6 * fresh * scalp_flow
    image = image + (1 - image) * arteries.coverage + fresh * arteries.flow
    if chosen.ghost > 0:
        image = np.maximum(image + ghosts(fresh * arteries.flow, chosen.ghost), 0)
    return image, other & ~arteries.inside


def _scan(
    rng: np.random.Generator,
    extra_rng: np.random.Generator,
    image: Float[np.ndarray, "i j k"],
    brain: Bool[np.ndarray, "i j k"],
    spacing: Triple,
    chosen: PhantomSettings,
) -> Float[np.ndarray, "i j k"]:
    """Blur, sampling, slabs, coil gain and noise, with the brain's median at 1 before the noise."""
    shape = image.shape
    image = ndimage.gaussian_filter(image, [psf / size for psf, size in zip(chosen.psf_axes_mm, spacing, strict=True)])
    if chosen.acquired_mm is not None:
        image = cut_k_space(image, spacing, chosen.acquired_mm, chosen.apodise)
    if chosen.slab_dip > 0:
        image = image * slab_gains(shape[2], spacing[2], chosen.slabs, chosen.slab_dip)
    image *= np.exp(chosen.shading * smooth_field(rng, shape, spacing, 45.0))
    image /= float(np.median(image[brain]))
    sd: float | np.ndarray = chosen.noise_sd
    if chosen.noise_spread > 0:
        gain = np.exp(chosen.noise_spread * smooth_field(extra_rng, shape, spacing, _NOISE_SPREAD_MM))
        sd = chosen.noise_sd * gain / float(np.sqrt(np.mean(gain[brain] ** 2)))
    return add_rician_noise(
        rng,
        image,
        spacing,
        sd=sd,
        grain_mm=chosen.grain_mm,
        acquired_mm=chosen.acquired_mm,
        apodise=chosen.apodise,
    )


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
        settings: of `PhantomSettings`; they hold for all cases and win over what is drawn.

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
