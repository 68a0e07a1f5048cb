"""Segmentations for 3D Slicer, read back by the package of Slicer's makers and by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import slicerio
from review.exports.painted import CLASSES, GRIDS, SHEARED, labels, mask

from medseg.review.exports.slicer import write_slicer

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_and_positions_are_read_back(tmp_path: Path, grid: str) -> None:
    (path,) = write_slicer(tmp_path / "out", mask(tmp_path, GRIDS[grid]))
    found = slicerio.read_segmentation(str(path))
    assert np.array_equal(found["voxels"], labels())
    assert np.allclose(found["ijkToLPS"], LPS @ GRIDS[grid], atol=1e-5)
    image = SimpleITK.ReadImage(str(path))
    assert image[6, 5, 3] == 4
    place = image.TransformContinuousIndexToPhysicalPoint((6.0, 5.0, 3.0))
    assert np.allclose(place, (LPS @ GRIDS[grid] @ (6, 5, 3, 1))[:3], atol=1e-4)


def test_sheared_axes_are_written_as_they_are(tmp_path: Path) -> None:
    (path,) = write_slicer(tmp_path / "out", mask(tmp_path, SHEARED))
    assert np.allclose(slicerio.read_segmentation(str(path))["ijkToLPS"], LPS @ SHEARED, atol=1e-5)


def test_segments_have_names_colours_values_extents_and_terms(tmp_path: Path) -> None:
    (path,) = write_slicer(tmp_path / "out", mask(tmp_path, GRIDS["oblique"]))
    found = slicerio.read_segmentation(str(path))
    vessel, mass, rest = found["segments"]
    assert [segment["name"] for segment in found["segments"]][:2] == [entry.name for entry in CLASSES][:2]
    assert rest["name"].encode().decode("unicode_escape") == CLASSES[2].name  # pynrrd leaves escapes as they are
    assert [segment["labelValue"] for segment in found["segments"]] == [1, 4, 255]
    assert [segment["layer"] for segment in found["segments"]] == [0, 0, 0]
    assert len({segment["id"] for segment in found["segments"]}) == 3
    assert np.allclose(vessel["color"], [230 / 255, 25 / 255, 75 / 255], atol=1e-5)
    assert vessel["extent"] == [1, 4, 2, 3, 1, 2]
    assert vessel["terminology"]["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert vessel["terminology"]["type"] == ["SCT", "59820001", "Blood vessel"]
    assert mass["terminology"]["category"][1] == "49755003"
    assert rest["terminology"]["type"] == ["SCT", "85756007", "Tissue"]
    assert vessel["status"] == "inprogress"
    assert found["masterRepresentation"] == "Binary labelmap"
    assert found["containedRepresentationNames"] == ["Binary labelmap"]
    assert found["referenceImageExtentOffset"] == [0, 0, 0]


def test_class_without_voxels_keeps_its_segment(tmp_path: Path) -> None:
    whole = mask(tmp_path, GRIDS["LAS"], is_reviewed=True)
    whole.labels[whole.labels > 1] = 0
    (path,) = write_slicer(tmp_path / "out", whole)
    segments = slicerio.read_segmentation(str(path))["segments"]
    assert [segment["extent"] for segment in segments[1:]] == [[0, -1, 0, -1, 0, -1]] * 2
    assert segments[0]["status"] == "completed"


def test_signs_that_part_terms_do_not_break_them(tmp_path: Path) -> None:
    from medseg.naming.classes import ClassEntry, Code

    odd = ClassEntry(1, "x", "#ffffff", (), Code("SCT", "1", "a~b^c|d"))
    (path,) = write_slicer(tmp_path / "out", mask(tmp_path, GRIDS["LAS"], classes=(odd, *CLASSES[1:])))
    term = slicerio.read_segmentation(str(path))["segments"][0]["terminology"]
    assert term["type"] == ["SCT", "1", "a b c d"]
    assert "anatomicRegion" not in term


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    one = write_slicer(tmp_path / "one", mask(tmp_path, GRIDS["LAS"]))[0].read_bytes()
    other = write_slicer(tmp_path / "other", mask(tmp_path, GRIDS["LAS"]))[0].read_bytes()
    assert one == other
    assert b"Doe" not in one
