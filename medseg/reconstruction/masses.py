"""This file looks for a mass and for dark vessels inside the liver of one ultrasound frame, without labels.

Frames come on the sector grid (rows are depth v from 0 near the probe to 1, columns lateral u from -1 to 1). Its words:
the *departure* is log intensity less a smooth, robustly fitted surface of the liver's own brightness (so depth gain and
wide shadows drop out), in its own robust standard deviations; a *contour* is the closed star-shaped curve of strongest
*border* (change of departure across it) about a *centre*, found by dynamic programming; its *score* weighs size,
border, place, shape, and whether it is darker or brighter than what surrounds it; a cell's *share* is that
of all contours, weighted by their scores, which hold it; the *agreement* is the greatest share.

Where many centres find the same contour there more likely is a mass: livers without one have contours too (vessels,
gallbladder, shadows), but these disagree. It is a hint and no finding: at most one mass is found in a frame, small ones
(below a tenth of the liver) seldom. With a coarse liver mask a blind central ellipse overlaps masses about as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy import ndimage
from skimage.morphology import closing, disk, remove_small_objects
from skimage.segmentation import clear_border

__all__ = ["MassConstants", "MassSearch", "find_masses", "find_vessels", "search_masses"]

GRID = 80
"""Cells along each side for contours: half the sector grid; speckle is averaged, small masses have 20 cells."""
ANGLES = 24
"""Rays from a centre to its contour."""
RADII = np.geomspace(2.2, 34.0, 22)
"""Radii (cells of GRID) that a contour may have on a ray: from half a percent of a liver to half of it."""
REACH = 50
"""Cells along a ray that are read; the longest radius and the band behind it."""
BRIGHT_QUANTILE = 0.9
"""Of the echoes; intensity is relative to it before the logarithm."""
DARK = 4 / 255
"""Grey value (0..1) up to which a pixel shows no echo and has no part in the scale of intensity."""
OFFSET = 0.05
"""Added to relative intensity before the logarithm, so that black is finite."""
LEAST_LIVER = 60
"""Cells of GRID below which a liver is too small to have its own brightness."""
NOISE_FLOOR = 0.03
"""Least standard deviation (log intensity) of departures; painted frames have none."""


LEAST_AGREEMENT = 0.93
"""Agreement from which a mass is drawn: with it none was in 16 frames of livers without one, and a third of those with
one were found; .8 finds twice as many and draws one in most healthy livers too."""
VESSEL_RADIUS = 7
"""Radius (px of the sector grid) of the disk that closes dark tubes and dots: vessels are up to 14 px wide."""
VESSEL_DEPTH = 2.5
"""Robust standard deviations by which a vessel is darker than the liver closed over it."""
VESSEL_DARKER = 0.5
"""Log intensity by which it is darker at least: blood shows as less than 60 % of the liver's grey."""
VESSEL_PIXELS = 25
"""Smaller dark spots are speckle."""


@dataclass(frozen=True)
class MassConstants:
    """Hand-set numbers of the search; lengths in cells of an 80 x 80 sector grid, scores in logits.

    Args:
        surface_order: degree of the polynomial in depth and width that is the liver's own brightness.
        sigma: blur of departures before borders are read.
        step: distance of neighbouring centres.
        band, band_growth: thickness of the bands inside and outside a border of radius zero, and how much it grows by
            cell of radius: borders of large masses are soft.
        most_pull: standard deviations of border that at most attract a contour.
        most_border: standard deviations of border that at most count for its score, so that no bright wall decides.
        jump, jump_cost: radii that a contour may jump between neighbouring rays, and what a jump costs (squared).
        least_cells: smallest contour; smaller ones are speckle.
        size, small: score of a natural logarithm of the share of the liver; what is added before the logarithm.
        border: score of a standard deviation of mean border.
        place: score of the squared distance from `centre` (v, u) in half axes `spread` (v, u).
        tall: score of a natural logarithm of height over width: shadows and bright trails behind cysts are tall.
        darker: score of a contour darker than its surroundings (a brighter one loses as much).
        temperature: difference in score that makes a contour e times less likely.
    """

    surface_order: int = 2
    sigma: float = 1.0
    step: int = 4
    band: float = 1.5
    band_growth: float = 0.35
    most_pull: float = 4.0
    most_border: float = 1.5
    jump: int = 2
    jump_cost: float = 0.02
    least_cells: int = 8
    size: float = 0.9
    small: float = 0.003
    border: float = 2.0
    place: float = -0.8
    centre: tuple[float, float] = (0.37, 0.0)
    spread: tuple[float, float] = (0.22, 0.55)
    tall: float = -1.0
    darker: float = 0.3
    temperature: float = 0.6


class MassSearch(NamedTuple):
    """What a frame says about a mass.

    Attributes:
        probability: Of a mass in each pixel, given that there is one: the share over the greatest one; 0 outside the
            liver.
        agreement: Greatest share, 0 to 1; 0 without a liver.
    """

    probability: Float32[np.ndarray, "h w"]
    agreement: float


class _Contours(NamedTuple):
    """Contours of one polarity, filled, and their mean borders."""

    inside: Float64[np.ndarray, "n cells"]
    border: Float64[np.ndarray, " n"]


def find_masses(
    image: Float[np.ndarray, "h w"],
    region: Bool[np.ndarray, "h w"],
    liver: Float[np.ndarray, "h w"],
    agreement: float = LEAST_AGREEMENT,
) -> Float32[np.ndarray, "h w"]:
    """Probability of a mass in each pixel, 0 everywhere where contours agree too little.

    Args:
        image: Display values 0 to 1 on the sector grid of 160 x 160, overlays filled in.
        region: Where the sector grid shows the frame.
        liver: Probability of liver; its holes are filled.
        agreement: Greatest share of contours from which a mass is drawn; 0 draws one in every liver.
    """
    found = search_masses(image, region, liver)
    return found.probability if found.agreement > agreement else np.zeros_like(found.probability)


def search_masses(
    image: Float[np.ndarray, "h w"],
    region: Bool[np.ndarray, "h w"],
    liver: Float[np.ndarray, "h w"],
    constants: MassConstants = MassConstants(),
) -> MassSearch:
    """Where a mass would be if there is one, and how well contours agree on it; arguments as for `find_masses`."""
    zoom = len(image) // GRID
    filled = ndimage.binary_fill_holes(np.asarray(liver) > 0.5)
    inside = _coarser(filled.astype(float), zoom) > 0.5
    if inside.sum() < LEAST_LIVER:
        return MassSearch(np.zeros(image.shape, np.float32), 0.0)
    departure = _departure(
        _coarser(ndimage.gaussian_filter(_log_intensity(image, region), zoom / 2), zoom), inside, constants
    )
    centres = np.argwhere(inside & _lattice(constants.step)).astype(float)
    if not len(centres):
        return MassSearch(np.zeros(image.shape, np.float32), 0.0)
    borders, outlying = _borders(departure, inside, centres, constants)
    found = [_contours(sign * borders, outlying, inside, centres, constants) for sign in (1, -1)]
    scores = np.concatenate([_scores(c, sign, inside, constants) for c, sign in zip(found, (1, -1), strict=True)])
    if not np.isfinite(scores).any():
        return MassSearch(np.zeros(image.shape, np.float32), 0.0)
    weights = np.exp((scores - scores.max()) / constants.temperature)
    share = (weights / weights.sum()) @ np.concatenate([c.inside for c in found])
    fine = ndimage.zoom((share / share.max()).reshape(GRID, GRID), zoom, order=1, grid_mode=True, mode="nearest")
    return MassSearch(np.where(filled, fine, 0).astype(np.float32), float(share.max()))


def find_vessels(
    image: Float[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"], liver: Float[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Dark tubes and dots in the liver that are too narrow for a mass; arguments as for `find_masses`.

    Walls and echoes within a vessel stay outside; small cysts cannot be told from vessels that are cut across.
    """
    inside = ndimage.binary_fill_holes(np.asarray(liver) > 0.5)
    if inside.sum() < LEAST_LIVER:
        return np.zeros(image.shape, bool)
    smooth = ndimage.gaussian_filter(_log_intensity(image, region), 1.5)
    # Outside the liver counts as its median, so that its dark surroundings close no gap and open none.
    level = np.where(inside, smooth, np.median(smooth[inside]))
    depth = np.where(inside, ndimage.gaussian_filter(closing(level, disk(VESSEL_RADIUS)), 2) - level, 0.0)
    usual = np.median(depth[inside])
    spread = max(1.48 * float(np.median(np.abs(depth[inside] - usual))), NOISE_FLOOR)
    dark = inside & (depth > max(usual + VESSEL_DEPTH * spread, VESSEL_DARKER))
    # What touches the liver's own border is shadow, bowel or gallbladder far more often than a vessel.
    large = remove_small_objects(dark, max_size=VESSEL_PIXELS - 1)
    return np.asarray(clear_border(large, mask=ndimage.binary_erosion(inside)), bool)


def _log_intensity(image: Float[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    echoes = image[region & (image > DARK)]
    bright = float(np.quantile(echoes, BRIGHT_QUANTILE)) if len(echoes) else 1.0
    return np.log(np.asarray(image, np.float64) / bright + OFFSET)


def _coarser(values: Float[np.ndarray, "h w"], zoom: int) -> Float64[np.ndarray, "a b"]:
    return np.asarray(values, np.float64).reshape(GRID, zoom, GRID, zoom).mean((1, 3))


def _lattice(step: int) -> Bool[np.ndarray, "a b"]:
    lattice = np.zeros((GRID, GRID), bool)
    lattice[step // 2 :: step, step // 2 :: step] = True
    return lattice


def _departure(
    values: Float64[np.ndarray, "a b"], inside: Bool[np.ndarray, "a b"], constants: MassConstants
) -> Float64[np.ndarray, "a b"]:
    """Blurred residual of a robust polynomial fit (Cauchy weights), in robust standard deviations; 0 outside."""
    depth, width = np.indices(values.shape)[:, inside] / GRID * 2 - 1
    orders = range(constants.surface_order + 1)
    terms = np.stack([depth**a * width**b for a in orders for b in orders if a + b <= constants.surface_order], 1)
    wanted, weights = values[inside], np.ones(int(inside.sum()))
    for _ in range(8):
        root = np.sqrt(weights)
        factors = np.linalg.lstsq(terms * root[:, None], wanted * root, rcond=None)[0]
        residual = wanted - terms @ factors
        spread = max(1.48 * float(np.median(np.abs(residual))), NOISE_FLOOR)
        weights = 1 / (1 + (residual / (1.5 * spread)) ** 2)
    whole = np.zeros_like(values)
    whole[inside] = residual / spread
    cover = ndimage.gaussian_filter(inside.astype(float), constants.sigma)
    return np.where(inside, ndimage.gaussian_filter(whole, constants.sigma) / np.maximum(cover, 1e-3), 0.0)


def _borders(
    departure: Float64[np.ndarray, "a b"],
    inside: Bool[np.ndarray, "a b"],
    centres: Float64[np.ndarray, "n 2"],
    constants: MassConstants,
) -> tuple[Float64[np.ndarray, "n t r"], Bool[np.ndarray, "n t r"]]:
    """Change of departure outwards at each radius of each ray, and which radii lie outside the liver."""
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    along = np.arange(REACH) + 0.5
    place = centres[:, :, None, None] + np.stack([np.sin(angles), np.cos(angles)])[None, :, :, None] * along
    row, column = np.clip(np.round(place).astype(int), 0, GRID - 1).swapaxes(0, 1)
    known = inside[row, column] & ((place > -0.5) & (place < GRID - 0.5)).all(1)
    sums = [
        np.pad(np.cumsum(v, -1), ((0, 0), (0, 0), (1, 0))) for v in (np.where(known, departure[row, column], 0), known)
    ]

    def band(start: Float64[np.ndarray, " r"], stop: Float64[np.ndarray, " r"]) -> tuple[np.ndarray, np.ndarray]:
        first, last = (np.clip(np.round(x).astype(int), 0, REACH) for x in (start, stop))
        total, count = (s[..., last] - s[..., first] for s in sums)
        return total / np.maximum(count, 1), count / np.maximum(last - first, 1)

    thick = constants.band + constants.band_growth * RADII
    before, known_before = band(np.maximum(RADII - thick, 0), RADII)
    behind, known_behind = band(RADII, RADII + thick)
    # Behind the liver's own border nothing is known: no evidence for a contour there, and none against it.
    return np.where(known_behind > 0.5, behind - before, 0.0), known_before < 0.5


def _contours(
    borders: Float64[np.ndarray, "n t r"],
    outlying: Bool[np.ndarray, "n t r"],
    inside: Bool[np.ndarray, "a b"],
    centres: Float64[np.ndarray, "n 2"],
    constants: MassConstants,
) -> _Contours:
    """The best contour about each centre, filled."""
    most = constants.most_pull
    gains = np.where(outlying, -most, np.clip(borders, -most, most))
    chosen = _best_closed_path(gains, constants.jump, constants.jump_cost)
    filled = _fill(centres, RADII[chosen]) & inside.reshape(-1)
    border = np.take_along_axis(gains, chosen[..., None], -1)[..., 0].clip(
        -constants.most_border, constants.most_border
    )
    return _Contours(filled.astype(float), border.mean(1))


def _best_closed_path(gains: Float64[np.ndarray, "n t r"], jump: int, jump_cost: float) -> Int[np.ndarray, "n t"]:
    """Index of the radius on each ray along the path of greatest gain; two turns are made, and the middle one kept."""
    count, rays, radii = gains.shape
    jumps = np.arange(-jump, jump + 1)
    order = [t % rays for t in range(2 * rays)]
    total, steps = gains[:, 0], []
    for ray in order[1:]:
        padded = np.pad(total, ((0, 0), (jump, jump)), constant_values=-np.inf)
        options = np.stack([padded[:, jump + j : jump + j + radii] - jump_cost * j * j for j in jumps], -1)
        steps.append(options.argmax(-1))
        total = options.max(-1) + gains[:, ray]
    rows, current = np.arange(count), total.argmax(1)
    visited = [current]
    for step in reversed(steps):
        current = current + jumps[step[rows, current]]
        visited.append(current)
    visited.reverse()
    start = rays // 2
    path = np.empty((count, rays), int)
    for position in range(start, start + rays):
        path[:, order[position]] = visited[position]
    return path


def _fill(centres: Float64[np.ndarray, "n 2"], radii: Float64[np.ndarray, "n t"]) -> Bool[np.ndarray, "n cells"]:
    """Cells within star-shaped contours; between rays the radius is interpolated."""
    row, column = np.indices((GRID, GRID)).reshape(2, 1, -1)
    down, right = row - centres[:, :1], column - centres[:, 1:]
    turn = np.mod(np.arctan2(down, right), 2 * np.pi) / (2 * np.pi) * ANGLES
    ray = np.floor(turn).astype(int) % ANGLES
    part = turn - np.floor(turn)
    reach = np.take_along_axis(radii, ray, 1) * (1 - part) + np.take_along_axis(radii, (ray + 1) % ANGLES, 1) * part
    return down**2 + right**2 <= reach**2


def _scores(
    contours: _Contours,
    sign: int,
    inside: Bool[np.ndarray, "a b"],
    constants: MassConstants,
) -> Float64[np.ndarray, " n"]:
    """Score of each contour, -inf of those that are too small; sign is 1 for dark ones."""
    cells = contours.inside.sum(1)
    many = np.maximum(cells, 1)

    def mean(values: Float64[np.ndarray, " cells"]) -> Float64[np.ndarray, " n"]:
        return (contours.inside @ values) / many

    depth, width = (np.indices((GRID, GRID)).reshape(2, -1) + 0.5) / GRID * np.array([[1.0], [2.0]]) - np.array(
        [[0.0], [1.0]]
    )
    v, u = mean(depth), mean(width)
    height = np.sqrt(np.maximum(mean(depth**2) - v**2, 1e-6))
    breadth = np.sqrt(np.maximum(mean(width**2) - u**2, 1e-6)) / 2  # u runs over two units, v over one
    away = ((v - constants.centre[0]) / constants.spread[0]) ** 2 + (
        (u - constants.centre[1]) / constants.spread[1]
    ) ** 2
    score = (
        constants.size * np.log(cells / inside.sum() + constants.small)
        + constants.border * contours.border
        + constants.place * away
        + constants.tall * np.log(np.clip(height / breadth, 0.2, 5))
        + constants.darker * sign
    )
    return np.where(cells >= constants.least_cells, score, -np.inf)
