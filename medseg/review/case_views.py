"""This file reads what a result folder holds of one case, and its scan, as arrays in the voxel order of the mask.

A *subject* is a case with its manifest and its scan; its *view* is what the page shows of it. Pictures and cines become
stacks (see `scans/stacks.py`) of grey display values from 0 to 255; of ultrasound only the sector is shown, as in all
that medseg writes, because names of patients are burnt in outside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.prepare.overlays import cleaned_frame, grey_of
from medseg.prepare.sector import Sector
from medseg.review.blobs import read_mask, read_share
from medseg.scans import nifti
from medseg.scans.arrays import read_grid, read_values
from medseg.scans.grids import Grid, require_same_grid
from medseg.scans.names import is_picture
from medseg.scans.picks import Pick
from medseg.scans.picture_files import read_frames
from medseg.scans.picture_labels import read_label_frames
from medseg.scans.pictures import iterate_frames
from medseg.scans.stacks import as_stack, write_stack

_AGAIN = "write the masks again"


@dataclass(frozen=True)
class Subject:
    """A case of a result folder that can be reviewed.

    Attributes:
        out: the result folder.
        manifest: of the case, as it is stored.
        source: its scan, whose content is the one that the manifest names.
    """

    out: Path
    manifest: Mapping[str, Any]
    source: Path

    @property
    def case_id(self) -> str:
        """Its name."""
        return str(self.manifest["case"])

    @property
    def background(self) -> list[int]:
        """Classes that are no finding."""
        return [entry["value"] for entry in self.manifest["classes"] if entry.get("background")]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its preparation found out."""
        facts: Mapping[str, Any] = self.manifest.get("facts", {})
        return facts

    def path_of(self, name: str) -> Path | None:
        """A file that its manifest names, see `manifest_file`."""
        return manifest_file(self.out, self.manifest, name)


def manifest_file(out: Path, manifest: Mapping[str, Any], name: str) -> Path | None:
    """A file of a result folder; None where the manifest names none of that name.

    Raises:
        MedsegError: it is missing, or is not the one that the manifest names.
    """
    expected = manifest["files"].get(name)
    if expected is None:
        return None
    path = out / name
    if not path.is_file() or hash_file(path) != expected:
        got = "another" if path.is_file() else "none"
        raise MedsegError(f"{path} must be the file that its manifest names, got {got}; {_AGAIN}")
    return path


@dataclass(frozen=True)
class View:
    """What is shown of a case, all on the grid of `header`.

    Attributes:
        image: the scan.
        labels: the mask.
        header: of the mask.
        mask: the file with the mask.
        is_picture: whether the third axis is the frame and the unit the pixel.
        probability: of any class, where it was kept.
        uncertainty: where it was kept.
        region: that was looked at.
        others: masks of other methods.
        hidden: frames of an ultrasound that are black because their sector is not known.
    """

    image: Float[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]
    header: nifti.Header
    mask: Path
    is_picture: bool
    probability: Float[np.ndarray, "i j k"] | None = None
    uncertainty: Float[np.ndarray, "i j k"] | None = None
    region: Bool[np.ndarray, "i j k"] | None = None
    others: Mapping[str, Integer[np.ndarray, "i j k"]] = field(default_factory=dict)
    hidden: int = 0

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Voxel to mm or pixels, RAS+."""
        return nifti.read_grid(self.mask, self.header).affine


def read_view(subject: Subject, scratch: Path) -> View:
    """Read everything of a case.

    Args:
        subject: the case.
        scratch: a folder for a mask that is kept as a picture.

    Raises:
        MedsegError: a file is missing, damaged, changed, or lies on another grid.
    """
    return _view_of_picture(subject, scratch) if is_picture(subject.source) else _view_of_volume(subject)


def _view_of_volume(subject: Subject) -> View:
    case, manifest = subject.case_id, subject.manifest
    mask = _mask_file(subject)
    labels, header = read_mask(mask)
    pick = Pick(**manifest.get("pick", {}))
    grid = nifti.read_grid(mask, header)
    require_same_grid(read_grid(subject.source, pick), grid)
    probability = subject.path_of(f"{case}_prob.nii.gz")
    uncertainty = subject.path_of(f"{case}_uncertainty.nii.gz")
    region = subject.path_of(f"{case}_region.nii.gz")
    findings = sum(not entry.get("background") for entry in manifest["classes"])
    return View(
        read_values(subject.source, pick)[0],
        labels,
        header,
        mask,
        is_picture=False,
        probability=None if probability is None else _on_grid(probability, grid, findings),
        uncertainty=None if uncertainty is None else _on_grid(uncertainty, grid, 1),
        region=None if region is None else read_mask(region)[0] > 0,
        others={name: read_mask(path)[0] for name, path in _compared(subject, ".nii.gz").items()},
    )


def _view_of_picture(subject: Subject, scratch: Path) -> View:
    image, hidden = _shown_frames(subject)
    several = image.shape[2] > 1
    mask = _mask_file(subject, ".nii.gz" if several else ".png")
    if not several:
        stack = scratch / "mask.nii.gz"
        write_stack(stack, _read_png(mask)[:, :, None])
        mask = stack
    labels, header = read_mask(mask)
    if labels.shape != image.shape:
        raise MedsegError(
            f"{mask} must have the {image.shape} pixels of {subject.source}, got {labels.shape}; {_AGAIN}"
        )
    end = ".nii.gz" if several else ".png"
    uncertainty = subject.path_of(f"{subject.case_id}_uncertainty{end}")
    region = subject.path_of(f"{subject.case_id}_region{end}")

    def stored(path: Path) -> np.ndarray:
        return read_mask(path)[0] if several else as_stack(_read_png(path)[:, :, None])

    return View(
        image,
        labels,
        header,
        mask,
        is_picture=True,
        uncertainty=None if uncertainty is None else read_share(uncertainty) if several else _grey_png(uncertainty),
        region=None if region is None else stored(region) > 0,
        others={name: stored(path) for name, path in _compared(subject, end).items()},
        hidden=hidden,
    )


def _shown_frames(subject: Subject) -> tuple[Float[np.ndarray, "w h n"], int]:
    """Grey frames from 0 to 255 as a stack, and how many of them are black because they may show a name."""
    sectors = subject.facts.get("sectors")
    frames, hidden = [], 0
    for number, frame in enumerate(iterate_frames(subject.source, Pick(**subject.manifest.get("pick", {})))):
        shown = frame[..., 0] if frame.shape[2] == 1 else frame
        if sectors is not None:
            known = sectors[number] if number < len(sectors) else None
            hidden += known is None
            shown = cleaned_frame(shown, None if known is None else Sector.from_dict(known))
        frames.append(np.rint(grey_of(shown) * 255).astype(np.uint8))  # 8 bits: a long cine fits in memory
    return as_stack(np.stack(frames, axis=2)).astype(np.float32), hidden


def _mask_file(subject: Subject, end: str = ".nii.gz") -> Path:
    path = subject.path_of(f"{subject.case_id}_seg{end}")
    if path is None:
        raise MedsegError(f"{subject.case_id} must have a mask ({subject.case_id}_seg{end}), got none; {_AGAIN}")
    return path


def _compared(subject: Subject, end: str) -> dict[str, Path]:
    named = {
        name: subject.path_of(f"comparison/{subject.case_id}_{name}{end}") for name in subject.manifest["compared"]
    }
    return {name: path for name, path in named.items() if path is not None}


def _on_grid(path: Path, grid: Grid, frames: int) -> Float[np.ndarray, "i j k"]:
    require_same_grid(grid, read_grid(path))
    return read_share(path, frames)


def _read_png(path: Path) -> UInt8[np.ndarray, "h w"]:
    return read_label_frames(path)[0].astype(np.uint8)


def _grey_png(path: Path) -> Float[np.ndarray, "w h 1"]:
    return as_stack(read_frames(path).values[0, :, :, :1].astype(np.float32) / 255)
