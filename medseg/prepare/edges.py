"""This file turns maps of a volume into masks: hysteresis, component tests, and the wall of a vessel.

Its words: a *core* is a mask that surely lies in vessels; an *edge* step moves its border to where the image falls to a
fraction of the way from the vessel's *peak* to its *background*. `spacing` is the voxel size in mm along i, j, k.
Components touch by face, edge or corner (26 neighbours), because thin oblique vessels hang together by corners.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, generate_binary_structure

from medseg.prepare.flux import scratch_array

Spacing = Sequence[float]

PEAK_SIGMA_MM = 0.2
"""sd of the smoothing before the peak is read, so that one noisy voxel does not set it."""
REACH_MM = 1.2
"""How far along and across the vessel peak and radius are looked for: beyond the wall of all but the widest."""
WALL_BACKGROUND_SIGMA_MM = 3.0
"""sd of the mean of the surroundings: near the vessel, but more than one voxel of it."""
WALL_BACKGROUND_CLIP = 2.0
"""Tissue medians at which the surroundings are cut, so that neighbouring fat does not move the wall."""
THIN_FRACTION, WIDE_FRACTION = 0.55, 0.30
"""Fraction of the way from background to peak at the wall: a thin vessel is a blurred disc (about half), a wide one
has a laminar profile whose peak stands far above the grey value at its wall."""
THIN_RADIUS_MM, WIDE_RADIUS_MM = 0.5, 1.0
"""Inscribed core radii between which the fraction falls linearly."""
DEPTH_VOXELS = 1 << 22
"""Voxels whose distances are measured at a time."""
EDGE_SALIENCE = 0.22
"""Least q inside the wall, below the core's .3."""
NOISY_EDGE_SALIENCE = 0.12
"""The same for a network's mask in strong noise: a network has better reasons than q there."""

WEAK_SALIENCE = 0.45
"""q below which a part of a vessel is judged by itself: strands of fat that touch a vessel hardly exceed it."""
WEAK_TUBULARITY = 0.25
"""Median tubularity that a weak part needs: below the .29 of whole components, because its wall belongs to it."""
WEAK_MIN_MM3 = 1.0
"""Smallest weak part, half of the smallest component: it hangs on a vessel and is less likely a speck."""


def label_components(mask: Bool[np.ndarray, "i j k"]) -> tuple[Integer[np.ndarray, "i j k"], int]:
    """Number the 26-connected components from 1, 0 outside; return them and their count."""
    labels, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26, return_N=True)
    return labels, int(count)


def _grouped(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Flat positions of the mask's voxels and each one's component, numbered from 0."""
    labels, count = label_components(mask)
    positions = np.flatnonzero(mask)
    return positions, labels.reshape(-1)[positions].astype(np.int64) - 1, count


def _painted(shape: Sequence[int], positions: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[positions] = True
    return mask


def hysteresis(probabilities: Float[np.ndarray, "i j k"], low: float, high: float) -> Bool[np.ndarray, "i j k"]:
    """Keep the components of values above `low` that hold a value above `high`."""
    candidates = probabilities > low
    positions, component, count = _grouped(candidates)
    kept = np.zeros(count, bool)
    kept[component[probabilities.reshape(-1)[positions] > high]] = True
    return _painted(candidates.shape, positions[kept[component]])


def keep_touching(mask: Bool[np.ndarray, "i j k"], core: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """Keep the components of the mask that hold a voxel of the core."""
    positions, component, count = _grouped(mask)
    kept = np.zeros(count, bool)
    kept[component[core.reshape(-1)[positions]]] = True
    return _painted(mask.shape, positions[kept[component]])


def keep_by_median(
    mask: Bool[np.ndarray, "i j k"], values: Float[np.ndarray, "i j k"], least: float
) -> Bool[np.ndarray, "i j k"]:
    """Keep the components of the mask whose median value exceeds `least`."""
    positions, component, _ = _grouped(mask)
    kept = _group_medians(values.reshape(-1)[positions], component) > least
    return _painted(mask.shape, positions[kept[component]])


def drop_small_components(
    mask: Bool[np.ndarray, "i j k"], spacing: Spacing, min_mm3: float
) -> Bool[np.ndarray, "i j k"]:
    """Keep the components of at least `min_mm3`."""
    positions, component, count = _grouped(mask)
    volume_mm3 = np.bincount(component, minlength=count) * float(np.prod(spacing))
    return _painted(mask.shape, positions[(volume_mm3 >= min_mm3)[component]])


def drop_unlike_tubes(
    mask: Bool[np.ndarray, "i j k"],
    salience: Float[np.ndarray, "i j k"],
    tubularity: Float[np.ndarray, "i j k"],
    *,
    sure_salience: float,
    min_tubularity: float,
) -> Bool[np.ndarray, "i j k"]:
    """Keep the components with a salience above `sure_salience` or a median tubularity above `min_tubularity`.

    Strands of fat and other sheets are salient but not tubular.
    """
    positions, component, count = _grouped(mask)
    strongest = np.full(count, -np.inf)
    np.maximum.at(strongest, component, salience.reshape(-1)[positions])
    kept = (strongest > sure_salience) | (_group_medians(tubularity.reshape(-1)[positions], component) > min_tubularity)
    return _painted(mask.shape, positions[kept[component]])


def drop_weak_sheets(
    mask: Bool[np.ndarray, "i j k"],
    salience: Float[np.ndarray, "i j k"],
    tubularity: Float[np.ndarray, "i j k"],
    spacing: Spacing,
) -> Bool[np.ndarray, "i j k"]:
    """Cut off weak parts that are not tubular, also where they hang on a vessel.

    The mask without its salient voxels falls into parts: thin branches, strands of fat, and walls of vessels. Walls go
    too; an edge step, which should follow, brings them back.
    """
    strong = mask & (salience > WEAK_SALIENCE)
    weak = drop_small_components(mask & ~strong, spacing, WEAK_MIN_MM3)
    tubes = drop_unlike_tubes(weak, salience, tubularity, sure_salience=np.inf, min_tubularity=WEAK_TUBULARITY)
    return strong | tubes


def _group_medians(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Median of each group of values; groups are numbered from 0 and none is empty."""
    order = np.lexsort((values, group))
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    ordered = values[order]
    return (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2


def half_maximum_edge(
    j: Float[np.ndarray, "i j k"], core: Bool[np.ndarray, "i j k"], spacing: Spacing, *, fraction: float = 0.5
) -> Bool[np.ndarray, "i j k"]:
    """Keep of the core and its face neighbours what lies above background + fraction x (peak - background).

    A blurred wall lies where the image has fallen half the way; an empty core gives an empty mask.
    """
    box = _box_around(core, spacing)
    if box is None:
        return np.zeros(core.shape, bool)
    candidates, peak, _ = _candidates(j[box], core[box], spacing)
    return _above_wall(j, core, box, candidates, peak, np.full(len(candidates), fraction), spacing)


def radius_edge(
    j: Float[np.ndarray, "i j k"],
    core: Bool[np.ndarray, "i j k"],
    q: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    q_min: float = EDGE_SALIENCE,
    thin_fraction: float = THIN_FRACTION,
    wide_fraction: float = WIDE_FRACTION,
) -> Bool[np.ndarray, "i j k"]:
    """Like `half_maximum_edge`, with a fraction that falls from thin to wide vessels, where q > q_min.

    Larger fractions than the usual .55 and .30 keep only what lies surely inside the wall.
    """
    box = _box_around(core, spacing)
    if box is None:
        return np.zeros(core.shape, bool)
    candidates, peak, radius_mm = _candidates(j[box], core[box], spacing)
    fraction = np.interp(radius_mm, [THIN_RADIUS_MM, WIDE_RADIUS_MM], [thin_fraction, wide_fraction])
    return _above_wall(j, core, box, candidates, peak, fraction, spacing) & (q > q_min)


def _box_around(core: np.ndarray, spacing: Spacing) -> tuple[slice, slice, slice] | None:
    """The part of the volume that the edge steps read: the core and four sd of its background around it."""
    if not core.any():
        return None
    box = []
    for axis, h in enumerate(spacing):
        inside = np.flatnonzero(core.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(4 * WALL_BACKGROUND_SIGMA_MM / h)) + 1
        box.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + margin + 1))
    return box[0], box[1], box[2]


def _candidates(j: np.ndarray, core: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat positions of the core and its face neighbours, with peak and largest inscribed radius within reach."""
    smoothed = gaussian_filter(j, [PEAK_SIGMA_MM / h for h in spacing], output=scratch_array(j.shape))
    radius_mm = _depth(core, spacing)
    candidates = np.flatnonzero(binary_dilation(core, generate_binary_structure(3, 1)))
    at = np.stack(np.unravel_index(candidates, core.shape))
    peak = np.full(len(candidates), -np.inf)
    radius = np.zeros(len(candidates))
    for offset in _ball_offsets(REACH_MM, spacing):  # a few hundred offsets, each for all candidates at once
        near = at + offset[:, None]
        inside = np.all((near >= 0) & (near < np.array(core.shape)[:, None]), axis=0)
        near = tuple(np.where(inside, near, 0))
        inside &= core[near]
        peak = np.maximum(peak, np.where(inside, smoothed[near], -np.inf))
        radius = np.maximum(radius, np.where(inside, radius_mm[near], 0))
    return candidates, peak, radius


def _depth(core: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance (mm) to the nearest voxel outside, right up to `WIDE_RADIUS_MM`; where it is more, at least that.

    In slabs with a halo, because the transform needs 50 bytes a voxel.
    """
    depth = scratch_array(core.shape, np.float64)
    halo = int(np.ceil(WIDE_RADIUS_MM / spacing[0])) + 1
    thickness = max(1, DEPTH_VOXELS // int(np.prod(core.shape[1:])))
    for start in range(0, len(core), thickness):
        first = max(0, start - halo)
        slab = core[first : start + thickness + halo]
        if slab.any():
            distance = np.full(slab.shape, np.inf) if slab.all() else distance_transform_edt(slab, sampling=spacing)
            depth[start : start + thickness] = distance[start - first :][:thickness]
    return depth


def _ball_offsets(radius_mm: float, spacing: Spacing) -> np.ndarray:
    """Voxel offsets within a distance, never less than the face neighbours."""
    half = [max(1, int(radius_mm / h)) for h in spacing]
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in half), indexing="ij")).reshape(3, -1).T
    near = np.linalg.norm(grid * np.array(spacing), axis=1) <= radius_mm
    return grid[near | (np.abs(grid).sum(1) <= 1)]


def _above_wall(
    j: np.ndarray,
    core: np.ndarray,
    box: tuple[slice, slice, slice],
    candidates: np.ndarray,
    peak: np.ndarray,
    fraction: np.ndarray,
    spacing: Spacing,
) -> np.ndarray:
    """The candidates brighter than background + fraction x (peak - background)."""
    image, inner = j[box], core[box]
    outside = ~binary_dilation(inner, generate_binary_structure(3, 1))
    sigma = [WALL_BACKGROUND_SIGMA_MM / h for h in spacing]
    smoothed = scratch_array(inner.shape)
    np.copyto(smoothed, outside)
    weight = gaussian_filter(smoothed, sigma, output=smoothed).reshape(-1)[candidates]
    np.minimum(image, WALL_BACKGROUND_CLIP, out=smoothed)
    np.multiply(smoothed, outside, out=smoothed)
    surroundings = gaussian_filter(smoothed, sigma, output=smoothed).reshape(-1)[candidates]
    background = surroundings / np.maximum(weight, 1e-6)
    grey = image[np.unravel_index(candidates, inner.shape)]
    kept = grey > background + fraction * (peak - background)
    mask = np.zeros(core.shape, bool)
    mask[box] = _painted(inner.shape, candidates[kept])
    return mask
