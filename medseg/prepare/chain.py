"""This file prepares a scan for everything after it, and brings predictions back to the grid they came from.

The chain is made of MONAI dictionary transforms, so that the image carries what was done to it. Its words: the *stored
grid* is the scan file's own; the *prepared grid* has axes that point to R, A, S and, where asked, another spacing; the
*region* is where vessels are sought; *facts* are plain values that the run reports. A *sample* is the chain's result:

    image       float32 [1, i, j, k]  grey values in tissue medians, background at or above 0; of CT see `prepare/ct.py`
    region      uint8   [1, i, j, k]  1 inside
    salience    float32 [1, i, j, k]  flux q, about 1 in bright vessels, 0 outside the region
    tubularity  float32 [1, i, j, k]
    case_id, patient, facts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    DeleteItemsd,
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
from medseg.prepare.flux import RADII_MM
from medseg.prepare.modality import MODALITIES
from medseg.prepare.sector import SECTOR_STEP, Sector, from_sector
from medseg.prepare.steps import (
    CtTissueUnitsd,
    FluxMapsd,
    LiftBackgroundd,
    LoadCase,
    N4d,
    Region,
    RequireModalityd,
    Standardised,
    voxel_spacing,
)
from medseg.scans.cases import Case

__all__ = ["BRAIN_MASKS", "angiogram_transforms", "invert", "prepare_case", "voxel_spacing"]

BRAIN_MASKS = ("auto", "given", "builtin", "deepbet", "none")
"""Where the region comes from; `auto` is the given mask where there is one, else the builtin one. Where no brain is
found or wanted, it is the whole volume of a TOF, and the body in the other modalities."""

_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def angiogram_transforms(
    *,
    modality: str = "tof",
    spacing: Sequence[float] | None = None,
    n4: bool = False,
    n4_shrink: int = 4,
    brain_mask: str = "auto",
    radii_mm: Sequence[float] = RADII_MM,
) -> Compose:
    """Build the chain for angiograms.

    Args:
        modality: one of `MODALITIES`.
        spacing: voxel size (mm, along R, A, S) to resample to; None keeps the scan's own.
        n4: whether to remove coil shading first; not for CT.
        n4_shrink: voxels per block and axis that N4 estimates on.
        brain_mask: one of `BRAIN_MASKS`; a case's own `mask_mode` goes first.
        radii_mm: of the vessels looked for.

    Returns:
        Transforms from `{"case": Case}` to a sample; they can be pickled. Call them through `prepare_case`.
    """
    if brain_mask not in BRAIN_MASKS:
        raise MedsegError(f"prepare.brain_mask must be one of {', '.join(BRAIN_MASKS)}, got {brain_mask}")
    if modality not in MODALITIES:
        raise MedsegError(f"prepare.modality must be one of {', '.join(MODALITIES)}, got {modality}; correct it")
    keys = ("image", "mask")
    steps: list[Transform] = [
        LoadCase(),
        Orientationd(keys, axcodes="RAS", labels=_RAS_LABELS, allow_missing_keys=True),
    ]
    if spacing is not None:
        modes = ("bilinear", "nearest")
        steps.append(Spacingd(keys, spacing, mode=modes, dtype=np.float32, allow_missing_keys=True))
    steps.append(RequireModalityd("image", modality))
    if modality == "cta":
        steps += [Region(modality, brain_mask), CtTissueUnitsd("image")]
    else:
        steps.append(LiftBackgroundd("image"))
        if n4:
            steps.append(N4d("image", shrink=n4_shrink))
        steps += [Region(modality, brain_mask), Standardised("image")]
    steps += [FluxMapsd("image", modality, radii_mm), DeleteItemsd(("case", "mask", "soft_tissue"))]
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
        if step[TraceKeys.CLASS_NAME] == SECTOR_STEP:
            assert isinstance(back, MetaTensor)
            back = _from_sectors(back, step, nearest=nearest)
            continue
        is_turn = step[TraceKeys.CLASS_NAME] == "Orientation"
        back = (Orientation("RAS", labels=_RAS_LABELS) if is_turn else SpatialResample()).inverse(back)
    return np.ascontiguousarray(torch.as_tensor(back).to(values.dtype).numpy())


def _from_sectors(values: MetaTensor, step: Mapping[str, Any], *, nearest: bool) -> MetaTensor:
    """Undo the resampling of `prepare/ultrasound.py`, one sector a slice; 0 outside them."""
    *shape, slices = step[TraceKeys.ORIG_SIZE]
    sectors = step[TraceKeys.EXTRA_INFO]["sectors"]
    frames = np.moveaxis(values.as_tensor().numpy(), -1, 0)
    back = np.zeros((slices, len(values), *shape), frames.dtype)
    for k, (frame, sector) in enumerate(zip(frames, sectors, strict=True)):
        if sector is not None:
            back[k] = from_sector(frame, Sector.from_dict(sector), (shape[0], shape[1]), nearest=nearest)
    affine = torch.tensor(step[TraceKeys.EXTRA_INFO]["affine"], dtype=torch.float64)
    earlier = values.applied_operations[:-1]
    return MetaTensor(torch.from_numpy(np.moveaxis(back, 0, -1)), affine=affine, applied_operations=earlier)


def _anonymous(step: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded step that any instance of its transform may undo, also after pickling."""
    return {**step, TraceKeys.ID: TraceKeys.NONE}
