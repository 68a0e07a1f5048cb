"""Frames become a stack that viewers show upright, and come back."""

import nibabel
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scans.stacks import read_stack, write_stack


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
