"""This file tests what `medseg phantom` writes: ordinary vessels, hard ones by name, and livers."""

from pathlib import Path
from typing import Any

import pytest

from medseg.errors import MedsegError
from medseg.workflows import phantom_folder
from medseg.workflows.phantom_folder import write_phantom_folder


def test_hard_cases_are_picked_by_name_and_named_in_the_answer(tmp_path: Path) -> None:
    answer = write_phantom_folder("vessels", tmp_path, cases=5, seed=0, hard="noise_060, spacing_090")
    assert [Path(path).name for path in answer["images"]] == ["noise_060_img.nii.gz", "spacing_090_img.nii.gz"]
    assert "2 phantoms" in answer["lines"][0]
    assert len(list(tmp_path.iterdir())) == 8


def test_all_asks_for_the_whole_family_and_the_seed_for_another_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(phantom_folder, "write_hard_phantoms", lambda folder, **wanted: asked.update(wanted) or [])
    write_phantom_folder("vessels", tmp_path, cases=3, seed=4, hard="all")
    assert asked == {"names": [], "series": 4}


def test_a_name_that_no_hard_case_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="got ;"):
        write_phantom_folder("vessels", tmp_path, cases=3, seed=0, hard="")


def test_livers_come_as_pictures_cines_or_volumes(tmp_path: Path) -> None:
    options = {"cases": 1, "seed": 0, "size": "small"}
    made = [
        write_phantom_folder("liver", tmp_path / name, **options, **more)["images"]
        for name, more in (("pictures", {}), ("cines", {"cine": 2}), ("volumes", {"volume": True}))
    ]
    assert [Path(images[0]).name for images in made] == ["liver_001.png", "liver_001.mp4", "liver_001_img.nii.gz"]


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("vessels", {"size": "small"}),
        ("vessels", {"cine": 4}),
        ("vessels", {"volume": True}),
        ("vessels", {"without_liver": True}),
        ("liver", {"hard": "all"}),
        ("liver", {"cine": 4, "volume": True}),
        ("liver", {"size": "huge"}),
        ("bones", {}),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_work(
    tmp_path: Path, kind: str, option: dict[str, Any]
) -> None:
    with pytest.raises(MedsegError, match="must") as caught:
        write_phantom_folder(kind, tmp_path, cases=1, seed=0, **option)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
