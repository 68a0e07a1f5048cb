"""Cases and references found in folders; no file is opened here, so empty ones do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.scans.folders import find_cases, find_references
from medseg.scans.picks import Pick


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _ids(source: Path) -> list[str]:
    return [case.case_id for case in find_cases(source).cases]


def _manifest(folder: Path, case: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"run_hash": "r", "source_sha256": "s", "files": {f"comparison/{case}_kmeans.nii.gz": "h"}}
    (folder / f"{case}_manifest.json").write_text(json.dumps(content), encoding="utf-8")


def test_suffixes_in_one_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "002_IMG.nii.gz", "002_mask.nii.gz", "002-Label.mha", "007.nrrd", "readme.txt")
    listing = find_cases(tmp_path)
    case = listing.cases[0]
    assert (case.case_id, case.image.name, case.mask.name if case.mask else None) == (
        "002",
        "002_IMG.nii.gz",
        "002_mask.nii.gz",
    )
    assert [case.case_id for case in listing.cases] == ["002", "007"]
    assert {name: path.name for name, path in listing.labels.items()} == {"002": "002-Label.mha"}
    assert "ignored, not an image (.txt): readme.txt" in listing.notes
    assert "no brain mask for 007" in listing.notes
    assert "no label for 007" in listing.notes


def test_equal_names_get_their_folder_and_the_folder_is_the_patient(tmp_path: Path) -> None:
    _touch(tmp_path, "P1/tof.nii", "P1/tof_mask.nii", "P2/tof.nii", "P2/label.nii")
    listing = find_cases(tmp_path)
    assert [(case.case_id, case.patient) for case in listing.cases] == [("P1_tof", "P1"), ("P2_tof", "P2")]
    assert listing.cases[0].mask == tmp_path / "P1/tof_mask.nii"
    assert listing.labels == {"P2_tof": tmp_path / "P2/label.nii"}


def test_twice_in_one_folder_is_an_error_of_that_case_only(tmp_path: Path) -> None:
    _touch(tmp_path, "002_img.nii", "002.mha", "007.nii", "007_label.nii", "007_seg.nii", "013.nii")
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["013"]
    assert [case_id for case_id, _ in listing.problems] == ["002", "007"]
    assert "must have one scan, got 2" in listing.problems[0][1]
    assert "must have one label, got 2" in listing.problems[1][1]


def test_names_that_differ_in_case_only_are_an_error(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii", "A_img.nii", "b.nii")
    assert [case_id.lower() for case_id, _ in find_cases(tmp_path).problems] == ["a"]


def test_alone_standing_role_with_two_scans_beside_it_is_said(tmp_path: Path) -> None:
    _touch(tmp_path, "P1/pre.nii", "P1/post.nii", "P1/mask.nii")
    listing = find_cases(tmp_path)
    assert all(case.mask is None for case in listing.cases)
    assert listing.notes == ("ignored, unclear of which of 2 scans it is the mask: mask.nii",)


def test_labels_and_masks_without_a_scan_are_said(tmp_path: Path) -> None:
    _touch(tmp_path, "002.nii", "003_label.nii", "004_mask.nii")
    notes = find_cases(tmp_path).notes
    assert "label without a scan: 003_label.nii" in notes
    assert "brain mask without a scan: 004_mask.nii" in notes


def test_header_and_voxel_files_are_one_scan(tmp_path: Path) -> None:
    _touch(tmp_path, "a.hdr", "a.img", "b.mhd", "b.zraw", "c.nhdr", "c.raw.gz")
    listing = find_cases(tmp_path)
    assert [case.image.name for case in listing.cases] == ["a.hdr", "b.mhd", "c.nhdr"]
    assert listing.notes == ()


def test_img_without_header_is_said(tmp_path: Path) -> None:
    _touch(tmp_path, "a.img", "b.nii")
    assert find_cases(tmp_path).notes == ("ignored, not an image (.img): a.img",)


def test_nnunet_folders_pair_and_split(tmp_path: Path) -> None:
    _touch(tmp_path, "imagesTr/X_0000.nii.gz", "labelsTr/X.nii.gz", "imagesTs/Y_0000.nii.gz", "labelsTs/Y.nii.gz")
    listing = find_cases(tmp_path)
    assert [(case.case_id, case.split) for case in listing.cases] == [("X", "train"), ("Y", "test")]
    assert set(listing.labels) == {"X", "Y"}


def test_training_folder_alone_is_split_by_seed(tmp_path: Path) -> None:
    _touch(tmp_path, "imagesTr/X_0000.nii.gz", "imagesTr/Y_0000.nii.gz")
    assert [case.split for case in find_cases(tmp_path).cases] == [None, None]


def test_bids_pairs_across_derivatives(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "sub-01/ses-1/anat/sub-01_ses-1_angio.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_angio.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "derivatives/m/sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "derivatives/m/sub-01/ses-2/anat/sub-01_ses-2_desc-preproc_angio.nii.gz",
    )
    listing = find_cases(tmp_path)
    assert [(case.case_id, case.patient, case.mask is not None) for case in listing.cases] == [
        ("sub-01_ses-1", "sub-01", False),
        ("sub-01_ses-2", "sub-01", True),
    ]
    assert any("another contrast" in note for note in listing.notes)
    assert any("below derivatives" in note for note in listing.notes)


def test_output_folder_inside_is_skipped_and_said(tmp_path: Path) -> None:
    _touch(tmp_path, "002.nii", "out/002_seg.nii.gz", "out/003_prob.nii.gz", "out/comparison/002_kmeans.nii.gz")
    _manifest(tmp_path / "out", "002")
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["002"]
    assert listing.labels == {}
    assert "out holds results of medseg and is skipped" in listing.notes


def test_results_among_the_scans_are_never_scans_or_labels(tmp_path: Path) -> None:
    outputs = [f"002_{kind}.nii.gz" for kind in ("seg", "prob", "uncertainty", "region")]
    _touch(tmp_path, "002.nii", "007_seg.nii", "007.nii", "comparison/002_kmeans.nii.gz", *outputs)
    _manifest(tmp_path, "002")
    listing = find_cases(tmp_path)
    assert [case.case_id for case in listing.cases] == ["002", "007"]
    assert set(listing.labels) == {"007"}


def test_somebody_elses_manifest_skips_nothing(tmp_path: Path) -> None:
    _touch(tmp_path, "data/002.nii")
    (tmp_path / "data/download_manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data/broken_manifest.json").write_text("{", encoding="utf-8")
    assert _ids(tmp_path) == ["002"]


def test_folder_to_skip_is_said_but_the_source_itself_is_searched(tmp_path: Path) -> None:
    _touch(tmp_path, "002.nii", "out/003.nii")
    assert find_cases(tmp_path, skip=(tmp_path / "out",)).notes == ("out is where results go and is skipped",)
    assert len(find_cases(tmp_path, skip=(tmp_path,)).cases) == 2


def test_one_scan_brings_its_mask_and_label(tmp_path: Path) -> None:
    _touch(tmp_path, "002_img.nii", "002_mask.nii", "002_label.nii", "007_img.nii", "sub/002.nii")
    listing = find_cases(tmp_path / "002_img.nii", pick=Pick(frame=2))
    case = listing.cases[0]
    assert (len(listing.cases), case.case_id, case.mask, case.pick.frame) == (1, "002", tmp_path / "002_mask.nii", 2)
    assert listing.labels == {"002": tmp_path / "002_label.nii"}


def test_one_scan_called_a_label_is_still_a_scan(tmp_path: Path) -> None:
    _touch(tmp_path, "a_label.nii", "a.nii")
    listing = find_cases(tmp_path / "a_label.nii")
    assert [(case.case_id, case.image.name) for case in listing.cases] == [("a_label", "a_label.nii")]


def test_img_of_a_pair_means_its_header(tmp_path: Path) -> None:
    _touch(tmp_path, "a.hdr", "a.img")
    assert find_cases(tmp_path / "a.img").cases[0].image.name == "a.hdr"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "got nothing there"),
        ("empty", "must hold at least one scan"),
        ("x.zip", "must be a whole zip archive"),
    ],
)
def test_source_without_scans_is_one_clear_line(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.zip").touch()
    with pytest.raises(MedsegError, match=words) as caught:
        find_cases(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_only_unusable_cases_are_an_error_that_names_one(tmp_path: Path) -> None:
    _touch(tmp_path, "002_img.nii", "002.mha")
    with pytest.raises(MedsegError, match=r"1 unusable .002 must have one scan"):
        find_cases(tmp_path)


def test_references_have_the_names_of_the_cases(tmp_path: Path) -> None:
    _touch(tmp_path, "P1/tof.nii", "P1/label.nii", "P2/tof.nii", "P2/vessel.nii", "P3/tof.nii")
    references = find_references(tmp_path)
    assert {name: path.name for name, path in references.items()} == {"P1_tof": "label.nii", "P2_tof": "vessel.nii"}
    assert set(references) < set(_ids(tmp_path))


def test_folder_of_labels_alone_needs_no_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "bare/X.nii", "suffixed/X_label.nii", "masks_only/X_mask.nii")
    for folder in ("bare", "suffixed", "masks_only"):
        assert list(find_references(tmp_path / folder)) == ["X"], folder
    assert find_references(tmp_path / "suffixed/X_label.nii") == {"X": tmp_path / "suffixed/X_label.nii"}


def test_scans_are_never_taken_for_references(tmp_path: Path) -> None:
    _touch(tmp_path, "002_img.nii", "002_mask.nii")
    with pytest.raises(MedsegError, match="at least one label, got none"):
        find_references(tmp_path)


def test_two_references_of_one_case_leave_it_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path, "a_label.nii", "a_seg.nii", "b_label.nii")
    assert list(find_references(tmp_path)) == ["b"]
    assert "a has more than one reference" in caplog.text


def test_several_sources_are_one_listing_and_their_folders_are_no_patients(tmp_path: Path) -> None:
    _touch(tmp_path / "first", "a_img.nii.gz", "a_mask.nii.gz", "b_img.nii.gz")
    _touch(tmp_path / "second", "a_img.nii.gz", "c.nii.gz")
    found = find_cases([tmp_path / "first", tmp_path / "second", tmp_path / "second" / "c.nii.gz"])
    assert [case.case_id for case in found.cases] == ["b", "c", "first_a", "second_a"]
    assert len({case.patient for case in found.cases}) == 4
    assert [case.case_id for case in found.cases if case.mask] == ["first_a"]


def test_a_label_is_found_by_the_whole_name_of_its_case(tmp_path: Path) -> None:
    _touch(tmp_path, "P1_tof_label.nii", "P2_label.nii")
    references = find_references(tmp_path)
    assert references.of("P1_tof") == tmp_path / "P1_tof_label.nii"
    assert references.of("P2") == tmp_path / "P2_label.nii" and references.of("P3") is None
