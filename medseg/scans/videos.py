"""This file reads the frames of a video (MP4, AVI, MOV, Matroska) as red, green and blue, turned as it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from medseg.errors import MedsegError
from medseg.scans.grids import require_plausible_size

_CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo"
"""FFmpeg's names of the formats that hold a video themselves; playlists name other files, and addresses."""


def read_video_header(path: Path) -> tuple[int, int, int]:
    """Frames, rows and columns; only the first frame is decoded, the others are counted.

    Raises:
        MedsegError: the file is damaged or holds no video.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        if stream.height and stream.width:  # before a frame is made room for
            shape = (stream.height, stream.width, 3)
            require_plausible_size(path, shape, 1, stream.height * stream.width * 3, compressed=False)
        first = next(container.decode(video=0), None)
        if first is None:
            raise MedsegError(f"{path} must hold at least one frame, got none; it is damaged, export it again")
        height, width = _turned(first, np.empty((first.height, first.width))).shape
    with _opened(path) as container:
        # The number in a header is often missing or wrong; every packet that is not empty is a frame.
        frames = sum(packet.size > 0 for packet in container.demux(video=0))
    return frames, height, width


def read_video(path: Path, frame: int | None = None) -> UInt8[np.ndarray, "n h w 3"]:
    """All frames, or one.

    Raises:
        MedsegError: the file is damaged, or a frame cannot be decoded.
    """
    frames = list(iterate_video(path, frame))
    if len({values.shape for values in frames}) > 1:
        raise MedsegError(f"{path} must have frames of one size, got several; choose one with --frame N")
    return np.stack(frames)


def iterate_video(path: Path, frame: int | None = None) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Give all frames, or one, in their order; one is in memory at a time.

    Raises:
        MedsegError: the file is damaged, or a frame cannot be decoded.
    """
    first, stop = (0, None) if frame is None else (frame, frame + 1)
    found = False
    with _opened(path) as container:
        for shown in islice(container.decode(video=0), first, stop):
            found = True
            yield _turned(shown, shown.to_ndarray(format="rgb24"))
    if not found:
        raise MedsegError(f"{path} must hold frame {first}, got fewer; it is cut, export it again")


def _turned(shown: av.VideoFrame, values: np.ndarray) -> np.ndarray:
    """Phones store videos lying on their side, with the angle beside them."""
    return np.rot90(values, round(shown.rotation / 90))


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    try:
        # A file name with a colon would pass for an address.
        with av.open(
            f"file:{path}", options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        ) as container:
            if not container.streams.video:
                raise MedsegError(f"{path} must hold a video, got none; choose another file")
            if container.streams.video[0].codec_context is None:
                raise MedsegError(f"{path} must hold a video that can be decoded, got an unknown codec; convert it")
            yield container
    except MedsegError:
        raise
    except (av.FFmpegError, ValueError) as error:  # names inside that are no text are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise MedsegError(f"{path} must be a whole video that FFmpeg reads, got {reason!r}; export it again") from error
