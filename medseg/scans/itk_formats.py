"""This file reads MetaImage (.mha .mhd) and NRRD (.nrrd .nhdr) files with SimpleITK.

Their headers are text. It is parsed here first, only to compare the claimed size with the file before
SimpleITK asks for memory. SimpleITK's positions are LPS+; they leave this file as RAS+.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from medseg.errors import MedsegError
from medseg.scans.grids import Grid, require_plausible_size
from medseg.scans.nifti import spatial_shape

if TYPE_CHECKING:
    import SimpleITK

_HEADER_BYTES = 1 << 16
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
        is_float: whether values are stored as floating-point numbers.
    """

    grid: Grid
    shape: tuple[int, ...]
    channels: int
    is_colour: bool
    is_float: bool


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
    return ItkHeader(_grid(path, reader, dimension), shape, channels, is_colour, "float" in pixel)


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
    for line in block.split(b"\n"):
        end += len(line) + 1
        name, _, value = line.decode("latin-1").partition("=")
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            break
    shape = tuple(int(length) for length in fields["DimSize"].split())
    itemsize = _META_BYTES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")]
    itemsize *= int(fields.get("ElementNumberOfChannels", 1))
    compressed = fields.get("CompressedData", "").lower() in ("true", "1")
    data_name = fields["ElementDataFile"]
    data: Path | None = path if data_name.upper() == "LOCAL" else path.parent / data_name
    if data_name.upper().startswith("LIST") or "%" in data_name:
        data = None
    size = fields.get("CompressedDataSize") if compressed and data is not None else None
    return _Claim(shape, itemsize, data, end if data == path else 0, compressed, int(size) if size else None)


def _nrrd_claim(path: Path, block: bytes) -> _Claim:
    if not block.startswith(b"NRRD"):
        raise KeyError("magic word NRRD")
    fields: dict[str, str] = {}
    end = 0
    for line in block.split(b"\n"):
        end += len(line) + 1
        if not line.strip():
            break
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    shape = tuple(int(length) for length in fields["sizes"].split())
    itemsize = _NRRD_BYTES[fields["type"].lower()]
    data_name = fields.get("data file", fields.get("datafile"))
    data: Path | None = path if data_name is None else path.parent / data_name
    if data_name is not None and (data_name.startswith("LIST") or "%" in data_name):
        data = None
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gz", "gzip"):
        data = None  # text or bzip2: how much there is cannot be told without reading it
    return _Claim(shape, itemsize, data, end if data == path else 0, encoding in ("gz", "gzip"), None)


def _unreadable(path: Path, error: RuntimeError) -> MedsegError:
    reason = " ".join(str(error).strip().splitlines()[-1].split())
    return MedsegError(f"{path} must be readable by SimpleITK, got {reason!r}; it may be damaged, export it again")
