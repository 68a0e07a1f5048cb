"""This file writes files so that nothing is ever half-written, and hashes them.

*Atomic*: the content goes to a hidden neighbour of the final name first and is renamed at the end,
so a reader sees the old file or the new one, never a part. A *content hash* is a SHA-256 in hex.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from medseg.errors import MedsegError

_CHUNK_BYTES = 1 << 20
_RESTORE = "remove or restore it"


class CannotWriteError(MedsegError):
    """A result cannot be written. No case is to blame, and the next one would fail the same way."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a neighbouring path to write to; rename it to `path` when the block ends well.

    The neighbour keeps the suffixes of `path`, because writers choose their format by them. When
    the block fails, the neighbour is removed and whatever stood at `path` stays.

    Raises:
        CannotWriteError: the file cannot be written (full disk, no permission).
    """
    path = Path(path)
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}.part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors report a full disk their own way
        reason = why_not_written(error)
        raise CannotWriteError(f"{path} must be writable, got {reason}; free space or choose another folder") from error
    finally:
        with suppress(OSError):  # what stands in the way of the file also stands in the way of this
            beside.unlink(missing_ok=True)


def why_not_written(error: Exception) -> str:
    """The reason of a failed write in a few words; libraries wrap the system's own."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"a write that failed ({next(iter(str(error).splitlines()), type(error).__name__)})"


def require_folder(folder: Path, option: str) -> None:
    """Check that results can go to `folder`, before any long work.

    Args:
        folder: a folder, or one that will be made.
        option: how the user named it, for the advice.

    Raises:
        CannotWriteError: it, or what it would lie in, is a file or may not be written to.
    """
    place = folder.absolute()
    there = next((path for path in (place, *place.parents) if path.exists()), place)
    if there.is_file():
        where = "a file" if there == place else f"the file {there}"
        raise CannotWriteError(f"{folder} must be a folder or new, got {where}; choose another {option}")
    if there.exists() and not os.access(there, os.W_OK):
        raise CannotWriteError(f"{folder} must be writable, got no permission in {there}; choose another {option}")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines, atomically."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, *, advice: str = _RESTORE) -> Any:
    """Read a JSON file.

    Raises:
        MedsegError: the file is missing or is not JSON; `advice` says what to do.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise MedsegError(f"{path} must be a readable JSON file, got {reason}; {advice}") from error


def read_record(path: Path, *keys: str, advice: str = _RESTORE) -> dict[str, Any]:
    """Read a JSON object that medseg wrote.

    Raises:
        MedsegError: the file is missing, is not JSON, or lacks one of the keys.
    """
    content = read_json(path, advice=advice)
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        missing = f"no {next(key for key in keys if key not in content)}" if isinstance(content, dict) else "none"
        raise MedsegError(f"{path} must be a JSON object with {', '.join(keys)}, got {missing}; {advice}")
    return content


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def hash_content(content: Any) -> str:
    """SHA-256 of a plain value (numbers, strings, lists, mappings), the same for equal values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
