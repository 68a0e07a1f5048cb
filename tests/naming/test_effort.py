"""This file tests what is said of the effort behind a score, and that it comes back from disk as it was written."""

import json
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.naming.classes import NAMED_BY
from medseg.naming.effort import NO_EFFORT, Effort, in_words, read_effort, write_effort
from medseg.scoring.tables import NAMING_SOURCES


@pytest.mark.parametrize(
    ("naming", "effort", "words"),
    [
        ("none", NO_EFFORT, "label-free"),
        ("rules", NO_EFFORT, "label-free (rules)"),
        ("clusters", NO_EFFORT, "label-free (clusters)"),
        ("oracle", Effort({"cases": 3}, 1.0), "oracle"),
        ("training_labels", NO_EFFORT, "training labels, time not measured"),
        ("training_labels", Effort({"cases": 1}), "1 labelled case, time not measured"),
        ("training_labels", Effort({"cells": 60, "cases": 0}, 2.04), "60 ticked cells, 2.0 min"),
        ("clicks", Effort({"clicks": 5, "slices": 1}, 0.5), "5 clicks, 1 labelled slice, 0.5 min"),
        ("clicks", NO_EFFORT, "clicks, time not measured"),
        ("hand", NO_EFFORT, "named by hand, time not measured"),
    ],
)
def test_effort_is_said_in_few_words(naming: str, effort: Effort, words: str) -> None:
    assert in_words(naming, effort) == words


def test_every_source_of_names_has_words() -> None:
    assert all(in_words(naming) for naming in {*NAMING_SOURCES, *NAMED_BY})


@pytest.mark.parametrize("counts", [{"hours": 1}, {"clicks": -1}, {"clicks": True}])
def test_what_cannot_be_counted_is_refused(counts: dict) -> None:
    with pytest.raises(MedsegError, match="effort must count clicks, cells, slices, cases in whole numbers, got"):
        Effort(counts)


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_minutes_are_a_number_from_0(minutes: float) -> None:
    with pytest.raises(MedsegError, match="minutes of an effort must be a number from 0"):
        Effort({}, minutes)


def test_effort_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_effort(tmp_path) is None
    for effort in (NO_EFFORT, Effort({"clicks": 5}), Effort({"cells": 60, "cases": 2}, 0.0)):
        write_effort(tmp_path, effort)
        assert read_effort(tmp_path) == effort
        assert Effort.from_dict(json.loads((tmp_path / "effort.json").read_text())) == effort


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"counts": {}}', '{"counts": 3, "minutes": null}', '{"counts": {}, "minutes": "2"}']
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "effort.json").write_text(content)
    with pytest.raises(MedsegError, match=r"effort\.json") as error:
        read_effort(tmp_path)
    assert "\n" not in str(error.value)
