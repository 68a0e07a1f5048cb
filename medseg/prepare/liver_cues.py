"""This file looks at one ultrasound frame for the liver: constants, prior, intensity, cues, and what they say together.

Frames come on the sector grid (rows are depth v from 0 near the probe to 1, columns lateral u from -1 to 1); decisions
are made on 48 x 48 *cells*. Its words: *behind* is the brightest interface passed on the way down (behind the echo of
diaphragm, capsule or bowel there is no liver), *wall* the brightest on the way up (above it lies the body wall); *flat*
is an area without signal; the *level* is the liver's own log intensity, read where it nearly always lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.special import expit
from skimage.restoration import denoise_tv_chambolle
from skimage.transform import resize

CELLS = 48
"""Cells along depth and along width: a third of the sector grid, which is as fine as the liver's border is known."""
DARK = 4 / 255
"""Grey value (0..1) up to which a pixel shows no echo and has no part in the scale of intensity."""
VIEW_DARK = 6 / 255
"""The same for the network's view."""
VIEW_WHITE = 0.98
"""Quantile of echoes that the network's view shows as white."""
NOT_SOUGHT = -5.0
"""Interface strength where none is looked for: far below any in a frame, whose darkest is log(.05)."""


@dataclass(frozen=True)
class LiverConstants:
    """The numbers of the teacher, set by hand. Lengths are in sector coordinates, or pixels of a 160 x 160 frame.

    Args:
        half_width, half_depth: of the prior ellipse (u and v).
        centre_u, centre_v: its centre.
        tilt: how much its centre rises from the middle to the right edge (v per u).
        steepness: logits by which the ellipse's prior falls from its border to twice its size.
        top, top_softness: depth of the prior block's upper side, the thickness of a body wall, and the depth in which
            one logit is lost.
        bottom, bottom_slope, bottom_softness: depth of its lower side at u = 0, how much that rises per u, softness as
            above.
        side, side_centre, side_softness: half width, centre and softness in u.
        block_range: least and greatest logit of the block.
        bright_quantile: of the echoes; intensity is relative to it.
        offset_intensity: added to relative intensity before the logarithm, so that black is finite.
        sigma_level: blur (px) of intensity for the level, and of flat areas.
        sigma_depth, sigma_width: blur (px) for interfaces, which lie across the rays.
        first_depth: where the way down starts and the way up ends (v); the body wall above is full of interfaces.
        flat_pixels, flat_sd: window (px) and standard deviation (grey values 0..1) below which there is no signal.
        grey_weight: of total-variation smoothing of the intensity in which the walker sees borders.
        behind_weight, behind_from: logits per unit of log intensity above the level, and where they begin.
        wall_weight, wall_from: the same for the wall.
        flat_weight: logits of a flat cell.
        offset: logits added everywhere; the cues only ever subtract.
        offset_spread: by how much settings go below and above the offset; what a larger or smaller liver looks like.
        pull: weight of priors in the walker.
        sharpness: of the walker's borders.
        intensity_share: of intensity in these borders, features having 1.
        likeness_weight, likeness_from: logits per unit of likeness in the context, and the likeness that gives none.
        later_trust: weight of the student's and of the cues' logits in later lessons.
        final_pull, final_share: pull and share of intensity in the last walker, which should move a student's answer
            to borders and no further.
    """

    half_width: float = 1.0
    half_depth: float = 0.36
    centre_u: float = -0.1
    centre_v: float = 0.46
    tilt: float = 0.1
    steepness: float = 6.0
    top: float = 0.15
    top_softness: float = 0.03
    bottom: float = 0.72
    bottom_slope: float = 0.22
    bottom_softness: float = 0.1
    side: float = 0.95
    side_centre: float = -0.05
    side_softness: float = 0.08
    block_range: tuple[float, float] = (-6.0, 3.0)
    bright_quantile: float = 0.9
    offset_intensity: float = 0.05
    sigma_level: float = 2.5
    sigma_depth: float = 1.2
    sigma_width: float = 4.0
    first_depth: float = 0.3
    flat_pixels: int = 7
    flat_sd: float = 2 / 255
    grey_weight: float = 0.3
    behind_weight: float = 2.5
    behind_from: float = 0.15
    wall_weight: float = 2.5
    wall_from: float = 0.05
    flat_weight: float = 3.0
    offset: float = 0.3
    offset_spread: float = 0.4
    pull: float = 0.001
    sharpness: float = 3.0
    intensity_share: float = 0.1
    likeness_weight: float = 3.0
    likeness_from: float = 0.1
    later_trust: float = 0.7
    final_pull: float = 0.003
    final_share: float = 0.1


HAND_SET = LiverConstants()
"""The constants that every function takes when none are given."""


class Cues(NamedTuple):
    """What is seen along the rays of a frame, per cell.

    Attributes:
        behind: log intensity, over the level, of the brightest interface above this cell (-5: none looked for).
        wall: the same below it.
        flat: share of the cell without signal.
        grey: log intensity after total-variation smoothing.
        region: cells that lie inside the picture.
    """

    behind: Float32[np.ndarray, "48 48"]
    wall: Float32[np.ndarray, "48 48"]
    flat: Float32[np.ndarray, "48 48"]
    grey: Float32[np.ndarray, "48 48"]
    region: Bool[np.ndarray, "48 48"]


def log_intensity(
    image: Float[np.ndarray, "i j"], region: Bool[np.ndarray, "i j"], constants: LiverConstants = HAND_SET
) -> Float[np.ndarray, "i j"]:
    """Logarithm of intensity over the frame's own bright echoes; the same at any gain.

    Args:
        image: display values, 0 to 1.
        region: pixels inside the picture.
        constants: see there.
    """
    echoes = image[region & (image > DARK)]
    bright = float(np.quantile(echoes, constants.bright_quantile)) if echoes.size else 1.0
    return np.log(image / bright + constants.offset_intensity)


def network_view(
    image: Float[np.ndarray, "i j"], region: Bool[np.ndarray, "i j"] | None = None
) -> Float32[np.ndarray, "i j"]:
    """The frame as a network for photographs should see it: 0 to 1, its brightest echoes white.

    Args:
        image: display values, 0 to 1.
        region: pixels inside the picture; None takes all that are not black.
    """
    echoes = image[(image > VIEW_DARK) if region is None else region & (image > VIEW_DARK)]
    white = float(np.quantile(echoes, VIEW_WHITE)) if echoes.size else 1.0
    return np.clip(image / white, 0, 1).astype(np.float32)


def standard_edges(maps: Float[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c 48 48"]:
    """Feature maps of one frame as edges or context: each channel to mean 0 and deviation 1, on the frame's cells.

    The frame's own mean and deviation serve as well as a data set's, principal components no better than channels.
    """
    values = np.asarray(maps, np.float32)
    values = values - values.mean((1, 2), keepdims=True)
    # A channel that hardly moves in this frame would else be all noise.
    spread = values.std((1, 2), keepdims=True)
    values = np.clip(values / (spread + 0.05 * spread.mean() + 1e-6), -4, 4)
    rows, columns = _interpolation(values.shape[1]), _interpolation(values.shape[2])
    return rows.astype(np.float32) @ values @ columns.T.astype(np.float32)


def frame_cues(
    image: Float[np.ndarray, "i j"], region: Bool[np.ndarray, "i j"], constants: LiverConstants = HAND_SET
) -> Cues:
    """Look along the rays of a frame.

    Args:
        image: display values, 0 to 1, on the sector grid.
        region: pixels inside the picture.
        constants: see there.
    """
    c = constants
    image = np.asarray(image, np.float64)
    intensity = log_intensity(image, region, c)
    mean = uniform_filter(image, c.flat_pixels)
    variance = uniform_filter(image**2, c.flat_pixels) - mean**2
    flat = gaussian_filter((variance < c.flat_sd**2).astype(np.float64), c.sigma_level)
    smooth = gaussian_filter(intensity, c.sigma_level)
    v, u = _places(*image.shape)
    core = ((u / 0.9) ** 2 + ((v - 0.42) / 0.35) ** 2 < 0.25) & region
    seen = core & (flat < 0.5)
    level = float(np.median(smooth[seen if seen.any() else core if core.any() else ...]))
    interfaces = gaussian_filter(intensity, (c.sigma_depth, c.sigma_width)) - level
    first = round(c.first_depth * len(image))
    behind, wall = np.full_like(interfaces, NOT_SOUGHT), np.full_like(interfaces, NOT_SOUGHT)
    behind[first:] = np.maximum.accumulate(interfaces[first:])
    wall[: first + 1] = np.maximum.accumulate(interfaces[first::-1])[::-1]
    rows, columns = (_averaging(length) for length in image.shape)
    sides = {"behind": behind, "wall": wall, "flat": flat}
    cells = {name: (rows @ values @ columns.T).astype(np.float32) for name, values in sides.items()}
    grey = denoise_tv_chambolle(rows @ intensity @ columns.T, weight=c.grey_weight).astype(np.float32)
    return Cues(**cells, grey=grey, region=rows @ region @ columns.T > 0.5)


def cue_logit(cues: Cues, constants: LiverConstants = HAND_SET) -> Float[np.ndarray, "48 48"]:
    """What the cues say, in logits: they only speak against liver."""
    c = constants
    behind = c.behind_weight * np.maximum(cues.behind - c.behind_from, 0)
    wall = c.wall_weight * np.maximum(cues.wall - c.wall_from, 0)
    return np.asarray(-behind - wall - c.flat_weight * cues.flat, np.float64)


def liver_by_cues(
    image: Float[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"], constants: LiverConstants = HAND_SET
) -> Float32[np.ndarray, "h w"]:
    """Probability of liver by prior and cues alone, without anything learnt; 0 outside the region.

    Args:
        image: display values 0 to 1 on the sector grid.
        region: where the sector lies inside the picture.
        constants: the numbers of the rule.
    """
    logits = prior_logit(constants) + cue_logit(frame_cues(image, region, constants), constants) + constants.offset
    fine = resize(expit(logits), image.shape, order=1, mode="edge")
    return (fine * region).astype(np.float32)


def prior_logit(constants: LiverConstants = HAND_SET) -> Float[np.ndarray, "48 48"]:
    """Where the liver lies before a frame is looked at, in logits: the mean of an ellipse and a block."""
    return np.mean(prior_logits(constants), axis=0)


def prior_logits(constants: LiverConstants) -> tuple[np.ndarray, np.ndarray]:
    """The prior's two shapes, an ellipse and a block, in logits: each setting takes one."""
    c = constants
    v, u = _places(CELLS, CELLS)
    distance = np.hypot((u - c.centre_u) / c.half_width, (v - c.centre_v + c.tilt * u) / c.half_depth)
    ellipse = c.steepness * (1 - distance)
    sides = (
        (v - c.top) / c.top_softness,
        (c.bottom - c.bottom_slope * u - v) / c.bottom_softness,
        (c.side - np.abs(u - c.side_centre)) / c.side_softness,
    )
    # A soft minimum: inside is what lies inside of all three.
    block = -np.log(sum(np.exp(-np.clip(side, -8, 8)) for side in sides))
    return ellipse, np.clip(block, *c.block_range)


def _places(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """v and u of the middles of cells."""
    return ((np.arange(rows) + 0.5) / rows)[:, None], (2 * (np.arange(columns) + 0.5) / columns - 1)[None]


@lru_cache(maxsize=8)
def _averaging(length: int) -> Float[np.ndarray, "48 length"]:
    """Matrix that averages pixels to cells, each pixel by the part of it that lies in the cell."""
    borders, pixels = np.linspace(0, length, CELLS + 1), np.arange(length)
    shared = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    return np.maximum(shared, 0) * CELLS / length


@lru_cache(maxsize=8)
def _interpolation(length: int) -> Float[np.ndarray, "48 length"]:
    """Matrix that interpolates values at the middles of `length` intervals to the cells."""
    middles = (np.arange(CELLS) + 0.5) / CELLS * length - 0.5
    return np.stack([np.interp(middles, np.arange(length), unit) for unit in np.eye(length)], axis=1)
