"""This file opens what may hold a DICOM object: a file, or a member of a zip archive, which is never unpacked to disk.

A *place* is either of them. What a zip claims is checked before a byte of it is inflated: members are read in memory,
by their number in the archive, so that their names (absolute, `..`) lead nowhere, and archives inside are not opened.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from medseg.errors import MedsegError

_MOST_MEMBERS = 100_000
"""Files in one archive; a study of the largest kind has some ten thousand."""
_MOST_MEMBER_BYTES = 2 << 30
"""Bytes of one file in an archive, which is held in memory as a whole: more than any usual cine."""
_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Place:
    """Where one object is stored.

    Args:
        path: the file, or the archive.
        member: its number in the archive, from 0.
        size: bytes of the object.
        changed_ns: when the file was changed last, so that what was read of it is not used for another.
    """

    path: Path
    member: int | None
    size: int
    changed_ns: int

    @property
    def name(self) -> str:
        """What to call it in a message; names inside of archives are not trusted with a place in one."""
        return str(self.path) if self.member is None else f"{self.path} (file {self.member + 1} in it)"

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The bytes, from their start.

        Raises:
            MedsegError: they cannot be read.
        """
        if self.member is not None:
            yield io.BytesIO(self.read(self.size))
            return
        try:
            with self.path.open("rb") as stream:
                yield stream
        except FileNotFoundError as error:
            raise MedsegError(f"{self.path} must exist, got no such file; check the name") from error
        except PermissionError as error:
            raise MedsegError(f"{self.path} must be readable, got {error.strerror}; change its permissions") from error

    def read(self, count: int) -> bytes:
        """The first bytes, at most as many as the object claims to have.

        Raises:
            MedsegError: they cannot be read.
        """
        if self.member is None:
            with self.opened() as stream:
                return stream.read(count)
        with _guarded(self.path):
            archive = _archive(self.path, self.changed_ns, os.getpid())
            # zipfile inflates no more of a member than it claims, whatever is stored.
            with archive.open(archive.infolist()[self.member]) as stream:
                return stream.read(min(count, self.size))


def place_of(path: Path) -> Place:
    """The place of a file on disk.

    Raises:
        MedsegError: it is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MedsegError(f"{path} must exist, got {error.strerror}; check the name") from error
    if not stat.S_ISREG(found.st_mode):
        raise MedsegError(f"{path} must be a file, got something else; check the name")
    return Place(path, None, found.st_size, found.st_mtime_ns)


def is_zip(path: Path) -> bool:
    """Whether a file is named as a zip archive."""
    return path.suffix.lower() == ".zip"


def members(path: Path) -> list[Place]:
    """The places in a zip archive.

    Raises:
        MedsegError: it is none, is encrypted, or claims more than can be held.
    """
    archive_place = place_of(path)
    with _guarded(path):
        infos = _archive(path, archive_place.changed_ns, os.getpid()).infolist()
    if len(infos) > _MOST_MEMBERS:
        raise MedsegError(f"{path} must hold at most {_MOST_MEMBERS} files, got {len(infos)}; unpack it")
    if any(info.flag_bits & _ENCRYPTED for info in infos):
        raise MedsegError(f"{path} must be readable without a password, got an encrypted archive; unpack it")
    largest = max((info.file_size for info in infos), default=0)
    if largest > _MOST_MEMBER_BYTES:
        raise MedsegError(
            f"{path} must hold files of at most {_MOST_MEMBER_BYTES >> 20} MiB, got one that claims "
            f"{largest >> 20} MiB; unpack it, if it can be trusted"
        )
    return [
        Place(path, number, info.file_size, archive_place.changed_ns)
        for number, info in enumerate(infos)
        if not info.is_dir() and info.file_size
    ]


@lru_cache(maxsize=1)
def _archive(path: Path, changed_ns: int, process: int) -> zipfile.ZipFile:
    """The archive that was opened last stays open: its list of names is read for every member otherwise.

    A process that was forked must not share the open file's position with its parent, so it opens its own.
    """
    return zipfile.ZipFile(path)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Turn what zipfile raises into one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise MedsegError(f"{path} must exist, got no such file; check the name") from error
    except _DAMAGE as error:  # NotImplementedError of a rare compression is a RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MedsegError(f"{path} must be a whole zip archive, got {reason}; make the archive again") from error
