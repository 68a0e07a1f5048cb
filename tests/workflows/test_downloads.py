"""This file tests downloads against a server on this machine, without any network."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from medseg.errors import MedsegError
from medseg.workflows import downloads
from medseg.workflows.downloads import DATASETS, MODELS, Download, chosen, fetch, unpack_archive

CONTENT = bytes(range(256)) * 40


class _Answers(BaseHTTPRequestHandler):
    """Serves a file, a page, an error, and a file that breaks off."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.endswith("/lost"):
            self.send_error(404)
            return
        content = b"<!DOCTYPE html><p>log in first" if self.path.endswith("/page") else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + (100 if self.path.endswith("/short") else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    _Answers.asked.clear()
    serving = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()
    thread.join()


def item(address: str, **others: str) -> Download:
    return replace(Download("net.pth", "models", address, "a net"), **others)


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_recorded_and_checked_from_then_on(server: str, tmp_path: Path) -> None:
    net = item(f"{server}/net.pth")
    answer = fetch([net], tmp_path)
    path = tmp_path / "models" / "net.pth"
    assert path.read_bytes() == CONTENT and not answer["failed"]
    assert "downloaded; no hash is published: this one is kept and checked" in answer["lines"][0]
    record = path.with_name("net.pth.sha256").read_text(encoding="utf-8")
    assert record == f"{hashlib.sha256(CONTENT).hexdigest()}  net.pth\n"
    assert "unchanged since its record" in fetch([net], tmp_path)["lines"][0]
    assert _Answers.asked == ["/net.pth"]
    path.write_bytes(CONTENT[:-1])
    assert "must be as recorded in net.pth.sha256, got another content" in fetch([net], tmp_path)["failed"]["net.pth"]


def test_a_file_that_is_published_anew_does_not_pass_for_the_recorded_one(server: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.pth.sha256").write_text(f"{'0' * 64}  net.pth\n", encoding="utf-8")
    assert "must be as recorded" in fetch([item(f"{server}/net.pth")], tmp_path)["failed"]["net.pth"]
    assert files_in(tmp_path) == ["models/net.pth.sha256"]


def test_a_published_hash_is_checked(server: str, tmp_path: Path) -> None:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    answer = fetch([item(f"{server}/net.pth", md5_start=md5[:8])], tmp_path)
    assert "its published hash fits" in answer["lines"][0]
    wrong = fetch([item(f"{server}/net.pth", name="other.pth", md5_start="00000000")], tmp_path)
    assert "must have the published MD5 00000000..., got" in wrong["failed"]["other.pth"]
    assert not (tmp_path / "models" / "other.pth").exists()


def test_a_file_that_was_there_is_recorded_and_checked_like_a_download(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.pth").write_bytes(CONTENT)
    nowhere = item("http://127.0.0.1:9/net.pth")
    assert "was there already" in fetch([nowhere], tmp_path)["lines"][0]
    assert "unchanged" in fetch([nowhere], tmp_path)["lines"][0]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("lost", "must answer, got 404"), ("page", "got a web page"), ("short", r"got 10240 of 10340 bytes")],
)
def test_what_does_not_come_whole_leaves_no_file(server: str, tmp_path: Path, path: str, reason: str) -> None:
    answer = fetch([item(f"{server}/{path}")], tmp_path)
    assert reason in answer["failed"]["net.pth"]
    assert files_in(tmp_path) == []


def test_an_address_out_of_reach_is_one_line_with_the_ways_out(tmp_path: Path) -> None:
    for address in ("http://127.0.0.1:9/net.pth", (tmp_path / "missing.pth").as_uri()):
        reason = fetch([item(address)], tmp_path / "out")["failed"]["net.pth"]
        assert "must be in reach, got" in reason and "set https_proxy" in reason and "--from FILE" in reason
        assert "\n" not in reason and files_in(tmp_path) == []


def test_the_proxy_of_the_environment_is_used(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert not fetch([item("http://weights.invalid/net.pth")], tmp_path)["failed"]
    assert _Answers.asked == ["http://weights.invalid/net.pth"]  # asked of the proxy, with the whole address


def test_one_failure_does_not_stop_the_others(server: str, tmp_path: Path) -> None:
    answer = fetch([item(f"{server}/lost"), item(f"{server}/x", name="x.pth")], tmp_path)
    assert list(answer["failed"]) == ["net.pth"] and answer["files"] == [str(tmp_path / "models" / "x.pth")]


def test_a_file_from_elsewhere_is_copied_for_one_download_only(tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.write_bytes(CONTENT)
    answer = fetch([item("http://127.0.0.1:9/x")], tmp_path / "o", source=brought)
    assert f"copied from {brought}" in answer["lines"][0]
    assert (tmp_path / "o" / "models" / "net.pth").read_bytes() == CONTENT == brought.read_bytes()
    with pytest.raises(MedsegError, match="--from must stand for one download, got 2"):
        fetch([MODELS[0], MODELS[1]], tmp_path, source=brought)
    missing = fetch([item("x", name="y.pth")], tmp_path / "o", source=tmp_path / "none")
    assert "--from must be a file" in missing["failed"]["y.pth"]


def test_names_choose_and_pickled_programs_are_fetched_only_by_name():
    assert all(entry.is_readable for entry in chosen([], MODELS)) and len(chosen(["all"], MODELS)) == len(MODELS) - 3
    assert [entry.name for entry in chosen(["picie", "potsdam_test.ckpt"], MODELS)] == [
        "picie.pkl",
        "potsdam_test.ckpt",
    ]
    with pytest.raises(MedsegError, match=r"download must be one of potsdam.zip, .* got potsdan"):
        chosen(["potsdan"], DATASETS)


def test_every_address_is_https_and_every_name_is_there_once():
    known = (*MODELS, *DATASETS)
    assert all(entry.address.startswith("https://") and entry.address.endswith(entry.name) for entry in known)
    assert len({entry.name for entry in known}) == len({entry.address for entry in known}) == len(known)


def archive(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name, content in entries:
            written.writestr(name, content)
    return path


@pytest.mark.parametrize("prefix", ["", "potsdam/", "some folder/"])
def test_an_archive_is_unpacked_to_its_own_name(tmp_path: Path, prefix: str) -> None:
    path = archive(tmp_path / "potsdam.zip", (f"{prefix}imgs/a.mat", b"a"), (f"{prefix}all.txt", b"a\n"))
    assert "unpacked 2 entries" in unpack_archive(path)
    assert files_in(tmp_path) == ["potsdam.zip", "potsdam/all.txt", "potsdam/imgs/a.mat"]
    (tmp_path / "potsdam" / "all.txt").write_bytes(b"mine")
    assert "not unpacked again" in unpack_archive(path)
    assert (tmp_path / "potsdam" / "all.txt").read_bytes() == b"mine"


def test_a_fetched_archive_is_unpacked(tmp_path: Path) -> None:
    source = archive(tmp_path / "served.zip", ("all.txt", b"a"))
    potsdam = replace(DATASETS[0], address=source.as_uri())
    answer = fetch([potsdam], tmp_path / "data", unpack=True)
    assert not answer["failed"] and (tmp_path / "data" / "potsdam" / "all.txt").read_bytes() == b"a"
    not_one = fetch([replace(potsdam, name="other.zip")], tmp_path / "data", source=Path(__file__), unpack=True)
    assert "must be a zip archive, got another kind of file" in not_one["failed"]["other.zip"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "..\\evil", "\\\\host\\evil"])
def test_an_entry_that_leads_out_is_refused_and_nothing_is_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = archive(tmp_path / "in" / "x.zip", ("good", b"g"), (name, b"evil"))
    with pytest.raises(MedsegError, match="must hold plain files below one folder"):
        unpack_archive(path)
    assert files_in(tmp_path) == ["in/x.zip"]


def test_a_link_and_a_damaged_archive_are_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as written:
        written.writestr(entry, "/etc/passwd")
    with pytest.raises(MedsegError, match="must hold plain files"):
        unpack_archive(tmp_path / "link.zip")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as written:
        written.writestr("a", CONTENT)
    broken = bytearray(whole.getvalue())
    broken[200] ^= 255
    (tmp_path / "broken.zip").write_bytes(broken)
    with pytest.raises(MedsegError, match="must be a whole zip archive, got Bad CRC"):
        unpack_archive(tmp_path / "broken.zip")
    assert files_in(tmp_path) == ["broken.zip", "link.zip"]


def test_an_archive_that_is_meant_to_fill_the_disk_is_refused_by_what_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        for number in range(12):
            written.writestr(f"zeros_{number}", bytes(10 << 20))
    with pytest.raises(MedsegError, match="must hold pictures and lists, got 125829120 bytes packed into"):
        unpack_archive(path)
    assert files_in(tmp_path) == ["bomb.zip"]


def test_an_entry_never_gives_more_than_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("zeros", bytes(1 << 20))
    content = path.read_bytes()
    path.write_bytes(content.replace((1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(MedsegError, match="must be a whole zip archive"):
        unpack_archive(path)
    assert files_in(tmp_path) == ["liar.zip"]


def test_an_archive_that_does_not_fit_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "bomb.zip", ("zeros", bytes(5_000_000)))
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage._replace(free=4_000_000))
    with pytest.raises(MedsegError, match="must fit the disk, got 5000000 bytes where 4000000 are free"):
        unpack_archive(path)
    assert files_in(tmp_path) == ["bomb.zip"]
