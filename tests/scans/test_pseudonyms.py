"""No result tells whose scan it is, and the key brings the names back."""

from __future__ import annotations

import csv
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.runs import source_of
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import References
from medseg.scans.pseudonyms import as_pseudonyms, pseudonymised, require_key_elsewhere, without_reasons


def listing(*names: str, patient: str | None = None) -> Listing:
    cases = tuple(Case(name, Path("scans") / f"{name}_img.nii.gz", patient or name) for name in names)
    return Listing(cases, {names[0]: Path(f"{names[0]}_label.nii.gz")}, ((f"bad_{names[0]}", "is cut"),))


def rows(key: Path) -> dict[str, str]:
    with key.open(encoding="utf-8", newline="") as stream:
        return {row["case"]: row["pseudonym"] for row in csv.DictReader(stream)}


def test_every_case_gets_a_name_of_chance_and_the_key_is_for_its_owner(tmp_path: Path) -> None:
    key = tmp_path / "new" / "key.csv"
    found = pseudonymised(listing("Meier_Anna", "Weber_Otto"), key)
    assert all(re.fullmatch("P-[0-9A-F]{6}", case.case_id) for case in found.cases)
    assert rows(key).keys() == {"Meier_Anna", "Weber_Otto", "bad_Meier_Anna"}
    assert {case.case_id: case.image.name for case in found.cases} == {
        rows(key)["Meier_Anna"]: "Meier_Anna_img.nii.gz",
        rows(key)["Weber_Otto"]: "Weber_Otto_img.nii.gz",
    }
    assert found.labels == {rows(key)["Meier_Anna"]: Path("Meier_Anna_label.nii.gz")}
    assert found.problems == ((rows(key)["bad_Meier_Anna"], "is cut"),)
    assert "3 new" in found.notes[-1] and str(key) in found.notes[-1]
    if sys.platform != "win32":
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_nothing_that_results_are_told_of_holds_a_name(tmp_path: Path) -> None:
    found = pseudonymised(listing("Meier_Anna", patient="Meier"), tmp_path / "key.csv")
    (case,) = found.cases
    told = [case.case_id, case.patient, source_of(case, Path("scans")), *found.labels]
    assert told == [case.case_id, case.case_id, f"{case.case_id}.nii.gz", case.case_id]
    plain = listing("Meier_Anna").cases[0]
    assert source_of(plain, Path("scans")).endswith("Meier_Anna_img.nii.gz")
    failed = {case.case_id: "scans/Meier_Anna_img.nii.gz must be whole, got a cut file; copy it again"}
    assert without_reasons(failed, found.cases) == {case.case_id: "cannot be used; the line on the terminal says why"}
    assert without_reasons(failed, [plain]) == failed


def test_scans_of_one_patient_stay_together(tmp_path: Path) -> None:
    cases = [Case(name, Path(f"{name}.nii"), owner) for name, owner in (("a1", "a"), ("a2", "a"), ("b1", "b"))]
    found = pseudonymised(Listing(tuple(cases), {}), tmp_path / "key.csv")
    owner = {case.image.stem: case.patient for case in found.cases}
    assert owner["a1"] == owner["a2"] != owner["b1"]
    assert set(owner.values()) <= set(rows(tmp_path / "key.csv").values())


def test_the_same_key_gives_the_same_names_and_takes_new_cases(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    first = pseudonymised(listing("a"), key)
    before = key.read_bytes()
    assert pseudonymised(listing("a"), key).cases == first.cases
    assert key.read_bytes() == before
    assert {case.case_id for case in first.cases} <= {
        case.case_id for case in pseudonymised(listing("a", "b"), key).cases
    }
    assert key.read_bytes().startswith(before)


def test_a_key_of_the_user_is_used_and_references_meet_it(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    key.write_text("case,pseudonym\na,first\nbad_a,second\n", encoding="utf-8")
    assert [case.case_id for case in pseudonymised(listing("a"), key).cases] == ["first"]
    references = References({"a": Path("a.nii"), "unknown": Path("u.nii")})
    assert as_pseudonyms(references, key) == {"first": Path("a.nii")}
    assert references.keys() == {"a", "unknown"}


def test_a_name_that_is_a_formula_stays_harmless_in_the_key_and_is_found_again(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    first = pseudonymised(listing("=1+1"), key)
    assert "'=1+1" in rows(key)
    assert pseudonymised(listing("=1+1"), key).cases == first.cases


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,other\na,b\n", "must have the columns case,pseudonym"),
        ("", "must have the columns case,pseudonym"),
        ("case,pseudonym\na\n", "two cells in every row"),
        ("case,pseudonym\na,x\na,y\n", "one pseudonym of its own, got a,y again"),
        ("case,pseudonym\na,x\nb,X\n", "one pseudonym of its own, got b,X again"),
        ("case,pseudonym\na,../evil\n", "must be usable as a file name, got '../evil'"),
        ("case,pseudonym\na,=1+1\n", "must be usable as a file name"),
        ("case,pseudonym\na,\n", "must be usable as a file name, got ''"),
    ],
)
def test_a_key_that_is_none_is_one_clear_line_and_stays_as_it_is(tmp_path: Path, text: str, words: str) -> None:
    key = tmp_path / "key.csv"
    key.write_text(text, encoding="utf-8")
    for use in (lambda: pseudonymised(listing("a"), key), lambda: as_pseudonyms(References(), key)):
        with pytest.raises(MedsegError, match=words):
            use()
    assert key.read_text(encoding="utf-8") == text


def test_a_missing_key_is_made_for_scans_and_asked_for_by_references(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="check --pseudonyms"):
        as_pseudonyms(References(), tmp_path / "none.csv")
    assert not list(tmp_path.iterdir())


def test_the_key_does_not_lie_among_the_results(tmp_path: Path) -> None:
    require_key_elsewhere(tmp_path / "key.csv", tmp_path / "out")
    with pytest.raises(MedsegError, match="must lie outside of the results"):
        require_key_elsewhere(tmp_path / "out" / ".." / "out" / "key.csv", tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="one process alone")
def test_processes_that_begin_together_agree_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("case,pseudonym\n", encoding="utf-8")
    key = tmp_path / "key.csv"
    key.symlink_to("real.csv")
    names = [f"case_{number}" for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: pseudonymised(listing(*names), key), range(8)))
    assert all(one.cases == found[0].cases for one in found)
    assert os.path.islink(key) and len(rows(key)) == 41  # noqa: PTH114
