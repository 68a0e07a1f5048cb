"""This file measures the sampled points of a run, so that cards can describe clusters and rules can name them.

What a stored patch shows (brightness, contrast, texture, salience) is measured on it. What only the whole scan knows is
kept beside a case's patches when they are stored, as its *surroundings*: where the region lies and how large it is, its
depth, tubularity in the patches, and how often each salience occurs in the region, because patches and points are drawn
where salience is high. Without surroundings, as in runs of earlier versions, fewer things are measured.

    surroundings.npz beside a case's patches (s slices, n patches of h x w voxels)
    tubularity    float16 n h w, of angiograms
    inside        bool n h w        whether a voxel lies in the region
    box           int 3 2           first and last voxel of the region along i, j, k of the prepared grid
    depth         float16           mm from the rim of the region, one value for each `DEPTH_STEP`^3 voxels, of volumes
    mm3           float             volume of the region, 0 where no mm are known
    shares        float             share of the region in each bin of salience, between `SALIENCE_EDGES`
    is_picture    bool              whether rows run from the top and columns from the left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt, uniform_filter
from torch.nn import functional

from medseg.config import Config
from medseg.features.store import StoredPatches
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.vessels.student import VesselStudent
from medseg.files import replacing
from medseg.naming.cards import VOLUME
from medseg.patches.datasets import PatchDataset, PatchStore
from medseg.patches.planes import PLANE_AXES
from medseg.patches.slicing import PatchGeometry, cut_all, slices_first
from medseg.stego.clustering import PointSample

CONTRAST_PIXELS = 15
"""Side of the square (pixels of the prepared scan) whose mean a brightness is compared with."""
TEXTURE_PIXELS = 5
"""Side of the square (pixels of the prepared scan) in which texture is measured."""
DEPTH_STEP = 4
"""Voxels between two values of the stored depth, along each axis: at every voxel it would take longer than all else."""
SALIENCE_EDGES = (-np.inf, 1e-6, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, np.inf)
"""Borders of the bins in which points are weighted to be as frequent as in the region; vessels begin near .3."""
_THINNED = 4
"""Of so many slices one is looked at for the shares of salience."""
_FILE = "surroundings.npz"


def keep_surroundings(
    folder: Path,
    sample: Mapping[str, Any],
    locations: Int[np.ndarray, "n 3"],
    geometry: PatchGeometry,
    *,
    cells: int,
    is_picture: bool,
) -> None:
    """Write what the patches of a case do not show.

    Args:
        folder: of the case's patches.
        sample: the prepared scan.
        locations: of the patches.
        geometry: of the patches.
        cells: rows of their feature maps.
        is_picture: whether it is a picture, with rows from the top and columns from the left.
    """
    window = PatchGeometry(geometry.plane, geometry.size)
    region = np.asarray(sample["region"][0]) > 0
    inside = np.argwhere(region.any((1, 2))), np.argwhere(region.any((0, 2))), np.argwhere(region.any((0, 1)))
    content: dict[str, Any] = {
        "inside": cut_all(region[None], locations, window)[:, 0],
        "box": np.array([[int(found.min()), int(found.max())] if len(found) else [0, 0] for found in inside]),
        "shares": _salience_shares(np.asarray(sample["salience"][0]), region, geometry, cells),
        "is_picture": is_picture,
        "mm3": 0.0,
    }
    if "tubularity" in sample:  # an angiogram
        spacing = np.linalg.norm(np.asarray(sample["image"].affine)[:3, :3], axis=0)
        content["tubularity"] = cut_all(np.asarray(sample["tubularity"]), locations, window)[:, 0].astype(np.float16)
        content["mm3"] = float(np.count_nonzero(region) * np.prod(spacing))
        coarse = np.pad(region[::DEPTH_STEP, ::DEPTH_STEP, ::DEPTH_STEP], 1)  # beyond the volume there is no region
        depth = distance_transform_edt(coarse, sampling=DEPTH_STEP * spacing)[1:-1, 1:-1, 1:-1]
        content["depth"] = depth.astype(np.float16)
    with replacing(folder / _FILE) as beside:
        np.savez(beside, **content)


def measure_points(
    points: PointSample, dataset: PatchDataset, config: Config, backbones: Sequence[Any]
) -> dict[str, np.ndarray]:
    """What naming rules may ask for, at the points that clusters were fitted on; see `medseg.naming.cards`."""
    values = {"brightness": points.image, "salience": points.salience}
    kind = config.prepare.modality
    if kind == "liver_ultrasound":  # a slice of the sector grid is one patch
        values["sector_depth"] = (points.cell[:, 0] + 0.5) / points.grid[0]
        values["left_right"] = (points.cell[:, 1] + 0.5) / points.grid[1]
    if len(backbones) == 1 and isinstance(backbones[0], LiverStudent | VesselStudent):
        # Where features of several are joined they are scaled, and the student's answer cannot be read from them.
        values["answer"] = backbones[0].answer_at(points.features).numpy()
    found: dict[str, np.ndarray] = {}
    for case in np.unique(points.case).tolist():
        mine, store = points.case == case, dataset.stores[case]
        of_case = _of_image(store, points, mine)
        around = _surroundings(store)
        if around is not None and kind != "liver_ultrasound":
            of_case |= _of_scan(store, around, points, mine)
        for name, numbers in of_case.items():
            found.setdefault(name, np.full(len(points), np.nan))[mine] = numbers
    # What is not known of every case is left out: a rule could not tell it from a number.
    return values | {name: numbers for name, numbers in found.items() if not np.isnan(numbers).any()}


def _of_image(store: PatchStore, points: PointSample, mine: np.ndarray) -> dict[str, np.ndarray]:
    """Contrast and texture at the points of a case, each the mean of the point's cell."""
    patches, which = np.unique(points.patch[mine], return_inverse=True)
    rows, columns = points.cell[mine].T
    found = {name: np.empty(len(rows), np.float32) for name in ("contrast", "texture")}
    for n, patch in enumerate(patches.tolist()):
        here = which.ravel() == n
        image = np.asarray(store.image(patch), dtype=np.float32)
        grey = image if image.ndim == 2 else image.mean(0)
        near = uniform_filter(grey, TEXTURE_PIXELS)
        maps = {
            "contrast": grey - uniform_filter(grey, CONTRAST_PIXELS),
            "texture": np.sqrt(np.maximum(uniform_filter(grey**2, TEXTURE_PIXELS) - near**2, 0)),
        }
        for name, values in maps.items():
            cells = functional.adaptive_avg_pool2d(torch.from_numpy(values)[None], points.grid)[0].numpy()
            found[name][here] = cells[rows[here], columns[here]]
    return found


def _of_scan(
    store: PatchStore, around: Mapping[str, np.ndarray], points: PointSample, mine: np.ndarray
) -> dict[str, np.ndarray]:
    """Position at the points of a case; in a volume with mm also depth, tubularity and what each point stands for."""
    size = np.array(around["inside"].shape[1:])
    pixels = ((points.cell[mine] + 0.5) * size / points.grid).astype(int)  # in the middle of the cell
    corner = np.asarray(store.locations)[points.patch[mine]]
    in_plane = np.column_stack([corner[:, 0], corner[:, 1:] + pixels])
    axis = PLANE_AXES[store.plane]
    voxels = np.insert(in_plane[:, 1:], axis, in_plane[:, 0], axis=1)
    low, high = around["box"].T
    shares = ((voxels - low + 0.5) / (high - low + 1)).clip(0, 1)
    if around["is_picture"]:
        return {"height": 1 - shares[:, 0], "left_right": shares[:, 1]}
    found = {"left_right": shares[:, 0], "back_front": shares[:, 1], "height": shares[:, 2]}
    if "depth" in around:
        places = np.minimum(voxels // DEPTH_STEP, np.array(around["depth"].shape) - 1)
        found["depth"] = around["depth"][tuple(places.T)].astype(np.float32)
        found["tubularity"] = around["tubularity"][points.patch[mine], *pixels.T].astype(np.float32)
        found[VOLUME] = _volumes(around, points, mine, around["inside"][points.patch[mine], *pixels.T])
    return found


def _volumes(
    around: Mapping[str, np.ndarray], points: PointSample, mine: np.ndarray, inside: np.ndarray
) -> Float[np.ndarray, " n"]:
    """mm3 that each point of a case stands for: together the region, with as much of each salience as it holds."""
    bins = np.digitize(points.salience[mine], SALIENCE_EDGES[1:-1])
    count = np.bincount(bins[inside], minlength=len(around["shares"]))
    mm3 = float(around["mm3"]) * np.divide(around["shares"], count, out=np.zeros(len(count)), where=count > 0)
    return np.where(inside, mm3[bins], 0.0)


def _salience_shares(
    salience: Float[np.ndarray, "i j k"], region: np.ndarray, geometry: PatchGeometry, cells: int
) -> Float[np.ndarray, " b"]:
    """Share of the region's cells in each bin of salience, the largest in a cell counting as in training."""
    side = max(1, geometry.size // cells)
    thinned = [np.ascontiguousarray(slices_first(v[None], geometry.plane)[0][::_THINNED]) for v in (salience, region)]
    shown, within = (torch.from_numpy(v.astype(np.float32)) for v in thinned)
    largest = functional.max_pool2d(shown, side, ceil_mode=True)
    kept = functional.max_pool2d(within, side, ceil_mode=True) > 0
    counts, _ = np.histogram(largest[kept].numpy(), SALIENCE_EDGES)
    return counts / max(counts.sum(), 1)


def _surroundings(store: PatchStore) -> dict[str, np.ndarray] | None:
    """What was kept beside a case's patches; None where nothing was, or it is damaged."""
    if not isinstance(store, StoredPatches):
        return None
    try:
        with np.load(store.folder / _FILE, allow_pickle=False) as content:
            found = dict(content)
    except (OSError, ValueError, KeyError):
        return None
    return found if len(found.get("inside", ())) == len(store) else None
