"""Frames become a stack that viewers show upright, and come back."""

import gzip

import nibabel
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scans.stacks import STACK_AFFINE, as_stack, open_stack, read_stack, write_stack


def test_a_stack_holds_columns_first_and_rows_from_below(tmp_path):
    frames = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    write_stack(tmp_path / "cine.nii.gz", frames)
    stored = np.asarray(nibabel.load(tmp_path / "cine.nii.gz").dataobj)
    assert stored.shape == (3, 2, 4)
    assert stored[0, 1, 2] == frames[0, 0, 2]  # the top left pixel is the highest one at the patient's right
    assert nibabel.aff2axcodes(nibabel.load(tmp_path / "cine.nii.gz").affine) == ("L", "A", "S")
    assert np.array_equal(read_stack(tmp_path / "cine.nii.gz"), frames)


def test_equal_frames_are_equal_files(tmp_path):
    frames = np.ones((2, 3, 4), dtype=np.uint8)
    write_stack(tmp_path / "a.nii.gz", frames)
    write_stack(tmp_path / "b.nii.gz", frames)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_broken_stack_is_one_line(tmp_path):
    (tmp_path / "cine.nii.gz").write_bytes(b"no volume")
    with pytest.raises(MedsegError, match=r"cine\.nii\.gz must be a stack of frames"):
        read_stack(tmp_path / "cine.nii.gz")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_stack_has_the_voxels_and_the_header_that_nibabel_writes(tmp_path, dtype):
    frames = np.random.default_rng(0).integers(0, 200, (5, 7, 4)).astype(dtype)
    write_stack(tmp_path / "ours.nii.gz", frames)
    nibabel.save(nibabel.Nifti1Image(as_stack(frames), STACK_AFFINE), tmp_path / "theirs.nii.gz")
    ours, theirs = (gzip.decompress((tmp_path / f"{who}.nii.gz").read_bytes()) for who in ("ours", "theirs"))
    assert ours == theirs


def test_a_stack_that_lacks_a_frame_or_gets_another_size_leaves_no_file(tmp_path):
    path = tmp_path / "cine.nii.gz"
    with (
        pytest.raises(ValueError, match="must get 3 frames, got 1"),
        open_stack(path, (2, 3, 3), np.dtype("u1")) as add,
    ):
        add(np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="must have the shape"), open_stack(path, (2, 3, 1), np.dtype("u1")) as add:
        add(np.zeros((3, 2), np.uint8))
    assert list(tmp_path.iterdir()) == []
