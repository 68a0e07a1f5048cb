"""This file picks the patches to train on, without any label.

*Salience* is a label-free map of where something is (for vessels the scaled oriented flux, in which
a vessel is near 1). A voxel counts as *salient* above `SALIENCE_FLOOR`; a patch without a salient
voxel is *empty*. A *scheme* thins the patches drawn from a case to a share of them. Some schemes
look at a *latent*, a few plain numbers that describe a patch (brightness, salience, position), and
at *strata*, its k-means groups.

| scheme | picks |
|---|---|
| `all` | every patch that was drawn |
| `R` | at random |
| `C` | at random within strata, each in proportion to its size |
| `CF`, `CFW` | farthest points in 2-D position (row, column), within strata / without |
| `CFX`, `CFWX` | farthest points in the latent, within strata / without |
| `five` | the four corners and the centre of every slice, `per_case` windows at most |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from medseg.errors import MedsegError
from medseg.patches.slicing import PatchGeometry, cut_all, plane_shape, slices_first

SCHEMES = ("all", "R", "C", "CF", "CFW", "CFX", "CFWX", "five")
SALIENCE_FLOOR = 0.2
_STRATA = 8
_KMEANS_STEPS = 25
# A round draws what is still missing; windows that are empty or there already are drawn again.
_ROUNDS = 40


def sample_locations(
    shape: Sequence[int],
    geometry: PatchGeometry,
    region: Shaped[np.ndarray, "i j k"] | None,
    salience: Float[np.ndarray, "i j k"] | None,
    *,
    per_case: int,
    salient_fraction: float,
    scheme: str = "all",
    scheme_fraction: float = 1.0,
    empty: str | float = "keep",
    seed: int,
    image: Float[np.ndarray, "i j k"] | None = None,
) -> Int[np.ndarray, "n 3"]:
    """Draw windows of one case, ordered by slice, row, column; no window is there twice.

    `salient_fraction` of them are centred on salient voxels of the region, drawn in proportion to
    their salience (clipped at 1, so that the brightest vessel does not take all); the others are
    centred on voxels drawn uniformly from the region. At the border windows are moved in. Where too
    few salient voxels exist, uniform windows take their place.

    Args:
        shape: of the prepared volume, in voxels.
        geometry: plane and window.
        region: where to look; None is everywhere.
        salience: at least 0; None draws uniformly.
        per_case: patches to draw before the scheme thins them.
        salient_fraction: in [0, 1].
        scheme: a name of `SCHEMES`.
        scheme_fraction: the share of the drawn patches that the scheme keeps, in (0, 1].
        empty: `keep` empty patches, `drop` them, or the largest share of `per_case` that may be empty.
        seed: the same seed draws the same windows.
        image: grey values, which join the latent where given.

    Returns:
        At most `per_case` locations: fewer in a volume with fewer windows, none where the region is
        empty or `drop` finds nothing salient.

    Raises:
        MedsegError: a value is out of range.
    """
    _require_valid(per_case, salient_fraction, scheme, scheme_fraction, empty)
    rng = np.random.default_rng(seed)
    lengths = plane_shape(shape, geometry.plane)
    if scheme == "five":
        five = _corners_and_centre(lengths, geometry.size)
        kept = np.sort(rng.permutation(len(five))[: max(1, round(scheme_fraction * min(per_case, len(five))))])
        return five[kept]
    inside = slices_first(np.ones(shape, bool) if region is None else np.asarray(region) != 0, geometry.plane)
    strength = slices_first(np.ones(shape, np.float32) if salience is None else np.asarray(salience), geometry.plane)
    salient = np.where(inside & (strength > SALIENCE_FLOOR), np.clip(strength, 0, 1), 0)

    empty_left = {"keep": per_case, "drop": 0}.get(empty, 0) if isinstance(empty, str) else round(empty * per_case)
    drawn = _Drawn(geometry.size, lengths, salient > 0, empty_left)
    drawn.draw(salient, round(salient_fraction * per_case) if salience is not None else 0, rng)
    drawn.draw(inside.astype(np.float32), per_case - len(drawn.locations), rng)
    locations = np.array(drawn.locations, dtype=np.int64).reshape(-1, 3)
    if scheme != "all" and len(locations):
        wanted = max(1, round(scheme_fraction * len(locations)))
        latent = describe_windows(lengths, geometry, locations, image=image, salience=salience)
        locations = locations[pick(scheme, locations, latent, wanted, rng)]
    return locations[np.lexsort(locations.T[::-1])]


def _corners_and_centre(lengths: Sequence[int], size: int) -> Int[np.ndarray, "n 3"]:
    """Five windows of every slice, fewer where they coincide, ordered by slice, row, column."""
    slices, *last = lengths[0], *(max(length - size, 0) for length in lengths[1:])
    rows, columns = last
    places = {(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)}
    return np.array([(number, *place) for number in range(slices) for place in sorted(places)], dtype=np.int64)


def _require_valid(
    per_case: int, salient_fraction: float, scheme: str, scheme_fraction: float, empty: str | float
) -> None:
    if per_case < 1:
        raise MedsegError(f"patches.per_case must be at least 1, got {per_case}; the usual number is 500")
    if not 0 <= salient_fraction <= 1:
        raise MedsegError(f"patches.salient_fraction must be in [0, 1], got {salient_fraction}; .5 is a good start")
    if scheme not in SCHEMES:
        raise MedsegError(f"patches.scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}; choose one of them")
    if not 0 < scheme_fraction <= 1:
        raise MedsegError(f"patches.scheme_fraction must be in (0, 1], got {scheme_fraction}; write 5 percent as .05")
    if scheme == "all" and scheme_fraction != 1:
        raise MedsegError(
            f"patches.scheme_fraction must be 1 with patches.scheme all, got {scheme_fraction}; use R for a share"
        )
    if empty not in ("drop", "keep") and (isinstance(empty, str) or not 0 <= empty <= 1):
        raise MedsegError(f"patches.empty must be drop, keep or a share in [0, 1], got {empty!r}; keep is the default")


class _Drawn:
    """Windows drawn so far, and how many empty ones may still join them."""

    def __init__(
        self, size: int, lengths: tuple[int, int, int], salient: Bool[np.ndarray, "s h w"], empty_left: int
    ) -> None:
        self.locations: list[tuple[int, int, int]] = []
        self._size = size
        self._last = np.maximum(np.array(lengths[1:]) - size, 0)
        self._salient = salient
        self._empty_left = empty_left
        self._seen: set[tuple[int, int, int]] = set()

    def draw(self, weights: Shaped[np.ndarray, "s h w"], wanted: int, rng: np.random.Generator) -> None:
        """Add up to `wanted` windows centred on voxels drawn in proportion to their weights."""
        totals = weights.sum(axis=(1, 2), dtype=np.float64)
        if wanted <= 0 or not totals.any():
            return
        goal = len(self.locations) + wanted
        for _ in range(_ROUNDS):
            voxels = _draw_voxels(weights, totals, goal - len(self.locations), rng)
            starts = np.clip(voxels[:, 1:] - self._size // 2, 0, self._last)
            for number, row, column in np.column_stack([voxels[:, 0], starts]).tolist():
                self._add((number, row, column))
            if len(self.locations) == goal:
                return

    def _add(self, location: tuple[int, int, int]) -> None:
        if location in self._seen:
            return
        self._seen.add(location)
        number, row, column = location
        if not self._salient[number, row : row + self._size, column : column + self._size].any():
            if not self._empty_left:
                return
            self._empty_left -= 1
        self.locations.append(location)


def _draw_voxels(
    weights: Shaped[np.ndarray, "s h w"], totals: Float[np.ndarray, " s"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "n 3"]:
    """Draw voxels in proportion to their weights, in random order: first the slices, then within each of them."""
    per_slice = rng.multinomial(count, totals / totals.sum())
    voxels = []
    for number in np.flatnonzero(per_slice):
        cumulative = np.cumsum(weights[number], dtype=np.float64)
        # searchsorted to the right skips voxels of weight 0, which do not raise the sum.
        flat = np.searchsorted(cumulative, rng.random(per_slice[number]) * cumulative[-1], side="right")
        rows, columns = np.unravel_index(flat, weights.shape[1:])
        voxels.append(np.stack([np.full(len(flat), number), rows, columns], axis=1))
    return rng.permutation(np.concatenate(voxels))


def describe_windows(
    lengths: tuple[int, int, int],
    geometry: PatchGeometry,
    locations: Int[np.ndarray, "n 3"],
    *,
    image: Float[np.ndarray, "i j k"] | None,
    salience: Float[np.ndarray, "i j k"] | None,
) -> Float[np.ndarray, "n m"]:
    """The latent of each window: mean and sd of the image, mean and maximum of the salience, position.

    Every number is standardised over the windows, so that none outweighs the others in a distance.
    """
    plain = PatchGeometry(geometry.plane, geometry.size)
    columns = [locations / np.maximum(lengths, 1)]
    for volume, second in ((image, np.std), (salience, np.max)):
        if volume is not None:
            patches = [cut_all(np.asarray(volume)[None], [location], plain) for location in locations]
            columns.append(np.array([[patch.mean(), second(patch)] for patch in patches]))
    latent = np.concatenate(columns, axis=1).astype(np.float64)
    spread = latent.std(axis=0)
    return (latent - latent.mean(axis=0)) / np.where(spread > 0, spread, 1)


def pick(
    scheme: str,
    locations: Int[np.ndarray, "n 3"],
    latent: Float[np.ndarray, "n m"],
    wanted: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " wanted"]:
    """Indices of the `wanted` windows that a scheme picks (see the table at the top of this file)."""
    points = {"CF": locations[:, 1:].astype(np.float64), "CFW": locations[:, 1:].astype(np.float64)}
    points |= {"CFX": latent, "CFWX": latent}
    if scheme == "R":
        return rng.permutation(len(locations))[:wanted]
    if scheme in ("CFW", "CFWX"):
        return farthest_points(points[scheme], wanted, rng)
    strata = kmeans_strata(latent, _STRATA, rng)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    picked = []
    for group, count in zip(members, _shares([len(group) for group in members], wanted), strict=True):
        chosen = (
            rng.permutation(len(group))[:count] if scheme == "C" else farthest_points(points[scheme][group], count, rng)
        )
        picked.append(group[chosen])
    return np.concatenate(picked)


def _shares(sizes: Sequence[int], wanted: int) -> list[int]:
    """Split `wanted` over groups in proportion to their sizes; largest remainders round up."""
    exact = np.array(sizes) * wanted / sum(sizes)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: wanted - shares.sum()]] += 1
    return shares.tolist()


def farthest_points(
    points: Float[np.ndarray, "n m"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " count"]:
    """Pick points one by one, each the farthest from those picked before; the first at random.

    Points that coincide with a picked one come last, in their order.

    References:
        Gonzalez, Clustering to minimize the maximum intercluster distance, 1985.
    """
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    picked = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(picked) < count:
        nearest = np.minimum(nearest, ((points - points[picked[-1]]) ** 2).sum(axis=1))
        nearest[picked[-1]] = -1
        picked.append(int(nearest.argmax()))
    return np.array(picked)


def kmeans_strata(latent: Float[np.ndarray, "n m"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Group points by Lloyd's k-means, started at farthest points; a group that runs empty keeps its centre."""
    count = min(count, len(latent))
    centres = latent[farthest_points(latent, count, rng)]
    for _ in range(_KMEANS_STEPS):
        strata = ((latent[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        sizes = np.bincount(strata, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, strata, latent)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return strata
