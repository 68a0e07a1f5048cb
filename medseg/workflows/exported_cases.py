"""This file reads what a result folder holds for an export: each case's mask, accepted or automatic, and its scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, read_classes
from medseg.prepare.overlays import cleaned_frame
from medseg.prepare.sector import Sector
from medseg.review.exports.masks import Mask
from medseg.scans import nifti
from medseg.scans.arrays import read_grid, read_label_values, read_values
from medseg.scans.folders import find_references
from medseg.scans.grids import Grid, require_same_grid
from medseg.scans.names import is_picture, split_extension
from medseg.scans.pictures import iterate_frames
from medseg.scans.stacks import STACK_AFFINE, as_stack
from medseg.workflows.manifests import is_picture_result, read_manifests
from medseg.workflows.original_scans import OriginalScans
from medseg.workflows.results import read_frames


@dataclass(frozen=True)
class Results:
    """The cases of a result folder.

    Attributes:
        out: the folder.
        manifests: of its cases.
        accepted: the mask that a reviewer has accepted or corrected, by case; none where no such masks are given.
        scans: what the masks were made of.
    """

    out: Path
    manifests: Sequence[Mapping[str, Any]]
    accepted: Mapping[str, Path] | None
    scans: OriginalScans

    @cached_property
    def classes(self) -> tuple[ClassEntry, ...]:
        """What the values mean."""
        return read_classes(self.out / "classes.yaml").classes

    def mask_of(self, manifest: Mapping[str, Any]) -> Mask:
        """The accepted mask of a case where there is one, else the automatic one.

        Raises:
            MedsegError: it is missing or broken, does not lie on the grid, or holds a value without a class.
        """
        name = manifest["case"]
        read = self._picture_mask if is_picture_result(manifest) else self._volume_mask
        labels, grid, header = read(name)
        accepted = (self.accepted or {}).get(name)
        if accepted is not None:
            labels = _accepted_labels(accepted, grid)
        return Mask(
            name,
            labels,
            grid,
            header,
            self.classes,
            manifest["source"],
            is_picture=is_picture_result(manifest),
            is_reviewed=accepted is not None,
        )

    def image_of(self, manifest: Mapping[str, Any]) -> Float[np.ndarray, "i j k"]:
        """The grey values of a volume.

        Raises:
            MedsegError: the scan is not there, has changed, or cannot be read.
        """
        case = self.scans.require(manifest)
        return read_values(case.image, case.pick)[0]

    def frames_of(self, manifest: Mapping[str, Any]) -> Iterator[Float[np.ndarray, "h w c"]]:
        """The frames of a picture, those of an ultrasound without the names that are burnt in outside its sector.

        Raises:
            MedsegError: the picture is not there, has changed, or cannot be read.
        """
        case = self.scans.require(manifest)
        sectors = manifest.get("facts", {}).get("sectors")
        for number, frame in enumerate(iterate_frames(case.image, case.pick)):
            if sectors is None:
                yield frame
                continue
            sector = None if sectors[number] is None else Sector.from_dict(sectors[number])
            shown = frame[..., 0] if frame.shape[2] == 1 else frame
            yield cleaned_frame(shown, sector).reshape(frame.shape)

    def _volume_mask(self, name: str) -> tuple[UInt8[np.ndarray, "i j k"], Grid, nifti.Header]:
        path = self.out / f"{name}_seg.nii.gz"
        header = nifti.read_header(path)
        return _whole(path, _stored(path)), nifti.read_grid(path, header), header

    def _picture_mask(self, name: str) -> tuple[UInt8[np.ndarray, "w h n"], Grid, nifti.Header]:
        stack = as_stack(read_frames(self.out, f"{name}_seg"))
        grid = Grid(str(self.out / f"{name}_seg"), stack.shape, STACK_AFFINE)
        return stack, grid, nibabel.Nifti1Image(stack, STACK_AFFINE).header


def open_results(out: Path, *, scans: Path | None, labels: Path | None) -> tuple[Results, dict[str, str]]:
    """The cases of a result folder, and why others cannot be exported.

    Args:
        out: a folder that `medseg reconstruct` wrote.
        scans: where the scans are now.
        labels: masks that a reviewer has accepted or corrected.

    Raises:
        MedsegError: it is no result folder, or nothing lies where scans or labels should be.
    """
    manifests, failed = read_manifests(out)
    if not manifests and not failed:
        raise MedsegError(f"{out} must be a result folder with manifests, got none; run `medseg reconstruct` first")
    originals = OriginalScans(out, scans)
    accepted = None
    if labels is not None:
        accepted, unclear = _accepted(labels, [manifest["case"] for manifest in manifests])
        failed |= unclear
        manifests = [manifest for manifest in manifests if manifest["case"] not in unclear]
    return Results(out, manifests, accepted, originals), failed


def _accepted(labels: Path, cases: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """The one accepted mask of each case, and the cases that several reviewers have one of."""
    found = find_references(labels)
    accepted: dict[str, Path] = {}
    unclear: dict[str, str] = {}
    for case in cases:
        # By the file's own name, too: of a case `P1_tof` the label `P1_tof_label` is otherwise taken for that of `P1`.
        named = {path for path in found.values() if split_extension(path.name)[0] == f"{case}_label"}
        masks = sorted(named or {found[name] for name in (case,) if name in found})
        if len(masks) > 1:
            names = ", ".join(map(str, masks))
            unclear[case] = f"{case} must have one accepted mask, got {names}; give the folder of one reviewer"
        elif masks:
            accepted[case] = masks[0]
    return accepted, unclear


def _accepted_labels(path: Path, grid: Grid) -> UInt8[np.ndarray, "i j k"]:
    """A mask that came back from a reviewer, on the grid of the automatic one; of a picture a PNG or a stack."""
    if is_picture(path):
        labels = as_stack(_whole(path, read_label_values(path)[0]))
        require_same_grid(grid, Grid(str(path), labels.shape, STACK_AFFINE))
        return labels
    require_same_grid(grid, read_grid(path))
    return _whole(path, _stored(path))


def _stored(path: Path) -> Shaped[np.ndarray, "i j k"]:
    """Whole numbers as they are stored; `read_label_values` would take 0 and 255 alone for 0 and 1."""
    if split_extension(path.name)[1] in (".nii", ".nii.gz"):
        voxels, slope, intercept = nifti.read_voxels(path, nifti.read_header(path), 0)
        if (slope, intercept) == (1.0, 0.0) and voxels.dtype.kind in "iu":
            return np.asarray(voxels)
    return read_label_values(path)[0]


def _whole(path: Path, labels: Shaped[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "i j k"]:
    if labels.min() < 0 or labels.max() > 255:
        raise MedsegError(f"{path} must hold labels from 0 to 255, got {labels.min()} to {labels.max()}; renumber them")
    return labels.astype(np.uint8)
