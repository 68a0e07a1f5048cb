"""This file takes a corrected mask back: it must lie on the grid of the automatic one and hold the same classes.

The label is written anew on the header of the automatic mask, so that nothing but voxels comes out of a download. The
label of a picture is a PNG, that of a cine a TIFF with a page a frame, because that is what beside pictures is a label.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from medseg.errors import MedsegError
from medseg.review.blobs import read_mask
from medseg.review.case_views import manifest_file
from medseg.scans import nifti
from medseg.scans.arrays import read_label_values
from medseg.scans.grids import require_same_grid
from medseg.scans.masks import write_like
from medseg.scans.picture_labels import read_label_frames
from medseg.scans.picture_masks import write_index_png
from medseg.scans.stacks import STACK_AFFINE, as_frames, as_stack

TOLERANCE_VOXELS = 1e-4
"""How far a corrected mask may be off: programs that save a mask anew round its affine."""
_FORMS = ("qform_code", "sform_code", *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"))
_GEOMETRY = ("dim", "pixdim", "xyzt_units", *_FORMS, *(f"srow_{axis}" for axis in "xyz"))

_log = logging.getLogger(__name__)


class LabelWriter:
    """Checks and writes the labels of one case.

    Args:
        results: the result folder that holds its automatic mask.
        manifest: of the case.
    """

    def __init__(self, results: Path, manifest: Mapping[str, Any]) -> None:
        self.results, self.manifest = results, manifest
        case, files = str(manifest["case"]), manifest["files"]
        self._is_single = f"{case}_seg.png" in files
        self._is_cine = any(name.startswith(f"{case}_frames/") for name in files)
        self._mask = f"{case}_seg{'.png' if self._is_single else '.nii.gz'}"
        end = ".png" if self._is_single else ".tif" if self._is_cine else ".nii.gz"
        self.name = f"{case}_label{end}"
        """Of the file of a label."""

    def require_mask(self, mask: Path | None) -> None:
        """Check a corrected mask, or without one the automatic mask.

        Raises:
            MedsegError: it is damaged, lies elsewhere, or holds classes that are not known.
        """
        automatic, header = self._automatic()
        if mask is None:
            return
        returned = nifti.read_header(mask)
        if not _has_same_geometry(header, returned):
            require_same_grid(
                nifti.read_grid(self.results / self._mask, header), nifti.read_grid(mask, returned), TOLERANCE_VOXELS
            )
            _log.info("%s has another header than the automatic mask, on the same grid", mask)
        labels = _read(mask)
        if labels.shape != automatic.shape:
            raise MedsegError(f"{mask} must have {automatic.shape} voxels, got {labels.shape}; download it again")
        known = {0, *(entry["value"] for entry in self.manifest["classes"])}
        strange = sorted({*np.unique(labels).tolist()} - known)
        if strange:
            values = ", ".join(map(str, sorted(known)))
            raise MedsegError(
                f"{mask} must hold the values {values}, got {strange[0]}; draw with the classes of the mask"
            )

    def write(self, path: Path, mask: Path | None) -> None:
        """Write the label: of a corrected mask, or without one of the automatic mask as it is."""
        automatic, header = self._automatic()
        labels = automatic if mask is None else _read(mask)
        colours = {entry["value"]: entry["colour"] for entry in self.manifest["classes"]}
        if self._is_single:
            write_index_png(path, as_frames(labels)[:, :, 0], colours)
        elif self._is_cine:
            first, *others = (Image.fromarray(frame) for frame in np.moveaxis(as_frames(labels), 2, 0))
            first.save(path, format="TIFF", save_all=True, append_images=others, compression="tiff_deflate")
        elif mask is None:
            shutil.copyfile(self.results / self._mask, path)
        else:
            write_like(path, labels, header)

    def read(self, path: Path) -> Integer[np.ndarray, "i j k"]:
        """A label that was written here.

        Raises:
            MedsegError: it is missing or damaged.
        """
        return read_label_values(path)[0]

    def is_finding(self, labels: Integer[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
        """Where labels are classes, but for those that are no finding."""
        background = [entry["value"] for entry in self.manifest["classes"] if entry.get("background")]
        return ~np.isin(labels, [0, *background])

    def _automatic(self) -> tuple[UInt8[np.ndarray, "i j k"], nifti.Header]:
        path = manifest_file(self.results, self.manifest, self._mask)
        if path is None:
            raise MedsegError(
                f"{self.results} must hold {self._mask}, got none; name the result folder that was reviewed"
            )
        if not self._is_single:
            return read_mask(path)
        labels = as_stack(np.moveaxis(read_label_frames(path), 0, 2).astype(np.uint8))
        return labels, nibabel.Nifti1Image(labels, STACK_AFFINE).header


def _read(path: Path) -> UInt8[np.ndarray, "i j k"]:
    """Labels as they are stored; `read_label_values` would take 255 for 1."""
    voxels, slope, intercept = nifti.read_voxels(path, nifti.read_header(path), 0)
    labels = np.asarray(voxels) if (slope, intercept) == (1.0, 0.0) else voxels * slope + intercept
    if not (
        np.isfinite(labels).all() and (labels == np.rint(labels)).all() and labels.min() >= 0 and labels.max() < 256
    ):
        raise MedsegError(
            f"{path} must hold whole numbers from 0 to 255, got others; draw with the classes of the mask"
        )
    return labels.astype(np.uint8)


def _has_same_geometry(one: nifti.Header, other: nifti.Header) -> bool:
    """Whether two headers place their voxels by the same numbers, bit for bit."""
    if one["sizeof_hdr"] != other["sizeof_hdr"]:
        return False
    both = (one.as_byteswapped("<"), other.as_byteswapped("<"))
    return all(np.asarray(both[0][name]).tobytes() == np.asarray(both[1][name]).tobytes() for name in _GEOMETRY)
