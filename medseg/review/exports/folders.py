"""This file replaces a whole folder of exported files at once, so that a reader never sees half a data set.

A hidden list in the folder says which files the export wrote; whatever else lies there belongs to somebody else, and
then nothing is replaced.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, read_record, why_not_written, write_json

_LIST = ".medseg_export.json"


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new hidden neighbour of `folder`; it takes the folder's place when the block ends well.

    Raises:
        MedsegError: the folder holds files that no export wrote.
        CannotWriteError: the files cannot be written.
    """
    _require_ours(folder)
    beside, before = (folder.with_name(f".{uuid.uuid4().hex[:8]}.part.{folder.name}") for _ in range(2))
    try:
        beside.mkdir(parents=True)
        yield beside
        write_json(beside / _LIST, {"files": sorted(_files(beside))})
        _exchange(folder, beside, before)
    except OSError as error:
        raise CannotWriteError(
            f"{folder} must be writable, got {why_not_written(error)}; free space or choose another folder"
        ) from error
    finally:
        for rest in (beside, before):
            shutil.rmtree(rest, ignore_errors=True)


def exported_files(folder: Path) -> list[Path]:
    """The files of an exported folder, without the list of them."""
    return [folder / name for name in sorted(_files(folder)) if name != _LIST]


def _exchange(folder: Path, beside: Path, before: Path) -> None:
    if not folder.exists():
        beside.rename(folder)
        return
    folder.rename(before)
    try:
        beside.rename(folder)
    except OSError:
        before.rename(folder)
        raise


def _require_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise MedsegError(f"{folder} must be a folder or new, got a file or a link; choose another --into")
    found = _files(folder) - {_LIST}
    known = set(read_record(folder / _LIST, "files")["files"]) if (folder / _LIST).is_file() else set()
    if strange := sorted(found - known):
        raise MedsegError(
            f"{folder} must be new, empty or an earlier export, got {strange[0]}, which medseg did not write; "
            "move it or choose another --into"
        )


def _files(folder: Path) -> set[str]:
    """Everything below a folder that is no folder, with forward slashes."""
    return {
        (Path(place) / name).relative_to(folder).as_posix()
        for place, folders, names in os.walk(folder)
        for name in (*names, *(link for link in folders if (Path(place) / link).is_symlink()))
    }
