"""A folder of exported files is replaced as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.files import CannotWriteError
from medseg.review.exports.folders import exported_files, replacing_folder


def _export(folder: Path, *names: str) -> None:
    with replacing_folder(folder) as beside:
        for name in names:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_text(name)


def test_second_export_takes_the_place_of_the_first(tmp_path: Path) -> None:
    _export(tmp_path / "set", "a/1", "a/2")
    _export(tmp_path / "set", "a/2", "b/3")
    assert exported_files(tmp_path / "set") == [tmp_path / "set/a/2", tmp_path / "set/b/3"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    _export(tmp_path / "set", "a/1")
    (tmp_path / "set/a/mine").write_text("mine")
    with pytest.raises(MedsegError, match="got a/mine, which medseg did not write"):
        _export(tmp_path / "set", "a/1")
    assert (tmp_path / "set/a/mine").read_text() == "mine"


def test_empty_folder_is_taken_and_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _export(tmp_path / "empty", "1")
    assert (tmp_path / "empty/1").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    with pytest.raises(MedsegError, match="must be new, empty"):
        _export(tmp_path / "full", "1")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    with pytest.raises(MedsegError, match="a file or a link"):
        _export(tmp_path / "link", "1")


def test_failed_export_leaves_the_last_one(tmp_path: Path) -> None:
    _export(tmp_path / "set", "1")
    with pytest.raises(MedsegError, match="broken"), replacing_folder(tmp_path / "set") as beside:
        (beside / "2").write_text("2")
        raise MedsegError("broken")
    with pytest.raises(CannotWriteError, match="No space"), replacing_folder(tmp_path / "set") as beside:
        raise OSError(28, "No space left on device")
    assert [path.name for path in exported_files(tmp_path / "set")] == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_folder_that_cannot_be_exchanged_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _export(tmp_path / "set", "1")
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if ".part." in self.name and target.name == "set" and (self / "2").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(CannotWriteError, match="Input/output"):
        _export(tmp_path / "set", "2")
    assert [path.name for path in exported_files(tmp_path / "set")] == ["1"]
