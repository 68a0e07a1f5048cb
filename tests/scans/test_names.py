"""Names alone: roles, bases, groups, unique names, patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.scans.names import given_splits, named_files, parse_name, patients, split_extension, unique_names


@pytest.mark.parametrize(
    ("stem", "base", "role"),
    [
        ("002_img", "002", "image"),
        ("002-ToF", "002", "image"),
        ("002_MRA", "002", "image"),
        ("X_0000", "X", "image"),
        ("IXI002-Guys-0828-MRA", "IXI002-Guys-0828", "image"),
        ("sub-01_ses-2_angio", "sub-01_ses-2", "image"),
        ("002_mask", "002", "mask"),
        ("002_Brain_Mask", "002", "mask"),
        ("002_brainmask", "002", "mask"),
        ("sub-01_desc-brain_mask", "sub-01", "mask"),
        ("002_LABEL", "002", "label"),
        ("002-vessel", "002", "label"),
        ("002_seg", "002", "label"),
        ("002_gt", "002", "label"),
        ("sub-01_label-vessel_mask", "sub-01", "label"),
        ("sub-01_desc-aneurysm_dseg", "sub-01", "label"),
        ("002_ToF_mask", "002", "mask"),
        ("mask", "", "mask"),
        ("vessel", "", "label"),
        ("tof", "tof", "image"),
        ("many.dots.v2.img", "many.dots.v2.img", None),
        ("002_center", "002_center", None),
        ("scan_0001", "scan_0001", None),
        ("maskedball", "maskedball", None),
    ],
)
def test_name_says_base_and_role(stem: str, base: str, role: str | None) -> None:
    assert parse_name(stem) == (base, role)


@pytest.mark.parametrize(
    ("name", "stem", "extension"),
    [("a.NII.GZ", "a", ".nii.gz"), ("a.b.mha", "a.b", ".mha"), ("a.gz", "a.gz", ""), (".nii", ".nii", "")],
)
def test_extension_is_recognised_in_any_case(name: str, stem: str, extension: str) -> None:
    assert split_extension(name) == (stem, extension)


def test_equal_names_get_as_many_folders_as_needed() -> None:
    groups = [("P1", "anat"), ("P2", "anat"), ()]
    assert unique_names(["tof", "TOF", "x"], groups) == ["P1_anat_tof", "P2_anat_TOF", "x"]


def test_names_that_cannot_be_told_apart_stay_equal() -> None:
    assert unique_names(["a", "A"], [(), ()]) == ["a", "A"]


def test_patient_is_the_folder_only_where_every_folder_holds_scans() -> None:
    assert patients(["a", "b"], ["a", "b"], [("P1",), ("P2", "late")]) == ["P1", "P2"]
    assert patients(["a", "b"], ["a", "b"], [("all", "P1"), ("all", "P2")]) == ["P1", "P2"]
    assert patients(["a", "b"], ["a", "b"], [("P1",), ()]) == ["a", "b"]
    assert patients(["a", "b"], ["a", "b"], [("all",), ("all",)]) == ["a", "b"]
    assert patients(["a", "b"], ["a", "b"], [("train",), ("val",)]) == ["a", "b"]


def test_bids_subject_is_the_patient() -> None:
    names = ["sub-1_ses-1", "sub-1_ses-2", "sub-10"]
    assert patients(names, names, [("a",), ("b",), ("c",)]) == ["sub-1", "sub-1", "sub-10"]


def test_one_split_folder_alone_is_no_split() -> None:
    assert given_splits([("train",), ("train",)]) == [None, None]
    assert given_splits([("Train", "P1"), ("TEST",), ("extra",)]) == ["train", "test", None]
    assert given_splits([("imagesTr",), ("imagesTs",)]) == ["train", "test"]


def test_numbered_series_keeps_its_numbers() -> None:
    source = Path("scans")
    paths = [source / f"head_000{n}.nii" for n in range(3)] + [source / "head_0000_label.nii"]
    files, _ = named_files(paths, source)
    assert [(file.base, file.role) for file in files] == [
        ("head_0000", "image"),
        ("head_0001", "image"),
        ("head_0002", "image"),
        ("head_0000", "label"),
    ]


def test_further_nnunet_channels_and_other_contrasts_are_left_out() -> None:
    source = Path("scans")
    names = ["imagesTr/X_0000.nii", "imagesTr/X_0001.nii", "sub-1/sub-1_T1w.nii", "IXI002-Guys-0828-T2.nii"]
    files, ignored = named_files([source / name for name in names], source)
    assert [file.base for file in files] == ["X"]
    assert len(ignored) == 3


def test_unknown_word_beside_a_scan_is_no_second_scan() -> None:
    source = Path("scans")
    names = ["002_img.nii", "002_center.nii", "003_late.nii"]
    files, ignored = named_files([source / name for name in names], source)
    assert [file.base for file in files] == ["002", "003_late"]
    assert ignored == [(source / "002_center.nii", "unknown role beside the scan of 002")]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("labels/002.nii", "label"),
        ("labels/002_mask.nii", "label"),
        ("labels/002_brain_mask.nii", "mask"),
        ("masks/002.nii", "mask"),
        ("masks/002_label.nii", "label"),
        ("images/002_mask.nii", "mask"),
        ("images/002.nii", "image"),
        ("derivatives/x/sub-1_label.nii", "label"),
    ],
)
def test_folder_says_the_role_unless_the_name_contradicts(name: str, role: str) -> None:
    files, _ = named_files([Path("scans") / name], Path("scans"))
    assert files[0].role == role
