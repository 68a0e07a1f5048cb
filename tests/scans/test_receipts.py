"""Receipts say where a mask lies, in numbers that were worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.scans.masks import write_labels
from medseg.scans.picks import Pick
from medseg.scans.picture_masks import write_index_png
from medseg.scans.receipts import geometry_receipt, require_consistent, require_mask, require_scan
from medseg.scans.stacks import write_stack

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(30, dtype=np.int16).reshape(3, 5, 2), AFFINE), path)
    return path


def mask_of(scan: Path, *voxels: tuple[int, int, int]) -> Path:
    labels = np.zeros((3, 5, 2), np.uint8)
    for voxel in voxels:
        labels[voxel] = 3
    write_labels(scan.parent / "seg.nii.gz", labels, source=scan)
    return scan.parent / "seg.nii.gz"


def cine(path: Path, count: int) -> Path:
    first, *others = [Image.fromarray(np.full((4, 6), 40 * n, np.uint8)) for n in range(count)]
    first.save(path, save_all=True, append_images=others)
    return path


def test_a_receipt_of_a_volume_by_hand(scan: Path) -> None:
    mask = mask_of(scan, (0, 0, 0), (2, 4, 1))
    receipt = geometry_receipt(scan, mask, [1, 3])
    assert (receipt["unit"], receipt["shape"], receipt["spacing"]) == ("mm", [3, 5, 2], [0.5, 0.5, 2])
    assert (receipt["orientation"], receipt["affine"]) == ("LAS", AFFINE.tolist())
    assert receipt["corners_ras"][-1] == [9, 22, 32]
    assert receipt["corners_lps"][-1] == [-9, -22, 32]
    assert receipt["mask"] == {
        "file": "seg.nii.gz",
        "sha256": hash_file(mask),
        "sform_code": 2,  # as the scan has it
        "qform_code": 0,
        "voxels": {"1": 0, "3": 2},
        "centroid_ras": {"1": None, "3": [9.5, 21, 31]},
    }


def test_a_receipt_of_a_picture_is_in_pixels(tmp_path: Path) -> None:
    labels = np.zeros((4, 6, 3), np.uint8)
    labels[1, 5, 0] = labels[3, 5, 2] = 7
    write_stack(tmp_path / "seg.nii.gz", labels)
    receipt = geometry_receipt(cine(tmp_path / "a.tif", 3), tmp_path / "seg.nii.gz", [7])
    assert (receipt["unit"], receipt["shape"], receipt["corners_px"][-1]) == ("px", [4, 6, 3], [3, 5, 2])
    assert receipt["mask"]["centroid_px"] == {"7": [2, 5, 1]}
    assert not {"affine", "spacing", "orientation", "corners_ras"} & receipt.keys()
    write_index_png(tmp_path / "seg.png", labels[..., 0], {7: "#ff0000"})
    one = geometry_receipt(tmp_path / "a.tif", tmp_path / "seg.png", [7], Pick(frame=1))
    assert (one["shape"], one["mask"]["centroid_px"]) == ([4, 6, 1], {"7": [1, 5, 0]})
    with pytest.raises(MedsegError, match="must have the rows, columns and frames"):
        geometry_receipt(tmp_path / "a.tif", tmp_path / "seg.png", [7])


def test_centroids_are_those_of_every_class_whatever_the_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (7, 3, 5), (1, 9, 2), (300, 2, 3)):
        path = tmp_path / "scan.nii"
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), AFFINE), path)
        labels = rng.integers(0, 4, shape).astype(np.uint8) * 85
        write_labels(tmp_path / "seg.nii.gz", labels, source=path)
        mask = geometry_receipt(path, tmp_path / "seg.nii.gz", [85, 170, 255])["mask"]
        for value in (85, 170, 255):
            voxels = np.argwhere(labels == value)
            assert mask["voxels"][str(value)] == len(voxels)
            if len(voxels):
                wanted = nibabel.affines.apply_affine(AFFINE, voxels.mean(0))
                assert mask["centroid_ras"][str(value)] == pytest.approx(wanted)


def test_a_mask_on_another_grid_gets_no_receipt(scan: Path) -> None:
    mask = mask_of(scan, (0, 0, 0))
    image = nibabel.load(mask)
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), shifted), mask)
    with pytest.raises(MedsegError, match="must lie on the grid"):
        geometry_receipt(scan, mask, [3])


def test_a_scan_with_other_bits_in_its_forms_is_not_that_of_the_mask(scan: Path) -> None:
    mask = mask_of(scan, (0, 0, 0))
    receipt = geometry_receipt(scan, mask, [3])
    require_consistent("receipt", receipt)
    require_mask(mask, receipt, "receipt")
    require_scan(scan, mask, receipt)
    image = nibabel.load(scan)
    image.header["pixdim"][1] = np.nextafter(np.float32(0.5), np.float32(1))
    image.set_sform(AFFINE, 2, update_affine=False)
    nibabel.save(image, scan)
    with pytest.raises(MedsegError, match="must have the"):
        require_scan(scan, mask, receipt)


@pytest.mark.parametrize("missing", ["shape", "unit", "affine", "corners_lps", "mask"])
def test_a_receipt_with_a_part_missing_is_refused(missing: str, scan: Path) -> None:
    receipt: dict[str, Any] = geometry_receipt(scan, mask_of(scan, (0, 0, 0)), [3])
    del receipt[missing]
    with pytest.raises(MedsegError, match="receipt must hold a whole geometry receipt"):
        require_consistent("receipt", receipt)
