"""This file finds what a scanner drew over an ultrasound picture, and fills it in from around.

*Overlays* are text, callipers (crosses and dotted lines between them), ticks of rulers, colour bars and coloured marks.
They are told from tissue by what the scanner cannot see: colour, strokes of a pixel or two with hard borders that stand
alone, and brightness beside the tissue. Echoes are blurred by the beam, and bright borders of masses go on and on.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image

from medseg.prepare.sector import Sector

__all__ = ["fill_overlays", "find_overlays", "grey_of"]

COLOURED = 0.16
"""Distance of a colour from the usual one of its brightness (0..1) from which on it was drawn; whole pictures are often
tinted a little, JPEG spoils colours by .1."""
COLOURED_STROKE = 0.08, 0.12
"""The same distance, and the brightness above both sides, of thin strokes in a pale colour."""
COLOUR_LEVELS = 16
"""Levels of brightness whose usual colour is taken."""
LEAST_STROKE = 0.45
"""Brightness (0..1) of drawn strokes in grey."""
STROKE_PIXELS = 3
"""Distance from the middle of a stroke (px) at which there is none of it any more."""
STROKE_CONTRAST = 0.3
"""Brightness of a stroke above both of its sides."""
GOES_ON = 0.1
"""Brightness above both sides from which on a stroke goes on, at half its least brightness: borders fade."""
ALONE_CONTRAST = 0.3
"""Brightness of a stroke above nearly all that lies around it; an echo's border goes on beyond its brightest part."""
ALONE_PERCENTILE = 95
"""Which of the pixels around a stroke stands for nearly all."""
SMALLEST_MARK, LARGEST_MARK = 5, 48
"""Length (px) of letters, crosses and ticks."""
LARGEST_FILL = 0.6
"""Share of its box that a mark of strokes fills, unless it is a bare line."""
DOT_PIXELS = 12
"""Most pixels of one dot of a dotted line."""
DOT_STEP = 4, 24
"""Distance (px) of the dots of a line."""
DOT_MISS = 1.6
"""How far (px) from its place a dot may lie."""
LEAST_BESIDE = 0.12
"""Brightness from which on something beside the tissue was drawn there."""
TISSUE_OPEN = 15
"""Window (px) that parts text and bars from tissue that they touch."""
TISSUE_CLOSE = 9
"""Window (px) that closes the gaps between specks of tissue."""
DARK = 5 / 255
"""Brightness that tissue exceeds."""
HALO = 2
"""Pixels around an overlay that its blurred border and JPEG spoil."""
FILL_SIGMAS = 3.0, 12.0
"""Widths (px) of the surroundings that an overlay is filled in from; the wider ones where there are no near ones."""


def grey_of(picture: Float[np.ndarray, "h w *c"]) -> Float[np.ndarray, "h w"]:
    """The brightness of a picture in colour or grey."""
    return picture if picture.ndim == 2 else picture.mean(-1)


def find_overlays(picture: Float[np.ndarray, "h w *c"]) -> Bool[np.ndarray, "h w"]:
    """Find what was drawn over a picture.

    Args:
        picture: values from 0 to 1, grey or red, green and blue.

    Returns:
        Which pixels are to be filled in, with a narrow margin.
    """
    grey = grey_of(picture)
    drawn = _lone_strokes(grey) | _beside_tissue(grey)
    if picture.ndim == 3:
        drawn |= _coloured(picture, grey)
    return _widened(drawn)


def fill_overlays(grey: Float[np.ndarray, "h w"], overlays: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Fill overlays in with the mean of what lies around, nearer pixels counting more; all else stays."""
    if not overlays.any() or overlays.all():
        return grey
    filled = grey.copy()
    todo = overlays.copy()
    for sigma in FILL_SIGMAS:
        if not todo.any():
            break
        known = ndimage.gaussian_filter((~overlays).astype(np.float32), sigma)
        values = ndimage.gaussian_filter(np.where(overlays, 0, grey).astype(np.float32), sigma)
        here = todo & (known > 0.02)  # less than that are the tails of the window alone
        filled[here] = values[here] / known[here]
        todo &= ~here
    if todo.any():
        rows, columns = ndimage.distance_transform_edt(overlays, return_distances=False, return_indices=True)
        filled[todo] = grey[rows[todo], columns[todo]]
    return filled


def _coloured(picture: Float[np.ndarray, "h w 3"], grey: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of another colour than the picture's others of their brightness."""
    chroma = picture[..., [0, 2]] - picture[..., [1]]
    if 2 * np.abs(chroma).max(initial=0) <= COLOURED_STROKE[0]:  # no two colours differ by so much
        return np.zeros(grey.shape, bool)
    level = np.minimum((grey * COLOUR_LEVELS).astype(int), COLOUR_LEVELS - 1)
    usual = np.zeros((COLOUR_LEVELS, 2), dtype=picture.dtype)
    least = grey.size / 1000
    for one in range(COLOUR_LEVELS):
        here = level == one
        # Too few pixels may all be drawn ones: they are compared with the next darker level.
        usual[one] = np.median(chroma[here], axis=0) if here.sum() > least else usual[one - 1] if one else 0
    distance = np.abs(chroma - usual[level]).max(-1)
    pale, ridge = COLOURED_STROKE
    return (distance > COLOURED) | ((distance > pale) & (_ridge(grey) > ridge))


def _lone_strokes(grey: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Thin bright strokes with hard borders that stand alone, and dots in a line."""
    ridge = _ridge(grey)
    stroke = (grey > LEAST_STROKE) & (ridge > STROKE_CONTRAST)
    longer, lengths = _with_fainter_ends((grey > LEAST_STROKE / 2) & (ridge > GOES_ON))
    parts = label(stroke, connectivity=2)
    around = _widened(stroke)
    drawn = np.zeros_like(stroke)
    dots = []
    for part in regionprops(parts):
        length = max(part.bbox[2] - part.bbox[0], part.bbox[3] - part.bbox[1])
        if length > LARGEST_MARK or lengths[longer[tuple(part.coords.T)]].max() > LARGEST_MARK:
            continue
        box = tuple(slice(max(0, low - 5), high + 5) for low, high in zip(part.bbox[:2], part.bbox[2:], strict=True))
        others = grey[box][~around[box]]
        if others.size == 0:
            continue
        bright = np.median(grey[tuple(part.coords.T)])
        if bright - np.percentile(others, ALONE_PERCENTILE) < ALONE_CONTRAST:
            continue
        if length < SMALLEST_MARK and part.area <= DOT_PIXELS:
            dots.append(part)
        elif part.extent < LARGEST_FILL or min(part.image.shape) <= STROKE_PIXELS:
            drawn[tuple(part.coords.T)] = True
    for part in _in_line(dots):
        drawn[tuple(part.coords.T)] = True
    return drawn


def _with_fainter_ends(lines: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, " n"]]:
    """The number of the line that a pixel lies in, and the length of each; that of number 0, no line, is 0."""
    numbers = label(lines, connectivity=2)
    boxes = ndimage.find_objects(numbers)
    lengths = [max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes]
    return numbers, np.array([0, *lengths])


def _ridge(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """How far a pixel is above both of its sides, across the direction where that is most."""
    far = STROKE_PIXELS
    padded = np.pad(grey, far, mode="edge")

    def moved(down: int, right: int) -> np.ndarray:
        return padded[far + down : far + down + grey.shape[0], far + right : far + right + grey.shape[1]]

    slant = round(far / np.sqrt(2))
    ways = ((far, 0), (0, far), (slant, slant), (slant, -slant))
    return grey - np.min([np.maximum(moved(i, j), moved(-i, -j)) for i, j in ways], axis=0)


def _in_line(dots: list) -> list:
    """The dots that have another one at either side, equally far, and those others."""
    if len(dots) < 3:
        return []
    places = np.array([dot.centroid for dot in dots])
    tree = KDTree(places)
    kept: set[int] = set()
    for one, neighbours in enumerate(tree.query_ball_point(places, DOT_STEP[1])):
        for other in neighbours:
            if np.linalg.norm(places[other] - places[one]) < DOT_STEP[0]:
                continue
            miss, opposite = tree.query(2 * places[one] - places[other])
            if miss < DOT_MISS:
                kept |= {one, other, int(opposite)}
    return [dots[one] for one in sorted(kept)]


def _beside_tissue(grey: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What is bright beyond the outline of the tissue."""
    bright = grey > LEAST_BESIDE
    small = np.pad(grey[::2, ::2] > DARK, TISSUE_OPEN).astype(np.uint8)  # every other pixel is enough for an outline
    for window in (TISSUE_CLOSE, TISSUE_OPEN):
        size = window // 2 + 1
        first, then = (ndimage.maximum_filter, ndimage.minimum_filter)[:: 1 if window == TISSUE_CLOSE else -1]
        small = then(first(small, size), size)
    parts, count = ndimage.label(small[TISSUE_OPEN:-TISSUE_OPEN, TISSUE_OPEN:-TISSUE_OPEN])
    if count == 0:
        return bright
    tissue = convex_hull_image(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))
    tissue = ndimage.binary_dilation(tissue, iterations=HALO)
    return bright & ~tissue.repeat(2, 0).repeat(2, 1)[: grey.shape[0], : grey.shape[1]]


def _widened(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    return ndimage.maximum_filter(mask, 2 * HALO + 1)


def cleaned_frame(picture: Float[np.ndarray, "h w *c"], sector: Sector | None) -> Float[np.ndarray, "h w *c"]:
    """A frame as it may leave the house: overlays filled in, black outside the sector; all black without one.

    Names of patients are burnt in outside the sector; where that is unknown, nothing can be shown.
    """
    if sector is None:
        return np.zeros_like(picture)
    overlays = find_overlays(picture)
    inside = sector.mask(overlays.shape)
    channels = picture.reshape(*picture.shape[:2], -1)
    if (overlays & inside).any():  # most lie outside, where all becomes black
        channels = np.stack([fill_overlays(channels[..., c], overlays) for c in range(channels.shape[-1])], axis=-1)
    return np.where(inside[..., None], channels, 0).reshape(picture.shape).astype(picture.dtype)
