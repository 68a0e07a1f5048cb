"""How the readers bear damaged files: thousands of mutated ones, each read in the worker that `medseg check` uses.

    python benchmarks/fuzz_readers.py [--files 2000] [--seed 1] [--families nifti dicom] [--keep FOLDER]

The files that are mutated are made here. A mutation flips bits, cuts the file, replaces numbers of its header, or moves
pieces of it; most leave the first bytes alone, and those of compressed files are made on what is inside or mend the
checksums, so that the reader gets past the first test. A file is *read* where the reader answers, *refused* where it
says in one line why not. What a reader does else is contained by the worker, and a line too: it *crashed*, asked for
too much *memory*, raised what it should have turned into a line (*untranslated*) or had to be stopped (*hung*).
*Uncontained* is whatever reaches this program in another way. The last two must be 0.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MedsegError
from medseg.scans.check import scan_facts
from medseg.scans.contained import Contained, ReaderFailed
from medseg.scans.contents import content_of
from medseg.scans.picks import WHOLE, Pick

MEMORY_BYTES = 1 << 30
SECONDS = 30.0
MAGIC_SPARED = 0.9
"""Share of the mutations that leave the first bytes alone."""
HEADER_BYTES = 600
"""What counts as header: half of all mutations hit there."""
NUMBERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, -32768, 65535, 10**6, 2**31 - 1, -(2**31), 2**32 - 1, 10**18)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 0.5)
OUTCOMES = ("read", "refused", "crashed", "memory", "untranslated", "hung", "uncontained")
Seeds = dict[str, bytes]
Draw = np.random.Generator


@dataclass
class Result:
    """What became of the files of one family.

    Args:
        past: files whose first bytes still say what they are.
        counts: files by outcome.
        examples: a line of the first files of each odd outcome.
        seconds: for all of them.
        slowest: for one of them.
    """

    past: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: float = 0.0

    @property
    def files(self) -> int:
        return sum(self.counts.values())


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, (11, 9, 7)).astype(np.int16)


def nifti_seeds(folder: Path) -> Seeds:
    import nibabel

    affine = np.array([[0.5, 0.1, 0, 3], [0, 0.6, 0, -4], [0, 0, 2.0, 5], [0, 0, 0, 1]])
    images = {
        "a.nii": nibabel.Nifti1Image(volume(), affine),
        "b.nii.gz": nibabel.Nifti1Image(volume(), affine),
        "c.nii": nibabel.Nifti2Image(volume().astype(np.float32), affine),
        "d.nii": nibabel.Nifti1Image(volume().astype(">i2"), affine, nibabel.Nifti1Header(endianness=">")),
        "e.nii.gz": nibabel.Nifti1Image(np.stack([volume()] * 2, -1), affine),
    }
    for name, image in images.items():
        nibabel.save(image, folder / name)
    return contents(folder, images)


def itk_seeds(folder: Path, extension: str) -> Seeds:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume())
    image.SetSpacing((0.5, 0.6, 2))
    image.SetOrigin((3, -4, 5))
    for name, compressed in ((f"a{extension}", False), (f"b{extension}", True)):
        SimpleITK.WriteImage(image, str(folder / name), useCompression=compressed)
    vector = SimpleITK.GetImageFromArray(np.stack([volume()] * 3, -1), isVector=True)
    SimpleITK.WriteImage(vector, str(folder / f"c{extension}"))
    return contents(folder, (f"a{extension}", f"b{extension}", f"c{extension}"))


def dicom_seeds(folder: Path) -> Seeds:
    import pydicom
    from pydicom.uid import JPEG2000Lossless, RLELossless

    def data_set(frames: int | None) -> Any:
        made = pydicom.Dataset()
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        made.SeriesInstanceUID, made.StudyInstanceUID, made.FrameOfReferenceUID = "1.2.3", "1.2", "1.2.9"
        made.Modality, made.SeriesNumber, made.InstanceNumber = "CT", 1, 1
        made.ImagePositionPatient, made.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        made.PixelSpacing, made.SliceThickness = [0.5, 0.6], 2
        made.Rows, made.Columns, made.SamplesPerPixel = 36, 44, 1
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
        made.PhotometricInterpretation, made.RescaleSlope, made.RescaleIntercept = "MONOCHROME2", 2, -1000
        pixels = np.tile(volume().T, (1, 4, 4))[: frames or 1]
        if frames:
            made.NumberOfFrames, made.SOPClassUID = frames, pydicom.uid.UltrasoundMultiFrameImageStorage
            made.file_meta.MediaStorageSOPClassUID, made.Modality = made.SOPClassUID, "US"
            del made.ImagePositionPatient, made.ImageOrientationPatient
        made.PixelData = pixels.tobytes()
        return made

    kinds = {"a.dcm": (None, None), "b.dcm": (4, None), "c.dcm": (None, RLELossless), "d.dcm": (4, RLELossless)}
    kinds["e.dcm"] = (None, JPEG2000Lossless)
    for name, (frames, syntax) in kinds.items():
        made = data_set(frames)
        if syntax:
            made.compress(syntax)
        made.save_as(folder / name, enforce_file_format=True)
    return contents(folder, kinds)


def picture_seeds(folder: Path) -> Seeds:
    from PIL import Image

    colours = np.random.default_rng(1).integers(0, 255, (24, 30, 3)).astype(np.uint8)
    grey = Image.fromarray(colours[..., 0])
    Image.fromarray(colours).save(folder / "a.png")
    Image.fromarray(colours).quantize(16).save(folder / "b.png", transparency=3)
    Image.fromarray(colours[..., 0].astype(np.uint16) * 256).save(folder / "c.png")
    Image.fromarray(colours).save(folder / "d.jpg")
    grey.save(folder / "e.jpg", progressive=True)
    for name, compression in (
        ("f.tif", None),
        ("g.tif", "tiff_lzw"),
        ("h.tif", "tiff_adobe_deflate"),
        ("i.tif", "jpeg"),
    ):
        Image.fromarray(colours).save(folder / name, compression=compression)
    grey.save(folder / "j.tif", save_all=True, append_images=[grey, grey])
    return contents(folder, [path.name for path in sorted(folder.iterdir())])


def video_seeds(folder: Path) -> Seeds:
    import av
    from PIL import Image

    frames = np.random.default_rng(2).integers(0, 255, (5, 32, 48, 3)).astype(np.uint8)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(folder / "a.gif", save_all=True, append_images=pictures[1:])
    for name, codec, layout in (
        ("b.mp4", "mpeg4", "yuv420p"),
        ("c.avi", "mjpeg", "yuvj420p"),
        ("d.avi", "mpeg4", "yuv420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 48, 32, layout
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    return contents(folder, [path.name for path in sorted(folder.iterdir())])


def array_seeds(folder: Path) -> Seeds:
    import scipy.io

    np.save(folder / "a.npy", volume()[..., 0])
    np.save(folder / "b.npy", np.asfortranarray(volume().astype(np.float64)))
    scipy.io.savemat(folder / "c.mat", {"img": volume()[..., 0]})
    scipy.io.savemat(folder / "d.mat", {"img": volume().astype(float), "note": "x"}, do_compression=True)
    return contents(folder, [path.name for path in sorted(folder.iterdir())])


FAMILIES: dict[str, Callable[[Path], Seeds]] = {
    "nifti": nifti_seeds,
    "nrrd": lambda folder: itk_seeds(folder, ".nrrd"),
    "metaimage": lambda folder: itk_seeds(folder, ".mha"),
    "dicom": dicom_seeds,
    "pictures": picture_seeds,
    "videos": video_seeds,
    "arrays": array_seeds,
}


def contents(folder: Path, names: Any) -> Seeds:
    return {name: (folder / name).read_bytes() for name in names}


def mutated(whole: bytes, draw: Draw) -> bytes:
    """One to three mutations of a file; inside of gzip as often as outside."""
    if whole[:2] == b"\x1f\x8b" and draw.random() < 0.7:
        return gzip.compress(mutated(gzip.decompress(whole), draw), 1, mtime=0)
    spared = magic_length(whole) if draw.random() < MAGIC_SPARED else 0
    content = bytearray(whole)
    for _ in range(int(draw.integers(1, 4))):
        kind = KINDS[int(draw.integers(len(KINDS)))]
        content = kind(content, spared, draw)
    return with_checksums(bytes(content)) if draw.random() < 0.7 else bytes(content)


def magic_length(whole: bytes) -> int:
    if whole[128:132] == b"DICM":
        return 132
    if whole[4:8] == b"ftyp":
        return 8
    if whole.startswith((b"\x5c\x01", b"\0\0\x01\x5c", b"\x1c\x02")):
        return 4
    return 12


def place(content: bytearray, spared: int, draw: Draw) -> int:
    """Half of the places lie in the header."""
    end = len(content) if draw.random() < 0.5 else min(len(content), HEADER_BYTES)
    return int(draw.integers(spared, max(end, spared + 1)))


def flipped(content: bytearray, spared: int, draw: Draw) -> bytearray:
    for _ in range(int(draw.integers(1, 9))):
        at = place(content, spared, draw)
        if at < len(content):
            content[at] ^= 1 << int(draw.integers(8))
    return content


def cut(content: bytearray, spared: int, draw: Draw) -> bytearray:
    return content[: max(place(content, spared, draw), 1)]


def with_number(content: bytearray, spared: int, draw: Draw) -> bytearray:
    """A binary number, or one that stands in the text of a header, becomes one that nobody expects."""
    number = NUMBERS[int(draw.integers(len(NUMBERS)))]
    words = [
        match for match in re.finditer(rb"-?\d+(\.\d+)?", bytes(content[:HEADER_BYTES])) if match.start() >= spared
    ]
    if words and draw.random() < 0.6:
        word = words[int(draw.integers(len(words)))]
        return content[: word.start()] + str(number).encode() + content[word.end() :]
    order = "<" if draw.random() < 0.5 else ">"
    if draw.random() < 0.3:
        packed = struct.pack(f"{order}f", FLOATS[int(draw.integers(len(FLOATS)))])
    else:
        code, bits = (("H", 16), ("I", 32), ("Q", 64))[int(draw.integers(3))]
        packed = struct.pack(f"{order}{code}", number % 2**bits)
    at = place(content, spared, draw) // 2 * 2
    if at >= spared:
        content[at : at + len(packed)] = packed
    return content


def swapped(content: bytearray, spared: int, draw: Draw) -> bytearray:
    """Two pieces change places, or one is doubled or left out."""
    length = int(draw.integers(1, 65))
    one, other = sorted(place(content, spared, draw) for _ in range(2))
    if draw.random() < 0.5 and one + length <= other:
        first, second = content[one : one + length], content[other : other + length]
        content[one : one + length], content[other : other + length] = second, first
        return content
    return content[:other] + content[one:] if draw.random() < 0.5 else content[:one] + content[one + length :]


KINDS: tuple[Callable[[bytearray, int, Draw], bytearray], ...] = (flipped, with_number, with_number, swapped, cut)


def with_checksums(content: bytes) -> bytes:
    """The checksums of a PNG made right again, so that what was mutated is looked at."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    out, at = io.BytesIO(), 8
    out.write(content[:8])
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunk = content[at + 4 : at + 8 + length]
        if at + 12 + length > len(content):
            break
        out.write(content[at : at + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big"))
        at += 12 + length
    out.write(content[at:])
    return out.getvalue()


def mutations(family: str, seeds: Seeds, files: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of each mutated file; each depends on the seed and its number alone."""
    names = sorted(seeds)
    for number in range(files):
        draw = np.random.default_rng([seed, list(FAMILIES).index(family), number])
        name = names[number % len(names)]
        yield name, mutated(seeds[name], draw)


def fuzz(family: str, *, files: int, seed: int, contained: Contained, keep: Path | None = None) -> Result:
    """Read the mutated files of one family."""
    result = Result()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as place:
        seeds = FAMILIES[family](Path(made))
        said = {name: content_of(Path(made) / name) for name in seeds}
        for number, (name, content) in enumerate(mutations(family, seeds, files, seed)):
            path = Path(place) / name
            path.write_bytes(content)
            start = time.monotonic()
            outcome, line = outcome_of(contained, path, Pick(frame=0) if number % 2 else WHOLE)
            result.slowest = max(result.slowest, time.monotonic() - start)
            result.counts[outcome] += 1
            result.past += bool(content) and content_of(path) == said[name]
            if outcome not in ("read", "refused"):
                result.examples.setdefault(outcome, []).append(f"{number} {name}: {line}")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{family}_{number}_{outcome}_{name}").write_bytes(content)
            path.unlink()
    result.seconds = time.monotonic() - began
    return result


def outcome_of(contained: Contained, path: Path, pick: Pick) -> tuple[str, str]:
    try:
        contained.call(scan_facts, path, pick)
    except ReaderFailed as error:
        outcome, line = "hung" if error.how == "slow" else error.how, str(error)
    except MedsegError as error:
        outcome, line = "refused", str(error)
    except Exception as error:  # whatever is not a line
        return "uncontained", f"{type(error).__name__}: {error}"
    else:
        return "read", ""
    return (outcome, line) if "\n" not in line and path.name in line else ("uncontained", line)


def main() -> int:
    """Read, count and print; the status is 1 where something was not contained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="mutated files of each family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--keep", type=Path, help="where to keep the files that were neither read nor refused")
    wanted = parser.parse_args()
    print(
        f"{'family':10} {'files':>6} {'past magic':>11} " + " ".join(f"{name:>12}" for name in OUTCOMES) + "   slowest"
    )
    bad = 0
    with Contained(memory_bytes=MEMORY_BYTES, seconds=SECONDS, modules=("medseg.scans.check",)) as contained:
        for family in wanted.families:
            result = fuzz(family, files=wanted.files, seed=wanted.seed, contained=contained, keep=wanted.keep)
            counts = " ".join(f"{result.counts[name]:12d}" for name in OUTCOMES)
            share = f"{result.past / result.files:.1%}"
            print(f"{family:10} {result.files:6d} {share:>11} {counts} {result.slowest:7.2f} s", flush=True)
            for lines in result.examples.values():
                print("\n".join(f"    {line}" for line in lines[:5]), file=sys.stderr)
            bad += result.counts["hung"] + result.counts["uncontained"]
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
