"""This file tests that nothing is ever half-written."""

import os
import sys
import time
from pathlib import Path

import pytest
import yaml

from medseg.errors import MedsegError
from medseg.files import (
    csv_text,
    hash_content,
    hash_file,
    lies_beside,
    load_yaml,
    printable,
    read_json,
    remove_leftovers,
    replacing,
    write_json,
    write_text,
)


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


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    old, new, kept = (
        tmp_path / "plots" / ".0a1b2c3d.part.x_mip.png",
        tmp_path / ".0a1b2c3d.part.x_seg.nii.gz",
        tmp_path / "x.part.txt",
    )
    for path in (old, new, kept):
        path.touch()
    an_hour_ago = time.time() - 3700
    for path in (old, kept):
        os.utime(path, (an_hour_ago, an_hour_ago))
    assert remove_leftovers(tmp_path) == 1
    assert not old.exists() and new.exists() and kept.exists()


def test_a_name_that_is_no_text_can_be_written_down_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")  # Latin-1 on a disk of UTF-8
    write_json(tmp_path / "a.json", {"source": name})
    assert read_json(tmp_path / "a.json") == {"source": name}


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "\xff", "NaN}"])
def test_json_that_is_meant_to_break_the_reader_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(MedsegError, match="must be a readable JSON file"):
        read_json(path)


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGED,
        "a: &a [*a]",
        "[" * 5000,
        "a: 2001-99-99",
        "a: !!int x",
        "a: !!timestamp x",
        "a: !!python/object/apply:os.system [touch hit]",
        "!!python/name:os.system ''",
        "a: [",
    ],
)
def test_yaml_that_is_meant_to_break_the_reader_is_an_error_at_once(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    assert time.process_time() - start < 5
    assert not list(tmp_path.iterdir())


def test_ordinary_yaml_is_read_with_its_aliases() -> None:
    text = "a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 1e-3}\nd: 2026-01-02\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("5e-4", yaml.BaseLoader) == "5e-4"
    assert load_yaml("") is None
    numbers = list(range(100_001))
    assert load_yaml(str(numbers)) == numbers  # long, but no longer than it looks


@pytest.mark.parametrize(
    "word", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1", " =1", "=", "\uff1d1+1", "-1_0", "+"]
)
def test_a_word_that_is_a_formula_is_made_harmless(word: str) -> None:
    assert csv_text(word).startswith("'")
    assert csv_text(word).isprintable()


@pytest.mark.parametrize(
    "word", ["002", "a=b", "sub-01", "Größe", "-0.5", "+3", "1e-5", "-inf", "nan", "山田\u3000太郎"]
)
def test_ordinary_words_and_numbers_stay_as_they_are(word: str) -> None:
    assert csv_text(word) == word


def test_numbers_and_nothing_are_cells_too() -> None:
    assert [csv_text(value) for value in (-0.5, 3, None, True)] == ["-0.5", "3", "", "True"]


def test_no_name_steers_the_terminal_or_forges_a_line() -> None:
    assert printable("scan\x1b[2J\x1b]0;x\x07") == r"scan\x1b[2J\x1b]0;x\x07"
    assert printable("a\nmedseg: all is well\r") == r"a\nmedseg: all is well\r"
    assert printable("gnp\u202e.exe\x9b") == r"gnp\u202e.exe\x9b"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\udce9"
    assert printable("Müller 山田\u3000太郎\u00a0") == "Müller 山田\u3000太郎\u00a0"


def test_a_file_that_has_gone_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must be readable, got No such file or directory; was it moved"):
        hash_file(tmp_path / "gone")


@pytest.mark.skipif(sys.platform == "win32", reason="no right to make links")
def test_what_a_link_leads_to_counts(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "below").mkdir(parents=True)
    (folder / "header").touch()
    (folder / "link").symlink_to(tmp_path / "b")
    assert lies_beside(folder / "header", folder / "below" / "voxels")
    assert not lies_beside(folder / "header", folder / "link")
    assert not lies_beside(folder / "header", folder / ".." / "b")
    (tmp_path / "linked").symlink_to(folder / "header")
    assert lies_beside(tmp_path / "linked", folder / "voxels")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "new" / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask
