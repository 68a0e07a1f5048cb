"""This file writes masks and maps on the grid of the scan they belong to.

A NIfTI scan hands its own header down: shape with singleton dimensions, sform, qform, codes, units and
voxel sizes stay bit for bit; only what describes the values is new, and free text, which may name the
patient, is left empty. Any other scan gives its affine.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Integer, Num

from medseg.errors import MedsegError
from medseg.files import replacing, write_text
from medseg.scans import itk_formats, nifti
from medseg.scans.arrays import read_grid
from medseg.scans.grids import Grid
from medseg.scans.picks import WHOLE, Pick

_COMPRESSION = 6
_LARGEST_LABEL = 255
_LARGEST_NIFTI1 = 32767
_QFORM_TOLERANCE_MM = 1e-4
"""How far a corner may move by the rounding of a quaternion, which near half a turn is many times that of an sform."""
_TEXTS = ("descrip", "aux_file", "db_name", "data_type", "intent_name", "unused_str")
"""Free text of a NIfTI header; converters write names, birth dates and file names there."""


def write_labels(
    path: Path,
    labels: Integer[np.ndarray, "i j k"],
    *,
    source: Path,
    pick: Pick = WHOLE,
    keep_identity: bool = False,
) -> None:
    """Write integer labels as uint8 `.nii.gz` on the grid of `source`.

    Args:
        path: where to.
        labels: 0 to 255, on the stored grid of the source.
        source: the scan.
        pick: what was taken of it.
        keep_identity: hand down the free text of a NIfTI header, too, which may name the patient.

    Raises:
        MedsegError: the source cannot be read, shapes differ, or the file cannot be written.
    """
    if labels.size and (labels.min() < 0 or labels.max() > _LARGEST_LABEL):
        raise MedsegError(f"{path} must hold labels from 0 to {_LARGEST_LABEL}, got {labels.min()} to {labels.max()}")
    _write(path, labels, np.dtype("u1"), source, pick, keep_identity)


def write_map(
    path: Path,
    values: Float[np.ndarray, "i j k *c"],
    *,
    source: Path,
    pick: Pick = WHOLE,
    keep_identity: bool = False,
) -> None:
    """Write a soft map as float32 `.nii.gz` on the grid of `source`; a fourth axis holds classes.

    Args:
        path: where to.
        values: on the stored grid of the source.
        source: the scan.
        pick: what was taken of it.
        keep_identity: hand down the free text of a NIfTI header, too, which may name the patient.

    Raises:
        MedsegError: the source cannot be read, shapes differ, or the file cannot be written.
    """
    _write(path, values, np.dtype("<f4"), source, pick, keep_identity)


def write_like(path: Path, values: Num[np.ndarray, "i j k"], header: nifti.Header, *, extension: bytes = b"") -> None:
    """Write values as `.nii.gz` with the geometry of another file: its shape, forms, codes and units, not its texts.

    Args:
        path: where to.
        values: in the number format that they shall have.
        header: of the other file, as it is stored.
        extension: header extensions, each with its own size and code.

    Raises:
        MedsegError: shapes differ, or the file cannot be written.
    """
    shape = nifti.stored_shape(header)
    if values.shape != nifti.spatial_shape(shape):
        raise MedsegError(f"{path} must have the shape {nifti.spatial_shape(shape)}, got {values.shape}; mend the mask")
    written = header.as_byteswapped("<")
    _describe_values(written, shape, values.dtype.newbyteorder("<"))
    written["vox_offset"] += len(extension)
    _blank_texts(written)
    _stream(path, values, written, extension)


def write_label_tables(folder: Path, classes: Sequence[Mapping[str, Any]]) -> None:
    """Write `labels.txt` for ITK-SNAP and `labels.ctbl` for 3D Slicer.

    Args:
        folder: where to.
        classes: entries of `classes.yaml`: `value`, `name` and `colour` (`#rrggbb`).
    """
    snap = ['0 0 0 0 0 0 0 "background"']
    slicer = ["0 background 0 0 0 0"]
    for entry in classes:
        value, name = int(entry["value"]), str(entry["name"])
        red, green, blue = bytes.fromhex(str(entry["colour"]).removeprefix("#"))
        quoted = name.replace('"', "'")  # ITK-SNAP knows no way to write a quotation mark within a name
        snap.append(f'{value} {red} {green} {blue} 1 1 1 "{quoted}"')
        slicer.append(f"{value} {'_'.join(name.split())} {red} {green} {blue} 255")
    write_text(folder / "labels.txt", "\n".join(snap) + "\n")
    write_text(folder / "labels.ctbl", "\n".join(slicer) + "\n")


def _write(path: Path, values: np.ndarray, dtype: np.dtype, source: Path, pick: Pick, keep_identity: bool) -> None:
    """Stream the voxels slice by slice; the bytes depend on nothing but header and values."""
    header, shape = _header(source, pick)
    if values.shape[:3] != nifti.spatial_shape(shape):
        raise MedsegError(
            f"{path} must have the shape {nifti.spatial_shape(shape)} of {source}, got {values.shape[:3]}; "
            "take it back to the grid of the scan first"
        )
    channels = values.shape[3:]
    _describe_values(header, (*values.shape[:3], *channels) if channels else shape, dtype)
    if not keep_identity:
        _blank_texts(header)
    _stream(path, values, header)


def _stream(path: Path, values: np.ndarray, header: nifti.Header, extension: bytes = b"") -> None:
    dtype = header.get_data_dtype()
    flat = values.reshape((*values.shape[:3], -1))
    with (
        replacing(path) as beside,
        beside.open("wb") as stream,
        # Neither name nor time goes into the gzip header, so that equal masks are equal files.
        gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0) as deflated,
    ):
        deflated.write(header.binaryblock + bytes([bool(extension), 0, 0, 0]) + extension)
        for channel in range(flat.shape[3]):
            for k in range(flat.shape[2]):
                deflated.write(flat[:, :, k, channel].astype(dtype).tobytes(order="F"))


def _header(source: Path, pick: Pick) -> tuple[nifti.Header, tuple[int, ...]]:
    """A little-endian header with the geometry of the source, and the shape a mask gets in it."""
    if itk_formats.is_itk_format(source):
        itk_header = itk_formats.read_header(source)
        return _header_from_grid(itk_header.grid), itk_header.shape[:3]
    if not nifti.is_nifti(source):
        grid = read_grid(source, pick)
        return _header_from_grid(grid), grid.shape
    stored = nifti.read_header(source)
    nifti.read_grid(source, stored)  # refuses what cannot be read
    shape = nifti.stored_shape(stored)
    several_frames = any(length > 1 for length in shape[3:])
    return stored.as_byteswapped("<"), shape[:3] if several_frames else shape


def _header_from_grid(grid: Grid) -> nifti.Header:
    kind = nibabel.Nifti2Header if max(grid.shape) > _LARGEST_NIFTI1 else nibabel.Nifti1Header
    header = kind(endianness="<")
    header.set_data_shape(grid.shape)
    header.set_zooms(grid.spacing)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1)  # the nearest without shear
    by_qform = Grid(grid.name, grid.shape, np.asarray(header.get_qform(), np.float64))
    if np.abs(by_qform.corners() - grid.corners()).max() > _QFORM_TOLERANCE_MM:
        header["qform_code"] = 0
    return header


def _describe_values(header: nifti.Header, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Set shape, number format and place of the values; geometry and everything else stays."""
    if shape != nifti.stored_shape(header):
        header["dim"][:] = 1
        header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header.set_data_dtype(dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0  # the display window of the scan would hide the values
    header["intent_code"] = 0
    header["magic"] = header.single_magic
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4


def _blank_texts(header: nifti.Header) -> None:
    """Empty what may name somebody; extensions, which may hold whole DICOM headers, are never handed down."""
    for text in _TEXTS:
        if text in header.keys():  # noqa: SIM118 (a header is no mapping)
            header[text] = b""
