"""This file makes of a CT angiogram what every later stage expects: tissue at 1, vessels above it, and no bone.

Its words: *HU* are Hounsfield units (air -1000, water 0); the *tissue level* is the HU of ordinary soft tissue; a
*lumen* is the inside of a vessel that contrast fills evenly, the *plateau* its HU; *dense* is what lies well above the
plateau: cortical bone, calcification, metal, and contrast that has not mixed with blood yet. Images are `i j k` on axes
that point to R, A, S; `spacing` is the voxel size in mm along i, j, k.

The rule that takes bone away, in its order:

1. The plateau is measured on voxels as even as soft tissue and well above it. Spongy bone is bright, but uneven.
2. Lumen seeds are pieces of even voxels above half of the plateau.
3. Bone seeds are dense pieces, unless most of a piece lies close to a lumen: that is calcification or a stent.
4. Both kinds of seeds grow, at first through what is brighter than half of the plateau, then through all that is
   brighter than tissue, and meet where the grey value changes most (a watershed). So a vessel that touches bone is cut
   at its wall, thin vessels belong to the lumen they come from, and the marrow to its shell.
5. What bone has won, and calcification, are set to the tissue level, so that flux sees no edge of them.

Limits: vessels that run inside bone for longer than a lumen seed reaches, arteries behind undiluted contrast, lumens
beside metal, and calcification so long that it outweighs its lumen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.segmentation import watershed

from medseg.prepare.coarse import (
    block_means,
    closed,
    coarsening,
    depth_in,
    dilated,
    filled_slices,
    large_pieces,
    largest_piece,
    opened,
    spread_blocks,
)
from medseg.prepare.flux import scratch_array
from medseg.prepare.mra import GRAIN_MM, sample_values

Spacing = Sequence[float]

SOFT_HU = (0.0, 110.0)
"""Soft tissue without contrast: water to muscle with a little contrast; fat and lung lie below."""
USUAL_TISSUE_HU = 50.0
"""Tissue level of a volume without soft tissue in view: muscle and blood."""
ENHANCED_HU = 100.0
"""Least rise above tissue that is contrast in a vessel rather than an organ that takes some up."""
HIGHEST_PLATEAU_HU = 650.0
"""Above it even voxels are compact bone; arterial contrast reaches 250-600."""
PLATEAU_PERCENTILE = 90.0
"""Of the even, bright voxels: arteries are the brightest of them, above kidneys, spleen and marrow."""
EVENNESS = 1.5
"""Largest local sd of an even voxel, in local sd of soft tissue: noise reaches it, spongy bone and walls exceed it."""
SEED_MM3 = 30.0
"""Smallest lumen seed: a few mm of an artery of 1.5 mm radius, more than grain gives."""
DENSE_ABOVE_PLATEAU_HU = 100.0
"""Rise above the plateau that is no contrast in blood, if noise allows."""
DENSE_SD = 3.0
"""Such a rise in sd of the noise."""
BONE_SEED_MM3 = 10.0
"""Smallest bone seed: smaller ones are single bright voxels."""
CALCIFICATION_MM = 6.0
"""Distance from a lumen seed within which most of a calcification lies: its thickness, and the lumen's uneven rim."""
MARROW_SURFACE = 0.4
"""Share of a grown lumen's surface that touches bone from which on it was marrow: vessels only pass by bone."""
MARROW_SHELL = 0.15
"""Share of a grown lumen that is brighter than its seeds from which on it was marrow with its shell: in a vessel only
calcification is brighter, and that is little."""
METAL_HU = 2500.0
"""Above it nothing is bone: stents, clips, coils, wires, teeth's fillings."""
BODY_HU = -300.0
"""Between lung and fat: below is air or lung."""
OUTSIDE_HU = -930.0
"""Mean of the air around a body; that of a lung is -600 to -900, also where the volume cuts it open."""
PADDING_HU = -1024.0
"""Air at its darkest: scanners fill what they do not see with this or much less."""
TABLE_MM = 5.0
"""Half the thickness of tables, clothes and cables, which an opening by this radius removes from the body."""
BODY_PIECE_SHARE = 0.1
"""Size of a limb beside the largest piece of a body."""
SKULL_HU = 250.0
"""Mean of a 2 mm block of skull, well above contrast in the vessels of such a block beside tissue."""
FORAMEN_MM = 18.0
"""Radius of the opening that cuts the brain from the neck: more than that of the foramen magnum."""
NERVE_MM = 3.0
"""Radius of the opening that cuts it from what leaves the skull elsewhere."""
BRAIN_BLOCK_HU = (-20.0, 200.0)
"""Means of 2 mm blocks of brain, fluid and vessels."""
SKULL_REACH_MM = 8.0
"""Distance within which the brain's surface meets bone: the fluid around it is thinner."""
SKULL_SHARE = 0.75
"""Share of its surface that bone must enclose: all but the foramina, and the end faces, which do not count."""
LEAST_BRAIN_ML = 50.0
"""Smaller bone-enclosed pieces are eyes, sinuses and marrow."""
HU_PER_UNIT = 150.0
"""HU for a rise of 1 in j: arteries of 350 HU so stand at 3, as in a TOF."""


@dataclass(frozen=True, eq=False)
class CtParts:
    """What a CT angiogram consists of.

    Attributes:
        tissue_hu: tissue level.
        plateau_hu: HU of well-filled vessels; None where nothing is filled with contrast.
        dense_hu: from which HU on voxels are dense.
        bone: what bone seeds have won.
        calcification: dense pieces beside a lumen, stents included.
        metal: voxels above `METAL_HU`, parts of the others.
    """

    tissue_hu: float
    plateau_hu: float | None
    dense_hu: float
    bone: Bool[np.ndarray, "i j k"]
    calcification: Bool[np.ndarray, "i j k"]
    metal: Bool[np.ndarray, "i j k"]


def find_parts(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> CtParts:
    """Tell bone and calcification from vessels; see the rule at the top of this file.

    Args:
        image: HU.
        spacing: voxel size in mm.

    Returns:
        The parts. Without contrast in any vessel all that is bright counts as bone.
    """
    values = sample_values(image)
    soft = values[(values > SOFT_HU[0]) & (values < SOFT_HU[1])]
    tissue = float(np.median(soft)) if soft.size else USUAL_TISSUE_HU
    mean, sd = _local_mean_and_sd(image, spacing)
    noise = _noise(mean, sd)
    even = (sd < EVENNESS * noise) & (mean > tissue + ENHANCED_HU) & (mean < HIGHEST_PLATEAU_HU)
    found = sample_values(mean)[sample_values(even)]
    plateau = float(np.percentile(found, PLATEAU_PERCENTILE)) if found.size else None
    level = tissue + ENHANCED_HU if plateau is None else plateau
    half = (tissue + level) / 2
    dense_hu = level + max(DENSE_ABOVE_PLATEAU_HU, DENSE_SD * noise)
    dense = image > dense_hu
    labels, _, mm3 = _pieces(even & (mean > half) & ~dense, spacing)
    mm3[0] = 0
    lumen = (mm3 >= SEED_MM3)[labels]
    bone_seeds, calcification = _sorted_dense_pieces(dense, lumen, spacing)
    steepness = ndimage.gaussian_gradient_magnitude(image.astype(np.float32), [0.5 * min(spacing) / h for h in spacing])
    owner = lumen.astype(np.int32) + 2 * bone_seeds
    for threshold in (half, tissue + ENHANCED_HU):
        owner = watershed(steepness, owner, mask=(image > threshold) | (owner > 0))
        owner[_marrow(owner, image, lumen, DENSE_SD * noise)] = 2
    rim = ndimage.binary_dilation(owner == 2, ndimage.generate_binary_structure(3, 1))
    return CtParts(
        tissue_hu=tissue,
        plateau_hu=plateau if (owner == 1).any() else None,
        dense_hu=dense_hu,
        bone=rim & (owner != 1) & ~calcification,
        calcification=calcification,
        metal=image > METAL_HU,
    )


def in_tissue_units(image: Float[np.ndarray, "i j k"], parts: CtParts) -> Float[np.ndarray, "i j k"]:
    """Turn HU into j: 1 in soft tissue, 1 more for every 150 HU above it, never below 1 nor above the dense level.

    Fat, lung and air are lifted to 1: only what is brighter than tissue can be a vessel, so neither the surface of
    the body nor that of the lungs may have an edge. Bone, calcification and metal become 1 too.
    """
    j = scratch_array(image.shape)
    for n in range(len(image)):  # a plane at a time, without whole-volume temporaries
        risen = np.clip(image[n], parts.tissue_hu, parts.dense_hu) - parts.tissue_hu
        risen[parts.bone[n] | parts.calcification[n] | parts.metal[n]] = 0
        j[n] = 1 + risen / HU_PER_UNIT
    return j


def is_soft_tissue(image: Float[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """Where soft tissue without contrast lies: what varies there is noise."""
    return (image > SOFT_HU[0]) & (image < SOFT_HU[1])


def body_mask(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> Bool[np.ndarray, "i j k"]:
    """Find the body with its lungs, without table and clothes; all False where there is none."""
    factors, coarse_spacing = coarsening(spacing)
    coarse = np.maximum(block_means(image, factors), PADDING_HU)
    pieces, count = ndimage.label(coarse < BODY_HU)
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)
    means = np.bincount(pieces.reshape(-1), coarse.reshape(-1), count + 1) / np.maximum(sizes, 1)
    at_sides = np.zeros(count + 1, bool)
    for face in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        at_sides[face] = True
    outside = at_sides & (means < OUTSIDE_HU)
    outside[0] = False
    body = large_pieces(opened(~outside[pieces], TABLE_MM, coarse_spacing), BODY_PIECE_SHARE)
    return spread_blocks(filled_slices(body).astype(np.float32), factors, image.shape) > 0.5


def brain_mask(image: Float[np.ndarray, "i j k"], spacing: Spacing) -> Bool[np.ndarray, "i j k"]:
    """Find the brain with its vessels: the largest soft piece that bone encloses; all False where there is none."""
    factors, coarse_spacing = coarsening(spacing)
    coarse = ndimage.gaussian_filter(block_means(image, factors), [GRAIN_MM / size for size in coarse_spacing])
    bone = coarse > SKULL_HU
    soft = (coarse > BRAIN_BLOCK_HU[0]) & (coarse < BRAIN_BLOCK_HU[1])
    core = largest_piece(depth_in(soft, coarse_spacing) > FORAMEN_MM)
    brain = opened(soft & dilated(core, FORAMEN_MM, coarse_spacing), NERVE_MM, coarse_spacing) & soft
    brain = largest_piece(brain)  # the scalp is in reach as well, but beyond bone
    rim = ndimage.binary_dilation(brain) & ~brain
    enclosed = dilated(bone, SKULL_REACH_MM, coarse_spacing)[rim]
    volume_ml = brain.sum() * float(np.prod(coarse_spacing)) / 1000
    if volume_ml < LEAST_BRAIN_ML or enclosed.mean() < SKULL_SHARE:
        return np.zeros(image.shape, bool)
    brain = filled_slices(closed(brain, NERVE_MM, coarse_spacing)) & ~bone
    return spread_blocks(brain.astype(np.float32), factors, image.shape) > 0.5


def _local_mean_and_sd(image: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd over three voxels along each axis; along thick slices over one."""
    size = [3 if h <= 2 * min(spacing) else 1 for h in spacing]
    image = image.astype(np.float32)
    mean = ndimage.uniform_filter(image, size)
    square = ndimage.uniform_filter(image * image, size)
    square -= mean * mean
    return mean, np.sqrt(np.maximum(square, 0, out=square), out=square)


def _noise(mean: np.ndarray, sd: np.ndarray) -> float:
    """Local sd of soft tissue: its median, so that borders of organs do not count."""
    mean, sd = sample_values(mean), sample_values(sd)
    soft = sd[(mean > SOFT_HU[0]) & (mean < SOFT_HU[1])]
    return max(float(np.median(soft)), 1.0) if soft.size else 1.0


def _pieces(mask: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the pieces (0 outside), voxels of each and mm3 of each; entry 0 is the outside."""
    labels = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26)
    voxels = np.bincount(labels.reshape(-1))
    return labels, voxels, voxels * float(np.prod(spacing))


def _sorted_dense_pieces(dense: np.ndarray, lumen: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Bone seeds and calcification: by the share of each dense piece that lies close to a lumen."""
    labels, voxels, mm3 = _pieces(dense, spacing)
    if lumen.any():
        close = ndimage.distance_transform_edt(~lumen, sampling=spacing) < CALCIFICATION_MM
        beside = np.bincount(labels[close], minlength=len(voxels)) > voxels / 2
    else:
        beside = np.zeros(len(voxels), bool)
    beside[0] = False
    bone = (mm3 >= BONE_SEED_MM3) & ~beside
    bone[0] = False
    return bone[labels], beside[labels]


def _marrow(owner: np.ndarray, image: np.ndarray, lumen: np.ndarray, margin_hu: float) -> np.ndarray:
    """The grown lumens that lie in bone: they touch what bone has won, or hold a shell brighter than their seeds."""
    labels = cc3d.connected_components(owner == 1, connectivity=26)
    around = ndimage.maximum_filter(labels, 3)
    around[labels > 0] = 0
    voxels, surface, touching = (
        np.bincount(numbers.reshape(-1), minlength=int(labels.max()) + 1)
        for numbers in (labels, around, around[owner == 2])
    )
    level = np.zeros(len(voxels))
    seeds = lumen & (owner == 1)
    order = np.lexsort((image[seeds], labels[seeds]))
    counts = np.bincount(labels[seeds], minlength=len(voxels))
    last = np.cumsum(counts) - 1
    seeded = counts > 0
    level[seeded] = image[seeds][order][(last - 0.1 * counts).astype(int)[seeded]]  # the 90th percentile of each piece
    brighter = np.bincount(labels[image > level[labels] + margin_hu], minlength=len(voxels))
    marrow = (touching > MARROW_SURFACE * surface) | (brighter > MARROW_SHELL * voxels)
    marrow[0] = False
    return marrow[labels]
