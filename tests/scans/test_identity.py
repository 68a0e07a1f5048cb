"""What a header says of the patient does not travel into masks; where the scan lies does."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.nifti1 import Nifti1Extension

from medseg.scans.masks import write_labels, write_map

NAME = b"MEIER^ANNA"
KINDS = [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair]


def named_scan(folder: Path, kind: type) -> Path:
    image = kind(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([0.5, 0.6, 0.7, 1]))
    for text in ("descrip", "aux_file", "db_name", "data_type", "intent_name", "unused_str"):
        if text in image.header.keys():  # noqa: SIM118
            image.header[text] = NAME
    image.header.extensions.append(Nifti1Extension("comment", b"born 1961 " + NAME))
    image.header.extensions.append(Nifti1Extension(2, b"\x10\0\x10\0PN\x0a\0" + NAME))  # a DICOM header
    path = folder / ("scan.hdr" if kind is nibabel.Nifti1Pair else "scan.nii")
    nibabel.save(image, path)
    assert path.read_bytes().count(NAME) >= 3
    return path


def content(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_no_free_text_and_no_extension_of_the_scan_reaches_a_mask(kind: type, tmp_path: Path) -> None:
    source = named_scan(tmp_path, kind)
    write_labels(tmp_path / "a_seg.nii.gz", np.ones((3, 4, 5), np.uint8), source=source)
    write_map(tmp_path / "a_prob.nii.gz", np.ones((3, 4, 5), np.float32), source=source)
    for name in ("a_seg.nii.gz", "a_prob.nii.gz"):
        assert NAME not in content(tmp_path / name) and b"1961" not in content(tmp_path / name)
    before, after = nibabel.load(source).header, nibabel.load(tmp_path / "a_seg.nii.gz").header
    for field in ("dim", "pixdim", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code", "xyzt_units"):
        assert before[field].tobytes() == after[field].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_stays_where_that_is_asked_for(kind: type, tmp_path: Path) -> None:
    source = named_scan(tmp_path, kind)
    write_labels(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.uint8), source=source, keep_identity=True)
    assert nibabel.load(tmp_path / "a.nii.gz").header["descrip"].item() == NAME
    assert b"1961" not in content(tmp_path / "a.nii.gz")  # extensions never come along


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_nothing_of_the_fields_of_nrrd_and_metaimage_reaches_a_mask(name: str, tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(5, 4, 3))
    for field in ("PatientName", "0010|0010", "Comment"):
        image.SetMetaData(field, NAME.decode())
    SimpleITK.WriteImage(image, str(tmp_path / name))
    assert NAME in (tmp_path / name).read_bytes()
    write_labels(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.uint8), source=tmp_path / name)
    assert NAME not in content(tmp_path / "a.nii.gz")
