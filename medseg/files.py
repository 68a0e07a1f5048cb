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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError

_CHUNK_BYTES = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a neighbouring path to write to; rename it to `path` when the block ends well.

    The neighbour keeps the suffixes of `path`, because writers choose their format by them. When
    the block fails, the neighbour is removed and whatever stood at `path` stays.

    Raises:
        MedsegError: the file cannot be written (full disk, no permission).
    """
    path = Path(path)
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}.part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise MedsegError(
            f"{path} must be writable, got {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines, atomically."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MedsegError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedsegError(f"{path} must be a readable JSON file, got {error}; remove or restore it") from error


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
