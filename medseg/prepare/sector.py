"""This file finds the part of an ultrasound picture that the probe saw, and takes pictures to its grid and back.

The *sector* is a fan between two radii about an *apex*; a linear probe is a fan whose apex is very far away. Angles are
taken from straight down, positive to the right. *Sector coordinates* are v, depth from 0 near the probe to 1, and u,
from -1 at the left edge to 1 at the right one. The *sector grid* holds v = (i + .5) / size and
u = 2 (j + .5) / size - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Shaped
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.optimize import minimize
from skimage.morphology import convex_hull_image
from skimage.transform import resize

__all__ = ["POLAR", "Sector", "find_sector", "from_sector", "to_sector"]

POLAR = 160
"""Rows and columns of the sector grid: half the pixels of a usual sector, which speckle does not need."""
SECTOR_STEP = "SectorGrid"
"""Name of the resampling to the sector grid among the operations that an image has been through."""
MOST_SAMPLES = 6
"""Samples along each side of a cell, for sectors of up to a thousand pixels; larger ones are sampled, not averaged."""
LONG_SIDE = 384
"""Pixels of the longer side of the picture that a sector is sought in; lengths below are in these pixels."""
DARKEST_TISSUE = 3 / 255
"""Grey value (0..1) above the black around it that tissue exceeds; JPEG leaves up to 2 of 255 in black."""
FAINTEST_TISSUE = 1.5 / 255
"""The same for faint pictures, tried where no sector is found."""
EVEN_BLACK = 0.5 / 255
"""Within so much of each other lie the grey values of a screen's background."""
LIGHTEST_BLACK = 20 / 255
"""Most that the border of a picture has where it counts as black."""
MEDIAN_PIXELS, CLOSE_PIXELS, OPEN_PIXELS = 5, 7, 11
"""Windows that take specks away from the tissue, fill its gaps, and cut off text and thin marks beside it."""
LINE_PIXELS = 1.5
"""Distance from an edge's line within which its points lie on it."""
LEAST_TISSUE = 0.02
"""Share of the picture that is tissue where there is a sector."""
LEAST_STRAIGHT = 0.22, 0.46, 0.75
"""Shares of the sector's height along which the less and the more straight side edge are, and their sum: fans with a
shadow at one side have .34 and .59, one with two .41 and .47, brains .39 and .41 or .2 and .65, discs .2 and .2."""
MOST_TOUCH = 0.5
"""Share of a border of the picture from which on the tissue touches it; a fan does not touch both sides or three."""
LEAST_OVERLAP = 0.8
"""Overlap (intersection over union) of the sector with the hull of its tissue below which it is something else."""
CUT_RUN = 0.08, 0.5
"""Shares of the tissue's height and width along which a straight border means that the picture was cut there."""
FIRST_STEP = 0.03
"""First steps of the last fit, in heights of the tissue."""
FIT_PIXELS = 128
"""Pixels of the longer side of the tissue that the last fit sees."""
SHADOW_WEIGHT = 0.35
"""What a dark pixel within the sector costs, of a bright one outside: shadows are common, tissue outside is not."""
TILT_WEIGHT = 0.15
"""What a tilt of one radian costs, in shares of the tissue: probes look straight down unless much speaks against it."""
LINEAR_SPREAD = 0.06
"""Angle (radians) between the edges below which they are parallel."""
FAR_AWAY = 50.0
"""Distance of the apex of parallel edges, in heights of the sector."""


@dataclass(frozen=True)
class Sector:
    """A fan in a picture.

    Args:
        apex_row: row of the point where the edges meet (px; pixel centres are whole numbers).
        apex_col: its column.
        near: radius (px) where the picture begins.
        far: radius (px) where it ends.
        left: angle of the left edge (radians from straight down).
        right: angle of the right edge; greater than `left`.
    """

    apex_row: float
    apex_col: float
    near: float
    far: float
    left: float
    right: float

    def __post_init__(self) -> None:
        if not (0 <= self.near < self.far and self.left < self.right):
            raise ValueError(f"a sector must have 0 <= near < far and left < right, got {self}")

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for records."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> Self:
        """What `as_dict` wrote."""
        return cls(**{name: float(value) for name, value in numbers.items()})

    def positions(self, size: int = POLAR) -> Float64[np.ndarray, "2 size size"]:
        """Row and column (px) of each cell of the sector grid."""
        share = (np.arange(size) + 0.5) / size
        radius = self.near + (self.far - self.near) * share[:, None]
        angle = self.left + (self.right - self.left) * share[None, :]
        return np.stack([self.apex_row + radius * np.cos(angle), self.apex_col + radius * np.sin(angle)])

    def coordinates(self, shape: tuple[int, int]) -> Float32[np.ndarray, "2 h w"]:
        """v and u of each pixel; outside the sector beyond 0..1 and -1..1."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        return np.stack(self._coordinates_at(rows, columns)).astype(np.float32)

    def mask(self, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Which pixels lie within the sector."""
        v, u = self.coordinates(shape)
        return (v >= 0) & (v <= 1) & (np.abs(u) <= 1)

    def _coordinates_at(self, rows: ArrayLike, columns: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        down = np.asarray(rows, dtype=np.float64) - self.apex_row
        across = np.asarray(columns, dtype=np.float64) - self.apex_col
        v = (np.hypot(down, across) - self.near) / (self.far - self.near)
        u = 2 * (np.arctan2(across, down) - self.left) / (self.right - self.left) - 1
        return v, u


def to_sector(
    values: Float[np.ndarray, "c h w"], sector: Sector, *, nearest: bool = False, size: int = POLAR
) -> Float[np.ndarray, "c size size"]:
    """Resample a picture to the sector grid; 0 outside the picture.

    Args:
        values: channels of the picture.
        sector: where the sector lies in it.
        nearest: take the nearest pixel (labels) instead of interpolating.
        size: rows and columns of the grid.
    """
    if nearest:
        return _sampled(values, sector.positions(size), nearest=True)
    # As many samples a cell as it has pixels, so that their mean leaves no pixel out.
    widest = max(sector.far - sector.near, sector.far * (sector.right - sector.left)) / size
    finer = int(np.clip(np.ceil(widest), 1, MOST_SAMPLES))
    samples = _sampled(values, sector.positions(size * finer), nearest=False)
    return samples.reshape(-1, size, finer, size, finer).mean((2, 4))


def from_sector(
    values: Shaped[np.ndarray, "c s s"], sector: Sector, shape: tuple[int, int], *, nearest: bool
) -> Shaped[np.ndarray, "c h w"]:
    """Resample values on the sector grid to the pixels of a picture; 0 outside the sector."""
    inside, cells = _cells(sector, shape, values.shape[-1])
    back = np.zeros((len(values), *shape), values.dtype)
    back[:, inside] = _sampled(values, cells, nearest=nearest)[:, 0]
    return back


@lru_cache(maxsize=1)  # all maps of all frames of a cine lie in one sector
def _cells(
    sector: Sector, shape: tuple[int, int], size: int
) -> tuple[Bool[np.ndarray, "h w"], Float64[np.ndarray, "2 1 m"]]:
    """Which pixels lie within the sector, and where those are on its grid."""
    v, u = sector.coordinates(shape)
    inside = sector.mask(shape)
    v, u = v[inside].astype(np.float64), u[inside].astype(np.float64)
    # Half a cell lies beyond the centres of the outermost cells: there the outermost values hold.
    return inside, np.clip(np.stack([v * size - 0.5, (u + 1) / 2 * size - 0.5]), 0, size - 1)[:, None]


def find_sector(grey: Float[np.ndarray, "h w"], tissue: Bool[np.ndarray, "h w"] | None = None) -> Sector | None:
    """Find the sector of a picture.

    Args:
        grey: grey values from 0 to 1.
        tissue: where the sector is known to lie (a given mask), which its outline then follows; None looks for
            what is not black.

    Returns:
        The sector in px of the picture; None where the picture shows none: black frames, photographs, heads, noise.
    """
    scale = LONG_SIDE / max(grey.shape)
    if tissue is not None:
        return _sector_of_tissue(_largest(_shrunk(tissue, scale) > 0.5), scale, is_given=True)
    shrunk = ndimage.median_filter(_shrunk(grey, scale), MEDIAN_PIXELS)
    black = _black_level(shrunk)
    for darkest in (DARKEST_TISSUE, FAINTEST_TISSUE):
        sector = _sector_of_tissue(_tissue(shrunk > black + darkest), scale, is_given=False)
        if sector is not None:
            return sector
    return None


def _sector_of_tissue(mask: Bool[np.ndarray, "h w"] | None, scale: float, *, is_given: bool) -> Sector | None:
    """The sector around tissue in a picture that was scaled."""
    if mask is None or mask.mean() < LEAST_TISSUE:
        return None
    hull = convex_hull_image(mask)
    lines = _edge_lines(hull)
    if lines is None or (not is_given and (_is_curved(lines) or _fills_picture(hull))):
        return None
    window = _window(mask)
    # A given outline is taken at its word: it has no shadows, and slices of a volume are tilted.
    weights = (1.0, 0.0) if is_given else (SHADOW_WEIGHT, TILT_WEIGHT)
    sector = _fitted(mask, lines, window, *weights)
    if sector is None or _overlap(sector.mask(mask.shape) & window, hull) < LEAST_OVERLAP:
        return None
    offset = (1 / scale - 1) / 2  # pixel centres are whole numbers on both grids
    return Sector(
        sector.apex_row / scale + offset,
        sector.apex_col / scale + offset,
        sector.near / scale,
        sector.far / scale,
        sector.left,
        sector.right,
    )


def _tissue(bright: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"] | None:
    """The largest connected part of what is not black, without what is narrow."""
    rim = OPEN_PIXELS  # neither may eat what touches the border
    closed = ndimage.binary_closing(np.pad(bright, rim), np.ones((CLOSE_PIXELS, CLOSE_PIXELS)))[rim:-rim, rim:-rim]
    padded = np.pad(closed, rim, mode="edge")
    return _largest(ndimage.binary_opening(padded, np.ones((OPEN_PIXELS, OPEN_PIXELS)))[rim:-rim, rim:-rim])


def _black_level(grey: Float[np.ndarray, "h w"]) -> float:
    """What a screen has around the sector; 0 where the border is no even dark grey, as in air around a body."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    level = float(np.median(border))
    is_even = np.mean(np.abs(border - level) < EVEN_BLACK) > MOST_TOUCH
    return level if is_even and level < LIGHTEST_BLACK else 0.0


def _shrunk(values: np.ndarray, scale: float) -> Float[np.ndarray, "h w"]:
    shape = tuple(max(1, round(side * scale)) for side in values.shape)
    return resize(values.astype(np.float32), shape, order=1, anti_aliasing=scale < 1)


def _largest(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"] | None:
    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    return ndimage.binary_fill_holes(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


class _Lines(NamedTuple):
    """Columns of the left and the right edge at a top and a bottom row, and the share of each that is straight."""

    top: int
    bottom: int
    columns: tuple[float, float, float, float]
    straight: tuple[float, float]


def _edge_lines(hull: Bool[np.ndarray, "h w"]) -> _Lines | None:
    """Lines through the side edges; None where they are not straight enough."""
    rows = np.flatnonzero(hull.any(1))
    top, bottom = int(rows[0]), int(rows[-1])
    height = bottom - top
    if height < 2 * OPEN_PIXELS:
        return None
    first, last = hull[rows].argmax(1), hull.shape[1] - 1 - hull[rows][:, ::-1].argmax(1)
    columns, straight = [], []
    for extent, outermost in ((first, first.argmin()), (last, last.argmax())):
        # Below the widest row the far arc begins, or the side where the picture was cut.
        stop = max(int(outermost) + 1, int(0.3 * height))
        start = int(0.03 * height)
        line = _best_line(rows[start:stop], extent[start:stop])
        columns.append((float(np.polyval(line, top)), float(np.polyval(line, bottom))))
        on_line = np.abs(np.polyval(line, rows) - extent) <= LINE_PIXELS
        straight.append(float(on_line.sum() / len(rows)))
    (left_top, left_bottom), (right_top, right_bottom) = columns
    return _Lines(top, bottom, (left_top, left_bottom, right_top, right_bottom), (straight[0], straight[1]))


def _is_curved(lines: _Lines) -> bool:
    """Whether the side edges are less straight than those of a sector."""
    less, more = sorted(lines.straight)
    return less < LEAST_STRAIGHT[0] or more < LEAST_STRAIGHT[1] or less + more < LEAST_STRAIGHT[2]


def _fills_picture(hull: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the tissue reaches both sides of the picture or three of its borders, as photographs do."""
    top, bottom, left, right = (border.mean() > MOST_TOUCH for border in (hull[0], hull[-1], hull[:, 0], hull[:, -1]))
    return bool((left and right) or (top and bottom and (left or right)))


def _best_line(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The line (slope, offset) that most points lie on, out of all lines through two of them."""
    picked = np.unique(np.linspace(0, len(rows) - 1, 40).astype(int))
    one, two = np.triu_indices(len(picked), 8)
    one, two = picked[one], picked[two]
    slope = (columns[two] - columns[one]) / (rows[two] - rows[one])
    offset = columns[one] - slope * rows[one]
    on_line = np.abs(slope[:, None] * rows + offset[:, None] - columns) <= LINE_PIXELS
    best = on_line[on_line.sum(1).argmax()]
    return np.polyfit(rows[best], columns[best], 1)


def _window(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where the sector can be seen: all, without what lies beyond a side where the tissue was cut off straight."""
    window = np.ones(mask.shape, bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side, floor = (share * len(extent) for share, extent in zip(CUT_RUN, (rows, columns), strict=True))
    if mask[:, columns[0] : columns[0] + 2].any(1).sum() >= side:
        window[:, : columns[0]] = False
    if mask[:, columns[-1] - 1 : columns[-1] + 1].any(1).sum() >= side:
        window[:, columns[-1] + 1 :] = False
    if mask[rows[-1] - 1 : rows[-1] + 1].any(0).sum() >= floor:
        window[rows[-1] + 1 :] = False
    return window


def _fitted(
    mask: Bool[np.ndarray, "h w"],
    lines: _Lines,
    window: Bool[np.ndarray, "h w"],
    shadow_weight: float,
    tilt_weight: float,
) -> Sector | None:
    """The sector that agrees best with the tissue, looked for from the lines of its edges."""
    height = lines.bottom - lines.top
    step = max(1, round(max(int(mask.any(0).sum()), height) / FIT_PIXELS))
    rows, columns = np.mgrid[: mask.shape[0] : step, : mask.shape[1] : step]
    tissue, seen = mask[::step, ::step], window[::step, ::step]
    rows, columns, tissue = rows[seen].astype(float), columns[seen].astype(float), tissue[seen]
    size = tissue.sum()

    def cost(numbers: np.ndarray) -> float:
        sector = _sector_of(numbers, lines.top, lines.bottom)
        if sector is None:
            return 10.0
        v, u = sector._coordinates_at(rows, columns)
        # Soft by about a pixel of the fit, so that small moves count.
        depth = (sector.far - sector.near) / step
        width = (sector.near + sector.far) * (sector.right - sector.left) / 4 / step
        distance = np.minimum((0.5 - np.abs(v - 0.5)) * depth, (1 - np.abs(u)) * width)
        inside = np.clip(distance + 0.5, 0, 1)
        outside_tissue = (tissue * (1 - inside)).sum()
        shadow = (~tissue * inside).sum()
        tilt = abs(sector.left + sector.right) / 2
        return float((outside_tissue + shadow_weight * shadow) / size + tilt_weight * tilt)

    start = np.array([*lines.columns, float(lines.top), float(lines.bottom)])
    corners = start + FIRST_STEP * height * np.vstack([np.zeros(6), np.eye(6)])
    options = {"initial_simplex": corners, "maxiter": 500, "xatol": 0.1, "fatol": 1e-4}
    return _sector_of(minimize(cost, start, method="Nelder-Mead", options=options).x, lines.top, lines.bottom)


def _sector_of(numbers: np.ndarray, top: float, bottom: float) -> Sector | None:
    """The sector with edges through four columns at the top and the bottom row, and arcs at two rows of its axis."""
    left_top, left_bottom, right_top, right_bottom, first, last = numbers
    left, right = ((down - up) / (bottom - top) for up, down in ((left_top, left_bottom), (right_top, right_bottom)))
    width = right_top - left_top
    if width <= 0 or right_bottom <= left_bottom or last <= first:
        return None
    spread = max(right - left, width / (FAR_AWAY * (bottom - top)))
    if right - left < -LINEAR_SPREAD:
        return None
    apex_row = top - width / spread
    middle = (left + right) / 2
    left, right = middle - spread / 2, middle + spread / 2
    apex_col = left_top + left * (apex_row - top)
    near, far = first - apex_row, last - apex_row
    if near < 0:
        return None
    return Sector(*(float(v) for v in (apex_row, apex_col, near, far, np.arctan(left), np.arctan(right))))


def _overlap(one: Bool[np.ndarray, "h w"], two: Bool[np.ndarray, "h w"]) -> float:
    return float((one & two).sum() / max(1, (one | two).sum()))


def _sampled(
    values: Shaped[np.ndarray, "c h w"], positions: Float64[np.ndarray, "2 m n"], *, nearest: bool
) -> Shaped[np.ndarray, "c m n"]:
    """Values at rows and columns; 0 outside."""
    order, mode = (0, "grid-constant") if nearest else (1, "constant")
    return np.stack([ndimage.map_coordinates(channel, positions, order=order, mode=mode) for channel in values])
