"""Masks lie where their scan lies, field for field."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scans.masks import write_label_tables, write_labels, write_map
from medseg.scans.nifti import read_header
from medseg.scans.picks import Pick
from medseg.scans.readers import read_image

_SPACING = (0.4, 0.7, 1.3)
_GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d")
_GEOMETRY += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "dim_info")


def _affines() -> list[np.ndarray]:
    affines = []
    for axes, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.diag(signs)[:, axes] * np.array(_SPACING)
        affine[:3, 3] = (11.5, -7.25, 30.125)
        affines.append(affine)
    return affines


def _numbered(shape: tuple[int, ...]) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(np.int16)


def _save(path: Path, values: np.ndarray, affine: np.ndarray, kind: type = nibabel.Nifti1Image) -> Path:
    image = kind(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"a scan"
    image.header["cal_max"] = 900
    nibabel.save(image, path)
    return path


def _require_same_geometry(source: Path, written: Path) -> None:
    before, after = nibabel.load(source).header, nibabel.load(written).header
    for field in _GEOMETRY:
        assert before[field].tobytes() == after[field].tobytes() or np.array_equal(before[field], after[field]), field


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 4, 1), (5, 7, 4, 1, 1), (5, 1, 4)])
def test_singleton_and_missing_dimensions_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = _save(tmp_path / "scan.nii.gz", _numbered(shape), _affines()[7])
    spatial = (*shape, 1)[:3]
    assert read_image(source).shape == (1, *spatial)
    write_labels(tmp_path / "seg.nii.gz", _numbered(spatial).astype(np.uint8), source=source)
    _require_same_geometry(source, tmp_path / "seg.nii.gz")
    assert nibabel.load(tmp_path / "seg.nii.gz").shape == shape


def test_one_frame_of_several_gets_a_mask_of_one_frame(tmp_path: Path) -> None:
    values = _numbered((5, 7, 4, 3))
    source = _save(tmp_path / "scan.nii", values, _affines()[3])
    assert np.array_equal(read_image(source, Pick(frame=2)).numpy()[0], values[..., 2])
    write_labels(tmp_path / "seg.nii.gz", np.zeros((5, 7, 4), np.uint8), source=source)
    assert nibabel.load(tmp_path / "seg.nii.gz").shape == (5, 7, 4)


def test_unusual_headers_are_handed_down(tmp_path: Path) -> None:
    oblique = _affines()[0]
    oblique[:3, :3] = [[0.4, 0.1, 0], [-0.1, 0.6, 0.3], [0, 0.2, 1.2]]  # sheared, so never a qform
    image = nibabel.Nifti1Image(_numbered((5, 7, 4)), oblique)
    image.header.set_qform(_affines()[9], code=1)
    image.header.set_sform(oblique, code=4)
    image.header.set_xyzt_units("micron", "msec")
    image.header.set_slope_inter(0.5, -3)
    image.header["dim_info"] = 57
    image.header["dim"][4:] = 0  # some writers leave what is not used at 0
    big_endian = image.header.as_byteswapped(">")
    source = tmp_path / "scan.nii"
    source.write_bytes(big_endian.binaryblock + bytes(4) + _numbered((5, 7, 4)).astype(">i2").tobytes(order="F"))
    header = nibabel.load(source).header
    assert header.endianness == ">"
    write_labels(tmp_path / "seg.nii.gz", np.zeros((5, 7, 4), np.uint8), source=source)
    written = nibabel.load(tmp_path / "seg.nii.gz")
    _require_same_geometry(source, tmp_path / "seg.nii.gz")
    assert np.array_equal(written.get_sform(), header.get_sform())
    stored = read_header(tmp_path / "seg.nii.gz")  # nibabel forgets the scaling it has read
    assert (stored["scl_slope"], stored["scl_inter"]) == (1, 0)
    assert written.header["cal_max"] == 0


@pytest.mark.parametrize("kind", [nibabel.Nifti2Image, nibabel.Nifti1Pair])
def test_nifti2_and_pairs_hand_their_header_down(tmp_path: Path, kind: type) -> None:
    name = "scan.hdr" if kind is nibabel.Nifti1Pair else "scan.nii.gz"
    source = _save(tmp_path / name, _numbered((5, 7, 4)), _affines()[11], kind)
    write_labels(tmp_path / "seg.nii.gz", np.ones((5, 7, 4), np.uint8), source=source)
    _require_same_geometry(source, tmp_path / "seg.nii.gz")
    assert np.asanyarray(nibabel.load(tmp_path / "seg.nii.gz").dataobj).min() == 1


def test_map_keeps_values_and_puts_classes_last(tmp_path: Path) -> None:
    source = _save(tmp_path / "scan.nii.gz", _numbered((5, 7, 4, 1)), _affines()[5])
    values = np.random.default_rng(0).random((5, 7, 4, 3), dtype=np.float32)
    write_map(tmp_path / "prob.nii.gz", values, source=source)
    write_map(tmp_path / "one.nii.gz", values[..., 0], source=source)
    written = nibabel.load(tmp_path / "prob.nii.gz")
    assert np.array_equal(np.asanyarray(written.dataobj), values)
    assert np.array_equal(written.affine, nibabel.load(source).affine)
    assert nibabel.load(tmp_path / "one.nii.gz").shape == (5, 7, 4, 1)


def test_equal_masks_are_equal_files_whatever_their_name_and_time(tmp_path: Path) -> None:
    source = _save(tmp_path / "scan.nii.gz", _numbered((5, 7, 4)), _affines()[0])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, np.ones((5, 7, 4), np.int64), source=source)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + 5 * 7 * 4


def test_wrong_shape_and_wrong_values_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = _save(tmp_path / "scan.nii.gz", _numbered((5, 7, 4)), _affines()[0])
    with pytest.raises(MedsegError, match="must have the shape"):
        write_labels(tmp_path / "seg.nii.gz", np.zeros((5, 4, 7), np.uint8), source=source)
    for value in (256, -1):
        with pytest.raises(MedsegError, match="labels from 0 to 255"):
            write_labels(tmp_path / "seg.nii.gz", np.full((5, 7, 4), value), source=source)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


def test_label_tables_name_classes_and_colours(tmp_path: Path) -> None:
    write_label_tables(tmp_path, [{"value": 1, "name": "left artery", "colour": "#e6194b"}])
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines()[1] == '1 230 25 75 1 1 1 "left artery"'
    assert (tmp_path / "labels.ctbl").read_text(encoding="utf-8").splitlines()[1] == "1 left_artery 230 25 75 255"
