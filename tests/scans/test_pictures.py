"""Pictures, arrays and videos: each is read by its depth and as it is shown, or refused in one line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import scipy.io
import torch
from monai.transforms import LoadImage
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.arrays import read_grid
from medseg.scans.picks import Pick
from medseg.scans.picture_files import MOST_PIXELS
from medseg.scans.pictures import iterate_frames, picture_grid
from medseg.scans.readers import ScanReader, grid_of, read_image, read_picture

_RANDOM = np.random.default_rng(0)
_GREY = _RANDOM.integers(0, 256, (7, 5)).astype(np.uint8)
_RGB = _RANDOM.integers(0, 256, (7, 5, 3)).astype(np.uint8)


def _read(path: Path, frame: int | None = None) -> np.ndarray:
    """Values [h w n c]; what every picture must be is checked on the way."""
    picture = read_image(path, Pick(frame=frame))
    assert picture.dtype == torch.float32 and picture.affine.dtype == torch.float64
    assert torch.equal(picture.affine, torch.eye(4, dtype=torch.float64))
    assert picture.min() >= 0 and picture.max() <= 1
    if frame is None:
        assert grid_of(picture).shape == read_grid(path).shape
    return picture.permute(1, 2, 3, 0).numpy()


def _refused(path: Path, words: str) -> None:
    for read in (read_picture, picture_grid):
        with pytest.raises(MedsegError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "npy", "mat", "webp"])
def test_grey_and_colours_are_divided_by_255(tmp_path: Path, extension: str) -> None:
    for values in (_GREY, _RGB):
        path = _save(tmp_path / f"a.{extension}", values)
        expected = values.reshape(7, 5, 1, -1) / np.float32(255)
        found = _read(path)
        assert np.array_equal(found, np.broadcast_to(expected, found.shape))  # WebP knows no grey


def _save(path: Path, values: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"anything": values})
    else:
        Image.fromarray(values).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def test_depth_and_not_content_sets_the_scale(tmp_path: Path) -> None:
    dark = np.array([[0, 1], [2, 3]])
    for name, kind, depth in (("a.png", np.uint8, 255), ("b.png", np.uint16, 65535), ("c.tif", np.uint16, 65535)):
        assert np.allclose(_read(_save(tmp_path / name, dark.astype(kind)))[..., 0, 0], dark / depth)
    for kind, values, depth in ((np.int64, dark, 255), (np.int32, dark + 300, 65535), (">u2", dark, 65535)):
        path = _save(tmp_path / "a.npy", values.astype(kind))
        assert np.allclose(_read(path)[..., 0, 0], values / depth)
    for name in ("d.npy", "d.mat", "d.png", "d.tif"):
        assert np.array_equal(_read(_save(tmp_path / name, dark > 1))[..., 0, 0], dark > 1)


def test_floats_from_0_to_1_stay_and_others_go_between_percentiles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    inside = np.linspace(0.2, 0.4, 12).reshape(3, 4)
    assert np.allclose(_read(_save(tmp_path / "a.npy", inside))[..., 0, 0], inside)
    assert "become 0 to 1" not in caplog.text
    wide = np.arange(-100, 901, dtype=np.float32).reshape(7, 143)
    for name in ("b.npy", "b.tif"):
        found = _read(_save(tmp_path / name, wide))[..., 0, 0]
        assert np.allclose(found, np.clip((wide + 95) / 990, 0, 1), atol=1e-6)
        assert "values from -100 to 900; -95 to 895 become 0 to 1" in caplog.text
        caplog.clear()


def test_few_pixels_that_are_nan_become_the_least_and_many_or_infinite_ones_are_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 400).reshape(20, 20)
    values[3, 4:6] = np.nan
    found = _read(_save(tmp_path / "a.npy", values))[..., 0, 0]
    assert (found[3, 4:6] == 0).all() and np.allclose(found[4:], values[4:])
    values[0, :2] = np.nan
    with pytest.raises(MedsegError, match="got 4 of 400 that are NaN"):
        read_picture(_save(tmp_path / "a.npy", values))
    values[3, 4] = np.inf
    with pytest.raises(MedsegError, match="got 1 pixels that are infinite"):
        read_picture(_save(tmp_path / "a.npy", values))


def test_transparency_lies_on_black_and_opaque_alpha_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    opacity = np.full((7, 5), 255, np.uint8)
    for name, colours in (("la.png", _GREY[..., None]), ("rgba.png", _RGB), ("rgba.tif", _RGB)):
        path = _save(tmp_path / name, np.dstack([colours, opacity]))
        assert np.array_equal(_read(path)[..., 0, :], colours / np.float32(255))
        assert "transparent" not in caplog.text
        half = opacity.copy()
        half[0], half[1] = 0, 51
        path = _save(tmp_path / name, np.dstack([colours, half]))
        assert np.allclose(_read(path)[..., 0, :], colours / 255 * half[..., None] / 255, atol=1e-6)
        assert f"{name} is transparent in places" in caplog.text
        caplog.clear()


def test_a_palette_is_read_as_its_colours_with_its_transparency(tmp_path: Path) -> None:
    picture = Image.frombytes("P", (5, 7), (_GREY % 3).tobytes())
    picture.putpalette([255, 0, 0, 0, 51, 0, 0, 0, 102])
    expected = np.array([[1, 0, 0], [0, 0.2, 0], [0, 0, 0.4]], np.float32)
    picture.save(tmp_path / "a.png")
    assert np.allclose(_read(tmp_path / "a.png")[..., 0, :], expected[_GREY % 3])
    picture.save(tmp_path / "b.png", transparency=bytes([0, 255, 51]))
    expected = expected * np.array([[0], [1], [0.2]])
    assert np.allclose(_read(tmp_path / "b.png")[..., 0, :], expected[_GREY % 3], atol=1e-6)


def test_cmyk_becomes_red_green_blue(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :, 0], ink[:4, :, 3] = 255, 51  # cyan, its upper half with a fifth of black
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    found = _read(tmp_path / "a.tif")[..., 0, :]
    assert np.allclose(found[0, 0], (0, 0.8, 0.8), atol=0.01) and np.allclose(found[7, 7], (0, 1, 1), atol=0.01)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_every_exif_rotation_is_applied(tmp_path: Path, name: str) -> None:
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :8] = 255  # bright in the corner that is stored first
    # Where row 0 and column 0 of the stored picture are shown, by the EXIF standard.
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.T, 2),
        8: np.rot90,
    }
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / name, exif=exif, quality=95)
        found = _read(tmp_path / name)[..., 0, 0]
        assert found.shape == turn(stored).shape
        assert np.abs(found - turn(stored) / 255).max() < 0.1


def test_pages_are_slices_and_one_can_be_chosen(tmp_path: Path) -> None:
    pages = _RANDOM.integers(0, 256, (3, 7, 5)).astype(np.uint8)
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    _save(tmp_path / "a.npy", pages)
    for name in ("a.tif", "a.npy"):
        path = tmp_path / name
        assert np.array_equal(_read(path)[..., 0], pages.transpose(1, 2, 0) / np.float32(255))
        assert np.array_equal(_read(path, frame=2)[..., 0, 0], pages[2] / np.float32(255))
        for wrong in (3, -1):
            with pytest.raises(MedsegError, match=r"0 is the first., got 3 in all"):
                read_image(path, Pick(frame=wrong))
    first.save(tmp_path / "b.tif", save_all=True, append_images=[rest[0].resize((9, 9))])
    with pytest.raises(MedsegError, match="frames of one size, got 7 x 5 and 9 x 9"):
        read_picture(tmp_path / "b.tif")
    assert _read(tmp_path / "b.tif", frame=1).shape == (9, 9, 1, 1)


def test_a_gif_gives_its_frames_in_colours(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
    assert np.array_equal(_read(tmp_path / "a.gif")[0, 0], np.eye(3))


def test_a_phone_jpeg_with_pictures_behind_it_is_one_frame(tmp_path: Path) -> None:
    front = Image.fromarray(_RGB)
    front.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (2, 2))])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.n_frames == 2
    assert _read(tmp_path / "a.jpg").shape == (7, 5, 1, 3)


def test_arrays_are_read_in_four_shapes_and_no_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for shape, expected in (
        ((6, 5), (6, 5, 1, 1)),
        ((6, 5, 3), (6, 5, 1, 3)),
        ((6, 5, 7), (5, 7, 6, 1)),
        ((2, 6, 5, 3), (6, 5, 2, 3)),
        ((6, 5, 4), (6, 5, 1, 3)),
    ):
        values = _RANDOM.integers(0, 256, shape).astype(np.uint8)
        for name in ("a.npy", "a.mat"):
            assert _read(_save(tmp_path / name, values)).shape == expected
    assert "four channels; the first three" in caplog.text and "read as 6 frames of 5 x 7" in caplog.text
    for shape in ((5,), (), (1, 2, 5, 6), (1, 2, 3, 4, 3), (0, 4)):
        _refused(_save(tmp_path / "b.npy", np.zeros(shape, np.uint8)), "must have (the shape|at least one pixel)")
    with pytest.raises(MedsegError, match="must hold real numbers, got complex128"):
        read_picture(_save(tmp_path / "c.npy", np.ones((3, 3), complex)))


def test_an_array_that_carries_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "a.npy", np.array([[Trap()]], object), allow_pickle=True)
    _refused(tmp_path / "a.npy", "plain numbers")
    assert not (tmp_path / "sprung").exists()


def test_matlab_files_are_read_by_key_and_version(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"other": np.zeros((2, 2)), "img": _RGB, "note": "text"})
    assert _read(path).shape == (7, 5, 1, 3)
    scipy.io.savemat(path, {"one": _GREY, "two": _GREY})
    _refused(path, "one array, or one of the name img, imageData, gt, got one, two")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM" + bytes(100))
    _refused(path, "version 5, got version 7.3")
    path.write_bytes(b"no MATLAB at all")
    _refused(path, "whole MATLAB file")


def _video(path: Path, angle: int = 0) -> Path:
    """Four frames that get brighter, 32 rows of 48 columns, the left half black."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 10_000_000
        for level in (60, 120, 180, 240):
            values = np.full((32, 48, 3), level, np.uint8)
            values[:, :24] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mov", "a.mkv"])
def test_a_video_gives_its_frames(tmp_path: Path, name: str) -> None:
    path = _video(tmp_path / name)
    found = _read(path)
    assert found.shape == (32, 48, 4, 3)
    assert np.allclose(found[5, 40, :, 0] * 255, (60, 120, 180, 240), atol=8) and found[:, :20].max() < 0.05
    assert np.array_equal(_read(path, frame=2), found[:, :, 2:3])
    path.write_bytes(path.read_bytes()[:300])
    _refused(path, "must (be a whole video|hold)")


def test_broken_and_wrong_content_is_one_line(tmp_path: Path) -> None:
    whole = _save(tmp_path / "whole.png", _RANDOM.integers(0, 256, (60, 60)).astype(np.uint8)).read_bytes()
    broken = {
        "cut.png": (whole[:-900], "whole, readable picture"),
        "text.png": (b"only text", "got other content"),
        "empty.png": (b"", "got an empty file"),
        "text.tif": (b"II*\0only text", "whole, readable picture|other content"),
        "text.jpg": (b"\xff\xd8\xffonly", "whole, readable picture|other content"),
        "text.npy": (b"only text", "plain numbers"),
        "text.mp4": (b"only text", "whole video"),
        "document.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "other content"),
    }
    for name, (content, words) in broken.items():
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, words)
    _refused(tmp_path / "none.png", "must be a file, got none")
    noise = _RANDOM.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for name in ("cut.jpg", "cut.bmp", "cut.webp", "cut.tif", "cut.npy"):
        path = _save(tmp_path / name, noise)
        path.write_bytes(path.read_bytes()[:-4000])
        with pytest.raises(MedsegError) as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)


def test_a_size_that_cannot_be_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )
    (tmp_path / "huge.png").write_bytes(content)
    guard = Image.MAX_IMAGE_PIXELS
    _refused(tmp_path / "huge.png", f"at most {MOST_PIXELS} pixels, got 3600000000")
    assert guard == Image.MAX_IMAGE_PIXELS
    np.save(tmp_path / "huge.npy", np.zeros((2, 2)))
    small = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(small.replace(b"(2, 2)", b"(9000000, 9000000)").replace(b" " * 12, b"", 1))
    _refused(tmp_path / "huge.npy", "plain numbers")


def test_pictures_above_the_limit_of_pillow_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert _read(_save(tmp_path / "a.png", _GREY)).shape == (7, 5, 1, 1)


def test_one_pixel_and_one_shade_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _read(_save(tmp_path / "a.png", np.full((1, 1), 51, np.uint8))) == np.float32(0.2)
    assert "a.png shows nothing: 0.2 in every pixel" in caplog.text


def test_colours_of_16_bits_are_read_as_8_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    values = _RANDOM.integers(0, 65536, (4, 3, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 3, 4, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert np.abs(_read(tmp_path / "a.png")[..., 0, :] - values / 65535).max() < 1 / 255
    assert "a.png has 16 bits a colour, read as 8" in caplog.text


def test_pictures_load_through_monai(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", _RGB)
    loaded = LoadImage(reader=ScanReader(), image_only=True, ensure_channel_first=True)(path)
    assert torch.equal(loaded.as_tensor(), read_picture(path).as_tensor())
    assert ScanReader().verify_suffix([str(path), "b.mp4"]) and not ScanReader().verify_suffix("a.txt")


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared pictures")
def test_shared_pictures_show_the_same() -> None:
    folder = Path(os.environ["MEDSEG_TEST_DATA"]) / "awkward" / "two_d_images"
    reference = _read(folder / "gray8.png")[..., 0, 0]
    names = "gray.JPG gray.bmp gray.tif gray.webp gray16.png gray_alpha.png palette.png rgb_equal_channels.png rgba.png"
    for name in [*names.split(), "cmyk.jpg"]:
        assert np.abs(_read(folder / name)[..., 0, :] - reference[..., None]).max() < 0.12, name
    assert np.abs(_read(folder / "exif_turned.jpg")[..., 0, 0] - reference).max() < 0.12
    assert _read(folder / "four_pages.tif").shape == (148, 185, 4, 1)
    assert _read(folder / "tiny_33x17.png").shape == (17, 33, 1, 1)


def _cine(path: Path, dtype: type = np.uint8) -> Path:
    """Five frames; each has values of its own, so that a scale of its own would show."""
    frames = np.stack([np.full((16, 32), 20 * n, dtype) for n in range(1, 6)])
    frames[:, 4:9, 5:20] *= 2
    if path.suffix == ".npy":
        np.save(path, frames)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"img": frames})
    elif path.suffix == ".mp4":
        iio.imwrite(path, np.repeat(frames[..., None], 3, axis=3), fps=5, codec="libx264")
    else:
        pages = [Image.fromarray(frame) for frame in frames]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.tif", np.uint8), ("a.tif", np.uint16), ("a.tif", np.float32), ("a.gif", np.uint8), ("a.mp4", np.uint8),
        ("a.npy", np.uint8), ("a.npy", np.int64), ("a.npy", np.float64), ("a.mat", np.uint16),
    ],
)  # fmt: skip
def test_frames_one_by_one_are_those_of_the_whole_cine(tmp_path: Path, name: str, dtype: type) -> None:
    path = _cine(tmp_path / name, dtype)
    whole = read_picture(path).permute(3, 1, 2, 0).numpy()
    frames = list(iterate_frames(path))
    assert len(frames) == len(whole) == 5
    for found, expected in zip(frames, whole, strict=True):
        assert found.dtype == np.float32 and found.shape[:2] == (16, 32)
        assert np.array_equal(np.broadcast_to(found, expected.shape), expected)
    (third,) = iterate_frames(path, Pick(frame=2))
    assert np.array_equal(
        np.broadcast_to(third, whole[2].shape), read_picture(path, Pick(frame=2)).numpy()[..., 0].transpose(1, 2, 0)
    )


def test_a_transparent_picture_is_laid_on_black_frame_by_frame_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([_RGB, _GREY])).save(path)
    (frame,) = iterate_frames(path)
    assert np.array_equal(frame, read_picture(path).numpy()[..., 0].transpose(1, 2, 0))
    assert frame[_GREY < 100].max() < 0.5


def test_between_frames_pillow_keeps_its_own_limit(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    one, two = iterate_frames(_cine(tmp_path / "a.tif")), iterate_frames(_cine(tmp_path / "b.gif"))
    next(one), next(two)
    assert before == Image.MAX_IMAGE_PIXELS
    one.close(), two.close()
    assert before == Image.MAX_IMAGE_PIXELS


def test_what_no_frame_can_be_taken_from_is_one_line(tmp_path: Path) -> None:
    path = _cine(tmp_path / "a.tif")
    with pytest.raises(MedsegError, match="must have frame 5"):
        list(iterate_frames(path, Pick(frame=5)))
    pages = [Image.new("L", (8, 8)), Image.new("L", (9, 8))]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(MedsegError, match="frames of one size, got 8 x 8 and 8 x 9"):
        list(iterate_frames(path))
    pages = [Image.new("L", (8, 8)), Image.new("I;16", (8, 8))]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(MedsegError, match="frames of one kind"):
        list(iterate_frames(path))


def test_a_cine_that_would_not_fit_in_memory_can_be_read_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _cine(tmp_path / "a.tif")
    monkeypatch.setattr("medseg.scans.grids.memory_bytes", lambda: 16 * 32 * 3 * 8 * 2)  # room for two frames
    with pytest.raises(MedsegError, match="fit in the memory"):
        read_picture(path)
    assert sum(1 for _ in iterate_frames(path)) == 5
