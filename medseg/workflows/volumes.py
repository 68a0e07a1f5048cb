"""This file writes what a volume gets: masks, probabilities, uncertainty and region as NIfTI, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from monai.data import MetaTensor
from monai.transforms import Orientation

from medseg.prepare.chain import invert, voxel_spacing
from medseg.prepare.vesselness import scratch_array
from medseg.reconstruction.pictures import likeliest
from medseg.reconstruction.refine import Volume, refine
from medseg.review.plots import mip_picture, overlay_picture
from medseg.scans.arrays import read_grid
from medseg.scoring.areas import count_pixels
from medseg.workflows import parts
from medseg.workflows.frames import Answers, between_frames
from medseg.workflows.probing import steps_after
from medseg.workflows.results import CaseFiles

Steps = Sequence[tuple[str, Mapping[str, float]]]

FLUX_STEPS: Steps = (("region", {}),)
"""The flux rule's own probability is above one half just inside its mask."""

LEAST_SAID = 1e-3
"""Weight of what neighbouring slices say, below which they say nothing."""
_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


class _Shown(NamedTuple):
    """What is drawn, in RAS."""

    image: Float[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]
    region: Bool[np.ndarray, "i j k"]
    spacing: tuple[float, float, float]


def write_volume(
    target: CaseFiles, sample: Mapping[str, Any], answers: Answers, counted: Sequence[int], *, as_picture: bool
) -> tuple[list[Path], Integer[np.ndarray, " c"]]:
    """Write everything of a volume.

    Args:
        target: where to.
        sample: the prepared volume.
        answers: what was predicted of it; its maps are set to 0 outside the region.
        counted: class values whose voxels are counted.
        as_picture: whether slices are looked at as pictures, in which every pixel has its likeliest class.

    Returns:
        The files, and the voxels of each class on the stored grid.
    """
    files: list[Path] = []
    for name, probabilities in answers.probabilities.items():
        if as_picture:
            found, stored = _picture_labels(probabilities, answers, sample)
        else:
            # The flux rule comes with its own edge, and is the same row in every table.
            steps = FLUX_STEPS if name == "flux" else steps_after(name, answers.steps)
            found, stored = _labels(probabilities, answers.values, sample, steps)
        files += target.labels("seg" if name == answers.main else f"comparison/{name}", stored)
        if name == answers.main:
            kept, main, voxels = found, stored, count_pixels(stored, counted)
    uncertain = answers.uncertainty(kept)
    files += _write_maps(target, sample, answers.probabilities[answers.main], uncertain)
    seen = _shown_upright(target, main, sample) if "sectors" in sample["facts"] else _shown(kept, sample)
    return files + _write_pictures(target, seen), voxels


def _labels(
    classes: Float[np.ndarray, "c i j k"], values: Sequence[int], sample: Mapping[str, Any], steps: Steps
) -> tuple[UInt8[np.ndarray, "i j k"], UInt8[np.ndarray, "i0 j0 k0"]]:
    """A mask on the prepared and on the stored grid."""
    labels = _refined(classes, values, parts.refinement_volume(sample), steps)
    return labels, _stored(labels[None], sample, nearest=True)[0]


def _picture_labels(
    classes: Float[np.ndarray, "c i j k"], answers: Answers, sample: Mapping[str, Any]
) -> tuple[UInt8[np.ndarray, "i j k"], UInt8[np.ndarray, "i0 j0 k0"]]:
    """The same where slices are pictures."""
    region = np.asarray(sample["region"]).astype(np.uint8)
    shares = answers.shares(_between_slices(classes, region, answers.steps), sample)
    full = likeliest(shares, answers.values, lambda share: _stored(share, sample, nearest=False))
    return likeliest(shares, answers.values) * region[0], full * _stored(region, sample, nearest=True)[0]


def _between_slices(
    classes: Float[np.ndarray, "c i j k"], region: UInt8[np.ndarray, "1 i j k"], steps: Steps
) -> Float[np.ndarray, "c i j k"]:
    """What neighbouring slices say of each other; beyond its region, and where it was emptied, a slice says nothing."""
    if not any(name == "frames" for name, _ in steps):
        return classes
    said = region * classes.any((0, 1, 2)).astype(np.float32)
    return between_frames(classes * said, steps) / np.maximum(between_frames(said, steps), LEAST_SAID)


def _refined(
    classes: Float[np.ndarray, "c i j k"], values: Sequence[int], volume: Volume, steps: Steps
) -> UInt8[np.ndarray, "i j k"]:
    """Refine each class on its own; where two claim a voxel the more probable one has it."""
    labels = np.zeros(classes.shape[1:], dtype=np.uint8)
    best = scratch_array(classes.shape[1:])
    for value, probability in zip(values, classes, strict=True):
        wins = refine(probability, volume, steps) & ((labels == 0) | (probability > best))
        labels[wins] = value
        best[wins] = probability[wins]
    return labels


def _write_maps(
    target: CaseFiles,
    sample: Mapping[str, Any],
    classes: Float[np.ndarray, "c i j k"],
    uncertain: Float[np.ndarray, "i j k"],
) -> list[Path]:
    """Probabilities, uncertainty and the region; sets both to 0 outside the region, without a copy."""
    region = np.asarray(sample["region"][0]) > 0
    for n, inside in enumerate(region):
        classes[:, n, ~inside] = 0
        uncertain[n, ~inside] = 0
    stored = _stored(classes, sample, nearest=False)
    written = target.share("prob", stored[0] if len(stored) == 1 else np.moveaxis(stored, 0, -1))
    written += target.share("uncertainty", _stored(uncertain[None], sample, nearest=False)[0])
    return written + target.labels("region", _stored(region[None].view(np.uint8), sample, nearest=True)[0])


def _write_pictures(target: CaseFiles, seen: _Shown) -> list[Path]:
    mip, overlay = (target.out / "plots" / f"{target.case_id}_{kind}.png" for kind in ("mip", "overlay"))
    labels = np.where(np.isin(seen.labels, list(target.backdrop)), 0, seen.labels)
    for draw, path in ((mip_picture, mip), (overlay_picture, overlay)):
        draw(
            seen.image,
            labels,
            seen.spacing,
            path,
            title=target.case_id,
            region=seen.region,
            colours=target.colours,
        )
    return [mip, overlay]


def _shown(labels: UInt8[np.ndarray, "i j k"], sample: Mapping[str, Any]) -> _Shown:
    """The prepared grid, where that is one of voxels in RAS."""
    image, region = np.asarray(sample["image"][0]), np.asarray(sample["region"][0]) > 0
    return _Shown(image, labels, region, voxel_spacing(sample["image"]))


def _shown_upright(target: CaseFiles, labels: UInt8[np.ndarray, "i0 j0 k0"], sample: Mapping[str, Any]) -> _Shown:
    """The stored grid turned to RAS: slices of a sector grid fit neither each other nor any axis of the body."""
    image = _stored(np.asarray(sample["image"]), sample, nearest=False)
    region = _stored(np.asarray(sample["region"]).astype(np.uint8), sample, nearest=True)
    turned = [_in_ras(values, target) for values in (image, labels[None], region)]
    grey, classes, inside = (values[0].numpy() for values in turned)
    return _Shown(grey, classes, inside > 0, voxel_spacing(turned[0]))


def _in_ras(values: Shaped[np.ndarray, "1 i0 j0 k0"], target: CaseFiles) -> MetaTensor:
    affine = torch.from_numpy(read_grid(target.source, target.pick).affine)
    turned = Orientation("RAS", labels=_RAS_LABELS)(MetaTensor(torch.from_numpy(values), affine=affine))
    assert isinstance(turned, MetaTensor)
    return turned


def _stored(
    values: Shaped[np.ndarray, "c i j k"], sample: Mapping[str, Any], *, nearest: bool
) -> Shaped[np.ndarray, "c i0 j0 k0"]:
    return invert(torch.from_numpy(np.ascontiguousarray(values)), sample, nearest=nearest)
