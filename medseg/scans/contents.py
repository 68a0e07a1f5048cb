"""This file tells from the first bytes of a file what it holds, whatever its name says; nothing is loaded."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

from medseg.errors import MedsegError
from medseg.scans.dicom.heads import is_bare
from medseg.scans.names import DATA_PARTS, DICOM_EXTENSIONS, VIDEO_EXTENSIONS, has_known_name, split_extension

_HEAD_BYTES = 4096
_NIFTI = {
    b"\x5c\x01\0\0": "NIfTI-1",
    b"\0\0\x01\x5c": "NIfTI-1",
    b"\x1c\x02\0\0": "NIfTI-2",
    b"\0\0\x02\x1c": "NIfTI-2",
}
"""The size of the header, 348 or 540, in either byte order."""
_STARTS = {
    b"NRRD": "NRRD",
    b"ObjectType": "MetaImage",
    b"NDims": "MetaImage",
    b"Comment": "MetaImage",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\x1aE\xdf\xa3": "Matroska video",
    b"\x93NUMPY": "NumPy array",
    b"MATLAB 5.0": "MATLAB array",
    b"\x89HDF\r\n\x1a\n": "HDF5 file",
    b"%PDF": "PDF document",
}
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_PILLOW = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""All read by the same library, which goes by content among them."""
_NAMES = {
    "NIfTI-1": (".nii", ".nii.gz", ".hdr"),
    "NIfTI-2": (".nii", ".nii.gz", ".hdr"),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
    "DICOM": (".dcm", *DICOM_EXTENSIONS),
    "NumPy array": (".npy",),
    "MATLAB array": (".mat",),
    **{name: (f".{name.lower()}", *_PILLOW) for name in ("PNG", "JPEG", "TIFF", "BMP", "WebP", "GIF")},
    **dict.fromkeys(("MP4 video", "Matroska video", "AVI video"), (".mp4", *VIDEO_EXTENSIONS)),
}
"""Extensions under which each kind of content is read; the first is the usual one."""


def content_of(path: Path) -> str:
    """What the first bytes say, e.g. `NIfTI-1`, `PNG`, `text`, `checkpoint (pickle)`; `unknown content` otherwise.

    Raises:
        MedsegError: the file is missing, may not be read, or is empty.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise MedsegError(f"{path} must be readable, got {error.strerror}; check name and permissions") from error
    if not head:
        raise MedsegError(f"{path} must hold an image, got an empty file; copy it again")
    if head[:2] == b"\x1f\x8b":
        return _in_gzip(path)
    if head[:2] == b"PK":
        return _in_zip(path)
    return _by_start(head)


def require_content_of_name(path: Path) -> None:
    """Refuse a file that holds one of the other formats that are read here than its name says.

    Content that is not recognised is left to the reader, which knows its format best.

    Raises:
        MedsegError: so it is.
    """
    stem, extension = split_extension(path.name)
    if not has_known_name(path) or extension in DATA_PARTS:
        return
    content = content_of(path)
    names = _NAMES.get(content)
    if names and extension not in names:
        raise MedsegError(f"{path} must be what its name says, got {content}; rename it to {stem}{names[0]}")


def _by_start(head: bytes) -> str:
    if head[:4] in _NIFTI:
        return _NIFTI[head[:4]]
    if head[128:132] == b"DICM":
        return "DICOM"
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "AVI video"}.get(head[8:12], "unknown content")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "MP4 video"
    if head[:2] in _PICKLES:
        return "checkpoint (pickle)"
    if is_bare(head):
        return "DICOM"
    try:
        is_text = "\0" not in head.decode("utf-8", errors="strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        is_text = False
    return "text" if is_text else "unknown content"


def _in_gzip(path: Path) -> str:
    try:
        with gzip.open(path) as stream:
            inner = _by_start(stream.read(_HEAD_BYTES))
    except (OSError, EOFError, zlib.error):
        return "damaged gzip file"
    return inner if inner.startswith("NIfTI") else f"gzip of {inner}"


def _in_zip(path: Path) -> str:
    """A zip with a pickle inside is what torch saves; only its list of names is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return "damaged zip file"
    return "checkpoint (zip)" if any(name.endswith(".pkl") for name in names) else "zip file"
