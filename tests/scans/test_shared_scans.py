"""The awkward and the broken volumes of the shared test data, where it is there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.grids import require_same_grid
from medseg.scans.masks import write_labels
from medseg.scans.names import split_extension
from medseg.scans.readers import grid_of, read_image, read_labels

_DATA = Path(os.environ.get("MEDSEG_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="MEDSEG_TEST_DATA is not set")


def _expected(folder: str) -> dict[str, Any]:
    path = _DATA / folder / "expected.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


_AWKWARD = _expected("awkward")
_BROKEN = [name for name in _expected("broken") if split_extension(name)[1] and not name.endswith("/")]
_FIELDS = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z")
_FIELDS += ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
# Doubtful files that are read, as images and as labels; everything else in the folder is refused.
_READ_AS_IMAGE = {"nan_voxels", "not_gzipped", "label_float_values", "label_out_of_range"}
_READ_AS_IMAGE |= {
    "label_other_size",
    "label_other_grid",
    "label_shifted_origin",
    "label_other_spacing",
    "label_mirrored_affine",
}
_READ_AS_LABEL = {"all_zero", "constant", "label_empty", *(n for n in _READ_AS_IMAGE if n.startswith("label"))}
_READ_AS_LABEL -= {"label_float_values", "label_out_of_range"}


@pytest.mark.parametrize("name", _AWKWARD)
def test_awkward_volume_is_read_right_and_its_mask_has_its_header(tmp_path: Path, name: str) -> None:
    path, expected = _DATA / "awkward" / name, _AWKWARD[name]
    image = read_image(path)
    grid = grid_of(image)
    assert grid.shape == (*expected["shape"], 1)[:3]
    spacing = np.array(expected["spacing_mm"]) / (1000 if "micron" in name else 1)
    assert np.allclose(grid.spacing, spacing, rtol=1e-4)
    assert grid.orientation == expected.get("axes", "RAS")  # said for NIfTI only
    write_labels(tmp_path / "seg.nii.gz", np.ones(grid.shape, np.uint8), source=path)
    require_same_grid(grid, read_grid(tmp_path / "seg.nii.gz"))
    if split_extension(name)[1] in (".nii", ".nii.gz", ".hdr"):
        before, after = nibabel.load(path), nibabel.load(tmp_path / "seg.nii.gz")
        assert before.shape == after.shape
        assert np.array_equal(before.affine, after.affine)
        assert all(np.array_equal(before.header[field], after.header[field]) for field in _FIELDS)


@pytest.mark.parametrize("name", [name for name in _AWKWARD if _AWKWARD[name]["same_world_content_as_reference"]])
def test_content_lies_where_it_lies_in_the_reference(name: str) -> None:
    label = name.endswith(("_label.nii.gz", "_label.nrrd")) or name == "bool_label_255.nii.gz"
    read = read_labels if label else read_image
    image = read(_DATA / "awkward" / name)
    reference = read(_DATA / "awkward" / ("reference_label.nii.gz" if label else "reference.nii.gz"))
    # Where each voxel of the reference lies in the other file's array.
    indices = np.stack(np.meshgrid(*map(np.arange, reference.shape[1:]), indexing="ij"), -1).reshape(-1, 3)
    to_other = np.linalg.inv(image.affine.numpy()) @ reference.affine.numpy()
    i, j, k = np.rint(indices @ to_other[:3, :3].T + to_other[:3, 3]).astype(int).T
    moved = image.numpy()[0][i, j, k].astype(np.float64)
    wanted = reference.numpy()[0].ravel().astype(np.float64)
    if label:
        assert np.array_equal(moved, wanted)
    else:  # some files hold scaled or shifted values
        assert np.corrcoef(moved, wanted)[0, 1] > 0.9999


@pytest.mark.parametrize("name", _BROKEN)
@pytest.mark.parametrize("read", [read_image, read_labels])
def test_broken_volume_is_refused_in_one_line_and_at_once(name: str, read: Any) -> None:
    start = time.monotonic()
    stem = split_extension(name)[0]
    if stem in (_READ_AS_IMAGE if read is read_image else _READ_AS_LABEL):
        assert torch.isfinite(read(_DATA / "broken" / name).as_tensor().float()).all()
    else:
        with pytest.raises(MedsegError) as caught:
            read(_DATA / "broken" / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", [n for n in _BROKEN if n.startswith(("label_other", "label_shift", "label_mirror"))])
def test_label_on_another_grid_is_refused(name: str) -> None:
    with pytest.raises(MedsegError, match="must"):
        require_same_grid(read_grid(_DATA / "awkward/reference.nii.gz"), read_grid(_DATA / "broken" / name))
