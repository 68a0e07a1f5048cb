"""MetaImage and NRRD: layouts, frames, and damage that SimpleITK alone would pass over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.picks import Pick
from medseg.scans.readers import read_image

_VALUES = np.random.default_rng(0).integers(0, 500, (9, 7, 5)).astype(np.int16)  # k j i


def _write(path: Path, values: np.ndarray = _VALUES, *, vector: bool = False, compress: bool = False) -> Path:
    image = SimpleITK.GetImageFromArray(values, isVector=vector)
    dimension = image.GetDimension()
    image.SetSpacing((0.5, 0.6, 2.0, 1.0)[:dimension])
    image.SetOrigin((1.0, 2.0, 3.0, 0.0)[:dimension])
    SimpleITK.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("extension", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_each_format_is_read_in_lps_as_ras(tmp_path: Path, extension: str, compress: bool) -> None:
    image = read_image(_write(tmp_path / f"a{extension}", compress=compress))
    assert np.array_equal(image.numpy()[0], _VALUES.T)
    expected = [[-0.5, 0, 0, -1], [0, -0.6, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]]
    assert np.allclose(image.affine.numpy(), expected)


@pytest.mark.parametrize("extension", [".mha", ".nrrd"])
def test_frames_and_channels_need_a_choice(tmp_path: Path, extension: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 9, 7, 5)).astype(np.float32)
    path = _write(tmp_path / f"frames{extension}", values)
    assert np.array_equal(read_image(path, Pick(frame=2)).numpy()[0], values[2].T)
    vector = _write(tmp_path / f"vector{extension}", np.moveaxis(values, 0, -1), vector=True)
    assert np.array_equal(read_image(vector, Pick(frame=1)).numpy()[0], values[1].T)
    for several in (path, vector):
        with pytest.raises(MedsegError, match="must hold one frame, got 3"):
            read_image(several)


def test_one_frame_stored_as_4d_and_a_slice_stored_as_2d_are_read(tmp_path: Path) -> None:
    assert read_image(_write(tmp_path / "a.mha", _VALUES[None])).shape == (1, 5, 7, 9)
    image = read_image(_write(tmp_path / "b.mha", _VALUES[0]))
    assert image.shape == (1, 5, 7, 1)
    assert np.allclose(read_grid(tmp_path / "b.mha").spacing, (0.5, 0.6, 1))


def test_colours_are_refused(tmp_path: Path) -> None:
    values = np.zeros((9, 7, 5, 3), np.uint8)
    with pytest.raises(MedsegError, match="got colours"):
        read_image(_write(tmp_path / "a.mha", values, vector=True), Pick(frame=0))


@pytest.mark.parametrize("extension", [".mha", ".nrrd"])
@pytest.mark.parametrize("compress", [False, True])
def test_cut_and_garbled_voxels_are_refused(tmp_path: Path, extension: str, compress: bool) -> None:
    path = _write(tmp_path / f"a{extension}", compress=compress)
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    with pytest.raises(MedsegError, match="cut"):
        read_image(path)
    if compress:
        path.write_bytes(whole[:-200] + bytes(200))
        with pytest.raises(MedsegError, match="must be whole"):
            read_image(path)


_META = "NDims = 3\nDimSize = {size}\nElementSpacing = {spacing}\nElementType = {kind}\nElementDataFile = {data}\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": "60000 60000 60000"}, "216 TB"),
        ({"size": "0 2 2"}, "at least one voxel"),
        ({"size": "a b c"}, "header without a valid"),
        ({"spacing": "0 1 1"}, "finite voxel sizes above 0"),
        ({"data": "not_there.raw"}, "got no such file; copy both"),
        ({"kind": "MET_NOTHING"}, "header without a valid 'NOTHING'"),
    ],
)
def test_broken_header_is_one_clear_line(tmp_path: Path, change: dict[str, str], words: str) -> None:
    fields = {"size": "2 2 2", "spacing": "1 1 1", "kind": "MET_UCHAR", "data": "LOCAL"} | change
    path = tmp_path / "a.mha"
    path.write_bytes(_META.format(**fields).encode() + bytes(range(8)))
    with pytest.raises(MedsegError, match=words) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"NRRD0004\ntype: short\n", b"\xff" * 500])
@pytest.mark.parametrize("extension", [".mha", ".nrrd"])
def test_other_content_is_one_clear_line(tmp_path: Path, extension: str, content: bytes) -> None:
    path = tmp_path / f"a{extension}"
    path.write_bytes(content)
    with pytest.raises(MedsegError, match="must"):
        read_image(path)


def test_singular_directions_are_refused(tmp_path: Path) -> None:
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nspace: RAS\nsizes: 2 3 2\nencoding: raw\n"
    header += b"space directions: (1,0,0) (0,1,0) (0,1,0)\nspace origin: (1,2,3)\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + bytes(range(12)))
    with pytest.raises(MedsegError, match=r"three different voxel axes|must be readable by SimpleITK"):
        read_image(tmp_path / "a.nrrd")
