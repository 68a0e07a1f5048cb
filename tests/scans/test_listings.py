"""Cases that a CSV or a datalist names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import MedsegError
from medseg.scans.folders import find_cases, find_references


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a_img.nii", "b.nii", "m.nii", "l.nii"):
        (tmp_path / name).touch()
    return tmp_path


def _csv(folder: Path, text: str) -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _json(folder: Path, content: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_csv_names_cases_patients_masks_and_labels(folder: Path) -> None:
    text = "case,patient,image,mask,label\nx,anna,a_img.nii,m.nii,l.nii\n,,b.nii,Builtin,\n"
    listing = find_cases(_csv(folder, text))
    assert [(case.case_id, case.patient, case.mask_mode) for case in listing.cases] == [
        ("b", "b", "builtin"),
        ("x", "anna", None),
    ]
    assert listing.cases[1].mask == folder / "m.nii"
    assert listing.labels == {"x": folder / "l.nii"} == find_references(folder / "cases.csv")


def test_csv_of_a_spreadsheet_with_semicolons_and_a_mark_is_read(folder: Path) -> None:
    assert len(find_cases(_csv(folder, "\ufeffimage;patient\na_img.nii;p\nb.nii;p\n")).cases) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("x,p,,,", "must name an image in row 3"),
        ("x,p,none.nii,,", "must exist, got no such file; mend row 3"),
        ("x,p,b.nii,none.nii,", "must exist, got no such file; mend row 3"),
        ("x/y,p,b.nii,,", "usable as a file name"),
        ("../../evil,p,b.nii,,", "usable as a file name"),
        ("..,p,b.nii,,", "usable as a file name"),
        ("..\\evil,p,b.nii,,", "usable as a file name"),
        (".hidden,p,b.nii,,", "usable as a file name"),
        ("a\x1b[2J,p,b.nii,,", "usable as a file name"),
        ("a\u202eb,p,b.nii,,", "usable as a file name"),
        (f"{'a' * 201},p,b.nii,,", "usable as a file name"),
    ],
)
def test_bad_row_is_a_problem_of_its_case_only(folder: Path, row: str, words: str) -> None:
    listing = find_cases(_csv(folder, f"case,patient,image,mask,label\ngood,,a_img.nii,,\n{row}\n"))
    assert [case.case_id for case in listing.cases] == ["good"]
    assert words in listing.problems[0][1]


def test_label_that_is_not_there_is_said_and_changes_nothing_else(folder: Path) -> None:
    listing = find_cases(_csv(folder, "image,label\nb.nii,none.nii\n"))
    assert [case.case_id for case in listing.cases] == ["b"]
    assert any("label none.nii of b is not there" in note for note in listing.notes)


def test_case_named_twice_is_a_problem(folder: Path) -> None:
    listing = find_cases(_csv(folder, "case,image\nx,a_img.nii\nX,b.nii\ny,b.nii\n"))
    assert [case.case_id for case in listing.cases] == ["y"]
    assert len(listing.problems) == 2


def test_a_cell_larger_than_any_file_name_is_one_clear_line(folder: Path) -> None:
    with pytest.raises(MedsegError, match="must be a CSV file, got field larger than field limit"):
        find_cases(_csv(folder, f"image\n{'a' * 200_000}\n"))


def test_a_table_may_name_files_anywhere_because_the_user_wrote_it(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    table = inner / "cases.csv"
    outside = folder / "b.nii"
    table.write_text(f"case,image\nup,{os.path.relpath(outside, inner)}\nabsolute,{outside}\n", encoding="utf-8")
    assert [case.case_id for case in find_cases(table).cases] == ["absolute", "up"]


def test_csv_without_a_header_is_one_clear_line(folder: Path) -> None:
    with pytest.raises(MedsegError, match="must have the header case,patient,image,mask,label"):
        find_cases(_csv(folder, "a_img.nii,m.nii\n"))


def test_unknown_column_is_said(folder: Path) -> None:
    assert find_cases(_csv(folder, "image,age\nb.nii,50\n")).notes == (
        "columns of cases.csv without meaning here: age",
    )


def test_datalist_gives_splits(folder: Path) -> None:
    content = {"training": [{"image": ["a_img.nii"], "label": "l.nii"}], "test": ["b.nii"], "name": "vessels"}
    listing = find_cases(_json(folder, content))
    assert [(case.case_id, case.split) for case in listing.cases] == [("a", "train"), ("b", "test")]
    assert listing.labels == {"a": folder / "l.nii"}


def test_datalist_with_training_alone_is_split_by_seed(folder: Path) -> None:
    content = {"training": [{"image": "a_img.nii", "mask": "none", "patient": "p"}], "validation": []}
    case = find_cases(_json(folder, content)).cases[0]
    assert (case.split, case.mask_mode, case.patient) == (None, "none", "p")


@pytest.mark.parametrize("content", [{}, 3, {"training": "a"}, {"training": [3]}])
def test_json_that_is_no_datalist_is_one_clear_line(folder: Path, content: Any) -> None:
    with pytest.raises(MedsegError, match="must"):
        find_cases(_json(folder, content))
