"""A mask with names inside is the same mask, and readers of its label table find each class."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK
from review.exports.painted import CLASSES, GRIDS, labels, mask

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry
from medseg.review.exports.masks import Mask, file_word
from medseg.review.exports.named_nifti import label_extensions, write_named_nifti
from medseg.scans.grids import Grid

LPS = np.diag([-1.0, -1.0, 1.0])
FIELDS = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d")
FIELDS += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_forms_and_codes_stay(tmp_path: Path, grid: str) -> None:
    path, *_ = write_named_nifti(tmp_path / "out", mask(tmp_path, GRIDS[grid]))
    before, after = nibabel.load(tmp_path / "seg.nii.gz"), nibabel.load(path)
    for field in FIELDS:
        assert np.array_equal(before.header[field], after.header[field]), field
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == (4, 3)
    assert np.array_equal(np.asanyarray(after.dataobj), labels())
    assert after.get_data_dtype() == np.uint8
    # An independent reader finds the single voxel of class 4 at the same place.
    image = SimpleITK.ReadImage(str(path))
    assert image[6, 5, 3] == 4
    place = image.TransformContinuousIndexToPhysicalPoint((6.0, 5.0, 3.0))
    assert np.allclose(LPS @ place, (GRIDS[grid] @ (6, 5, 3, 1))[:3], atol=1e-4)


def test_names_colours_and_values_are_inside(tmp_path: Path) -> None:
    path, *_ = write_named_nifti(tmp_path / "out", mask(tmp_path, GRIDS["oblique"]))
    first, second = nibabel.load(path).header.extensions
    assert (first.get_code(), second.get_code()) == (0, 30)
    assert first.content == second.content
    root = ElementTree.fromstring(first.get_content())
    assert root.tag == "CaretExtension"
    volume = root.find("VolumeInformation[@Index='0']")
    assert volume.findtext("VolumeType") == "Label"
    found = {int(label.get("Key")): label for label in volume.find("LabelTable")}
    assert {value: label.text for value, label in found.items()} == {entry.value: entry.name for entry in CLASSES}
    colour = [float(found[1].get(part)) for part in ("Red", "Green", "Blue", "Alpha")]
    assert np.allclose(colour, [230 / 255, 25 / 255, 75 / 255, 1], atol=1e-5)


@pytest.mark.parametrize("length", range(1, 34))
def test_extension_has_a_size_that_nifti_allows(length: int) -> None:
    both = label_extensions([ClassEntry(1, "x" * length, "#000000")])
    size = int.from_bytes(both[:4], "little")
    assert size % 16 == 0
    assert len(both) == 2 * size
    assert [int.from_bytes(part, "little") for part in (both[4:8], both[size : size + 4])] == [0, size]
    assert ElementTree.fromstring(both[size + 8 :]).find(".//Label").text == "x" * length


def test_tables_stand_beside_and_quotes_do_not_break_them(tmp_path: Path) -> None:
    _, snap, slicer = write_named_nifti(tmp_path / "out", mask(tmp_path, GRIDS["LAS"]))
    assert snap.read_text().splitlines()[2] == "4 60 180 75 1 1 1 \"a 'mass' <&> b\""
    assert slicer.read_text().splitlines()[2] == '4 a_"mass"_<&>_b 60 180 75 255'


def test_texts_of_the_scan_do_not_leave(tmp_path: Path) -> None:
    path, *_ = write_named_nifti(tmp_path / "out", mask(tmp_path, GRIDS["LAS"]))
    assert nibabel.load(path).header["descrip"] == b""


def test_value_without_a_class_is_refused(tmp_path: Path) -> None:
    good = mask(tmp_path, GRIDS["LAS"])
    with pytest.raises(MedsegError, match="must hold classes only, got 4"):
        Mask("x", good.labels, good.grid, good.header, CLASSES[:1], "x.nii.gz")


def test_shear_is_seen_and_rounding_is_not() -> None:
    def grid(shear: float) -> Mask:
        axes = np.array([[1, shear, 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
        return Mask("x", labels(), Grid("x", (9, 7, 5), axes), nibabel.Nifti1Header(), CLASSES, "x")

    assert grid(1e-3).is_sheared
    assert not grid(1e-6).is_sheared


@pytest.mark.parametrize(("name", "word"), [("../up", "up"), ("a b/c", "a_b_c"), ("Gefäß", "Gefäß"), ("???", "class")])
def test_class_name_in_a_file_name_leads_nowhere(name: str, word: str) -> None:
    assert file_word(name) == word
