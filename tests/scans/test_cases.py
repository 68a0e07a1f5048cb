"""Splitting by patient, and what a listing says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from medseg.scans.cases import Case, Listing, split_by_patient


def _cases(*patients: str, split: str | None = None) -> list[Case]:
    return [Case(f"c{n}", Path(f"c{n}.nii"), patient, split=split) for n, patient in enumerate(patients)]


def test_case_has_no_place_for_a_label() -> None:
    assert {field.name for field in fields(Case)} == {
        "case_id",
        "image",
        "patient",
        "mask",
        "mask_mode",
        "split",
        "pick",
        "alias",
    }


def test_no_patient_is_in_both_parts() -> None:
    cases = _cases(*[f"p{n // 3}" for n in range(30)])
    train, validation = split_by_patient(cases, validation_fraction=0.3, seed=1)
    assert len(train) + len(validation) == 30
    assert len({case.patient for case in validation}) == 3
    assert not {case.patient for case in train} & {case.patient for case in validation}


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    cases = _cases(*[f"p{n}" for n in range(12)])
    first = split_by_patient(cases, validation_fraction=0.5, seed=0)
    assert set(split_by_patient(cases[::-1], validation_fraction=0.5, seed=0)[1]) == set(first[1])
    assert any(set(split_by_patient(cases, validation_fraction=0.5, seed=s)[1]) != set(first[1]) for s in range(1, 5))


def test_one_case_is_for_training() -> None:
    cases = _cases("a")
    assert split_by_patient(cases, validation_fraction=0.5, seed=0) == (tuple(cases), ())


def test_two_patients_give_one_to_each_part_unless_none_is_wanted() -> None:
    cases = _cases("a", "b")
    assert [len(part) for part in split_by_patient(cases, validation_fraction=0.01, seed=0)] == [1, 1]
    assert [len(part) for part in split_by_patient(cases, validation_fraction=1, seed=0)] == [1, 1]
    assert [len(part) for part in split_by_patient(cases, validation_fraction=0, seed=0)] == [2, 0]


def test_given_splits_win() -> None:
    cases = [
        Case("a", Path("a"), "a", split="train"),
        Case("b", Path("b"), "b", split="val"),
        Case("c", Path("c"), "c", split="test"),
    ]
    train, validation = split_by_patient(cases, validation_fraction=0.5, seed=0)
    assert [case.case_id for case in train] == ["a"]
    assert [case.case_id for case in validation] == ["b"]


def test_listing_says_what_was_found() -> None:
    cases = (Case("a", Path("a.nii"), "anna", mask=Path("m.nii")), Case("b", Path("b.nii"), "b", mask_mode="none"))
    lines = Listing(cases, {"a": Path("l.nii")}, (("c", "c must be whole"),), ("ignored x",)).describe()
    assert lines == [
        "2 cases of 2 patients, 1 with a brain mask, 1 with a label",
        "  a: patient anna, brain mask, label",
        "  b: patient b, brain mask none",
        "  note: ignored x",
    ]


def test_pictures_are_not_asked_for_brain_masks() -> None:
    assert Listing((Case("a", Path("a.png"), "a"),), {}).describe()[0] == "1 case of 1 patient, 0 with a label"


def test_long_listing_is_cut() -> None:
    lines = Listing(tuple(_cases(*map(str, range(50)))), {}).describe()
    assert len(lines) == 22
    assert lines[-1] == "  ... and 30 more"


def test_scan_without_a_split_follows_its_patient() -> None:
    given = [Case(f"g{n}", Path("x"), patient, split=patient) for n, patient in enumerate(("train", "val", "test"))]
    free = [Case(f"f{n}", Path("x"), patient) for n, patient in enumerate(("train", "val", "test"))]
    train, validation = split_by_patient(given + free, validation_fraction=0.5, seed=0)
    assert [case.case_id for case in train] == ["g0", "f0"]
    assert [case.case_id for case in validation] == ["g1", "f1"]
