"""This file finds what an MR angiogram is made of before vessels are sought: bias field, brain, body.

Its words: the *tissue level* is the grey value of ordinary brain; the *head's surface* is where air begins; *depth* is
the distance (mm) below that surface; a *stripped* image has one exact value where the skull and the air were; *coarse*
arrays are block means of about 2 mm, where all morphology is done. Images are float32 `i j k` on axes that point to
R, A, S, background near 0; `spacing` is the voxel size in mm along i, j, k. The end faces of a volume are no surface:
a TOF slab cuts the head open above and below.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.filters import threshold_otsu

from medseg.errors import MedsegError
from medseg.prepare.coarse import (
    COARSE_MM,
    Coarse,
    block_means,
    closed,
    coarsening,
    depth_in,
    dilated,
    filled_slices,
    large_pieces,
    largest_piece,
    spread_blocks,
)

Spacing = Sequence[float]

STATISTICS_VOXELS = 1 << 23
"""Voxels above which percentiles are taken over every n-th voxel, to keep memory flat."""

CONSTANT_SHARE = 0.15
"""Share of one exact value that makes it a background: noise spreads the air of an untouched scan over many values."""
SKULL_DEPTH_MM = (4.0, 18.0)
"""Where bone lies below the surface: scalp and bone are each 3-8 mm thick."""
SKULL_DARKNESS = 0.7
"""Bone is darker than this share of both the scalp outside and the brain inside of it."""

GRAIN_MM = 1.0
"""sd of a smoothing by half a block, so that noise tears no holes into tissue where voxels are as large as blocks."""
HEAD_CLOSING_MM = 10.0
"""Closes the dark gaps in scalp and bone, sinuses and ear canals up to twice this width."""
BOX_SIDE_SHARE = 0.5
"""Share of the volume's side faces inside the head from which on it is a box cut out of a head, not a head."""
BRAIN_DEPTH_MM = 6.0
"""Least depth of brain tissue: the sum of the thinnest scalp and bone."""
DEEP_MM = 15.0
"""Depth below which nearly everything is brain: thickest scalp and bone together."""
FIELD_SIGMA_MM = 25.0
"""Coil shading is smoother than this; the tissue level follows it."""
TISSUE_BAND = (0.65, 1.5)
"""Grey values of brain in local tissue levels: above fluid and bone, below fat and blood."""
NECK_MM = 4.0
"""Radius of the opening that cuts brain from skin and neck; roots and nerves are thinner than twice this."""
CISTERN_MM = 12.0
"""Radius of the closing: the cisterns around the circle of Willis and the sella are less than 25 mm wide."""
ARTERY_LEVEL = 1.8
"""Local tissue levels from which on a coarse voxel near the brain is an artery: the carotid fills 2 mm blocks."""
SIPHON_MM = 25.0
"""How far below the brain an artery that enters it is followed: the length of the carotid siphon."""
WALL_MM = 3.0
"""Kept around such an artery: the carotid's radius and a block."""
LEAST_BRAIN_SHARE = 0.1
"""A brain that fills less of the volume was not found rightly."""
AIR_SHARE = 0.3
"""Share of the bright tissue's grey value below which is air, as for the tissue median."""
BODY_PIECE_SHARE = 0.1
"""Size of a limb beside the largest piece of a body; smaller pieces are noise and coils."""
GIVEN_MASK_SHARE = 0.05
"""A given mask that fills less of the volume is a vessel label: vessels fill 0.1-2 %, a brain in view 20 % or more."""

_log = logging.getLogger(__name__)


def sample_values(image: np.ndarray) -> np.ndarray:
    """Return the values of an image, of a large one every n-th, flat."""
    return image.reshape(-1)[:: max(1, image.size // STATISTICS_VOXELS)]


def constant_background(image: Float[np.ndarray, "i j k"]) -> float | None:
    """Return the exact value that fills the faces and much of the volume, or None where there is no such value."""
    faces = [np.take(image, end, axis).reshape(-1) for axis in range(3) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    value = float(values[np.argmax(counts)])
    return value if np.mean(sample_values(image) == value) > CONSTANT_SHARE else None


def is_stripped(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> bool:
    """Say whether everything but the brain was already blanked.

    A constant background alone proves nothing, because some scanners blank the air: below the surface of a head,
    unlike that of a stripped brain, comes bright scalp, then dark bone, then the brain.
    """
    background = constant_background(image)
    if background is None:
        return False
    factors, coarse_spacing = coarsening(spacing)
    coarse = block_means(image, factors)
    blank = block_means(image == background, factors)
    # Noise that was cut at zero also has one frequent value, but scattered, not in whole areas.
    if ndimage.binary_erosion(blank > 0.99, border_value=1).mean() < CONSTANT_SHARE:
        return False
    content = filled_slices(blank < 0.5)
    depth = depth_in(content, coarse_spacing)
    shells = [coarse[(depth > start) & (depth <= start + COARSE_MM)] for start in np.arange(0, 30, COARSE_MM)]
    profile = [float(np.median(shell)) for shell in shells if shell.size]
    first, last = (int(mm / COARSE_MM) for mm in SKULL_DEPTH_MM)
    has_skull = any(
        profile[shell] < SKULL_DARKNESS * min(max(profile[:shell]), max(profile[shell + 1 :]))
        for shell in range(first, min(last, len(profile) - 1))
    )
    return not has_skull


def n4(image: Float[np.ndarray, "i j k"], spacing: Spacing, shrink: int = 4) -> Float[np.ndarray, "i j k"]:
    """Divide by the slow gain of the coils, estimated on an image shrunk by `shrink` per axis.

    The gain is a spline with knots centimetres apart, so it is evaluated on the shrunk grid and interpolated linearly
    to the full one without loss. Its geometric mean over the foreground is 1.

    Args:
        image: background near 0.
        spacing: voxel size in mm.
        shrink: voxels per block and axis; thin axes are shrunk less.

    Raises:
        MedsegError: the image has no foreground to estimate from.

    References:
        Tustison et al., "N4ITK: improved N3 bias correction", IEEE TMI 2010.
    """
    factors = [max(1, min(shrink, length // 16)) for length in image.shape]
    coarse = block_means(image, factors)
    # Blocks that are partly air would look like shading.
    foreground = ndimage.binary_erosion(coarse > _air_threshold(coarse), border_value=1)
    if not foreground.any():
        raise MedsegError("the image must have a foreground for N4, got none; set prepare.n4=false")
    scan = SimpleITK.GetImageFromArray(coarse.T)
    scan.SetSpacing([size * factor for size, factor in zip(spacing, factors, strict=True)])
    mask = SimpleITK.GetImageFromArray(foreground.T.astype(np.uint8))
    mask.CopyInformation(scan)
    correction = SimpleITK.N4BiasFieldCorrectionImageFilter()
    try:
        correction.Execute(scan, mask)
    except RuntimeError as error:
        raise MedsegError(f"N4 must converge, got {str(error).splitlines()[-1]}; set prepare.n4=false") from error
    log_gain = SimpleITK.GetArrayFromImage(correction.GetLogBiasFieldAsImage(scan)).T
    gain = spread_blocks(np.exp(log_gain - log_gain[foreground].mean()), factors, image.shape)
    return np.divide(image, gain, out=gain)


def builtin_brain_mask(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> Bool[np.ndarray, "i j k"]:
    """Find the brain with its arteries, the circle of Willis and the carotid siphon included, by morphology.

    Tissue deep below the head's surface is cut from neck and skin by an opening, its cisterns are closed, and arteries
    that enter it are followed outwards a little way. All on 2 mm blocks, then interpolated to the image's grid.

    Returns:
        The mask; all False, with a log line that says why, where no brain can be told from its surroundings, as
        in a box cut out of the middle of a head.
    """
    factors, coarse_spacing = coarsening(spacing)
    brain, why_not = _coarse_brain(block_means(image, factors), coarse_spacing)
    if why_not:
        _log.info("no brain was found: %s", why_not)
        return np.zeros(image.shape, bool)
    return spread_blocks(brain.astype(np.float32), factors, image.shape) > 0.5


def _coarse_brain(image: Coarse, spacing: Spacing) -> tuple[Coarse, str | None]:
    """The brain on the coarse grid, or why there is none."""
    image = ndimage.gaussian_filter(image, [GRAIN_MM / size for size in spacing])
    bright = image > _air_threshold(image)
    head = largest_piece(filled_slices(closed(bright, HEAD_CLOSING_MM, spacing)))
    if not head.any():
        return head, "nothing stands out from the background"
    if _is_box(head):
        return head, "the head's surface is not in view"
    depth = depth_in(head, spacing)
    deep = bright & (depth > DEEP_MM)
    if not deep.any():
        return deep, "nothing lies deep enough below a surface"

    level = _tissue_level(image, float(np.median(image[deep])), depth > BRAIN_DEPTH_MM, spacing)
    low, high = TISSUE_BAND
    tissue = (image > low * level) & (image < high * level) & (depth > BRAIN_DEPTH_MM)
    core = largest_piece(depth_in(tissue, spacing) > NECK_MM)
    brain = tissue & dilated(core, NECK_MM + COARSE_MM, spacing)
    brain = filled_slices(closed(brain, CISTERN_MM, spacing))
    brain = dilated(brain, COARSE_MM / 2, spacing)
    brain = _follow_arteries(brain, (image > ARTERY_LEVEL * level) & (depth > DEEP_MM), spacing)
    if brain.mean() < LEAST_BRAIN_SHARE:
        return brain, f"what looks like one fills only {brain.mean():.0%} of the volume"
    return brain, None


def _is_box(content: Coarse) -> bool:
    """Say whether the volume was cut out of the content, so that hardly any surface is in view."""
    sides = np.concatenate([content[[0, -1]].reshape(-1), content[:, [0, -1]].reshape(-1)])
    return bool(sides.mean() > BOX_SIDE_SHARE)


def _tissue_level(image: Coarse, typical: float, inside: Coarse, spacing: Spacing) -> Coarse:
    """Slowly varying grey value of tissue, `typical` where there is none around."""
    low, high = TISSUE_BAND
    weight = ((image > low * typical) & (image < high * typical) & inside).astype(np.float32)
    sigma = [FIELD_SIGMA_MM / size for size in spacing]
    trust = 1e-3
    return (ndimage.gaussian_filter(image * weight, sigma) + trust * typical) / (
        ndimage.gaussian_filter(weight, sigma) + trust
    )


def _follow_arteries(brain: Coarse, arteries: Coarse, spacing: Spacing) -> Coarse:
    """Add the arteries that touch the brain, as far as a siphon reaches, with their walls."""
    near = brain | (arteries & dilated(brain, SIPHON_MM, spacing))
    pieces, _ = ndimage.label(near, np.ones((3, 3, 3)))
    touching = np.bincount(pieces[brain], minlength=pieces.max() + 1) > 0
    followed = touching[pieces] & near & ~brain
    return closed(brain | dilated(followed, WALL_MM, spacing), 2 * COARSE_MM, spacing)


def body_mask(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> Bool[np.ndarray, "i j k"]:
    """Find the body: what is brighter than air, with its dark insides; also several pieces, such as two legs.

    Returns:
        The mask; all True where no surface is in view, or a body cannot be told from air, as in a subtracted image.
    """
    factors, coarse_spacing = coarsening(spacing)
    coarse = ndimage.gaussian_filter(block_means(image, factors), [GRAIN_MM / size for size in coarse_spacing])
    # Far from the coil tissue is dim, and a threshold between air and tissue may lie between tissue and tissue.
    air = min(_air_threshold(coarse), AIR_SHARE * float(np.percentile(coarse, 80)))
    body = filled_slices(closed(coarse > air, HEAD_CLOSING_MM, coarse_spacing))
    if _is_box(body):
        return np.ones(image.shape, bool)
    body = large_pieces(body, BODY_PIECE_SHARE)
    return spread_blocks(body.astype(np.float32), factors, image.shape) > 0.5


def deepbet_brain_mask(
    image: Float[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], spacing: Spacing
) -> Bool[np.ndarray, "i j k"]:
    """Find the brain with the network deepbet, then close its cisterns, which a mask made for T1 images leaves out.

    Raises:
        MedsegError: the extra `brain` is not installed, or deepbet failed.

    References:
        Fisch et al., "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks", 2024.
    """
    try:
        from deepbet import run_bet
    except ImportError as error:
        raise MedsegError(
            "brain mask deepbet must be installed, got no package deepbet; "
            "run pip install 'medseg[brain]' or set prepare.brain_mask=builtin"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        scan, brain, mask, volume = (Path(folder) / name for name in ("scan.nii", "brain.nii", "mask.nii", "tiv.csv"))
        nib.save(nib.Nifti1Image(image, affine), scan)
        try:
            run_bet([str(scan)], [str(brain)], [str(mask)], [str(volume)], no_gpu=not torch.cuda.is_available())
            found = nib.Nifti1Image.from_filename(mask).get_fdata(dtype=np.float32) > 0
        except Exception as error:  # a network from outside may fail in any way
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise MedsegError(f"deepbet must find a brain, got {reason}; set prepare.brain_mask=builtin") from error
    factors, coarse_spacing = coarsening(spacing)
    coarse = filled_slices(closed(block_means(found, factors) > 0.5, CISTERN_MM, coarse_spacing))
    return found | (spread_blocks(coarse.astype(np.float32), factors, image.shape) > 0.5)


def _air_threshold(image: Coarse) -> float:
    """Grey value between air and head; blood and fat are cut first, they would draw it upwards."""
    return float(threshold_otsu(np.minimum(image, np.percentile(image, 95))))
