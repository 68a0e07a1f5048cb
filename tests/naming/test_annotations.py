import json
from datetime import UTC, datetime
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.annotations import (
    cells_along,
    cut_cell,
    is_annotation_file,
    read_annotations,
    require_scan,
    slice_axis,
)
from medseg.scans.grids import Grid

ENTRY = {
    "case": "a",
    "source_sha256": "00ff",
    "shape": [33, 20, 40],
    "affine": np.diag([-0.5, 0.5, 0.7, 1]).tolist(),
    "plane": "axial",
    "cell": 16,
    "slices": [{"index": 30, "ticked": [[2, 1], [0, 0]], "seen": True}, {"index": 4, "ticked": [], "seen": True}],
    "seconds": 12.5,
    "annotator": "  Ada  Lovelace ",
    "time": "2026-11-30T12:00:00Z",
}


def _file(folder: Path, *entries: object, **more: object) -> Path:
    path = folder / "medseg_annotation.json"
    path.write_text(json.dumps({"schema": "medseg-annotation/1", "annotations": list(entries)} | more))
    return path


def _slices(*ticked: object, index: object = 4, seen: object = True) -> dict:
    return {"slices": [{"index": index, "ticked": list(ticked), "seen": seen}]}


def test_an_annotation_is_read_and_written_as_it_is(tmp_path):
    (found,), failed = read_annotations(_file(tmp_path, ENTRY))
    assert not failed
    assert (found.case, found.annotator, found.seconds) == ("a", "Ada Lovelace", 12.5)
    assert found.time == datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert (found.ticked, found.seen) == (2, 2)
    assert [part.index for part in found.slices] == [4, 30]
    assert found.slices[1].ticked == ((0, 0), (2, 1))
    (again,), _ = read_annotations(_file(tmp_path, found.as_dict()))
    assert again.as_dict() == found.as_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"case": ""}, "the name of a case"),
        ({"case": 3}, "a text of at most 1000 letters for case, got 3"),
        ({"case": "\ud800"}, "letters for case"),
        ({"source_sha256": None}, "letters for source_sha256"),
        ({"plane": "coronal"}, "the plane axial, got coronal"),
        ({"shape": [33, 20]}, "three numbers of voxels for shape"),
        ({"shape": [33, 20, 0]}, "three numbers of voxels"),
        ({"shape": [33, 20, True]}, "three numbers of voxels"),
        ({"affine": [[1, 0], [0, 1]]}, "four rows of four numbers"),
        ({"affine": np.zeros((4, 4)).tolist()}, "voxel sizes above 0"),
        ({"cell": 2}, "4 to 128 voxels, got 2"),
        ({"cell": 16.0}, "4 to 128 voxels, got 16.0"),
        ({"seconds": -1}, "seconds that are a number from 0, got -1"),
        ({"seconds": True}, "seconds that are a number"),
        ({"annotator": None}, "letters for annotator"),
        ({"time": "yesterday"}, "a time as 2026"),
        ({"slices": None}, "a list of at most"),
        ({"slices": [3]}, "slices with different indices from 0 to 39"),
        (_slices([0, 0], index=40), "indices from 0 to 39, got 40"),
        (_slices([0, 0], index=-1), "indices from 0 to 39, got -1"),
        ({"slices": _slices([0, 0])["slices"] * 2}, "different indices"),
        (_slices([0, 0], seen="yes"), "true or false for seen of slice 4, got yes"),
        (_slices([0, 0], [0, 0]), "each ticked cell of slice 4 once"),
        (_slices([3, 0]), r"rows 0 to 2 and columns 0 to 1, got \[3, 0\]"),
        (_slices([0, 2]), "columns 0 to 1"),
        (_slices([0, -1]), "columns 0 to 1"),
        (_slices([0.0, 1]), "columns 0 to 1"),
        (_slices([0, 1, 0]), "columns 0 to 1"),
        (_slices("00"), "columns 0 to 1"),
        (_slices(seen=False), r"a ticked cell or a judged slice, got none in 1 slices; tick the cells"),
    ],
)
def test_a_bad_annotation_is_one_line_and_the_others_go_on(tmp_path, change, said):
    path = _file(tmp_path, ENTRY | change, ENTRY)
    found, failed = read_annotations(path)
    assert len(found) == 1
    ((where, line),) = failed.items()
    assert where == f"annotation 1 in {path}" and where in line
    with pytest.raises(MedsegError, match=said):
        raise MedsegError(line)
    assert line.isprintable() and len(line) < 400


@pytest.mark.parametrize("entry", [None, 7, [], "a"])
def test_what_is_no_annotation_at_all_is_one_line(tmp_path, entry):
    found, failed = read_annotations(_file(tmp_path, entry))
    assert not found and "an object with case" in next(iter(failed.values()))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "readable JSON"),
        ("[" * 100_000, "readable JSON"),
        ("[]", "the schema medseg-annotation/1, got list"),
        ('{"schema": "medseg-decisions/1"}', "got medseg-decisions/1"),
        ('{"schema": "medseg-annotation/1"}', "a list of annotations, got NoneType"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, content, said):
    path = tmp_path / "medseg_annotation.json"
    path.write_text(content)
    with pytest.raises(MedsegError, match=said):
        read_annotations(path)


def test_names_of_downloads_are_known():
    known = ["medseg_annotation.json", "medseg_annotation (1).json", "MEDSEG_ANNOTATION(2).JSON"]
    assert all(is_annotation_file(Path(name)) for name in known)
    assert not any(is_annotation_file(Path(name)) for name in ("medseg_decisions.json", "medseg_annotations.json"))


def test_the_slice_axis_is_the_one_along_head_and_feet():
    tilt = np.deg2rad(30)
    turn = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = turn @ (np.eye(3)[:, order] * signs) * [0.5, 0.9, 2]
            assert slice_axis(affine) == order.index(2)


def test_cells_cover_a_slice_once():
    values = np.arange(33 * 20).reshape(33, 20)
    assert cells_along((33, 7, 20), 1, 16) == (3, 2)
    found = [cut_cell(values, place, 16) for place in np.ndindex(3, 2)]
    assert sorted(np.concatenate([cell.ravel() for cell in found])) == list(range(33 * 20))
    assert (found[3] == values[16:32, 16:]).all()


def test_an_annotation_is_about_one_scan_only(tmp_path):
    (found,), _ = read_annotations(_file(tmp_path, ENTRY))
    affine = np.array(ENTRY["affine"])
    require_scan(found, Grid("a.nii", (33, 20, 40), affine), "00ff")
    for shape, other, sha256, said in (
        ((33, 20, 40), affine, "00fe", "another scan of that name; annotate it again"),
        ((33, 20, 41), affine, "00ff", "33 x 20 x 41 voxels"),
        ((33, 20, 40), affine * [[-1], [1], [1], [1]], "00ff", "mirrored"),
    ):
        with pytest.raises(MedsegError, match=said):
            require_scan(found, Grid("a.nii", shape, other), sha256)


def test_a_file_without_any_annotation_is_said(tmp_path: Path):
    with pytest.raises(MedsegError, match="at least one annotation, got none"):
        read_annotations(_file(tmp_path))
