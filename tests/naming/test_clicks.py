"""This file tests clicks: their words, files, voxels and contradictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.clicks import (
    Click,
    parse_click,
    read_clicks,
    read_minutes,
    require_consistent,
    require_known,
    voxel_of,
)
from medseg.scans.grids import Grid

AFFINE = np.array([[0.0, -2.0, 0.0, 10.0], [0.5, 0.0, 0.0, -3.0], [0.0, 0.0, 1.5, 7.0], [0.0, 0.0, 0.0, 1.0]])
GRID = Grid("scan.nii.gz", (8, 6, 4), AFFINE)


def decisions(*clicks: dict[str, object], case: str = "P1", seconds: float = 90) -> dict[str, object]:
    return {"case": case, "seconds": seconds, "verdict": "accept", "clicks": list(clicks)}


def write(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text(json.dumps({"schema": "medseg-decisions/1", "decisions": list(entries)}))
    return path


@pytest.mark.parametrize("voxel", [(0, 0, 0), (7, 5, 3), (3, 2, 1)])
def test_millimetres_lead_to_the_voxel_whose_centre_they_are_near(voxel: tuple[int, int, int]) -> None:
    centre = AFFINE[:3, :3] @ np.array(voxel) + AFFINE[:3, 3]
    near = centre + AFFINE[:3, :3] @ np.array([0.45, -0.45, 0.3])
    assert voxel_of(Click("P1", tuple(centre), "mm", "vessel"), GRID) == voxel
    assert voxel_of(Click("P1", tuple(near), "mm", "vessel"), GRID) == voxel
    assert voxel_of(Click("P1", tuple(map(float, voxel)), "voxel", "vessel"), GRID) == voxel


def test_millimetres_of_a_picture_are_those_of_its_upright_stack() -> None:
    picture = Grid("reef.png", (60, 80, 1), np.eye(4))
    # The stack runs from right to left and from below: column 12 is at -12, row 50 of 60 lies 9 above the lowest.
    assert voxel_of(Click("reef", (-12.0, 9.0, 0.0), "mm", "coral"), picture) == (50, 12, 0)
    assert voxel_of(Click("reef", (50.0, 12.0, 0.0), "voxel", "coral"), picture) == (50, 12, 0)


@pytest.mark.parametrize("place", [(8.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 3.5)])
def test_a_click_outside_the_volume_is_one_line(place: tuple[float, float, float]) -> None:
    with pytest.raises(MedsegError, match=r"click P1 .* must lie in the volume, got voxel .* of 8 x 6 x 4") as caught:
        voxel_of(Click("P1", place, "voxel", "vessel"), GRID)
    assert "\n" not in str(caught.value)


def test_the_words_of_a_command_become_a_click() -> None:
    assert parse_click(["P 1", "-2", "3.5", "0", "my vessel"], "mm") == Click("P 1", (-2, 3.5, 0), "mm", "my vessel")


@pytest.mark.parametrize(
    ("words", "space", "said"),
    [
        (["P1", "1", "2", "vessel"], "mm", "must be CASE x y z CLASS"),
        (["P1", "1", "2", "up", "vessel"], "mm", "three numbers"),
        (["P1", "1", "2", "nan", "vessel"], "mm", "three numbers"),
        (["P1", "1", "2", "3", " "], "mm", "all five"),
        (["P1", "1", "2", "3", "vessel"], "inch", "mm or voxel, got inch"),
    ],
)
def test_words_that_are_no_click_are_one_line(words: list[str], space: str, said: str) -> None:
    with pytest.raises(MedsegError, match=said):
        parse_click(words, space)


def test_clicks_and_minutes_come_from_decisions(tmp_path: Path) -> None:
    one = {"xyz_mm": [1.5, -2, 3], "class": "vessel"}
    two = {"xyz_mm": [0, 0, 0], "class": "background"}
    write(tmp_path / "a.json", decisions(one, two), decisions(case="P2", seconds=1000))
    write(tmp_path / "b.json", decisions(one, case="P3", seconds=30))
    (tmp_path / "other.json").write_text("{}")
    expected = [
        Click("P1", (1.5, -2, 3), "mm", "vessel"),
        Click("P1", (0, 0, 0), "mm", "background"),
        Click("P3", (1.5, -2, 3), "mm", "vessel"),
    ]
    assert read_clicks(tmp_path) == expected
    assert read_clicks(tmp_path / "b.json") == expected[2:]
    # Of 90 and 30 seconds; the decision without a click is not counted.
    assert read_minutes(tmp_path, {"P1", "P2", "P3"}) == 2.0
    assert read_minutes(tmp_path, {"P3"}) == 0.5


def test_a_later_download_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    one, two = ({"xyz_mm": [n, 0, 0], "class": "vessel"} for n in (1, 2))
    early, late = {"time": "2026-11-22T10:00:00Z"}, {"time": "2026-11-22T10:05:00Z"}
    write(tmp_path / "medseg_decisions.json", decisions(one, two, seconds=60) | early)
    write(tmp_path / "medseg_decisions (1).json", decisions(two, seconds=90) | late)  # sorts before the other
    assert read_clicks(tmp_path) == [Click("P1", (2, 0, 0), "mm", "vessel")]
    assert read_minutes(tmp_path, {"P1"}) == 1.5
    write(tmp_path / "of_another.json", decisions(one, seconds=30) | early | {"reviewer": "Bob"})
    assert len(read_clicks(tmp_path)) == 2 and read_minutes(tmp_path, {"P1"}) == 2.0


@pytest.mark.parametrize(
    "entry",
    [
        decisions({"xyz_mm": [1, 2], "class": "vessel"}),
        decisions({"xyz_mm": [1, 2, "x"], "class": "vessel"}),
        decisions({"xyz_mm": [1, 2, 3]}),
        {"case": 5, "clicks": []},
        decisions({"xyz_mm": [1, 2, 3], "class": "vessel"}, seconds=-1),
    ],
)
def test_decisions_that_break_the_schema_are_one_line(entry: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", entry)
    with pytest.raises(MedsegError, match=r"must (have|be)"):
        read_clicks(path)
        read_minutes(path, {"P1"})


def test_a_file_or_folder_without_decisions_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(MedsegError, match="must have the schema"):
        read_clicks(tmp_path / "other.json")
    with pytest.raises(MedsegError, match="must hold decisions"):
        read_clicks(tmp_path)


def test_one_voxel_has_one_class() -> None:
    clicks = [Click("P1", (1, 2, 3), "voxel", "vessel"), Click("P1", (1, 2, 3.2), "voxel", "background")]
    voxels = [voxel_of(click, GRID) for click in clicks]
    with pytest.raises(MedsegError, match="got vessel and background at voxel 1 2 3 of P1"):
        require_consistent(clicks, voxels)
    require_consistent([clicks[0], clicks[0]], voxels)
    require_consistent([clicks[0], Click("P2", (1, 2, 3), "voxel", "background")], voxels)


def test_a_class_must_be_known_and_the_nearest_is_told() -> None:
    require_known([Click("P1", (0, 0, 0), "mm", "background"), Click("P1", (0, 0, 0), "mm", "vessel")], ["vessel"])
    with pytest.raises(MedsegError, match="got vesel; did you mean vessel"):
        require_known([Click("P1", (0, 0, 0), "mm", "vesel")], ["vessel", "vein"])
