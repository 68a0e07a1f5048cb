"""This file paints small masks on awkward grids, with names that could break a format."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from medseg.naming.classes import ClassEntry, Code
from medseg.review.exports.masks import Mask
from medseg.scans import nifti
from medseg.scans.masks import write_labels

SHAPE = (9, 7, 5)
_TURN = np.deg2rad(20)
_TURNED = np.array([[np.cos(_TURN), -np.sin(_TURN), 0], [np.sin(_TURN), np.cos(_TURN), 0], [0, 0, 1]])
_SPACING = np.diag([0.4, 0.7, 1.9])
SHEAR = np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]])
_ORIGIN = (11.5, -7.25, 30.125)


def _affine(axes: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, _ORIGIN
    return affine


GRIDS = {
    "LAS": _affine(np.diag([-0.8, 0.8, 1.0])),
    "anisotropic": _affine(_SPACING),
    "turned axes": _affine((np.diag([1, -1, -1]) @ _SPACING)[:, [2, 0, 1]]),
    "oblique": _affine(_TURNED @ np.diag([-1, 1, -1]) @ _TURNED.T @ _SPACING),
}
SHEARED = _affine(_TURNED @ SHEAR @ _SPACING)

VESSEL = ClassEntry(1, "vessel", "#e6194b", (3,), Code("SCT", "59820001", "Blood vessel"))
MASS = ClassEntry(4, 'a "mass" <&> b', "#3cb44b", (1,), Code("SCT", "4147007", "Mass"))
REST = ClassEntry(255, "rest\\of ~it^|", "#0000ff", (0,), None, True)
CLASSES = (VESSEL, MASS, REST)


def labels(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Three classes that no mirroring or turning leaves as they are."""
    values = np.zeros(shape, np.uint8)
    values[1:5, 2:4, 1:3] = 1
    values[6, 5, 3] = 4
    values[8, 0, 4] = 255
    return values


def write_scan(path: Path, affine: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Path:
    """A NIfTI scan with unusual codes and a text that nobody else should read."""
    values = np.random.default_rng(0).integers(-50, 900, shape).astype(np.int16)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_sform(affine, code=4)
    image.header.set_qform(affine, code=3)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Doe^Jane 1970"
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def mask(folder: Path, affine: np.ndarray, *, name: str = "P1_tof", **more: object) -> Mask:
    """A mask as medseg writes it, read back with its header."""
    source = write_scan(folder / "scan.nii.gz", affine)
    path = folder / "seg.nii.gz"
    write_labels(path, labels(), source=source)
    header = nifti.read_header(path)
    given = {"source": "P1/tof.nii.gz", "classes": CLASSES} | more
    return Mask(name, labels(), nifti.read_grid(path, header), header, **given)  # type: ignore[arg-type]
