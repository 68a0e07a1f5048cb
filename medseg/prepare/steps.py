"""This file holds the steps of preparation: a MONAI transform for each thing done to a scan.

Its words are those of `prepare/chain.py`, which puts them in order. Each takes a dictionary and returns a new one; what
it measured goes to `facts`, and what the user should know of a case to `facts["notes"]` and the log.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Transform
from torch import Tensor

from medseg.errors import MedsegError
from medseg.prepare import ct, mra
from medseg.prepare.cines import Cine
from medseg.prepare.modality import require_modality, why_no_angiogram
from medseg.prepare.vesselness import CORE_SHARE_MAX, NOT_FOUND, flux_maps, scratch_array, tissue_median
from medseg.scans.cases import Case
from medseg.scans.grids import Grid, require_same_grid
from medseg.scans.names import is_picture
from medseg.scans.readers import grid_of, read_image, read_labels

BODY_CORE_SHARE_MAX = 0.15
"""Share of a body that vessels may fill: a CT angiogram of a chest shows the chambers of the heart as well."""
TISSUE_MAX = 1.5
"""Tissue medians above which voxels of a contrast MRA may be vessels, and say nothing about noise."""
COARSE_RADII = 3.0
"""Edge of a voxel, in shortest radii, above which it is said that thin vessels are lost."""
METAL_MM3 = 50.0
"""Metal from which on it is said: a clip; less is noise in a tooth."""
BACKGROUND_PERCENTILE = 2.0
"""The grey value of air, which fills more than this of any field of view; the minimum itself is noise."""

_log = logging.getLogger(__name__)


def voxel_spacing(image: MetaTensor) -> tuple[float, float, float]:
    """Voxel size in mm along i, j, k."""
    i, j, k = (float(size) for size in affine_to_spacing(image.affine))
    return i, j, k


class LoadCase(Transform):
    """Read a case's image, and its brain mask where it has one, on their stored grid.

    Args:
        as_cine: give a picture as a `Cine`, whose frames are read when they are needed.
    """

    def __init__(self, *, as_cine: bool = False) -> None:
        self.as_cine = as_cine

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case: Case = data["case"]
        loaded = dict(data)
        loaded |= {"case_id": case.case_id, "patient": case.patient, "facts": {"n4": False, "notes": []}}
        if self.as_cine and is_picture(case.image):
            loaded["image"] = Cine(case.image, case.pick)
        else:
            loaded["image"] = read_image(case.image, case.pick)
        if case.mask is not None and case.mask_mode is None:
            image = loaded["image"]
            loaded["mask"] = _read_brain_mask(case, image.grid if isinstance(image, Cine) else grid_of(image))
        return loaded


class RequireModalityd(MapTransform):
    """Refuse the values of another modality, which would mean something else."""

    def __init__(self, keys: str | Sequence[str], modality: str) -> None:
        super().__init__(keys)
        self.modality = modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            require_modality(_volume(data[key]), self.modality, str(data["case"].image))
        return {**data, "facts": {**data["facts"], "modality": self.modality}}


class LiftBackgroundd(MapTransform):
    """Bring a background below zero up to zero, so that a negative offset of the grey values changes nothing.

    What is still below zero is noise around the background (or ringing) and becomes zero.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        lifted = dict(data)
        for key in self.key_iterator(data):
            stored = _volume(data[key])
            image = scratch_array(stored.shape)
            image[...] = stored
            level = float(np.percentile(mra.sample_values(image), BACKGROUND_PERCENTILE))
            if level < 0:
                blank = mra.constant_background(image)
                outside = image == blank if blank is not None else None
                image -= np.float32(level)
                if outside is not None:  # a stripped image may be blanked with a value above its background level
                    image[outside] = 0
            np.maximum(image, 0, out=image)
            lifted[key] = _like(image, data[key])
            lifted["facts"] = {**lifted["facts"], "background_level": min(level, 0.0)}
        return lifted


class N4d(MapTransform):
    """Remove coil shading (N4)."""

    def __init__(self, keys: str | Sequence[str], *, shrink: int) -> None:
        super().__init__(keys)
        self.shrink = shrink

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        corrected = dict(data)
        for key in self.key_iterator(data):
            image = _volume(data[key])
            image[...] = mra.n4(image, voxel_spacing(data[key]), self.shrink)
            corrected["facts"] = {**corrected["facts"], "n4": True}
        return corrected


class Region(Transform):
    """Add the region in which vessels are sought, and say where it came from and how large it is."""

    def __init__(self, modality: str, brain_mask: str) -> None:
        self.modality = modality
        self.brain_mask = brain_mask

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image: MetaTensor = data["image"]
        region, source = self._find(data)
        voxel_ml = float(np.prod(voxel_spacing(image))) / 1000
        region_ml = int(region.sum()) * voxel_ml
        _log.info("%s: region by %s, %.0f ml of %.0f ml", data["case_id"], source, region_ml, region.size * voxel_ml)
        facts = {**data["facts"], "region_source": source, "region_ml": round(region_ml, 1)}
        return {**data, "region": _like(region.view(np.uint8), image, trace=False), "facts": facts}

    def _find(self, data: Mapping[Hashable, Any]) -> tuple[Bool[np.ndarray, "i j k"], str]:
        """The region and the words for its source."""
        case: Case = data["case"]
        image, spacing = _volume(data["image"]), voxel_spacing(data["image"])
        mode = case.mask_mode or self.brain_mask
        if mode in ("auto", "given") and "mask" in data:
            return _volume(data["mask"]) > 0, "given"
        if mode == "given":
            raise MedsegError(
                f"{case.image} must have a brain mask beside it, got none; "
                f"add {case.case_id}_mask.nii.gz or set prepare.brain_mask=auto"
            )
        if self.modality == "tof":
            return self._brain(mode, data)
        in_ct = self.modality == "cta"
        if mode == "deepbet" and not in_ct:
            return self._brain(mode, data)
        if mode == "builtin" or (mode == "auto" and in_ct):
            brain = ct.brain_mask(image, spacing) if in_ct else mra.builtin_brain_mask(image, spacing)
            if brain.any():
                return brain, "builtin"
        body = ct.body_mask(image, spacing) if in_ct else mra.body_mask(image, spacing)
        return (body, "body") if body.any() else (np.ones(image.shape, bool), "whole volume (no body found)")

    def _brain(self, mode: str, data: Mapping[Hashable, Any]) -> tuple[Bool[np.ndarray, "i j k"], str]:
        """The brain of a head's MR image and how it was found, or the whole volume."""
        image, spacing = _volume(data["image"]), voxel_spacing(data["image"])
        if mode == "none":
            return np.ones(image.shape, bool), "none"
        if mra.is_stripped(image, spacing):
            return image != mra.constant_background(image), "stripped image"
        if mode == "deepbet":
            affine = np.asarray(data["image"].affine, dtype=np.float64)
            return mra.deepbet_brain_mask(image, affine, spacing), "deepbet"
        region = mra.builtin_brain_mask(image, spacing)
        if region.any():
            return region, "builtin"
        return np.ones(image.shape, bool), "whole volume (builtin found no brain)"


class Standardised(MapTransform):
    """Divide by the tissue median of the region: a scale of the grey values changes nothing, vessels are never cut."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        standard = dict(data)
        region = _volume(data["region"]).view(bool)
        for key in self.key_iterator(data):
            image = _volume(data[key])
            median = tissue_median(image, region)
            if not median > 0:
                raise MedsegError(
                    f"{data['case'].image} must show tissue inside its region, got a tissue median of {median:g}; "
                    "check the image and its brain mask"
                )
            image /= np.float32(median)
            standard["facts"] = {**standard["facts"], "tissue_median": median}
        return standard


class CtTissueUnitsd(MapTransform):
    """Turn HU into tissue units without bone and calcification, and say what was measured and taken away."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        for key in self.key_iterator(data):
            hounsfield, spacing = _volume(data[key]), voxel_spacing(data[key])
            parts = ct.find_parts(hounsfield, spacing)
            voxel_ml = float(np.prod(spacing)) / 1000
            bone_ml, calcification_ml, metal_ml = (
                round(int(part.sum()) * voxel_ml, 2) for part in (parts.bone, parts.calcification, parts.metal)
            )
            changed["facts"] = {
                **changed["facts"],
                "tissue_hu": parts.tissue_hu,
                "plateau_hu": parts.plateau_hu,
                "bone_ml": bone_ml,
                "calcification_ml": calcification_ml,
                "metal_ml": metal_ml,
            }
            if 1000 * metal_ml >= METAL_MM3:
                note = f"{metal_ml:.1f} ml of metal (stent, clip, wire): lumens beside it cannot be trusted"
                changed = _with_note(changed, note)
            changed["soft_tissue"] = _like(ct.is_soft_tissue(hounsfield).view(np.uint8), data[key], trace=False)
            changed[key] = _like(ct.in_tissue_units(hounsfield, parts), data[key])
        return changed


class FluxMapsd(MapTransform):
    """Add salience and tubularity, and pass on the alarm where the volume seems to hold no vessels."""

    def __init__(self, keys: str | Sequence[str], modality: str, radii_mm: Sequence[float]) -> None:
        super().__init__(keys)
        self.modality = modality
        self.radii_mm = tuple(radii_mm)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mapped = dict(data)
        region = _volume(data["region"]).view(bool)
        for key in self.key_iterator(data):
            image: MetaTensor = data[key]
            spacing = voxel_spacing(image)
            maps = flux_maps(
                _volume(image),
                region,
                spacing,
                radii_mm=self.radii_mm,
                core_share_max=CORE_SHARE_MAX if self.modality == "tof" else BODY_CORE_SHARE_MAX,
                exclude_thick=self.modality == "tof",
                noise_region=self._noise_region(data, _volume(image)),
            )
            alarm = self._why_none(data, maps.signal) or maps.alarm
            if alarm is not None:
                _log.warning("%s: %s", data["case_id"], alarm)
            mapped["salience"] = _like(maps.salience, image, trace=False)
            mapped["tubularity"] = _like(maps.tubularity, image, trace=False)
            mapped["facts"] = {
                **mapped["facts"],
                "flux_scale": float(maps.scale),
                "contrast_scale": float(maps.contrast_scale),
                "flux_alarm": alarm,
                "flux_signal": float(maps.signal),
                "radii_mm": list(maps.radii_mm),
            }
            if max(spacing) > COARSE_RADII * min(self.radii_mm):
                size = " x ".join(f"{h:.3g}" for h in spacing)
                thinnest = f"{min(self.radii_mm):g} mm radius"
                mapped = _with_note(
                    mapped, f"voxels of {size} mm are coarse for vessels of {thinnest}: thin ones are lost"
                )
        return mapped

    def _noise_region(self, data: Mapping[Hashable, Any], j: np.ndarray) -> Bool[np.ndarray, "i j k"] | None:
        """Where grey values are noise alone; in the body vessels are too large to be outvoted."""
        if self.modality == "cta":
            return _volume(data["soft_tissue"]).view(bool)
        return j < TISSUE_MAX if self.modality == "ce_mra" else None

    def _why_none(self, data: Mapping[Hashable, Any], signal: float) -> str | None:
        """Why this is no angiogram, from the values themselves."""
        if self.modality == "cta":
            if data["facts"]["plateau_hu"] is not None:
                return None
            return f"{NOT_FOUND}: no lumen is filled evenly with contrast, or voxels are too coarse for the lumens"
        image, region = data["image"], _volume(data["region"]).view(bool)
        return why_no_angiogram(
            _volume(image),
            region,
            voxel_spacing(image),
            modality=self.modality,
            signal=signal,
            radii_mm=self.radii_mm,
        )


def _read_brain_mask(case: Case, grid: Grid) -> MetaTensor:
    """Read a given mask, and refuse one that is no brain mask of this image."""
    assert case.mask is not None
    mask = read_labels(case.mask)
    require_same_grid(grid, grid_of(mask))
    share = float((mask > 0).float().mean())
    if share < mra.GIVEN_MASK_SHARE:
        raise MedsegError(
            f"{case.mask} must fill at least {mra.GIVEN_MASK_SHARE:.0%} of the volume to be a brain mask, "
            f"got {share:.2%}; if _mask is a vessel label here, rename it to _label"
        )
    return mask


def _with_note(data: Mapping[Hashable, Any], note: str) -> dict[Hashable, Any]:
    """The data with something that the user should know of this case, which is also said at once."""
    _log.warning("%s: %s", data["case_id"], note)
    return {**data, "facts": {**data["facts"], "notes": [*data["facts"]["notes"], note]}}


def _volume(tensor: Tensor) -> np.ndarray:
    """The array `i j k` behind a tensor `1 i j k`, without a copy."""
    return (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor)[0].numpy()


def _like(array: Shaped[np.ndarray, "i j k"], image: MetaTensor, *, trace: bool = True) -> MetaTensor:
    """An array as `1 i j k` on the image's grid; with `trace` it also knows the way back."""
    operations = image.applied_operations if trace else []
    return MetaTensor(torch.from_numpy(array)[None], affine=image.affine, applied_operations=operations)
