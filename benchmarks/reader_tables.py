"""What becomes of awkward and of broken files: the tables of a folder that holds `awkward` and `broken`.

    python benchmarks/reader_tables.py DATA [--no-score]

Awkward files are valid and must be read right: shape, spacing, axes, and the content at the same place in the world as
in `awkward/reference.nii.gz`; pictures must look like `gray8.png`. Broken ones go through `medseg check` in a process
each, labels also through `medseg check LABEL --for awkward/reference.nii.gz` and `medseg score`; the line, the status,
seconds and peak memory (of that process and its worker) are printed. Unix only, because of the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from medseg.errors import MedsegError

USABLE = {"bad_checksum.nii.gz", "not_gzipped.nii.gz", "label_empty.nii.gz", "nan_voxels.nii.gz"}
"""Files that may be used; every other one must be refused."""
WITH_A_LINE = {"not_gzipped.nii.gz": "gzip", "label_empty.nii.gz": "empty", "nan_voxels.nii.gz": "NaN"}
"""What must be said where they are."""
LONGEST_S, LARGEST_BYTES = 60.0, 1 << 30
PICTURES = {
    "four_pages.tif": (148, 185, 4),
    "tiny_33x17.png": (17, 33, 1),
    "wide_1500x40.png": (40, 1500, 1),
}
"""Rows, columns and frames of the pictures that have others than `gray8.png`."""
LIKENESS = {"one_bit.png": 0.5, "cmyk.jpg": 0.95, "exif_turned.jpg": 0.95, "palette.png": 0.95}
"""Least correlation with `gray8.png` of those that are no exact copies of it."""


@dataclass(frozen=True)
class Row:
    """One awkward file: whether it is read right, and what it is read as."""

    name: str
    right: bool
    found: str


@dataclass(frozen=True)
class Run:
    """What a command said, its status, how long it took and how much memory."""

    line: str
    status: int
    seconds: float
    peak_bytes: int


def awkward_rows(data: Path) -> list[Row]:
    """All volumes against `expected.json`, all pictures against `gray8.png`."""
    folder = data / "awkward"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    rows = [volume_row(folder, name, said) for name, said in expected.items()]
    return rows + [picture_row(path) for path in sorted((folder / "two_d_images").iterdir())]


def volume_row(folder: Path, name: str, said: dict[str, Any]) -> Row:
    from medseg.scans.volumes import read_volume, read_volume_labels

    is_label = name.endswith(("_label.nii.gz", "_label.nrrd")) or name == "bool_label_255.nii.gz"
    read = read_volume_labels if is_label else read_volume
    try:
        values, grid = read(folder / name)
    except MedsegError as error:
        return Row(name, False, str(error))
    spacing = np.array(said["spacing_mm"]) / (1000 if "micron" in name else 1)
    right = grid.shape == (*said["shape"], 1)[:3] and np.allclose(grid.spacing, spacing, rtol=1e-4)
    right &= grid.orientation == said.get("axes", "RAS")  # said for NIfTI only
    found = f"{' x '.join(map(str, grid.shape))}, {grid.orientation}"
    if said["same_world_content_as_reference"]:
        reference, other = read(folder / ("reference_label.nii.gz" if is_label else "reference.nii.gz"))
        indices = np.indices(reference.shape).reshape(3, -1)
        to_here = np.linalg.inv(grid.affine) @ other.affine
        i, j, k = np.rint(to_here[:3, :3] @ indices + to_here[:3, 3:]).astype(int)
        moved, wanted = values[i, j, k].astype(float), reference.ravel().astype(float)
        likeness = float((moved == wanted).mean()) if is_label else float(np.corrcoef(moved, wanted)[0, 1])
        right &= likeness == 1 if is_label else likeness > 0.9999  # some hold scaled or shifted values
        found += f", content like the reference {likeness:.6f}"
    return Row(name, bool(right), found)


def picture_row(path: Path) -> Row:
    from medseg.scans.readers import read_picture

    try:
        picture = read_picture(path).numpy()
    except MedsegError as error:
        return Row(path.name, False, str(error))
    shape = picture.shape[1:]
    found = f"{' x '.join(map(str, shape))}, {picture.shape[0]} channels"
    with Image.open(path.parent / "gray8.png") as image:
        like = np.asarray(ImageOps.exif_transpose(image).convert("L"), dtype=float)
    if path.name in PICTURES:
        return Row(path.name, shape == PICTURES[path.name], found)
    if shape != (*like.shape, 1):
        return Row(path.name, False, found)
    likeness = float(np.corrcoef(picture.mean(axis=0)[..., 0].ravel(), like.ravel())[0, 1])
    right = likeness > LIKENESS.get(path.name, 0.99)
    return Row(path.name, right, f"{found}, like gray8.png {likeness:.4f}")


def broken_names(data: Path) -> list[str]:
    return list(json.loads((data / "broken" / "expected.json").read_text(encoding="utf-8")))


def is_label_volume(name: str) -> bool:
    return name.startswith("label_") and name.endswith(".nii.gz")


def is_right(name: str, line: str, status: int) -> bool:
    """Whether a status and its line are what they should be."""
    if status and name in WITH_A_LINE and name != "not_gzipped.nii.gz":
        return False
    if status:
        return bool(line) and "Traceback" not in line
    return name in USABLE and WITH_A_LINE.get(name, "") in line


def broken_in_process(data: Path) -> Iterator[tuple[str, str, int]]:
    """Name, line and status of each broken file, by the functions behind `medseg check`."""
    from medseg.workflows.checking import check_path

    for name in broken_names(data):
        image = data / "awkward" / "reference.nii.gz" if is_label_volume(name) else None
        try:
            answer = check_path(data / "broken" / name, image=image)
        except MedsegError as error:
            yield name, str(error), 1
        else:
            line = " ".join(answer["failed"].values()) or answer["lines"][1]
            yield name, line, int(bool(answer["failed"]))


def run_medseg(arguments: Sequence[str], folder: Path) -> Run:
    """Run `medseg` in a folder of its own."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen([sys.executable, "-m", "medseg", *arguments], stdout=said, stderr=said, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    seconds = time.monotonic() - start
    usual = next((line for line in lines if " must " in line), lines[1] if len(lines) > 1 else " ".join(lines))
    line = next((line for line in lines if "Traceback" in line), usual)
    return Run(line, process.returncode, seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def shown(name: str, run: Run, *, right: bool, width: int) -> str:
    within = run.seconds <= LONGEST_S and run.peak_bytes <= LARGEST_BYTES
    verdict = "right" if right and within else "WRONG"
    figures = f"status {run.status} {run.seconds:5.1f} s {run.peak_bytes / 2**20:5.0f} MiB"
    return f"{name:{width}} {verdict} {figures}  {run.line}"


def main() -> int:
    """Print the tables; the status is 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--no-score", action="store_true", help="leave out `medseg score`, which needs a segmentation")
    wanted = parser.parse_args()
    data: Path = wanted.data.resolve()
    names = broken_names(data)
    width = max(map(len, names))
    reference, wrong = data / "awkward" / "reference.nii.gz", 0
    # These come first: the system counts what this program holds when it starts another as that one's own peak.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = 0
        for broken in names:
            options = ("--for", str(reference)) if is_label_volume(broken) else ()
            run = run_medseg(["check", str(data / "broken" / broken), *options], folder)
            right = is_right(broken, run.line, run.status)
            count += right and run.seconds <= LONGEST_S and run.peak_bytes <= LARGEST_BYTES
            print(shown(broken, run, right=right, width=width), flush=True)
        print(f"broken: {count} of {len(names)} answered right\n")
        wrong += len(names) - count
        if not wanted.no_score:
            wrong += score_table(data, folder, width)
        unsafe = sorted(str(path) for path in (*folder.rglob("UNSAFE*"), *Path().glob("UNSAFE*")))
        print(f"files that an unsafe load would have made: {', '.join(unsafe) or 'none'}")
    rows = awkward_rows(data)
    for row in rows:
        print(f"{row.name:40} {'right' if row.right else 'WRONG'} {row.found}")
    misread = sum(not row.right for row in rows)
    print(f"awkward: {len(rows) - misread} of {len(rows)} read right")
    return int(wrong + misread > 0 or bool(unsafe))


def score_table(data: Path, folder: Path, width: int) -> int:
    """The labels as references of a segmentation of the reference; how many are answered wrongly."""
    made = run_medseg(["segment", str(data / "awkward" / "reference.nii.gz"), "-o", str(folder / "out"), "-q"], folder)
    if made.status:
        print(f"medseg segment failed: {made.line}")
        return 1
    wrong = 0
    for name in filter(is_label_volume, broken_names(data)):
        label = folder / "reference_label.nii.gz"
        shutil.copyfile(data / "broken" / name, label)
        run = run_medseg(["score", str(folder / "out"), str(label), "-o", str(folder / "scores"), "-q"], folder)
        right = (run.status == 0) == (name == "label_empty.nii.gz") and "Traceback" not in run.line
        wrong += not right
        print(f"score {shown(name, run, right=right, width=width)}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
