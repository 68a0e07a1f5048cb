"""Images and masks for nnU-Net and MONAI share a grid, and their values are consecutive."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from review.exports.painted import CLASSES, GRIDS, REST, VESSEL, labels, mask

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry
from medseg.review.exports.monai import write_datalist
from medseg.review.exports.nnunet import dataset_name, write_dataset_json
from medseg.review.exports.training_files import (
    consecutive,
    label_names,
    write_frames,
    write_image,
    write_labels_of,
)
from medseg.scans.stacks import as_stack


def test_values_become_consecutive_and_names_stay_single() -> None:
    assert consecutive((REST, VESSEL)) == {1: 1, 255: 2}
    odd = (ClassEntry(9, "Background", "#000000"), ClassEntry(3, "ignore", "#000000"), VESSEL)
    assert label_names(odd) == {"background": 0, "vessel": 1, "ignore 3": 2, "Background 9": 3}


@pytest.mark.parametrize("grid", GRIDS)
def test_image_and_mask_lie_on_one_grid(tmp_path: Path, grid: str) -> None:
    whole = mask(tmp_path, GRIDS[grid])
    scan = nibabel.load(tmp_path / "scan.nii.gz")
    write_image(tmp_path / "image.nii.gz", scan.get_fdata(dtype=np.float32), whole)
    write_labels_of(tmp_path / "label.nii.gz", whole)
    image, label = nibabel.load(tmp_path / "image.nii.gz"), nibabel.load(tmp_path / "label.nii.gz")
    assert np.array_equal(np.asanyarray(image.dataobj), np.asanyarray(scan.dataobj))
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(image.affine, label.affine)
    assert np.array_equal(image.affine, scan.affine)
    assert np.array_equal(np.asanyarray(label.dataobj), np.select([labels() == v for v in (1, 4, 255)], [1, 2, 3]))
    assert image.header["descrip"] == b""
    for read in map(SimpleITK.ReadImage, (str(tmp_path / "image.nii.gz"), str(tmp_path / "label.nii.gz"))):
        place = np.array(read.TransformContinuousIndexToPhysicalPoint((6.0, 5.0, 3.0))) * (-1, -1, 1)
        assert np.allclose(place, (GRIDS[grid] @ (6, 5, 3, 1))[:3], atol=1e-4)


@pytest.mark.parametrize("value", [0.5, 40000.0, np.float32(-1e9)])
def test_values_that_are_no_int16_stay_floats(tmp_path: Path, value: float) -> None:
    image = np.full((9, 7, 5), value, np.float32)
    write_image(tmp_path / "image.nii.gz", image, mask(tmp_path, GRIDS["LAS"]))
    assert np.array_equal(nibabel.load(tmp_path / "image.nii.gz").get_fdata(dtype=np.float32), image)


def _frames_mask(tmp_path: Path) -> tuple[np.ndarray, object]:
    frames = np.zeros((6, 4, 2), np.uint8)  # height, width, number
    frames[1, 2, 0], frames[5, 0, 1] = 4, 1
    stack = as_stack(frames)
    whole = mask(tmp_path, GRIDS["LAS"])
    return frames, type(whole)("cine", stack, whole.grid, whole.header, CLASSES, "cine.mp4", is_picture=True)


@pytest.mark.parametrize("colour", [True, False])
def test_frames_become_png_with_the_first_row_on_top(tmp_path: Path, colour: bool) -> None:
    frames, whole = _frames_mask(tmp_path)
    pictures = [np.full((6, 4, 1), 0.5, np.float32), np.full((6, 4, 3 if colour else 1), 1, np.float32)]
    pictures[0][0, 3] = 1
    names = [("a_0000.png", "a.png"), ("b_0000.png", "b.png")]
    write_frames(tmp_path / "images", tmp_path / "labels", names, pictures, whole, colour=colour)
    image = np.asarray(Image.open(tmp_path / "images/a_0000.png"))
    assert image.shape == ((6, 4, 3) if colour else (6, 4))
    assert image[0, 3].max() == 255
    assert image[5, 3].max() == 128
    label = np.asarray(Image.open(tmp_path / "labels/a.png"))
    assert np.array_equal(label, np.where(frames[..., 0] == 4, 2, 0))
    assert np.asarray(Image.open(tmp_path / "labels/b.png"))[5, 0] == 1


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    _, whole = _frames_mask(tmp_path)
    with pytest.raises(MedsegError, match="must have the 6 x 4 pixels of its source, got 4 x 6"):
        write_frames(
            tmp_path, None, [("a", "a"), ("b", "b")], [np.zeros((4, 6, 1), np.float32)] * 2, whole, colour=False
        )


def test_dataset_json_has_what_nnunet_asks_for(tmp_path: Path) -> None:
    folder = tmp_path / dataset_name(7)
    assert folder.name == "Dataset007_medseg"
    write_dataset_json(folder, CLASSES, training=3, ending=".nii.gz", modality="tof", reviewed=True)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "tof"}
    assert content["labels"] == {"background": 0, "vessel": 1, CLASSES[1].name: 2, CLASSES[2].name: 3}
    assert (content["numTraining"], content["file_ending"]) == (3, ".nii.gz")
    assert "3 was 255 (rest" in content["description"]
    assert "accepted by a reviewer" in content["description"]
    write_dataset_json(folder, CLASSES, training=3, ending=".png", colour=True, reviewed=False)
    content = json.loads((folder / "dataset.json").read_text())
    assert list(content["channel_names"]) == ["0", "1", "2"]
    assert "not reviewed" in content["description"]


@pytest.mark.parametrize("number", [0, 1000, -1])
def test_number_of_a_data_set_has_three_digits(number: int) -> None:
    with pytest.raises(MedsegError, match="must be 1 to 999"):
        dataset_name(number)


def test_datalist_leaves_out_empty_sections(tmp_path: Path) -> None:
    entries = {"training": [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}], "validation": [], "testing": []}
    write_datalist(tmp_path, CLASSES, entries, reviewed=False)
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["training"] == entries["training"]
    assert "validation" not in content
    assert content["labels"]["3"] == CLASSES[2].name
    assert "not reviewed" in content["description"]
