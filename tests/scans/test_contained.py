"""The worker: what a file does to it, the next file does not notice."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from medseg.errors import MedsegError
from medseg.scans import contained
from medseg.scans.contained import Contained, ReaderFailed
from medseg.scans.contents import content_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no signals")
_HOSTILE = """
import ctypes, os, signal, time

def segfault(path):
    ctypes.string_at(0)

def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)

def greedy(path, count):
    return len(bytes(count))

def untranslated(path):
    raise ValueError("two\\nlines")

def slow(path):
    time.sleep(2)
    return -1

def endless(path):
    while True:
        time.sleep(1)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Readers that do what bad files make of good ones; the worker finds them, too."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "hostile_readers.py").write_text(_HOSTILE, encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))
        yield importlib.import_module("hostile_readers")


@pytest.fixture(scope="module")
def worker(hostile: ModuleType) -> Iterator[Contained]:
    with Contained(memory_bytes=200_000_000, seconds=20) as worker:
        yield worker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    path.write_text("scan", encoding="ascii")
    return path


def _failure(worker: Contained, function: Callable[..., object], file: Path, *arguments: object) -> ReaderFailed:
    with pytest.raises(ReaderFailed) as caught:
        worker.call(function, file, *arguments)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert worker.call(os.path.getsize, file) == 4  # the next file is served
    return caught.value


def test_an_answer_comes_back_and_a_refusal_is_passed_on(worker: Contained, file: Path) -> None:
    assert worker.call(os.path.getsize, file) == 4
    assert worker.call(content_of, file) == "text"
    file.write_bytes(b"")
    with pytest.raises(MedsegError, match="got an empty file; copy it again") as caught:
        worker.call(content_of, file)
    assert not isinstance(caught.value, ReaderFailed)


def test_a_crash_is_one_line_and_the_next_file_is_served(worker: Contained, hostile: ModuleType, file: Path) -> None:
    failure = _failure(worker, hostile.segfault, file)
    assert failure.how == "crashed" and "SIGSEGV" in str(failure)
    failure = _failure(worker, hostile.killed, file)
    assert failure.how == "crashed" and "want of memory (SIGKILL)" in str(failure)


def test_too_much_memory_is_one_line(worker: Contained, hostile: ModuleType, file: Path) -> None:
    failure = _failure(worker, hostile.greedy, file, 1_000_000_000)
    assert failure.how == "memory" and "at most 0.2 GB" in str(failure)
    worker.call(hostile.greedy, file, 50_000_000)


def test_what_a_reader_forgot_to_translate_is_one_line(worker: Contained, hostile: ModuleType, file: Path) -> None:
    failure = _failure(worker, hostile.untranslated, file)
    assert failure.how == "untranslated" and "got ValueError: " in str(failure)


def test_the_answer_to_an_interrupted_question_is_not_that_of_the_next(
    worker: Contained, hostile: ModuleType, file: Path, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            worker.call(hostile.slow, file)
    finally:
        signal.signal(signal.SIGALRM, before)
    (tmp_path / "other").write_bytes(bytes(9))
    assert worker.call(os.path.getsize, tmp_path / "other") == 9


def test_limits_of_the_system_are_kept(file: Path) -> None:
    code = "from pathlib import Path; from medseg.scans.contained import Contained; import os, sys\n"
    code += "print(Contained().call(os.path.getsize, Path(sys.argv[1])))"
    limited = f'ulimit -t 60; exec "{sys.executable}" -c "{code}" "{file}"'  # fewer seconds than one file may take
    answer = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, check=False)
    assert (answer.stdout, answer.stderr) == ("4\n", "")


def test_a_reader_that_never_ends_is_stopped(hostile: ModuleType, file: Path) -> None:
    start = time.monotonic()
    with Contained(memory_bytes=200_000_000, seconds=2) as worker:
        worker.call(os.path.getsize, file)
        failure = _failure(worker, hostile.endless, file)
    assert failure.how == "slow" and "within 2 s" in str(failure)
    assert time.monotonic() - start < 60


def test_a_larger_file_has_more_time(hostile: ModuleType, file: Path) -> None:
    file.write_bytes(bytes(2_000_000))
    with Contained(memory_bytes=200_000_000, seconds=1) as worker, pytest.raises(ReaderFailed, match="within 3 s"):
        worker.call(hostile.endless, file)


def test_a_program_beside_the_scans_is_not_run(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit(3)", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    with Contained(memory_bytes=200_000_000) as fresh:
        assert fresh.call(os.path.getsize, file) == 4


def test_no_worker_is_left(file: Path) -> None:
    with Contained(memory_bytes=200_000_000) as worker:
        worker.call(os.path.getsize, file)
        number = worker._process.pid  # type: ignore[union-attr]
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_where_the_system_limits_no_memory_a_thread_watches(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(contained.os, "_exit", ended.append)
    watch = contained._Watch(50_000_000)
    watch.start()
    watch.join(0.2)
    assert watch.is_alive() and not ended
    monkeypatch.setattr(contained, "_peak_bytes", lambda: watch.most + 1)
    watch.join(20)
    assert ended == [contained._TOO_MUCH_MEMORY]
