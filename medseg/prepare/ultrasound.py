"""This file prepares ultrasound frames, cines and volumes made of them: their sectors, cleaned, on the sector grid.

The words are those of `prepare/chain.py`, whose `prepare_case` runs this chain and whose `invert` brings predictions
back, and of `prepare/sector.py`. A *cine* is a picture with several frames, all seen by the same sector; so are the
slices of a *volume* where they fill one together, else each has its own. Those are turned so that the front of the
patient, where the probe was, lies above. A sample has no tubularity, and differs in:

    image       float32 [1, v, u, k]  grey display values from 0 to 1 on the sector grid, overlays filled in
    region      uint8   [1, v, u, k]  where the sector lies in the picture, and in the given mask
    salience    float32 [1, v, u, k]  probability of liver by its place and the cues along the rays, see
                                      `prepare/liver_cues.py`; -1 outside the region
    facts       sectors: a dictionary of each slice, None where it shows none; overlay_share: of the sectors' pixels
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from monai.data import MetaTensor
from monai.transforms import Compose, DeleteItemsd, MapTransform, Orientation, Transform
from monai.utils import TraceKeys
from scipy.ndimage import gaussian_filter1d, median_filter
from skimage.morphology import convex_hull_image
from skimage.restoration import denoise_tv_chambolle

from medseg.errors import MedsegError
from medseg.prepare.cines import Cine, Slices, middle_frame
from medseg.prepare.liver_cues import liver_by_cues
from medseg.prepare.overlays import fill_overlays, find_overlays, grey_of
from medseg.prepare.picture import OUTSIDE, grey_window
from medseg.prepare.sector import (
    DARKEST_TISSUE,
    POLAR,
    SECTOR_STEP,
    Sector,
    find_sector,
    to_sector,
)
from medseg.prepare.steps import LoadCase
from medseg.scans.names import is_picture

__all__ = [
    "frame_region",
    "prepare_frame",
    "sector_of_frames",
    "ultrasound_transforms",
    "upright_slices",
]

FRAMES_FOR_SECTOR = 8
"""Frames of a cine, spread over it, whose brightest values show the sector; one alone has shadows."""
LEAST_SHOWN = 0.05
"""Share of the sector that is not black where a frame shows something."""
LEAST_MASK = 0.02
"""Share of a slice that the given mask or tissue fills where a sector is looked for."""
BORROWED_OVERLAP = 0.5
"""Overlap of a neighbour's sector with a slice's mask from which on it is taken where none was found."""
ONE_FAN = 0.9
"""Overlap (intersection over union) of a sector with all that a volume's slices show from which on it is theirs."""
FULLEST_SLICE = 0.8
"""Share of that sector which some slice fills: slices that each fill less were turned against each other."""
SPECK_PIXELS = 5
"""Window that takes specks away from what a slice shows."""
MISSING_SHARE = 0.1
"""Share of a fan beyond the picture's border from which on it is said."""
DESPECKLE_WEIGHT = 0.06
"""Of total variation denoising, for display values from 0 to 1: speckle is flattened, borders stay."""
GAIN_ROWS = 12.0
"""Width (rows of the sector grid) over which the gain of a depth is evened."""
MOST_GAIN = 2.0
"""Most that a depth is brightened or darkened."""
COLOURED_SHARE = 0.5
"""Share of pixels with colour from which on a picture without a sector is called a colour photograph."""
COLOUR = 0.15
"""Difference of red, green and blue (0..1) from which on a pixel has colour."""

_log = logging.getLogger(__name__)
_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def ultrasound_transforms(*, fill: bool = True, despeckle: bool = False, even_gain: bool = False) -> Compose:
    """Build the chain for ultrasound.

    Args:
        fill: whether text, callipers and coloured marks are filled in; slices of a volume have none.
        despeckle: whether speckle is reduced, by total variation.
        even_gain: whether all depths are made equally bright.

    Returns:
        Transforms from `{"case": Case}` to a sample; they can be pickled. Call them through `chain.prepare_case`.
    """
    sector_grid = SectorGrid(fill=fill, despeckle=despeckle, even_gain=even_gain)
    upright = UprightSlicesd(("image", "mask"))
    return Compose([LoadCase(as_cine=True), upright, sector_grid, LiverSalience(), DeleteItemsd(("case", "mask"))])


def prepare_frame(
    picture: Float[np.ndarray, "h w *c"],
    sector: Sector,
    *,
    fill: bool = True,
    despeckle: bool = False,
    even_gain: bool = False,
) -> Float32[np.ndarray, "160 160"]:
    """Display values of a frame on the sector grid; see `ultrasound_transforms`."""
    grey, _ = _without_overlays(picture, sector, fill=fill)
    return _on_sector_grid(grey, sector, despeckle=despeckle, even_gain=even_gain)


def frame_region(
    shape: tuple[int, int], sector: Sector | None, mask: Bool[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "160 160"]:
    """Which cells of the sector grid lie in the picture and in the mask; none without a sector."""
    if sector is None:
        return np.zeros((POLAR, POLAR), np.uint8)
    inside = np.ones(shape, np.float32) if mask is None else mask.astype(np.float32)
    return (to_sector(inside[None], sector, nearest=True)[0] > 0).astype(np.uint8)


def sector_of_frames(frames: Sequence[Float[np.ndarray, "h w *c"]]) -> Sector | None:
    """The sector of a cine, from some of its frames together: where one has a shadow another shows the edge."""
    grey = [grey_of(frame) for frame in frames]
    together = find_sector(np.max(grey, axis=0))
    if together is not None:
        return together
    alone = [sector for frame in grey if (sector := find_sector(frame)) is not None]
    return max(alone, key=lambda sector: int(sector.mask(grey[0].shape).sum()), default=None)


def upright_slices(scan: MetaTensor) -> MetaTensor:
    """A scan whose slices have the front of the patient above, where the probe was, and the right at the left."""
    turned = Orientation("PLS", labels=_RAS_LABELS)(scan)
    assert isinstance(turned, MetaTensor)
    return turned


class UprightSlicesd(MapTransform):
    """Turn slices of a scan, so that the front of the patient lies above and the right at the left; pictures stay."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        turned = dict(data)
        if is_picture(data["case"].image):
            return turned
        for key in self.key_iterator(data):
            turned[key] = upright_slices(data[key])
        low, high = grey_window(turned["image"].numpy())
        turned["image"] = ((turned["image"] - low) / (high - low)).clamp(0, 1)
        return {**turned, "facts": {**data["facts"], "display_window": [low, high]}}


class LiverSalience(Transform):
    """Add salience: how likely each place is liver by the rule that needs no learning; -1 outside the region."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image: MetaTensor = data["image"]
        inside = data["region"].as_tensor()[0].numpy() > 0
        salience = np.full(image.shape, OUTSIDE, np.float32)
        for k in np.flatnonzero(inside.any((0, 1))):
            likely = liver_by_cues(image.as_tensor()[0, ..., k].numpy(), inside[..., k])
            salience[0, ..., k] = np.where(inside[..., k], likely, OUTSIDE)
        return {**data, "salience": MetaTensor(torch.from_numpy(salience), affine=image.affine)}


class SectorGrid(Transform):
    """Find the sectors, clean the frames, and take them to the sector grid; add the region and what was found."""

    def __init__(self, *, fill: bool, despeckle: bool, even_gain: bool) -> None:
        self.fill = fill
        self.despeckle = despeckle
        self.even_gain = even_gain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        is_cine = is_picture(data["case"].image)
        frames: Cine | Slices = data["image"] if is_cine else Slices(data["image"])
        masks = _masks(data["mask"]) if "mask" in data else None
        if isinstance(frames, Cine):
            seen, choose = masks, _sector_of_cine(frames)
        else:
            seen = masks or [_hull_of_tissue(picture) for picture in frames]
            choose = _sector_of_slice(frames, seen, is_given=masks is not None)
        sectors, values, regions, shares = [], [], [], []
        for k, picture in enumerate(frames):
            sector = choose(k, picture)
            cells = frame_region(frames.shape, sector, None if seen is None else seen[k])
            shown = np.zeros((POLAR, POLAR), np.float32)
            if sector is not None:
                grey, share = _without_overlays(picture, sector, fill=self.fill and is_cine)
                shown = _on_sector_grid(grey, sector, despeckle=self.despeckle, even_gain=self.even_gain) * cells
                shares.append(share)
            sectors.append(sector)
            values.append(shown)
            regions.append(cells)
        if not any(sectors):
            raise MedsegError(_without_sector(str(data["case"].image), frames))
        shape = frames.shape
        records = [None if sector is None else sector.as_dict() for sector in sectors]
        facts = {
            **data["facts"],
            "modality": "liver_ultrasound",
            "display": "rgb",
            "sectors": records,
            "overlay_share": round(float(np.mean(shares)), 5),
            "notes": [*data["facts"]["notes"], *self._notes(data["case_id"], sectors, shape)],
            "region_source": "sector" if masks is None else "sector and given mask",
        }
        earlier = [] if is_cine else data["image"].applied_operations
        affine = np.eye(4) if is_cine else np.asarray(data["image"].affine)
        image = MetaTensor(_stacked(values), affine=torch.eye(4), applied_operations=[*earlier])
        image.push_applied_operation(_step((*shape, len(sectors)), affine, records))
        return {**data, "image": image, "region": MetaTensor(_stacked(regions), affine=image.affine), "facts": facts}

    def _notes(self, case_id: str, sectors: Sequence[Sector | None], shape: tuple[int, int]) -> list[str]:
        """What the user should know, which is also said at once."""
        notes = []
        missing = float(np.median([_missing_share(sector, shape) for sector in sectors if sector is not None]))
        if missing > MISSING_SHARE:
            notes.append(f"the fan is cut by the picture's border: {missing:.0%} of it is missing; areas are too small")
        without = sum(sector is None for sector in sectors)
        if without:
            notes.append(f"{without} of {len(sectors)} frames or slices show no sector: nothing is sought there")
        for note in notes:
            _log.warning("%s: %s", case_id, note)
        return notes


def _stacked(frames: Sequence[Shaped[np.ndarray, "h w"]]) -> Shaped[torch.Tensor, "1 h w n"]:
    return torch.from_numpy(np.stack(frames, axis=-1))[None]


def _masks(mask: MetaTensor) -> list[Bool[np.ndarray, "h w"]]:
    return list(np.moveaxis(mask.as_tensor()[0].numpy() > 0, -1, 0))


def _sector_of_cine(cine: Cine) -> Callable[[int, Float[np.ndarray, "h w *c"]], Sector | None]:
    """Gives each frame the same sector; None where it shows nothing in it, or something all around it."""
    sector = sector_of_frames([grey_of(frame) for frame in cine.spread(FRAMES_FOR_SECTOR)])
    if sector is None:
        return lambda k, picture: None
    inside = sector.mask(cine.shape)

    def choose(k: int, picture: np.ndarray) -> Sector | None:
        bright = grey_of(picture) > DARKEST_TISSUE
        around = bright[~inside].mean() if not inside.all() else 0.0
        return sector if bright[inside].mean() > LEAST_SHOWN and around < 0.5 else None

    return choose


def _sector_of_slice(
    slices: Slices, tissue: Sequence[Bool[np.ndarray, "h w"]], *, is_given: bool
) -> Callable[[int, Float[np.ndarray, "h w"]], Sector | None]:
    """Gives all slices one sector where together they fill one, else each its own; none to slices without tissue.

    Slices of a sweep that was tilted see parts of the fan. In one sector for all, depth still means depth in them.
    Where none was found in a slice's tissue, it gets that of the nearest slice which fits the tissue.
    """
    together = _sector_of_all(slices, tissue, is_given=is_given)
    if together is not None:
        return lambda k, picture: together if tissue[k].mean() >= LEAST_MASK else None
    found: list[Sector | None] = []
    for picture, mask in zip(slices, tissue, strict=True):
        enough = mask.mean() >= LEAST_MASK
        found.append(find_sector(picture, mask if is_given else None) if enough else None)
    known = [(k, sector) for k, sector in enumerate(found) if sector is not None]
    sectors = list(found)
    for k, mask in enumerate(tissue):
        if known and sectors[k] is None and mask.mean() >= LEAST_MASK:
            _, nearest = min(((abs(other - k), sector) for other, sector in known), key=itemgetter(0))
            seen = nearest.mask(mask.shape)
            if (seen & mask).sum() > BORROWED_OVERLAP * (seen | mask).sum():
                sectors[k] = nearest
    return lambda k, picture: sectors[k]


def _hull_of_tissue(picture: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What a slice of a sweep has seen, shadows included: the rest of its sector lies in other slices."""
    tissue = median_filter(picture, SPECK_PIXELS) > DARKEST_TISSUE
    return np.asarray(convex_hull_image(tissue), bool) if tissue.any() else tissue


def _sector_of_all(slices: Slices, tissue: Sequence[Bool[np.ndarray, "h w"]], *, is_given: bool) -> Sector | None:
    """The sector that slices fill together; None where they were turned against each other or show no fan."""
    seen = np.any(tissue, axis=0)
    together = find_sector(np.max(list(slices), axis=0), seen if is_given else None)
    if together is None:
        return None
    fan = together.mask(seen.shape)
    is_theirs = (fan & seen).sum() >= ONE_FAN * (fan | seen).sum()
    return together if is_theirs and max((fan & part).sum() for part in tissue) >= FULLEST_SLICE * fan.sum() else None


def _without_overlays(
    picture: Float[np.ndarray, "h w *c"], sector: Sector, *, fill: bool
) -> tuple[Float[np.ndarray, "h w"], float]:
    """Grey values, with `fill` without overlays, and the share of the sector that those covered."""
    grey = grey_of(picture)
    if not fill:
        return grey, 0.0
    overlays = find_overlays(picture)
    return fill_overlays(grey, overlays), float(overlays[sector.mask(overlays.shape)].mean())


def _on_sector_grid(
    grey: Float[np.ndarray, "h w"], sector: Sector, *, despeckle: bool, even_gain: bool
) -> Float32[np.ndarray, "160 160"]:
    values = to_sector(grey[None].astype(np.float32), sector)[0]
    if despeckle:
        values = denoise_tv_chambolle(values, weight=DESPECKLE_WEIGHT)
    if even_gain:
        values = values * _gain(values)[:, None]
    return values.clip(0, 1).astype(np.float32)


def _gain(values: Float[np.ndarray, "160 160"]) -> Float[np.ndarray, " 160"]:
    """Factors that make the rows equally bright; those of black rows are their neighbours'."""
    bright = values > DARKEST_TISSUE
    weight = bright.sum(1)
    if not weight.any():
        return np.ones(len(values))
    level = np.log(np.maximum(values, DARKEST_TISSUE))
    mean = (level * bright).sum(1)
    smooth, total = (gaussian_filter1d(rows.astype(np.float64), GAIN_ROWS) for rows in (mean, weight))
    depth = smooth / np.maximum(total, 1e-6)
    return np.exp(np.clip(mean.sum() / weight.sum() - depth, -np.log(MOST_GAIN), np.log(MOST_GAIN)))


def _missing_share(sector: Sector, shape: tuple[int, int]) -> float:
    """Share of the fan's area that lies beyond the picture's border."""
    rows, columns = sector.positions()
    inside = (rows > -0.5) & (rows < shape[0] - 0.5) & (columns > -0.5) & (columns < shape[1] - 0.5)
    area = np.hypot(rows - sector.apex_row, columns - sector.apex_col)  # a cell is as wide as its radius
    return float(1 - (area * inside).sum() / area.sum())


def _without_sector(name: str, frames: Cine | Slices) -> str:
    """The error line of a file that shows no sector, with what it shows instead."""
    frame = middle_frame(frames)
    grey = grey_of(frame)
    if (grey > DARKEST_TISSUE).mean() < LEAST_MASK:
        seen, advice = "an all black picture", "take another frame"
    elif frame.ndim == 3 and (np.ptp(frame, axis=-1) > COLOUR).mean() > COLOURED_SHARE:
        seen, advice = "a colour photograph", "leave it out"
    else:
        seen = "no fan or rectangle of tissue on black"
        advice = "leave the black frame around the sector in the picture, turn it upright, or leave the file out"
    return f"{name} must show the sector of an ultrasound probe, got {seen}; {advice}"


def _step(
    shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"], records: list[dict[str, float] | None]
) -> dict[str, Any]:
    """What `chain.invert` needs to undo this, in plain values that any copy keeps."""
    return {
        TraceKeys.CLASS_NAME: SECTOR_STEP,
        TraceKeys.ID: TraceKeys.NONE,
        TraceKeys.ORIG_SIZE: shape,
        TraceKeys.EXTRA_INFO: {"sectors": records, "affine": affine.tolist()},
    }
