"""This file writes what a volume gets: masks, probabilities, uncertainty and region as NIfTI, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped, UInt8

from medseg.prepare.chain import invert, voxel_spacing
from medseg.prepare.vesselness import scratch_array
from medseg.reconstruction.pictures import likeliest
from medseg.reconstruction.refine import Volume, refine
from medseg.review.plots import mip_picture, overlay_picture
from medseg.scoring.areas import count_pixels
from medseg.workflows import parts
from medseg.workflows.frames import Answers, between_frames
from medseg.workflows.results import CaseFiles

Steps = Sequence[tuple[str, Mapping[str, float]]]

FLUX_STEPS: Steps = (("region", {}),)
"""The flux rule's own probability is above one half just inside its mask."""


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
            steps = FLUX_STEPS if name == "flux" else answers.steps
            found, stored = _labels(probabilities, answers.values, sample, steps)
        files += target.labels("seg" if name == answers.main else f"comparison/{name}", stored)
        if name == answers.main:
            kept, voxels = found, count_pixels(stored, counted)
    uncertain = answers.agreement.uncertainty(kept, answers.values)
    files += _write_maps(target, sample, answers.probabilities[answers.main], uncertain)
    return files + _write_pictures(target, kept, sample), voxels


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
    shares = answers.shares(between_frames(classes, answers.steps), sample)
    full = likeliest(shares, answers.values, lambda share: _stored(share, sample, nearest=False))
    region = np.asarray(sample["region"]).astype(np.uint8)
    return likeliest(shares, answers.values) * region[0], full * _stored(region, sample, nearest=True)[0]


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


def _write_pictures(target: CaseFiles, labels: UInt8[np.ndarray, "i j k"], sample: Mapping[str, Any]) -> list[Path]:
    mip, overlay = (target.out / "plots" / f"{target.case_id}_{kind}.png" for kind in ("mip", "overlay"))
    image, region = np.asarray(sample["image"][0]), np.asarray(sample["region"][0]) > 0
    spacing = voxel_spacing(sample["image"])
    for draw, path in ((mip_picture, mip), (overlay_picture, overlay)):
        draw(image, labels, spacing, path, title=target.case_id, region=region, colours=target.colours)
    return [mip, overlay]


def _stored(
    values: Shaped[np.ndarray, "c i j k"], sample: Mapping[str, Any], *, nearest: bool
) -> Shaped[np.ndarray, "c i0 j0 k0"]:
    return invert(torch.from_numpy(np.ascontiguousarray(values)), sample, nearest=nearest)
