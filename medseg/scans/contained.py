"""This file runs functions of untrusted files in a process of their own, so that a file can harm nothing but itself.

A *worker* is that process. It serves one file after the other, because starting it takes about a second, and is
replaced when it dies; the file that it held is the culprit. Questions go to it pickled, answers come back as JSON:
nothing that a file may have twisted is unpickled here. Memory is limited by the system where it can (Linux); on macOS
a thread in the worker watches it. Windows has no such limit, but a crash stays in the worker there, too. Time is
limited everywhere.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from medseg.errors import MedsegError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

How = Literal["crashed", "memory", "slow", "untranslated"]
"""The ways in which a reader fails: it dies, or it raises something that it should have turned into a line."""

MEMORY_SHARE = 0.75
"""Of the machine's memory: a volume that fits is read, and the program beside the worker lives on."""
SECONDS = 60.0
"""For one small file."""
SECONDS_PER_MEGABYTE = 1.0
"""More of them for a larger file: gzip gives 30 MB a second, a video a few."""
_START_SECONDS = 120.0
"""For Python to start and import; a network drive may be slow."""
_TOO_MUCH_MEMORY = 77
"""Exit status of a worker that stops itself."""
_WATCH_SECONDS = 0.02
_CPU_SECONDS_MORE = 10
"""Processor time beyond the limit, after which the system ends a worker whose parent is gone."""
_BOOTSTRAP = """
import sys
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from medseg.scans.contained import serve
serve()
"""
"""What the worker runs: this very package, wherever it lies."""


class ReaderFailed(MedsegError):
    """A file on which the reader itself failed.

    Args:
        message: one line.
        how: in which way.
    """

    def __init__(self, message: str, how: How) -> None:
        super().__init__(message)
        self.how = how


class Contained:
    """Calls functions in a worker, as a context manager.

    Args:
        memory_bytes: what a file may take above what the worker needs itself; by default a share of the machine's.
        seconds: how long a small file may take; larger ones get a second more for each megabyte.
        modules: what the worker imports before its clock runs.
    """

    def __init__(
        self, *, memory_bytes: int | None = None, seconds: float = SECONDS, modules: tuple[str, ...] = ()
    ) -> None:
        self.memory_bytes = _share_of_memory() if memory_bytes is None else memory_bytes
        self.seconds = seconds
        self.modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Contained:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, function: Callable[..., Any], path: Path, *arguments: Any) -> Any:
        """The answer of `function(path, *arguments)`, called in the worker.

        Args:
            function: a function of a module; what it gives must fit in JSON.
            path: the file, for messages and limits.
            arguments: further ones.

        Raises:
            MedsegError: the function refuses the file.
            ReaderFailed: the function dies of it, or takes too much memory or time.
        """
        limit = self.seconds + SECONDS_PER_MEGABYTE * _bytes_of(path) / 1e6
        asked = (Path.cwd(), function, path, arguments, self.memory_bytes, limit)
        question = base64.b64encode(pickle.dumps(asked))
        with self._one_at_a_time:
            line = self._answer_to(question, path, limit)
            if not line:
                raise self._death(path, limit)
        answer = json.loads(line)
        if "value" in answer:
            return answer["value"]
        if "refused" in answer:
            raise MedsegError(answer["refused"])
        if "memory" in answer:
            self.close()  # what the file has taken is not given back for certain
            raise self._too_large(path)
        raise ReaderFailed(
            f"{path} must be a file that its reader understands, got {answer['untranslated']}; "
            "it is damaged, export it again",
            "untranslated",
        )

    def _answer_to(self, question: bytes, path: Path, limit: float) -> bytes:
        """The line that the worker answers; an empty one when it dies."""
        process = self._started()
        start = time.monotonic()
        try:
            assert process.stdin is not None
            process.stdin.write(question + b"\n")
            process.stdin.flush()
            return self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            raise ReaderFailed(
                f"{path} must be read within {limit:.0f} s, got a reader that was still busy after "
                f"{time.monotonic() - start:.0f} s; it is damaged or too large, export it again",
                "slow",
            ) from None
        except OSError:  # the worker died before it was asked
            return b""
        except BaseException:  # an interrupt: the answer still to come must not be taken for that of the next file
            self.close()
            raise

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        root = str(Path(__file__).parents[2])
        # Not the current folder: it may hold a numpy.py that somebody put beside the scans.
        command = [sys.executable, "-P", "-c", _BOOTSTRAP, root, *self.modules]
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **alone},
        )
        self._answers = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        try:
            is_ready = bool(self._answers.get(timeout=_START_SECONDS))
        except queue.Empty:
            is_ready = False
        if not is_ready:
            self.close()
            raise MedsegError(f"{sys.executable} must start for the check of files, got no answer; install medseg anew")
        return self._process

    def _death(self, path: Path, limit: float) -> ReaderFailed:
        process, self._process = self._process, None
        assert process is not None
        status = process.wait()
        _close_pipes(process)
        if status == _TOO_MUCH_MEMORY:
            return self._too_large(path)
        if hasattr(signal, "SIGXCPU") and status == -signal.SIGXCPU:
            return ReaderFailed(
                f"{path} must be read within {limit:.0f} s, got a reader that never ends; it is damaged, "
                "export it again",
                "slow",
            )
        try:
            what = signal.Signals(-status).name if status < 0 else f"status {status}"
        except ValueError:
            what = f"signal {-status}"
        why = ", which the system ended, most likely for want of memory" if what == "SIGKILL" else " that crashed"
        return ReaderFailed(f"{path} must be readable, got a reader{why} ({what}); export it again", "crashed")

    def _too_large(self, path: Path) -> ReaderFailed:
        return ReaderFailed(
            f"{path} must be read with at most {self.memory_bytes / 1e9:.2g} GB of memory, got a reader that asks for "
            "more; it is damaged, or crop it or use a larger machine",
            "memory",
        )


def serve() -> None:
    """Answer questions until there are none: what the worker does."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for module in sys.argv[2:]:
        importlib.import_module(module)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch: _Watch | None = None
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin.buffer:
        asked = pickle.loads(base64.b64decode(line))  # by our own parent
        folder, function, path, arguments, memory_bytes, seconds = asked
        with contextlib.suppress(OSError):  # a folder that only its owner may enter
            os.chdir(folder)  # where the parent is now: paths may be relative
        if not _limit(memory_bytes, seconds) and watch is None and resource is not None:
            watch = _Watch(memory_bytes)
            watch.start()
        answers.write(json.dumps(_answer(function, path, arguments)).encode() + b"\n")
        answers.flush()


def _answer(function: Callable[..., Any], path: Path, arguments: tuple[Any, ...]) -> dict[str, Any]:
    try:
        return {"value": function(path, *arguments)}
    except MedsegError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"memory": True}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a reader's own (decoders in Rust panic beside Exception); the others go on
        return {"untranslated": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _limit(memory_bytes: int, seconds: float) -> bool:
    """Limit what the next file may take; whether memory is limited by the system."""
    if resource is None:
        return False
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime + seconds) + _CPU_SECONDS_MORE
    _lower(resource.RLIMIT_CPU, cpu)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return False
    _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)
    return True


def _lower(kind: int, value: int) -> None:
    """Set a limit; one that the system has set for good, as queues of clusters do, may not be exceeded."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


class _Watch(threading.Thread):
    """Ends the worker when it has taken too much, where the system has no such limit (macOS)."""

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(daemon=True)
        self.most = _peak_bytes() + memory_bytes

    def run(self) -> None:
        while _peak_bytes() <= self.most:
            time.sleep(_WATCH_SECONDS)
        os._exit(_TOO_MUCH_MEMORY)


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _listen(stream: IO[bytes], answers: queue.Queue[bytes]) -> None:
    """Pass on each line; an empty one says that the worker is gone."""
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        for line in stream:
            answers.put(line)
    answers.put(b"")


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not yet sent to a dead worker
                pipe.close()


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _share_of_memory() -> int:
    from medseg.scans.grids import memory_bytes

    return int(MEMORY_SHARE * memory_bytes())
