"""What a file holds is told by its content where its name says nothing or something else; channels can be picked."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.picks import Pick
from medseg.scans.readers import read_image
from medseg.scans.sources import hash_scan, scan_files

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.npy"])
def test_a_picture_under_the_name_of_a_volume_is_told(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOURS[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    with pytest.raises(MedsegError, match=r"must be what its name says, got PNG; rename it to a\.png"):
        read_grid(tmp_path / name)


def test_a_volume_under_the_name_of_a_picture_is_told(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image(4, 5, 6, SimpleITK.sitkInt16), tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd").rename(tmp_path / "a.png")
    with pytest.raises(MedsegError, match=r"got NRRD; rename it to a\.nrrd"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_called_png_is_read(tmp_path: Path) -> None:
    Image.fromarray(COLOURS[0]).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 5, 6, 1)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_one_colour_of_a_nifti_file_is_picked(tmp_path: Path, name: str) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(COLOURS.view(kind)[..., 0], np.eye(4)), tmp_path / name)
    with pytest.raises(MedsegError, match=r"got colours; choose one of them with --channel N, 0 \(red\) to 2"):
        read_image(tmp_path / name)
    for channel in range(3):
        image = read_image(tmp_path / name, Pick(channel=channel))
        np.testing.assert_array_equal(image[0].numpy(), COLOURS[..., channel])
    with pytest.raises(MedsegError, match="must have channel 3"):
        read_image(tmp_path / name, Pick(channel=3))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_one_colour_of_an_nrrd_or_metaimage_file_is_picked(tmp_path: Path, name: str) -> None:
    image = SimpleITK.GetImageFromArray(COLOURS.transpose(2, 1, 0, 3), isVector=True)
    SimpleITK.WriteImage(image, tmp_path / name)
    with pytest.raises(MedsegError, match=r"got colours; choose one of them with --channel N"):
        read_image(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name, Pick(channel=2))[0].numpy(), COLOURS[..., 2])


def test_frame_and_channel_of_a_nifti_file_with_both(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 99, (3, 4, 5, 2, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz", Pick(frame=1, channel=2))
    np.testing.assert_array_equal(image[0].numpy(), values[..., 1, 2])
    with pytest.raises(MedsegError, match=r"choose one with --frame N, 0 \(the first\) to 1"):
        read_image(tmp_path / "a.nii.gz", Pick(channel=2))


def test_a_header_and_its_voxels_are_hashed_together(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(COLOURS[..., 0])
    for name, data in (("a.mhd", "a.raw"), ("b.nhdr", "b.raw"), ("c.hdr", "c.img")):
        SimpleITK.WriteImage(image, tmp_path / name)
        assert scan_files(tmp_path / name) == (tmp_path / name, tmp_path / data)
        before = hash_scan(tmp_path / name)
        content = bytearray((tmp_path / data).read_bytes())
        content[-1] ^= 1
        (tmp_path / data).write_bytes(content)
        assert hash_scan(tmp_path / name) != before
