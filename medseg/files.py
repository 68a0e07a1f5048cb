"""This file writes files so that nothing is ever half-written, reads plain data without running it, and hashes files.

*Atomic*: the content goes to a hidden neighbour of the final name first and is renamed at the end,
so a reader sees the old file or the new one, never a part. A *leftover* is such a neighbour whose process
was killed. A *content hash* is a SHA-256 in hex. A *formula* is a cell that a spreadsheet would compute.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from medseg.errors import MedsegError

_CHUNK_BYTES = 1 << 20
_RESTORE = "remove or restore it"
_PART = ".part."
_LEFTOVER_S = 3600
"""Seconds without a change after which a half-written file belongs to no living process."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The four signs at which spreadsheets begin to compute, and their wide East Asian forms."""
_MOST_VALUES = 100_000
"""Values of a YAML file with its aliases written out; more are allowed where the file itself is that long."""


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
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}{_PART}{path.name}")
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


def remove_leftovers(folder: Path) -> int:
    """Remove what killed processes left half-written below `folder`, and say how many files that were.

    Leftovers are never taken for results, because their names begin with a dot. One that has changed within the last
    hour stays, because its writer may live on another machine.
    """
    removed = 0
    for path in folder.rglob(f".*{_PART}*"):
        with suppress(OSError):  # whoever removed it first is right
            if path.is_file() and time.time() - path.stat().st_mtime > _LEFTOVER_S:
                path.unlink()
                removed += 1
    return removed


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
    """Write `text` as UTF-8 with plain newlines, atomically; the odd bytes of a file name are written as escapes."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


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
    except (OSError, ValueError, RecursionError) as error:
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
        wanted = f" with {', '.join(keys)}" if keys else ""
        raise MedsegError(f"{path} must be a JSON object{wanted}, got {missing}; {advice}")
    return content


def load_yaml(text: str, loader: type[yaml.SafeLoader] | type[yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """Plain values of a YAML text; no object is ever built from it, and its aliases cannot blow it up.

    Raises:
        yaml.YAMLError: it is no YAML, names an object, or grows beyond measure when its aliases are written out.
    """
    reader = loader(text)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        size = _written_out(node, sizes)
        if size > max(_MOST_VALUES, 10 * len(sizes)):
            raise yaml.YAMLError(f"aliases that stand for {size:.3g} values")
        return reader.construct_document(node)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:  # of PyYAML's constructors
        raise yaml.YAMLError(f"a value that cannot be read ({error})") from error
    finally:
        reader.dispose()


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for with every alias written out; `sizes` remembers those of the nodes in it."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise yaml.YAMLError("a value that contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0  # being counted
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    sizes[id(node)] = 1 + sum(_written_out(part, sizes) for part in inner)
    return sizes[id(node)]


def csv_text(value: object) -> str:
    """A value as a cell of one line that no spreadsheet computes; every CSV and TSV writer puts its words through it.

    A word that begins with `= + - @` gets an apostrophe in front, numbers do not; control characters become spaces.

    >>> [csv_text(value) for value in ("liver", "=1+1", "-0.5", -0.5, None)]
    ['liver', "'=1+1", '-0.5', '-0.5', '']
    """
    text = "" if value is None else str(value)
    text = "".join(letter if is_plain(letter) else " " for letter in text)
    if not text.lstrip().startswith(_FORMULA_STARTS) or _is_number(text):
        return text
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def printable(text: str) -> str:
    """The text with control characters written out as escapes, so that no name can steer the terminal or forge a line.

    >>> printable("scan" + chr(27) + "[2J of Müller") == "scan" + chr(92) + "x1b[2J of Müller"
    True
    """
    return "".join(letter if is_plain(letter) else letter.encode("unicode_escape").decode("ascii") for letter in text)


def is_plain(text: str) -> bool:
    """Whether nothing in a text can steer a terminal, turn its direction, or not be written down at all."""
    return all(letter.isprintable() or unicodedata.category(letter) == "Zs" for letter in text)


def lies_beside(path: Path, other: Path) -> bool:
    """Whether `other`, its links followed, lies in or below the folder of `path`, or of what `path` is a link to."""
    folders = (os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    return any(Path(os.path.realpath(other)).is_relative_to(folder) for folder in folders)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        MedsegError: the file cannot be read; it may have gone since it was found.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise MedsegError(
            f"{path} must be readable, got {error.strerror or error}; was it moved or deleted?"
        ) from error
    return digest.hexdigest()


def hash_content(content: Any) -> str:
    """SHA-256 of a plain value (numbers, strings, lists, mappings), the same for equal values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
