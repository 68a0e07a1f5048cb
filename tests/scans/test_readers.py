"""What is read, what is mended and said, and what is refused in one line."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.picks import Pick
from medseg.scans.readers import ScanReader, grid_of, read_image, read_labels

_AFFINE = np.diag([0.5, 0.6, 2.0, 1.0])
_VALUES = np.random.default_rng(0).integers(-500, 1500, (6, 5, 20)).astype(np.int16)


def _save(path: Path, values: np.ndarray = _VALUES) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, _AFFINE), path)
    return path


def _with_fields(path: Path, **fields: Any) -> Path:
    """A NIfTI file whose header fields are set without nibabel's mending."""
    header = nibabel.Nifti1Image(_VALUES, _AFFINE).header.copy()
    header["vox_offset"], header["magic"], header["scl_slope"] = 352, b"n+1", 1
    header["scl_inter"] = 0
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + bytes(4) + _VALUES.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _assert_refused(path: Path, words: str, read: Any = read_image) -> None:
    with pytest.raises(MedsegError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_image_is_float32_on_an_exact_grid(tmp_path: Path) -> None:
    image = read_image(_save(tmp_path / "a.nii.gz"))
    assert isinstance(image, MetaTensor)
    assert (image.dtype, image.affine.dtype, tuple(image.shape)) == (torch.float32, torch.float64, (1, 6, 5, 20))
    assert np.array_equal(image.numpy()[0], _VALUES)
    assert np.allclose(image.affine, _AFFINE)
    assert grid_of(image).shape == read_grid(tmp_path / "a.nii.gz").shape == (6, 5, 20)


def test_scaling_is_that_of_nibabel_to_the_last_bit(tmp_path: Path) -> None:
    path = _with_fields(tmp_path / "a.nii", scl_slope=0.1, scl_inter=-3.3)
    expected = nibabel.load(path).get_fdata().astype(np.float32)
    assert np.array_equal(read_image(path).numpy()[0], expected)


def test_slope_of_zero_or_nan_means_no_scaling(tmp_path: Path) -> None:
    for slope in (0, np.nan):
        assert np.array_equal(read_image(_with_fields(tmp_path / "a.nii", scl_slope=slope)).numpy()[0], _VALUES)


def test_monai_load_image_uses_the_reader_and_passes_its_errors_on(tmp_path: Path) -> None:
    load = LoadImage(reader=ScanReader(), image_only=True, ensure_channel_first=True)
    assert load(_save(tmp_path / "a.nii.gz")).shape == (1, 6, 5, 20)
    frames = _save(tmp_path / "frames.nii", np.zeros((4, 4, 4, 3), np.uint8))
    with pytest.raises(MedsegError, match="must hold one frame, got 3"):
        load(frames)


def test_reader_knows_its_extensions() -> None:
    reader = ScanReader()
    assert reader.verify_suffix("a.NII.GZ")
    assert reader.verify_suffix(["a.mha", "b.nhdr"])
    assert not reader.verify_suffix("a.txt")
    with pytest.raises(MedsegError, match="must be one file, got 2"):
        reader.read(["a.nii", "b.nii"])


def test_units_of_the_header_become_mm(tmp_path: Path) -> None:
    for code, factor in ((3, 1e-3), (1, 1e3), (2, 1), (0, 1), (2 | 8, 1)):
        affine = read_image(_with_fields(tmp_path / "a.nii", xyzt_units=code)).affine
        assert np.allclose(affine.numpy()[:3], _AFFINE[:3] * factor)


def test_sform_beats_qform_and_without_both_only_the_size_is_known(tmp_path: Path) -> None:
    path = _with_fields(tmp_path / "a.nii", srow_x=(0.5, 0, 0, 77), sform_code=2, qform_code=1)
    assert read_grid(path).affine[0, 3] == 77
    path = _with_fields(tmp_path / "a.nii", srow_x=(0.5, 0, 0, 77), sform_code=0, qform_code=1, qoffset_x=33)
    assert read_grid(path).affine[0, 3] == 33
    path = _with_fields(tmp_path / "a.nii", sform_code=0, qform_code=0)
    assert read_grid(path).orientation == "LAS"
    assert np.allclose(read_grid(path).spacing, (0.5, 0.6, 2))


def test_few_broken_voxels_become_the_minimum_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = _VALUES.astype(np.float32)
    values[0, 0, :3] = np.nan
    image = read_image(_save(tmp_path / "a.nii", values)).numpy()[0]
    assert (image[0, 0, :3] == values[np.isfinite(values)].min()).all()
    assert np.array_equal(image[1:], values[1:])
    assert "3 voxels that are NaN" in caplog.text


def test_infinite_voxels_are_refused(tmp_path: Path) -> None:
    values = _VALUES.astype(np.float32)
    values[0, 0, :2] = (np.inf, -np.inf)
    _assert_refused(_save(tmp_path / "a.nii", values), r"got 2 voxels that are infinite; replace them")
    scaled_away = _with_fields(tmp_path / "b.nii", scl_slope=1e38)  # finite as it is stored
    _assert_refused(scaled_away, r"voxels that are infinite; replace them")


def test_a_name_that_does_not_fit_the_content_is_said_and_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path / "a.nii").rename(tmp_path / "plain.nii.gz")
    _save(tmp_path / "a.nii.gz").rename(tmp_path / "packed.nii")
    for name, words in (("plain.nii.gz", "not gzip-compressed"), ("packed.nii", "gzip-compressed although")):
        assert np.array_equal(read_image(tmp_path / name).numpy()[0], _VALUES)
        assert f"{name} is {words}" in caplog.text


def test_many_broken_voxels_are_refused(tmp_path: Path) -> None:
    values = _VALUES.astype(np.float32)
    values[0, 0, :6] = np.nan  # 1 % of 600
    _assert_refused(_save(tmp_path / "a.nii", values), "got 6 of 600")


def test_constant_image_is_refused_and_empty_label_is_not(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8))
    _assert_refused(path, "got 0 in every voxel")
    assert read_labels(path).sum() == 0


def test_frames_are_counted_from_zero(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 2, 3)).astype(np.uint8)
    for name in ("a.nii", "a.nii.gz"):
        path = _save(tmp_path / name, values)
        for frame in range(6):
            expected = values.reshape((4, 5, 6, 6), order="F")[..., frame]
            assert np.array_equal(read_image(path, Pick(frame=frame)).numpy()[0], expected)
        _assert_refused(path, r"got 6 .4 x 5 x 6 x 2 x 3.; choose one with --frame N, 0 .the first. to 5")
        with pytest.raises(MedsegError, match=r"must have frame 6 .0 is the first., got 6 in all"):
            read_image(path, Pick(frame=6))
    assert read_image(_save(tmp_path / "b.nii"), Pick(frame=0)).shape == (1, 6, 5, 20)


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    _assert_refused(_save(tmp_path / "rgb.nii", colours), "got colours")
    _assert_refused(_save(tmp_path / "complex.nii", np.ones((3, 4, 5), np.complex64)), "must hold real numbers")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": (3, 6, 5, 0, 1, 1, 1, 1)}, "at least one voxel"),
        ({"dim": (3, 6, -5, 20, 1, 1, 1, 1)}, "at least one voxel"),
        ({"dim": (0, 6, 5, 20, 1, 1, 1, 1)}, "at least one voxel"),
        ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "70.4 TB"),
        ({"datatype": 9999}, "known number format"),
        ({"srow_z": (0, 0, 0, 0)}, "finite voxel sizes above 0 mm"),
        ({"srow_z": (0, 0, np.nan, 0)}, "finite voxel sizes above 0 mm"),
        ({"srow_z": (0, 0, 0, 0), "srow_x": (0.5, 0, 0.5, 0)}, "three different voxel axes"),
        ({"pixdim": (1, 0, -1, np.nan, 1, 1, 1, 1), "sform_code": 0}, "got 0 x -1 x nan and no sform"),
        ({"qform_code": 1, "sform_code": 0, "quatern_b": 3}, "usable affine"),
        ({"vox_offset": np.inf}, "where its voxels begin"),
        ({"datatype": 260}, "known number format"),
        ({"magic": b"no!"}, "Analyze 7.5"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "known number format"),
    ],
)
def test_broken_header_is_one_clear_line(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    for name in ("a.nii", "a.nii.gz"):
        _assert_refused(_with_fields(tmp_path / name, **fields), words)
        _assert_refused(tmp_path / name, words, read_labels)


def test_broken_file_is_one_clear_line(tmp_path: Path) -> None:
    whole = _save(tmp_path / "whole.nii.gz").read_bytes()
    plain = gzip.decompress(whole)
    broken = {
        "cut.nii.gz": (whole[:-100], "must be whole"),
        "checksum.nii.gz": (whole[:-8] + bytes(4) + whole[-4:], "CRC check failed"),
        "short.nii.gz": (gzip.compress(plain[:-10]), "10 of 1200 bytes are missing"),
        "short.nii": (plain[:-10], "got a file with 1.19 kB"),
        "text.nii.gz": (b"not an image", "got other content"),
        "text.nii": (b"not an image" * 99, "must be a NIfTI file"),
        "empty.nii.gz": (b"", "got an empty file"),
        "head.nii": (plain[:100], "must be a NIfTI file"),
        "alone.hdr": (plain[:344] + b"ni1\0" + plain[348:352], "must have its partner alone.img"),
        "scan.txt": (b"x", "must be a volume"),
    }
    for name, (content, words) in broken.items():
        (tmp_path / name).write_bytes(content)
        _assert_refused(tmp_path / name, words)
    _assert_refused(tmp_path / "missing.nii", "must be a file, got none")
    (tmp_path / "folder.nii").mkdir()
    _assert_refused(tmp_path / "folder.nii", "got a folder")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([0, 1, 2, 7], np.int16), ""),
        (np.array([0, 1, 3, 255], np.uint8), ""),
        (np.array([0, 1, 0, 1], np.float32), "stored as floats"),
    ],
)
def test_whole_numbers_are_labels(
    tmp_path: Path, values: np.ndarray, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    labels = read_labels(_save(tmp_path / "l.nii", values.reshape(2, 2, 1)))
    assert labels.dtype == torch.uint8
    assert np.array_equal(labels.numpy()[0].ravel(), values)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_0_and_255_are_read_as_0_and_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labels = read_labels(_save(tmp_path / "l.nii", np.array([[[0, 255]]], np.uint8)))
    assert labels.unique().tolist() == [0, 1]
    assert "read as 0 and 1" in caplog.text


@pytest.mark.parametrize(
    ("value", "words"), [(0.5, "such as 0.5"), (-1, "got -1"), (256, "got 256"), (np.nan, "such as nan")]
)
def test_other_numbers_are_no_labels(tmp_path: Path, value: float, words: str) -> None:
    values = np.array([[[0, 1, value]]], np.float32)
    _assert_refused(_save(tmp_path / "l.nii", values), words, read_labels)
