"""This file keeps prepared scans on disk as the student reads them, so that windows are cut without loading a volume.

A volume has one folder. In it lie `image.npy` (float16, tissue medians), `region.npy` and `labels.npy` (uint8), the
flat positions of positives (`positives.npy`) and of sample points (`points.npy`), and, written last, `volume.json` with
plain values and the *key*, a hash of everything the files depend on: a run that was killed goes on with what is whole.
Labels are 0 (no), 1 (yes) and 2 (unknown), from a teacher or exact. *Relabelled* means that labels and positives are
those of another folder, the rest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8

from medseg.errors import MedsegError
from medseg.features.student.vessels.painting import noise_sd_of
from medseg.features.teachers.vessels import UNKNOWN, YES
from medseg.files import read_record, replacing, write_json
from medseg.prepare.chain import voxel_spacing

SAMPLE_POINTS = 4096
"""Salient points, and as many uniform ones, that stand for the volume's tissue."""
SALIENT_SHARE = 0.015
"""Share of the region that salient points are drawn from: vessels and a margin."""
_MOST_POSITIVES = 100_000  # 0.8 MB; windows are centred on some of them only
_HALF_LIMIT = float(np.finfo(np.float16).max)
_FACTS = ("key", "case_id", "shape", "spacing", "contrast_scale", "noise_sd", "has_unknown")
_ADVICE = "remove the folder, so that it is made anew"


class StudentVolume:
    """One prepared scan with labels, on disk; arrays are mapped when they are first read.

    Args:
        folder: where `store_volume` put it.
        relabelled: folder of other labels, see `relabel`.

    Attributes:
        key, case_id: of what it is.
        shape: voxels along i, j, k.
        spacing: voxel size in mm.
        contrast_scale: C, the contrast of large vessels, in tissue medians.
        noise_sd: of the finest grain, in tissue medians.
        has_unknown: whether the teacher left any voxel of the region open.

    Raises:
        MedsegError: the folder holds no complete volume.
    """

    def __init__(self, folder: Path, relabelled: Path | None = None) -> None:
        self.folder = Path(folder)
        self._label_folder = self.folder if relabelled is None else Path(relabelled)
        facts = read_record(self.folder / "volume.json", *_FACTS, advice=_ADVICE)
        self.key: str = facts["key"]
        self.case_id: str = facts["case_id"]
        self.shape: tuple[int, int, int] = tuple(facts["shape"])
        self.spacing: tuple[float, float, float] = tuple(facts["spacing"])
        self.contrast_scale: float = facts["contrast_scale"]
        self.noise_sd: float = facts["noise_sd"]
        self.has_unknown: bool = facts["has_unknown"]

    def __reduce__(self) -> tuple[type, tuple[Path, Path]]:
        # A mapped array would be pickled whole.
        return StudentVolume, (self.folder, self._label_folder)

    @cached_property
    def image(self) -> Float16[np.ndarray, "i j k"]:
        """Grey values in tissue medians."""
        return self._mapped(self.folder / "image.npy")

    @cached_property
    def region(self) -> UInt8[np.ndarray, "i j k"]:
        """1 where vessels are sought."""
        return self._mapped(self.folder / "region.npy")

    @cached_property
    def labels(self) -> UInt8[np.ndarray, "i j k"]:
        """0, 1 or 2 for each voxel."""
        return self._mapped(self._label_folder / "labels.npy")

    @cached_property
    def positives(self) -> Int64[np.ndarray, " n"]:
        """Flat positions of positives, at most 100,000 of them; empty where the volume has none."""
        return _read(self._label_folder / "positives.npy")

    @cached_property
    def points(self) -> Int64[np.ndarray, " n"]:
        """Flat positions: the first half uniform in the region, the second among its most salient voxels."""
        return _read(self.folder / "points.npy")

    @property
    def uniform_points(self) -> Int64[np.ndarray, " n"]:
        """The points that are uniform in the region."""
        return self.points[: len(self.points) // 2]

    def sample(self) -> dict[str, Any]:
        """What prediction reads of a prepared sample."""
        return {
            "image": torch.from_numpy(self.image.astype(np.float32))[None],
            "region": torch.from_numpy(np.array(self.region))[None],
            "facts": {"contrast_scale": self.contrast_scale},
            "case_id": self.case_id,
        }

    def _mapped(self, path: Path) -> np.ndarray:
        array = _read(path, mapped=True)
        if array.shape != self.shape:
            raise MedsegError(f"{path} must have the shape {self.shape}, got {array.shape}; {_ADVICE}")
        return array


def store_volume(
    folder: Path, sample: Mapping[str, Any], labels: UInt8[np.ndarray, "i j k"], *, key: str
) -> StudentVolume:
    """Store a prepared scan with its labels, or take it from `folder` where it is whole.

    Args:
        folder: of this volume alone.
        sample: image, region, salience, facts and case_id (see `medseg.prepare.chain`).
        labels: from `medseg.features.teachers.vessels.teach`, or exact ones (0 and 1).
        key: hash of everything that sample and labels depend on.

    Raises:
        CannotWriteError: the disk is full or may not be written to.
    """
    if stored := open_volume(folder, key):
        return stored
    (folder / "volume.json").unlink(missing_ok=True)
    image, region, salience = (np.asarray(sample[name][0]) for name in ("image", "region", "salience"))
    spacing = voxel_spacing(sample["image"])
    _save(folder / "image.npy", np.clip(image, -_HALF_LIMIT, _HALF_LIMIT).astype(np.float16))
    _save(folder / "region.npy", region)
    _save(folder / "points.npy", _draw_points(region, salience))
    _save_labels(folder, labels)
    facts = {
        "key": key,
        "case_id": str(sample["case_id"]),
        "shape": list(image.shape),
        "spacing": list(spacing),
        "contrast_scale": float(sample["facts"]["contrast_scale"]),
        "noise_sd": float(noise_sd_of(image, region.view(bool), spacing)),
        "has_unknown": bool(((labels == UNKNOWN) & (region > 0)).any()),
    }
    write_json(folder / "volume.json", facts)
    return StudentVolume(folder)


def open_volume(folder: Path, key: str) -> StudentVolume | None:
    """The volume in a folder; None where it is missing, damaged, or another one's, and so to be stored anew."""
    try:
        volume = StudentVolume(folder)
        whole = volume.key == key
        for array in (volume.image, volume.region, volume.labels, volume.positives, volume.points):
            whole = whole and array.ndim in (1, 3)
    except (MedsegError, TypeError):
        return None
    return volume if whole else None


def relabel(volume: StudentVolume, labels: UInt8[np.ndarray, "i j k"], folder: Path) -> StudentVolume:
    """The volume with other labels, which are stored in `folder`."""
    _save_labels(folder, labels)
    return StudentVolume(volume.folder, folder)


def _save_labels(folder: Path, labels: UInt8[np.ndarray, "i j k"]) -> None:
    positives = np.flatnonzero(labels == YES)
    if len(positives) > _MOST_POSITIVES:
        positives = np.sort(np.random.default_rng(0).choice(positives, _MOST_POSITIVES, replace=False))
    _save(folder / "positives.npy", positives)
    _save(folder / "labels.npy", labels)  # last, so that it tells that both are there


def _draw_points(region: UInt8[np.ndarray, "i j k"], salience: np.ndarray) -> Int64[np.ndarray, " n"]:
    """Uniform, then salient points; where nothing stands out all are uniform."""
    rng = np.random.default_rng(0)
    inside = np.flatnonzero(region)
    uniform = rng.choice(inside, SAMPLE_POINTS)
    values = salience.reshape(-1)[inside]
    salient = inside[values > np.quantile(values, 1 - SALIENT_SHARE)]
    return np.concatenate([uniform, rng.choice(salient if len(salient) else inside, SAMPLE_POINTS)])


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as beside:
        np.save(beside, array)


def _read(path: Path, *, mapped: bool = False) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if mapped else None)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise MedsegError(f"{path} must be a complete .npy file, got {reason}; {_ADVICE}") from error
