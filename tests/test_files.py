"""This file tests that nothing is ever half-written."""

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.files import hash_content, hash_file, read_json, replacing, write_json, write_text


def test_a_failed_write_leaves_the_earlier_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    write_text(path, "earlier")
    with pytest.raises(KeyError), replacing(path) as beside:
        beside.write_text("half", encoding="utf-8")
        raise KeyError
    assert path.read_text(encoding="utf-8") == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_the_neighbour_keeps_the_suffixes_because_writers_choose_by_them(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.nii.gz") as beside:
        assert beside.name.endswith(".nii.gz")
        beside.touch()


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="No space left"), replacing(tmp_path / "a") as beside:
        beside.touch()
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(MedsegError, match="readable JSON"):
        read_json(tmp_path / "a.json")


def test_hashes_follow_content_and_not_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert hash_file(tmp_path / "a").startswith("e3b0c44298fc1c14")
    assert hash_content({"a": 1, "b": 2}) == hash_content({"b": 2, "a": 1})
    assert hash_content({"a": 1}) != hash_content({"a": 2})
