"""This file opens pictures, arrays and videos, and gives their frames as they are stored.

A *frame* is a page of a TIFF, an image of an animation, a slice of an array or a frame of a video;
rows and columns are those that a viewer shows, turned as EXIF says. *Alpha* is the opacity, 0 to 255.
A *lossy* file does not hold the exact values that were put in. Sizes are checked before memory is asked for.
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from medseg.errors import MedsegError
from medseg.scans.contents import require_content_of_name
from medseg.scans.grids import require_plausible_size
from medseg.scans.names import KINDS, VIDEO_EXTENSIONS, is_dicom, is_picture

MOST_PIXELS = 400_000_000
"""Pixels of one frame, 20 000 x 20 000: far above any camera, far below what would fill a machine."""
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
_GREY = {"1": "1", "L": "L", "LA": "L"}  # and the 16 and 32 bit modes, which are taken as they are
_DEEP = ("I", "F")
_SWAPPED = (5, 6, 7, 8)  # EXIF orientations in which rows and columns change places
_ORIENTATION = 0x0112
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
_MOST_ITEMSIZE = 4
# What Pillow's decoders raise on damaged files; an index or a key out of range is one of them.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, RuntimeError, struct.error, zlib.error)


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture before its values are read.

    Args:
        height: rows of a frame as it is shown.
        width: columns of a frame as it is shown.
        frames: how many there are.
        lossy: the lossy compression, where there is one.
        is_reduced: whether the file holds more than the 8 bits a colour that can be read.
    """

    height: int
    width: int
    frames: int
    lossy: str | None = None
    is_reduced: bool = False


@dataclass(frozen=True)
class Frames:
    """Values as they are stored.

    Args:
        header: what the file says of itself.
        values: one channel, or three: red, green, blue.
        alpha: opacity; none where all is opaque.
        palette: red, green and blue of each value, where the values are indices.
    """

    header: PictureHeader
    values: Shaped[np.ndarray, "n h w c"]
    alpha: UInt8[np.ndarray, "n h w"] | None = None
    palette: UInt8[np.ndarray, "256 3"] | None = None


@dataclass(frozen=True)
class Page:
    """Values of one frame as they are stored.

    Args:
        values: one channel, or three: red, green, blue.
        alpha: opacity; none where all is opaque.
        palette: red, green and blue of each value, where the values are indices.
    """

    values: Shaped[np.ndarray, "h w c"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    palette: UInt8[np.ndarray, "256 3"] | None = None


def read_header(path: Path) -> PictureHeader:
    """Size and number of frames; no values are read.

    Raises:
        MedsegError: the file is missing, is no picture, or claims more pixels than can be read.
    """
    _require_known(path)
    if _is_array(path):
        from medseg.scans.picture_arrays import read_array_header

        frames, height, width = read_array_header(path)
        return PictureHeader(height, width, frames)
    if _is_video(path):
        from medseg.scans.videos import read_video_header

        frames, height, width = read_video_header(path)
        return PictureHeader(height, width, frames, "video")
    if is_dicom(path):
        from medseg.scans.dicom.pictures import lossy_compression, open_picture

        shown = open_picture(path)
        return PictureHeader(shown.rows, shown.columns, shown.frames, lossy_compression(shown))
    with opened_picture(path) as image:
        return _header(path, image)


def read_frames(path: Path, frame: int | None = None, *, indices: bool = False) -> Frames:
    """Values of all frames, or of one.

    Args:
        path: the file.
        frame: which one, from 0; all without it.
        indices: give the indices of a palette file and its palette; else its colours.

    Raises:
        MedsegError: the file cannot be read, or has no such frame.
    """
    _require_known(path)
    if not (_is_array(path) or _is_video(path) or is_dicom(path)):
        with opened_picture(path) as image:
            header = _header(path, image)
            wanted = _require_frames(path, header, frame)
            pages = [_page(image, number, indices=indices) for number in wanted]
        return _joined(path, header, pages)
    header = read_header(path)
    _require_frames(path, header, frame)
    if _is_array(path):
        from medseg.scans.picture_arrays import read_array

        return Frames(header, read_array(path, frame))
    if is_dicom(path):
        return Frames(header, np.stack([page.values for page in _pages(path, (), frame)]))
    from medseg.scans.videos import read_video

    return Frames(header, read_video(path, frame))


def iterate_pages(path: Path, frame: int | None = None) -> Iterator[Page]:
    """Give the frames one after the other, so that a long cine needs the memory of one frame.

    The one exception is a `.mat` file, which can only be read whole. An animation whose first frames are grey may go on
    in colour.

    Args:
        path: the file.
        frame: which one, from 0; all without it.

    Raises:
        MedsegError: the file cannot be read, or has no such frame; it may be found out at a later frame.
    """
    header = read_header(path)
    wanted = _require_frames(path, header, frame, at_once=1)
    first: Page | None = None
    for page in _pages(path, wanted, frame):
        first = first or page
        _require_alike(path, first, page)
        yield page


def require_readable_size(path: Path, frames: int, height: int, width: int, itemsize: int = _MOST_ITEMSIZE) -> None:
    """Refuse what has no pixels, too many of them, or more than this machine's memory holds.

    Raises:
        MedsegError: so it is.
    """
    if height * width > MOST_PIXELS:
        raise MedsegError(
            f"{path} must have at most {MOST_PIXELS} pixels, got {height * width} ({height} x {width}); "
            "crop it or make it smaller"
        )
    shape = (height, width, 3 * frames)
    require_plausible_size(path, shape, itemsize, math.prod(shape) * itemsize, compressed=False)


def unreadable(path: Path, error: BaseException) -> MedsegError:
    """One line for a file whose content cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return MedsegError(f"{path} must be a whole, readable picture, got {reason!r}; it is damaged, export it again")


def _require_known(path: Path) -> None:
    if not is_picture(path):
        raise MedsegError(f"{path} must be {KINDS}, got {path.suffix or 'no extension'}; convert it")
    if not path.is_file():
        raise MedsegError(f"{path} must be a file, got {'a folder' if path.is_dir() else 'none'}; check the name")
    if not path.stat().st_size:
        raise MedsegError(f"{path} must hold a picture, got an empty file; copy it again")
    require_content_of_name(path)


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in (".npy", ".mat")


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_EXTENSIONS and path.suffix.lower() != ".gif"


def _require_frames(path: Path, header: PictureHeader, frame: int | None, at_once: int | None = None) -> Sequence[int]:
    """The frames that are asked for, which must be there; those held at once, all of them by default, must fit."""
    if frame is not None and not 0 <= frame < header.frames:
        raise MedsegError(
            f"{path} must have frame {frame} (0 is the first), got {header.frames} in all; choose another"
        )
    wanted = range(header.frames) if frame is None else [frame]
    require_readable_size(path, at_once or len(wanted), header.height, header.width)
    return wanted


def _pages(path: Path, wanted: Sequence[int], frame: int | None) -> Iterator[Page]:
    """The wanted frames: all, or `frame`."""
    if _is_array(path):
        from medseg.scans.picture_arrays import iterate_array

        yield from (Page(values) for values in iterate_array(path, frame))
    elif _is_video(path):
        from medseg.scans.videos import iterate_video

        yield from (Page(values) for values in iterate_video(path, frame))
    elif is_dicom(path):
        from medseg.scans.dicom.pictures import iterate_picture, open_picture

        yield from (Page(values) for values in iterate_picture(open_picture(path), frame))
    else:
        with ExitStack() as opened:
            # What the guard sets aside is set aside for everyone, so it is back in place whenever a page is out.
            with _guarded(path):
                image = opened.enter_context(_open_pillow(path, opened))
            for number in wanted:
                with _guarded(path):
                    page = _page(image, number)
                yield page


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """The file in Pillow, with our limit on pixels; errors within the block become one line.

    Raises:
        MedsegError: the file is no picture, or damaged.
    """
    with _guarded(path), ExitStack() as opened, _open_pillow(path, opened) as image:
        yield image


def _open_pillow(path: Path, opened: ExitStack) -> Image.Image:
    # Pillow gets a stream and not a name, because it maps a TIFF that it can name into memory and then garbles one
    # that is to be turned.
    return Image.open(opened.enter_context(path.open("rb")), formats=_FORMATS)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Set Pillow's own limit on pixels aside for ours, and turn its errors into one line."""
    guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        # Pillow warns of metadata that it cannot read and goes on with the picture.
        with warnings.catch_warnings(action="ignore"):
            yield
    except MedsegError:
        raise
    except Image.UnidentifiedImageError as error:
        raise MedsegError(
            f"{path} must be a PNG, JPEG, BMP, TIFF, WebP or GIF picture, got other content, or a rare kind of "
            "them; export it with 8 or 16 bits, as grey or RGB"
        ) from error
    except Image.DecompressionBombError as error:  # a page beyond the first; the first one is measured before
        raise MedsegError(
            f"{path} must have at most {MOST_PIXELS} pixels in every frame, got {error}; crop it"
        ) from error
    except _DAMAGE as error:
        raise unreadable(path, error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = guard


def _header(path: Path, image: Image.Image) -> PictureHeader:
    width, height = image.size
    require_readable_size(path, 1, height, width)
    # Reading the rotation of a PNG reads its pixels too, because it may stand behind them. What was
    # in the tiles is asked before.
    is_reduced = image.mode in ("RGB", "RGBA") and ";16" in str(getattr(image, "tile", ""))
    # Pillow gives the size of a TIFF as it is shown, of others as it is stored.
    if image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _SWAPPED:
        width, height = height, width
    # A phone's JPEG may carry previews and gain maps behind the picture (MPO); they are no frames.
    frames = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    return PictureHeader(height, width, frames, _lossy(path, image), is_reduced)


def _lossy(path: Path, image: Image.Image) -> str | None:
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and image.info.get("compression") in _LOSSY_COMPRESSIONS:
        return "JPEG inside TIFF"
    # `VP8 ` is the chunk of lossy WebP, `VP8L` that of exact WebP.
    return "lossy WebP" if image.format == "WEBP" and b"VP8 " in path.read_bytes() else None


def _page(image: Image.Image, number: int, *, indices: bool = False) -> Page:
    if number or image.tell():
        # A page may be larger than the first one, and a frame of a GIF can make the whole picture grow.
        Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses what is more than twice this
        image.seek(number)
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError(f"{image.height} x {image.width}")
    shown = ImageOps.exif_transpose(image)
    # Indices of a GIF change from frame to frame, its colours do not.
    palette = _palette(shown) if indices and image.format != "GIF" else None
    stored = np.asarray(shown) if palette is not None else _stored(shown)
    return Page(stored.reshape(*stored.shape[:2], -1), _alpha(shown), palette)


def _require_alike(path: Path, first: Page, other: Page) -> None:
    """Refuse frames of several sizes or kinds, which are no cine."""
    if first.values.shape[:2] != other.values.shape[:2]:
        sizes = " and ".join(f"{page.values.shape[0]} x {page.values.shape[1]}" for page in (first, other))
        raise MedsegError(f"{path} must have frames of one size, got {sizes} pixels; choose one with --frame N")
    palettes = [None if page.palette is None else page.palette.tobytes() for page in (first, other)]
    if first.values.dtype != other.values.dtype or palettes[0] != palettes[1]:
        raise MedsegError(f"{path} must have frames of one kind, got several bit depths or palettes; convert it")


def _joined(path: Path, header: PictureHeader, pages: Sequence[Page]) -> Frames:
    """All pages as one array."""
    for page in pages:
        _require_alike(path, pages[0], page)
    channels = max(page.values.shape[2] for page in pages)
    stacked = np.stack([np.broadcast_to(page.values, (*page.values.shape[:2], channels)) for page in pages])
    opaque = np.full(stacked.shape[1:3], 255, np.uint8)
    alpha = np.stack([opaque if page.alpha is None else page.alpha for page in pages])
    return Frames(header, stacked, alpha if (alpha < 255).any() else None, pages[0].palette)


def _stored(image: Image.Image) -> Shaped[np.ndarray, "h w *c"]:
    """Grey of any depth as it is; all colour models as red, green and blue."""
    if image.mode.startswith(_DEEP):
        return np.asarray(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when it goes straight to RGB
    return np.asarray(image.convert(_GREY.get(image.mode, "RGB")))


def _palette(image: Image.Image) -> UInt8[np.ndarray, "256 3"] | None:
    if image.mode != "P":
        return None
    colours = np.zeros((256, 3), np.uint8)
    used = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(used)] = used
    return colours


def _alpha(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """Opacity, where there is one and Pillow can tell it."""
    if not image.has_transparency_data or image.mode.startswith(_DEEP):
        return None
    return np.asarray(image.convert("RGBA").getchannel("A"))
