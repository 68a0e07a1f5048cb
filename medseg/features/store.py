"""This file keeps the features of training patches on disk, so that they are computed once.

A case has one folder, named by its *key*: a hash of everything its features depend on. In it lie
`features.npy`, `image.npy`, `salience.npy` (float16, one row a patch), `locations.npy` and, written
last, `index.json`. While a case is under way `progress.json` says how many rows are safe on disk;
an extraction that was killed goes on after them and ends with the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float16, Int

from medseg.errors import MedsegError
from medseg.features.windows import batch_count, feature_shape, window_features
from medseg.files import hash_content, read_json, replacing, write_json
from medseg.patches.slicing import PatchGeometry, cut_all
from medseg.progress import track

_LAYOUT = 1
_SPARE_BYTES = 64 * 2**20


class StoredPatches:
    """The patches of one case on disk: features, image, salience and location of each.

    It holds paths only and can be sent to worker processes; files are mapped when they are first read.

    Attributes:
        folder: where the files lie.
        case_id, patient: whose scan it is.
        geometry: windows of the patches; `plane` is its plane.
        dim, grid: channels and side of the features.
        affine: from a voxel of the prepared grid to the space of the scan; None in stores that were written before it
            was kept.
        bytes_on_disk: size of the arrays.

    Raises:
        MedsegError: the folder holds no complete case.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        index = read_json(self.folder / "index.json")
        self.key: str = index["key"]
        self.case_id: str = index["case_id"]
        self.patient: str = index["patient"]
        self.geometry = PatchGeometry(**index["geometry"])
        self._patches, self.dim, self.grid, _ = index["features"]
        self.affine: list[list[float]] | None = index.get("affine")
        self.bytes_on_disk: int = index["bytes"]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        # A mapped array would be pickled whole.
        return StoredPatches, (self.folder,)

    def __len__(self) -> int:
        return self._patches

    @property
    def plane(self) -> str:
        """The patches' plane."""
        return self.geometry.plane

    @cached_property
    def locations(self) -> Int[np.ndarray, "n 3"]:
        """`(slice, row, column)` of each patch."""
        return np.load(self.folder / "locations.npy")

    def features(self, index: Any) -> Float16[np.ndarray, "*n d hf wf"]:
        """Features of one patch, or of several with a slice or an array of indices."""
        return np.array(self._features[index])

    def image(self, index: Any) -> Float16[np.ndarray, "..."]:
        """Grey values in tissue medians `*n h w`, or colours `*n 3 h w`, one pixel a voxel (not magnified)."""
        return np.array(self._image[index])

    def salience(self, index: Any) -> Float16[np.ndarray, "*n h w"]:
        """Salience, one pixel a voxel."""
        return np.array(self._salience[index])

    @cached_property
    def _features(self) -> np.ndarray:
        return np.load(self.folder / "features.npy", mmap_mode="r")

    @cached_property
    def _image(self) -> np.ndarray:
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @cached_property
    def _salience(self) -> np.ndarray:
        return np.load(self.folder / "salience.npy", mmap_mode="r")


def store_key(
    *,
    backbones: Sequence[Any],
    preparation: Mapping[str, Any],
    geometry: PatchGeometry,
    source: str,
    sampling: Mapping[str, Any],
) -> str:
    """The hash of everything the stored patches of a case depend on.

    Args:
        backbones: their names and fingerprints count, and their order.
        preparation: settings of the preparation.
        geometry: of the patches.
        source: content hash of the scan (and of its given brain mask, if there is one).
        sampling: settings of the sampling, with its seed.
    """
    content = {
        "layout": _LAYOUT,
        "backbones": [[backbone.name, backbone.fingerprint] for backbone in backbones],
        "preparation": dict(preparation),
        "geometry": asdict(geometry),
        "source": source,
        "sampling": dict(sampling),
    }
    return hash_content(content)


def stored_bytes(patches: int, geometry: PatchGeometry, backbones: Sequence[Any], channels: int = 1) -> int:
    """Disk space in bytes that so many stored patches take, whose images have so many channels."""
    dim, hf, wf = feature_shape(geometry, backbones)
    return 2 * patches * (dim * hf * wf + (channels + 1) * geometry.size**2)


def extract_case(
    sample: Mapping[str, Any],
    locations: Int[np.ndarray, "n 3"],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    *,
    folder: Path,
    key: str,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> StoredPatches:
    """Compute and store the patches of one case, or take them from the store.

    Args:
        sample: a prepared scan (see `medseg.prepare.chain`).
        locations: of the patches, ordered by slice.
        geometry: of the patches.
        backbones: one or more; see `window_features` for how they are joined.
        folder: of the store; the case goes to `folder/KEY`, where KEY is the key's first 16 characters.
        key: from `store_key`.
        batch_size: windows a batch.
        device: where slice backbones run.

    Raises:
        MedsegError: there is nothing to store, or the disk is too small for it, or becomes full.
    """
    case_id = str(sample["case_id"])
    if not len(locations):
        raise MedsegError(
            f"{case_id} must have at least one patch, got none; check its mask, or set patches.empty to keep"
        )
    channels = int(sample["image"].shape[0])
    place = Path(folder) / key[:16]
    complete = _complete(place, key, locations)
    if complete is not None:
        return complete
    try:
        place.mkdir(parents=True, exist_ok=True)
        writing = {
            "key": key,
            "locations": hash_content(locations.tolist()),
            "batch_size": batch_size,
            "device": str(device),
        }
        done = _begun(place, writing)
        _require_space(place, case_id, stored_bytes(len(locations) - done, geometry, backbones, channels))
        _save(place / "locations.npy", locations)
        unmagnified = replace(geometry, magnification=1, neighbours=0)
        for name in ("image", "salience"):
            colours = (channels,) if name == "image" and channels > 1 else ()
            with _Rows(place / f"{name}.npy", (len(locations), *colours, geometry.size, geometry.size), 0) as file:
                for location in locations:
                    patch = cut_all(sample[name], [location], unmagnified)
                    file.append((patch if colours else patch[:, 0]).half().numpy())
        _append_features(place, sample, locations, geometry, backbones, batch_size, device, writing, done)
    except OSError as error:
        raise MedsegError(
            f"{place} must be writable, got {error.strerror or error}; free space or choose another features.store"
        ) from error
    shape = [len(locations), *feature_shape(geometry, backbones)]
    index = {
        "key": key,
        "case_id": case_id,
        "patient": str(sample["patient"]),
        "geometry": asdict(geometry),
        "backbones": [{"name": backbone.name, "fingerprint": backbone.fingerprint} for backbone in backbones],
        "features": shape,
        "affine": sample["image"].affine.tolist() if hasattr(sample["image"], "affine") else None,
        "bytes": stored_bytes(len(locations), geometry, backbones, channels),
    }
    write_json(place / "index.json", index)
    (place / "progress.json").unlink(missing_ok=True)
    return StoredPatches(place)


def take_patches(drawn: StoredPatches, locations: Int[np.ndarray, "n 3"], *, folder: Path, key: str) -> StoredPatches:
    """Store some patches of a case under a key of their own, without computing them again.

    Args:
        drawn: stored patches of the case, `locations` among them.
        locations: of the patches to take, ordered by slice.
        folder: of the store.
        key: from `store_key`, for these patches.

    Raises:
        MedsegError: a location is not among them, or the disk cannot take the patches.
    """
    row_of = {tuple(place): row for row, place in enumerate(drawn.locations.tolist())}
    missing = [place for place in map(tuple, locations.tolist()) if place not in row_of]
    if missing:
        raise MedsegError(
            f"{drawn.folder} must hold all patches of {drawn.case_id}, got none at {missing[0]}; delete it"
        )
    rows = [row_of[tuple(place)] for place in locations.tolist()]
    place = Path(folder) / key[:16]
    index = read_json(drawn.folder / "index.json")
    place.mkdir(parents=True, exist_ok=True)
    _require_space(place, drawn.case_id, index["bytes"] * len(rows) // len(drawn))
    _save(place / "locations.npy", locations)
    for name in ("image", "salience", "features"):
        _save(place / f"{name}.npy", getattr(drawn, name)(rows))
    features = [len(rows), *index["features"][1:]]
    write_json(
        place / "index.json",
        {**index, "key": key, "features": features, "bytes": index["bytes"] * len(rows) // len(drawn)},
    )
    return StoredPatches(place)


def _append_features(
    place: Path,
    sample: Mapping[str, Any],
    locations: Int[np.ndarray, "n 3"],
    geometry: PatchGeometry,
    backbones: Sequence[Any],
    batch_size: int,
    device: torch.device | str,
    writing: Mapping[str, Any],
    done: int,
) -> None:
    """Write the features after the first `done` windows, recording every batch that is safe on disk."""
    windows = window_features(sample, locations, geometry, backbones, device, batch_size, skip=done)
    batches = batch_count(locations, sample["image"].shape[1:], geometry, backbones, batch_size, skip=done)
    with _Rows(place / "features.npy", (len(locations), *feature_shape(geometry, backbones)), done) as file:
        for where, features in track(windows, f"{sample['case_id']}: features", total=batches):
            file.append(features.half().cpu().numpy())
            done += len(where)
            write_json(place / "progress.json", {**writing, "done": done, "bytes": file.make_safe()})


def _complete(place: Path, key: str, locations: Int[np.ndarray, "n 3"]) -> StoredPatches | None:
    """The case in the store, if it is whole and holds these patches."""
    try:
        stored = StoredPatches(place)
        arrays = [stored._features, stored._image, stored._salience]
        whole = stored.key == key and all(len(array) == len(stored) for array in arrays)
        if whole and np.array_equal(stored.locations, locations):
            return stored
    except (MedsegError, OSError, ValueError, KeyError, TypeError):
        pass  # missing, or damaged from outside: computed again
    (place / "index.json").unlink(missing_ok=True)
    return None


def _begun(place: Path, writing: Mapping[str, Any]) -> int:
    """How many windows a killed extraction of the same kind left safe on disk."""
    try:
        progress = read_json(place / "progress.json")
        whole = (place / "features.npy").stat().st_size >= progress["bytes"]
        if whole and all(progress[name] == value for name, value in writing.items()):
            return int(progress["done"])
    except (MedsegError, OSError, KeyError, TypeError, ValueError):
        pass  # nothing begun, or not readable: from the start
    return 0


def _require_space(place: Path, case_id: str, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE_BYTES:
        raise MedsegError(
            f"{place} must have {needed / 2**20:.0f} MB free for the features of {case_id}, got {free / 2**20:.0f} MB; "
            "free space, choose another features.store, or lower patches.per_case"
        )


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as beside:
        np.save(beside, array)


class _Rows:
    """A float16 `.npy` file that is written row by row.

    Plain writes, not a memory map: a disk that becomes full is then an error that can be reported,
    where a store into a map would kill the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], done: int) -> None:
        self._path, self._shape, self._done = path, shape, done

    def __enter__(self) -> _Rows:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
            "fortran_order": False,
            "shape": self._shape,
        }
        self._stream: BinaryIO = self._path.open("r+b" if self._done else "wb")
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._stream.truncate(self._stream.tell() + self._done * 2 * int(np.prod(self._shape[1:])))
        self._stream.seek(0, os.SEEK_END)
        return self

    def append(self, rows: np.ndarray) -> None:
        """Write rows."""
        self._stream.write(np.ascontiguousarray(rows, dtype=np.float16).data)

    def make_safe(self) -> int:
        """Wait until all rows are on disk; returns the bytes of the file so far."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def __exit__(self, *_: object) -> None:
        self._stream.close()
