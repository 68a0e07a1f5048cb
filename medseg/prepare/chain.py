"""This file prepares a scan for everything after it, and brings predictions back to the grid they came from.

The chain is made of MONAI dictionary transforms, so that the image carries what was done to it. Its words: the *stored
grid* is the scan file's own; the *prepared grid* has axes that point to R, A, S and, where asked, another spacing; the
*region* is where vessels are sought; *facts* are plain values that the run reports. A *sample* is the chain's result:

    image       float32 [1, i, j, k]  grey values in tissue medians, background at or above 0
    region      uint8   [1, i, j, k]  1 inside
    salience    float32 [1, i, j, k]  flux q, about 1 in bright vessels, 0 outside the region
    tubularity  float32 [1, i, j, k]
    case_id, patient, facts
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
from monai.transforms import (
    Compose,
    DeleteItemsd,
    MapTransform,
    Orientation,
    Orientationd,
    Spacingd,
    SpatialResample,
    Transform,
)
from monai.transforms.utils import convert_applied_interp_mode
from monai.utils import TraceKeys
from torch import Tensor

from medseg.errors import MedsegError, mistake_behind
from medseg.prepare import mra
from medseg.prepare.vesselness import flux_maps, scratch_array, tissue_median
from medseg.scans.cases import Case
from medseg.scans.grids import require_same_grid
from medseg.scans.readers import grid_of, read_image, read_labels

BRAIN_MASKS = ("auto", "given", "builtin", "deepbet", "none")
"""Where the region comes from; `auto` is the given mask where there is one, else the builtin one."""
BACKGROUND_PERCENTILE = 2.0
"""The grey value of air, which fills more than this of any field of view; the minimum itself is noise."""

_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
_log = logging.getLogger(__name__)


def mra_transforms(
    *,
    spacing: Sequence[float] | None = None,
    n4: bool = False,
    n4_shrink: int = 4,
    brain_mask: str = "auto",
) -> Compose:
    """Build the chain for MR angiograms (time of flight).

    Args:
        spacing: voxel size (mm, along R, A, S) to resample to; None keeps the scan's own.
        n4: whether to remove coil shading first.
        n4_shrink: voxels per block and axis that N4 estimates on.
        brain_mask: one of `BRAIN_MASKS`; a case's own `mask_mode` goes first.

    Returns:
        Transforms from `{"case": Case}` to a sample; they can be pickled. Call them through `prepare_case`.
    """
    if brain_mask not in BRAIN_MASKS:
        raise MedsegError(f"prepare.brain_mask must be one of {', '.join(BRAIN_MASKS)}, got {brain_mask}")
    keys = ("image", "mask")
    steps: list[Transform] = [
        LoadCase(),
        Orientationd(keys, axcodes="RAS", labels=_RAS_LABELS, allow_missing_keys=True),
    ]
    if spacing is not None:
        modes = ("bilinear", "nearest")
        steps.append(Spacingd(keys, spacing, mode=modes, dtype=np.float32, allow_missing_keys=True))
    steps += [RequireMrd("image"), LiftBackgroundd("image")]
    if n4:
        steps.append(N4d("image", shrink=n4_shrink))
    steps += [BrainRegion(brain_mask), Standardised("image"), FluxMapsd("image"), DeleteItemsd(("case", "mask"))]
    return Compose(steps)


def prepare_case(case: Case, transforms: Compose) -> dict[str, Any]:
    """Prepare one case.

    Raises:
        MedsegError: the scan or its mask cannot be used; the message names the case.
    """
    try:
        return transforms({"case": case})
    except Exception as error:
        reason = mistake_behind(error)
        if reason is None:
            raise
        named = str(reason) if case.case_id in str(reason) else f"case {case.case_id}: {reason}"
        raise MedsegError(named) from error


def invert(
    values: Shaped[Tensor, "c i j k"], sample: Mapping[str, Any], *, nearest: bool
) -> Shaped[np.ndarray, "c i0 j0 k0"]:
    """Bring values on the prepared grid back to the scan's stored grid.

    Args:
        values: one value per voxel of the sample's image and channel.
        sample: the sample that they were made for.
        nearest: take the nearest voxel (labels) instead of interpolating (probabilities), where the grid was resampled.

    Raises:
        ValueError: the values are not on the prepared grid.
    """
    image = sample["image"]
    if values.shape[1:] != image.shape[1:]:
        raise ValueError(f"values must have the prepared shape {tuple(image.shape[1:])}, got {tuple(values.shape[1:])}")
    steps = [_anonymous(step) for step in image.applied_operations]
    mode = "nearest" if nearest else "bilinear"
    steps = convert_applied_interp_mode(steps, mode=mode, align_corners=None if nearest else False)
    plain = values.as_tensor() if isinstance(values, MetaTensor) else values
    back: Tensor = MetaTensor(plain.detach(), affine=image.affine, applied_operations=steps)
    for step in reversed(steps):
        is_turn = step[TraceKeys.CLASS_NAME] == "Orientation"
        back = (Orientation("RAS", labels=_RAS_LABELS) if is_turn else SpatialResample()).inverse(back)
    return np.ascontiguousarray(torch.as_tensor(back).to(values.dtype).numpy())


def voxel_spacing(image: MetaTensor) -> tuple[float, float, float]:
    """Voxel size in mm along i, j, k."""
    i, j, k = (float(size) for size in affine_to_spacing(image.affine))
    return i, j, k


class LoadCase(Transform):
    """Read a case's image, and its brain mask where it has one, on their stored grid."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case: Case = data["case"]
        loaded = dict(data)
        loaded |= {"case_id": case.case_id, "patient": case.patient, "facts": {"n4": False}}
        loaded["image"] = read_image(case.image, frame=case.frame)
        if case.mask is not None and case.mask_mode is None:
            loaded["mask"] = _read_brain_mask(case, loaded["image"])
        return loaded


class RequireMrd(MapTransform):
    """Refuse CT values, which have no background level and no tissue median that would mean anything here."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(data):
            if mra.is_ct(_volume(data[key])):
                raise MedsegError(
                    f"{data['case'].image} must be an MR image, got CT values (air near -1000); "
                    "leave it out, or use a config for CT"
                )
        return dict(data)


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


class BrainRegion(Transform):
    """Add the region in which vessels are sought, and say where it came from and how large it is."""

    def __init__(self, brain_mask: str) -> None:
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
        if mode == "none":
            return np.ones(image.shape, bool), "none"
        if mode in ("auto", "given") and "mask" in data:
            return _volume(data["mask"]) > 0, "given"
        if mode == "given":
            raise MedsegError(
                f"{case.image} must have a brain mask beside it, got none; "
                f"add {case.case_id}_mask.nii.gz or set prepare.brain_mask=auto"
            )
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


class FluxMapsd(MapTransform):
    """Add salience and tubularity, and pass on the alarm where the volume seems to hold no vessels."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        mapped = dict(data)
        region = _volume(data["region"]).view(bool)
        for key in self.key_iterator(data):
            image: MetaTensor = data[key]
            maps = flux_maps(_volume(image), region, voxel_spacing(image))
            if maps.alarm is not None:
                _log.warning("%s: %s", data["case_id"], maps.alarm)
            mapped["salience"] = _like(maps.salience, image, trace=False)
            mapped["tubularity"] = _like(maps.tubularity, image, trace=False)
            mapped["facts"] = {
                **mapped["facts"],
                "flux_scale": float(maps.scale),
                "contrast_scale": float(maps.contrast_scale),
                "flux_alarm": maps.alarm,
            }
        return mapped


def _read_brain_mask(case: Case, image: MetaTensor) -> MetaTensor:
    """Read a given mask, and refuse one that is no brain mask of this image."""
    assert case.mask is not None
    mask = read_labels(case.mask)
    require_same_grid(grid_of(image), grid_of(mask))
    share = float((mask > 0).float().mean())
    if share < mra.GIVEN_MASK_SHARE:
        raise MedsegError(
            f"{case.mask} must fill at least {mra.GIVEN_MASK_SHARE:.0%} of the volume to be a brain mask, "
            f"got {share:.2%}; if _mask is a vessel label here, rename it to _label"
        )
    return mask


def _volume(tensor: Tensor) -> np.ndarray:
    """The array `i j k` behind a tensor `1 i j k`, without a copy."""
    return (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor)[0].numpy()


def _like(array: Shaped[np.ndarray, "i j k"], image: MetaTensor, *, trace: bool = True) -> MetaTensor:
    """An array as `1 i j k` on the image's grid; with `trace` it also knows the way back."""
    operations = image.applied_operations if trace else []
    return MetaTensor(torch.from_numpy(array)[None], affine=image.affine, applied_operations=operations)


def _anonymous(step: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded step that any instance of its transform may undo, also after pickling."""
    return {**step, TraceKeys.ID: TraceKeys.NONE}
