"""This file reads MetaImage (.mha .mhd) and NRRD (.nrrd .nhdr) files with SimpleITK.

Their headers are text. It is parsed here first, only to compare the claimed size with the file before
SimpleITK asks for memory, and to see that the files it names lie beside it. SimpleITK's positions are LPS+; they
leave this file as RAS+.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from medseg.errors import MedsegError
from medseg.files import lies_beside
from medseg.scans.grids import Grid, require_plausible_size
from medseg.scans.nifti import spatial_shape

if TYPE_CHECKING:
    import SimpleITK

_HEADER_BYTES = 1 << 16
_LIST_BYTES = 1 << 24
"""The most that a header with a list of files is read of."""
_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n|$)")
_PATTERN = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")
"""Names with a number in them; anything else after a % would be handed to C's printf."""
_CHUNK_BYTES = 1 << 22
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 8, "ULONG": 8}
_META_BYTES |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_NRRD_BYTES = {"signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1}
_NRRD_BYTES |= dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2)
_NRRD_BYTES |= dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2)
_NRRD_BYTES |= dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4)
_NRRD_BYTES |= dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), 8)
_NRRD_BYTES |= dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), 8)
_NRRD_BYTES |= {"float": 4, "double": 8}


@dataclass(frozen=True)
class ItkHeader:
    """What a MetaImage or NRRD header says.

    Args:
        grid: shape and affine of one frame.
        shape: every spatial or time dimension, without channels.
        channels: values of one voxel.
        is_colour: whether the channels are the bytes of a colour.
        pixel: the number format in SimpleITK's words, e.g. `16-bit signed integer`.
    """

    grid: Grid
    shape: tuple[int, ...]
    channels: int
    is_colour: bool
    pixel: str

    @property
    def is_float(self) -> bool:
        """Whether values are stored as floating-point numbers."""
        return "float" in self.pixel


@dataclass(frozen=True)
class _Claim:
    """The size a header claims, and where the voxels should be."""

    shape: tuple[int, ...]
    itemsize: int
    data: Path | None  # none: spread over several files, or of a size that says nothing
    offset: int
    compressed: bool
    stored: int | None  # bytes of the compressed voxels, where the header says


def is_itk_format(path: Path) -> bool:
    """Whether the name is one of MetaImage or NRRD."""
    return path.suffix.lower() in _READERS


def data_file(path: Path) -> Path | None:
    """The one file of voxels that a header names; none where the voxels follow the header, or lie in several files.

    Raises:
        MedsegError: the header is not valid.
    """
    data = _read_claim(path).data
    return None if data is None or data == path or not data.is_file() else data


def read_header(path: Path) -> ItkHeader:
    """Geometry and layout, with the claimed size checked.

    Raises:
        MedsegError: the header is not valid, or claims more than the file or the machine can hold.
    """
    _require_plausible(path, _read_claim(path))
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    shape, dimension = tuple(reader.GetSize()), reader.GetDimension()
    if dimension < 2:
        raise MedsegError(f"{path} must have two dimensions or more, got {dimension}; export it again")
    channels = reader.GetNumberOfComponents()
    pixel = _pixel_name(reader)
    is_colour = channels in (3, 4) and "8-bit unsigned" in pixel
    return ItkHeader(_grid(path, reader, dimension), shape, channels, is_colour, pixel)


def read_voxels(path: Path, header: ItkHeader, frame: int) -> Num[np.ndarray, "i j k"]:
    """The voxels of one frame or channel; `header` is of the same file.

    Raises:
        MedsegError: the voxels are damaged, or SimpleITK cannot read them.
    """
    import SimpleITK

    _require_whole(path, _read_claim(path))
    try:
        image = _reader(path).Execute()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    values = SimpleITK.GetArrayFromImage(image)  # axes in reverse order, channels last
    if values.dtype.kind == "c":
        raise MedsegError(f"{path} must hold real numbers, got complex ones; convert it, for example to its magnitude")
    if header.channels > 1:
        frame, channel = divmod(frame, header.channels)
        values = values[..., channel]
    return values.T.reshape((*header.grid.shape, -1), order="F")[..., frame]


def _reader(path: Path) -> SimpleITK.ImageFileReader:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters arrives as an exception
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    return reader


def _pixel_name(reader: SimpleITK.ImageFileReader) -> str:
    import SimpleITK

    return SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue())


def _grid(path: Path, reader: SimpleITK.ImageFileReader, dimension: int) -> Grid:
    """The first three axes; a 2-D file gets a third one of 1 mm."""
    kept = min(dimension, 3)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:kept, :kept]
    affine = np.eye(4)
    affine[:kept, :kept] = direction * np.array(reader.GetSpacing()[:kept])
    affine[:kept, 3] = reader.GetOrigin()[:kept]
    return Grid(str(path), spatial_shape(tuple(reader.GetSize())), _LPS_TO_RAS @ affine)


def _read_claim(path: Path) -> _Claim:
    try:
        with path.open("rb") as stream:
            block = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise MedsegError(f"{path} must be readable, got {error.strerror}; check name and permissions") from error
    if not block:
        raise MedsegError(f"{path} must hold an image, got an empty file; copy it again")
    try:
        return _meta_claim(path, block) if _READERS[path.suffix.lower()] == "MetaImageIO" else _nrrd_claim(path, block)
    except MedsegError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        kind = "MetaImage" if path.suffix.lower() in (".mha", ".mhd") else "NRRD"
        raise MedsegError(f"{path} must be a {kind} file, got a header without a valid {error}; export it") from error


def _require_plausible(path: Path, claim: _Claim) -> None:
    if claim.data is not None and not claim.data.is_file():
        raise MedsegError(f"{path} must have its voxels in {claim.data.name}, got no such file; copy both files")
    # Where there is no one file, SimpleITK finds out what is missing; here only the memory is checked.
    stored = math.prod(claim.shape) * claim.itemsize if claim.data is None else claim.data.stat().st_size - claim.offset
    require_plausible_size(path, claim.shape, claim.itemsize, max(stored, 0), compressed=claim.compressed)
    if claim.stored is not None and claim.stored > stored:
        raise MedsegError(
            f"{path} must hold {claim.stored} bytes of compressed voxels, got {stored}; it is cut, copy it again"
        )


def _require_whole(path: Path, claim: _Claim) -> None:
    """Inflate once to nowhere: SimpleITK fills up what cannot be inflated and raises nothing."""
    if not claim.compressed or claim.data is None:
        return
    inflater = zlib.decompressobj(wbits=47)  # zlib or gzip
    try:
        with claim.data.open("rb") as stream:
            stream.seek(claim.offset)
            while not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(_CHUNK_BYTES)):
                inflater.decompress(chunk, _CHUNK_BYTES)
        inflater.flush()
    except (OSError, zlib.error) as error:
        raise MedsegError(f"{path} must be whole, got {error}; it is damaged, copy it again") from error
    if not inflater.eof:
        raise MedsegError(f"{path} must be whole, got compressed voxels without an end; it is cut, copy it again")


def _meta_claim(path: Path, block: bytes) -> _Claim:
    fields: dict[str, str] = {}
    end = 0
    for line, end in _lines(block):  # noqa: B007 (where the voxels or a list begin)
        name, *value = re.split("[=:]", line, maxsplit=1)  # MetaIO takes both
        fields[name.strip()] = "".join(value).strip()
        if name.strip() == "ElementDataFile":
            break
    shape = tuple(int(length) for length in fields["DimSize"].split())
    if len(shape) != int(fields["NDims"]):  # SimpleITK would write beyond its arrays
        raise ValueError(f"NDims: {fields['NDims']} for {len(shape)} lengths")
    itemsize = _META_BYTES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")]
    itemsize *= int(fields.get("ElementNumberOfChannels", 1))
    compressed = fields.get("CompressedData", "").lower() in ("true", "1")
    data_name = fields["ElementDataFile"]
    data: Path | None = path if data_name.upper() == "LOCAL" else path.parent / data_name
    if data_name.upper().startswith("LIST") or "%" in data_name:
        data = None
    _require_beside(path, data_name, end)
    size = fields.get("CompressedDataSize") if compressed and data is not None else None
    return _Claim(shape, itemsize, data, end if data == path else 0, compressed, int(size) if size else None)


def _nrrd_claim(path: Path, block: bytes) -> _Claim:
    if not block.startswith(b"NRRD"):
        raise KeyError("magic word NRRD")
    fields: dict[str, str] = {}
    end = 0
    for line, end in _lines(block):  # noqa: B007
        name, _, value = line.partition(":")
        if not value.startswith("="):  # which is a remark of the user's
            fields[name.strip().lower()] = value.strip()
        if not line.strip() or fields.get("data file", fields.get("datafile", "")).startswith("LIST"):
            break  # a list goes on to the end of the file
    shape = tuple(int(length) for length in fields["sizes"].split())
    itemsize = _NRRD_BYTES[fields["type"].lower()]
    data_name = fields.get("data file", fields.get("datafile"))
    data: Path | None = path if data_name is None else path.parent / data_name
    if data_name is not None and (data_name.startswith("LIST") or "%" in data_name):
        data = None
    if data_name is not None:
        _require_beside(path, data_name, end)
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gz", "gzip"):
        data = None  # text or bzip2: how much there is cannot be told without reading it
    return _Claim(shape, itemsize, data, end if data == path else 0, encoding in ("gz", "gzip"), None)


def _lines(block: bytes) -> Iterator[tuple[str, int]]:
    """Each line of a header, and where the next one begins; like the libraries, all three kinds of newline end one."""
    for match in _LINE.finditer(block):
        yield match[1].decode("latin-1"), match.end()


def _require_beside(path: Path, data_name: str, end: int) -> None:
    """Refuse a header that names files outside of its own folder, which would bring anything on the disk in.

    Args:
        path: the header.
        data_name: what it names: itself (`LOCAL`), a file, a pattern with a number in it, or `LIST`.
        end: where the header goes on, with the names of a list.
    """
    if data_name.upper() == "LOCAL":
        return
    names = [data_name]
    if data_name.upper().startswith("LIST"):
        with path.open("rb") as stream:
            stream.seek(end)
            names = [line.strip() for line, _ in _lines(stream.read(_LIST_BYTES)) if line.strip()]
    elif "%" in data_name and not _PATTERN.fullmatch(data_name):
        raise MedsegError(f"{path} must name its files by one number such as %03d, got {data_name!r}; mend its header")
    for name in names:
        steps = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
        is_away = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in steps
        if is_away or not lies_beside(path, path.parent / name):
            raise MedsegError(f"{path} must have its voxels beside it, got {name!r}; move both into one folder")


def _unreadable(path: Path, error: RuntimeError) -> MedsegError:
    reason = " ".join(str(error).strip().splitlines()[-1].split())
    return MedsegError(f"{path} must be readable by SimpleITK, got {reason!r}; it may be damaged, export it again")
