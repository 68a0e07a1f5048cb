"""`medseg check`: rows of a folder, a label with its image, and the checks before training and reconstruction."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans import contained
from medseg.scans.cases import Case
from medseg.workflows import checking
from medseg.workflows.checking import check_path, usable

_DATA = Path(os.environ.get("MEDSEG_TEST_DATA", "nowhere"))
_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_AFFINE = np.diag([0.5, 0.6, 2, 1])
_VALUES = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)


def _save(path: Path, values: np.ndarray = _VALUES, affine: np.ndarray = _AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases: a good one, one whose label is shifted, one that is cut."""
    label = (_VALUES > 300).astype(np.uint8)
    for name in ("a", "b", "c"):
        _save(tmp_path / f"{name}_img.nii.gz")
        _save(tmp_path / f"{name}_label.nii.gz", label)
    _save(tmp_path / "a_mask.nii.gz", np.ones_like(label))
    moved = _AFFINE.copy()
    moved[0, 3] = 3
    _save(tmp_path / "b_label.nii.gz", label, moved)
    cut = (tmp_path / "c_img.nii.gz").read_bytes()[:-50]
    (tmp_path / "c_img.nii.gz").write_bytes(cut)
    return tmp_path


def test_a_folder_is_a_row_for_each_case(folder: Path) -> None:
    answer = check_path(folder)
    header, *rows, count = answer["lines"]
    assert header.split() == ["case", "format", "shape", "spacing", "axes", "values", "beside", "notes"]
    assert [row.split()[0] for row in rows[:3]] == ["a", "b", "c"]
    assert "6 x 7 x 8" in rows[0] and "0.5 x 0.6 x 2 mm" in rows[0] and "0 to 335 (int16)" in rows[0]
    assert "mask, label" in rows[0] and "mask holds 1 in 100.00% of the image" in rows[0]
    assert "cannot be used" in rows[1] and "shifted by (3, 0, 0) mm" in rows[1]
    assert "cannot be used" in rows[2] and "c_img.nii.gz must be whole" in rows[2]
    assert count == "1 of 3 can be used"
    columns = [header.index(word) for word in ("format", "shape", "spacing", "axes", "values", "beside", "notes")]
    assert all(row[at - 2 : at] == "  " for row in rows[:3] for at in columns)
    assert set(answer["failed"]) == {"b", "c"}
    case = json.loads(json.dumps(answer["cases"]))[0]
    assert case["shape"] == [6, 7, 8] and case["unit"] == "mm" and case["orientation"] == "RAS"
    assert case["beside"]["label"]["problem"] is None


def test_a_file_and_a_label_with_its_image(folder: Path) -> None:
    assert not check_path(folder / "a_img.nii.gz")["failed"]
    good = check_path(folder / "a_label.nii.gz", image=folder / "a_img.nii.gz")
    assert not good["failed"] and "label holds 1 in" in good["lines"][1] and " fits " in good["lines"][2]
    bad = check_path(folder / "b_label.nii.gz", image=folder / "b_img.nii.gz")
    assert "shifted by (3, 0, 0) mm" in bad["failed"]["b_img.nii.gz"]
    broken = check_path(folder / "a_label.nii.gz", image=folder / "c_img.nii.gz")
    assert "c_img.nii.gz must be whole" in broken["failed"]["c_img.nii.gz"]


def test_an_empty_label_is_a_line_and_no_error(folder: Path) -> None:
    _save(folder / "a_label.nii.gz", np.zeros((6, 7, 8), np.uint8))
    answer = check_path(folder / "a_label.nii.gz", image=folder / "a_img.nii.gz")
    assert not answer["failed"] and "label is empty" in answer["lines"][1]


def test_a_picture_that_is_black_to_the_eye_is_a_note_in_a_folder_and_refused_alone(tmp_path: Path) -> None:
    for name, brightest in (("x", 200), ("y", 2)):
        grey = (np.arange(90).reshape(9, 10) % (brightest + 1)).astype(np.uint8)
        grey[0, 0] = brightest
        Image.fromarray(grey).save(tmp_path / f"{name}.png")
    assert not check_path(tmp_path)["failed"]
    assert "check a label with --for IMAGE" in check_path(tmp_path / "y.png")["failed"]["y"]


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.ckpt", "a.txt"):
        (tmp_path / name).write_text("model: 1", encoding="utf-8")
        with pytest.raises(MedsegError, match="got text; give a scan"):
            check_path(tmp_path / name)
    with pytest.raises(MedsegError, match="missing"):
        check_path(tmp_path / "missing.nii")


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    _save(tmp_path / "a\x1b[2J.nii.gz")
    _save(tmp_path / "b.nii.gz")
    lines = check_path(tmp_path)["lines"]
    assert len(lines) == 4
    assert all("\x1b" not in line for line in lines) and any("\\x1b[2J" in line for line in lines)


def test_only_usable_cases_are_kept(folder: Path) -> None:
    cases = [Case(name, folder / f"{name}_img.nii.gz", name) for name in ("a", "b", "c")]
    kept, failed = usable(cases)
    assert [case.case_id for case in kept] == ["a", "b"]
    assert "must be whole" in failed["c"]
    labels = {name: folder / f"{name}_label.nii.gz" for name in ("a", "b")}
    kept, failed = usable(cases, labels)
    assert [case.case_id for case in kept] == ["a"]
    assert "shifted" in failed["b"]
    wrong = [Case("a", folder / "a_img.nii.gz", "a", mask=folder / "b_label.nii.gz")]
    assert "shifted" in usable(wrong)[1]["a"]


def test_a_file_is_read_once_while_it_stays_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("a", folder / "a_img.nii.gz", "a")]
    usable(cases)
    asked: list[Path] = []
    call = checking.Contained.call

    def counted(self: checking.Contained, function: Callable[..., object], path: Path, *rest: object) -> object:
        asked.append(path)
        return call(self, function, path, *rest)

    monkeypatch.setattr(checking.Contained, "call", counted)
    assert usable(cases)[0] and not asked
    _save(folder / "a_img.nii.gz", _VALUES * 0)
    assert "must show something" in usable(cases)[1]["a"]
    assert asked == [folder / "a_img.nii.gz"]


def test_one_process_reads_the_files_of_all_checks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable([Case("a", folder / "a_img.nii.gz", "a")])[0]

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("another process")

    monkeypatch.setattr(contained.subprocess, "Popen", refused)
    assert usable([Case("b", folder / "b_img.nii.gz", "b")])[0]
    monkeypatch.chdir(folder)
    assert check_path(Path("a_label.nii.gz"), image=Path("a_img.nii.gz"))["failed"] == {}


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="MEDSEG_TEST_DATA is not set")
def test_the_shared_awkward_and_broken_files_become_what_they_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where UNSAFE_LOAD_HAPPENED would appear
    sys.path.append(str(_BENCHMARKS))
    import reader_tables

    sys.path.remove(str(_BENCHMARKS))
    rows = reader_tables.awkward_rows(_DATA)
    assert [row for row in rows if not row.right] == []
    assert len(rows) == 76
    answers = list(reader_tables.broken_in_process(_DATA))
    assert [answer for answer in answers if not reader_tables.is_right(*answer)] == []
    assert len(answers) == 41
    assert not list(tmp_path.iterdir())


def test_several_files_are_a_row_each_and_only_one_label_may_go_with_an_image(folder: Path) -> None:
    answer = check_path([folder / "a_img.nii.gz", folder / "c_img.nii.gz"])
    assert [row["case"] for row in answer["cases"]] == ["a", "c"] and set(answer["failed"]) == {"c"}
    with pytest.raises(MedsegError, match="--for must go with one label, got 2"):
        check_path([folder / "a_label.nii.gz", folder / "b_label.nii.gz"], image=folder / "a_img.nii.gz")


def test_a_folder_of_one_scan_may_be_the_image(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a_img.nii.gz").write_bytes((folder / "a_img.nii.gz").read_bytes())
    assert not check_path(folder / "a_label.nii.gz", image=tmp_path / "one")["failed"]
    with pytest.raises(MedsegError, match="--for must be one scan, got a folder with"):
        check_path(folder / "a_label.nii.gz", image=folder)
