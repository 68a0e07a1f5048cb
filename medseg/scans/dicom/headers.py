"""This file tells whether an object is DICOM, and reads data sets without trusting them.

What pydicom and its decoders raise on damaged objects becomes one line.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg.errors import MedsegError
from medseg.scans.dicom.heads import HEAD_BYTES, has_preamble, is_bare
from medseg.scans.dicom.places import Place

_TALKERS = ("pydicom", "openjpeg", "libjpeg", "pylibjpeg")
"""Loggers that print tracebacks of what they raise as well."""
_META_BYTES = 2048
"""Bytes at the start of a file in which its transfer syntax stands."""
_GROUP_LENGTH_END = 144
"""Where the length of the file's own elements ends; it stands first, and counts what follows it."""
_CHUNK_BYTES = 1 << 20
_MOST_INFLATED = 1 << 30
"""Bytes of a data set that is deflated as a whole; that is done to reports, hardly to images."""


def is_dicom(place: Place) -> bool:
    """Whether an object is DICOM. One without a preamble must also say what it is when it is read as such.

    Raises:
        MedsegError: it cannot be read.
    """
    head = place.read(HEAD_BYTES)
    if has_preamble(head):
        return True
    if not is_bare(head):
        return False
    try:
        header = read_header(place, ("SOPClassUID", "SOPInstanceUID", "Modality", "Rows"))
    except MedsegError:
        return False
    return "SOPClassUID" in header or ("Modality" in header and "Rows" in header)


def read_header(place: Place, tags: Sequence[str]) -> Dataset:
    """The named elements, and those of the file itself; no pixels are read.

    Raises:
        MedsegError: the object is damaged.
    """
    with guarded(place), place.opened() as stream:
        wanted = [pydicom.tag.Tag(tag) for tag in tags]
        header = dcmread(_checked(place, stream), force=True, stop_before_pixels=True, specific_tags=wanted)
        _require_transfer_syntax(place, header)
        return header


def read_dataset(place: Place, *, pixels: bool = True) -> Dataset:
    """All that is stored.

    Args:
        place: the object.
        pixels: also the pixels.

    Raises:
        MedsegError: the object is damaged.
    """
    with guarded(place), place.opened() as stream:
        found = dcmread(_checked(place, stream), force=True, stop_before_pixels=not pixels)
        _require_transfer_syntax(place, found)
        return found


@contextmanager
def guarded(place: Place) -> Iterator[None]:
    """Turn what pydicom and the decoders raise on damaged objects into one line, and keep their warnings.

    Raises:
        MedsegError: something was raised.
    """
    loggers = {name: logging.getLogger(name) for name in _TALKERS}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL + 1)
    try:
        # pydicom warns of values that break the standard's rules and goes on; most scanners write some.
        with warnings.catch_warnings(action="ignore"):
            yield
    except (MedsegError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # any kind: a number that is none, a missing element, a decoder's own
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MedsegError(
            f"{place.name} must be a whole DICOM file, got {' '.join(reason.split())[:200]!r}; "
            "it is cut, damaged or rare, export it again"
        ) from error
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _checked(place: Place, stream: BinaryIO) -> BinaryIO:
    """The stream, after a look at how much comes out of it where the data set is deflated as a whole.

    pydicom inflates such a data set at once, whatever its size, so it is inflated to nowhere before.
    """
    head = stream.read(_META_BYTES)
    if has_preamble(head) and DeflatedExplicitVRLittleEndian.encode() in head:
        stream.seek(_GROUP_LENGTH_END + int.from_bytes(head[_GROUP_LENGTH_END - 4 : _GROUP_LENGTH_END], "little"))
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        total, chunk = 0, stream.read(_CHUNK_BYTES)
        while chunk and not inflater.eof:
            total += len(inflater.decompress(chunk, _CHUNK_BYTES))
            if total > _MOST_INFLATED:
                raise MedsegError(
                    f"{place.name} must hold at most {_MOST_INFLATED >> 20} MiB when inflated, got more; "
                    "export it again without compression"
                )
            chunk = inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)
    stream.seek(0)
    return stream


def _require_transfer_syntax(place: Place, found: Dataset) -> None:
    """Say how the data set is encoded where the file forgot to; pydicom has found it out while reading."""
    if not isinstance(getattr(found, "file_meta", None), FileMetaDataset):
        found.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" in found.file_meta:
        if not found.file_meta.TransferSyntaxUID.is_transfer_syntax:
            raise MedsegError(f"{place.name} must say how it is encoded, got no transfer syntax; export it again")
        return
    is_implicit, is_little = found.original_encoding
    explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
    found.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
