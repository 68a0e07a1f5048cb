"""This file tests what `medseg phantom vessels` writes: ordinary phantoms, or hard ones by name."""

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.workflows import demo
from medseg.workflows.demo import write_phantom_folder


def test_hard_cases_are_picked_by_name_and_named_in_the_answer(tmp_path: Path) -> None:
    answer = write_phantom_folder("vessels", tmp_path, cases=5, seed=0, hard="noise_060, spacing_090")
    assert [Path(path).name for path in answer["images"]] == ["noise_060_img.nii.gz", "spacing_090_img.nii.gz"]
    assert "2 phantoms" in answer["lines"][0]
    assert len(list(tmp_path.iterdir())) == 8


def test_all_asks_for_the_whole_family_and_the_seed_for_another_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(demo, "write_hard_phantoms", lambda folder, **wanted: asked.update(wanted) or [])
    write_phantom_folder("vessels", tmp_path, cases=3, seed=4, hard="all")
    assert asked == {"names": [], "series": 4}


def test_a_name_that_no_hard_case_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="got ;"):
        write_phantom_folder("vessels", tmp_path, cases=3, seed=0, hard="")
