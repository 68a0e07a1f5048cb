"""How much anonymous memory reconstruction needs: the whole `medseg reconstruct` of a large scan and of a longer one.

    python benchmarks/memory.py [--repeats 1] [--side 512] [--slices 200 400]

A run is trained briefly on a small phantom; the large scans are that phantom mirrored until they are full, without a
brain mask, so that every voxel is looked at. Each is reconstructed by a process of its own, with the shipped config.
Anonymous memory (`RssAnon`) is what the system cannot take back by writing to files, so mapped scratch files do not
count. It is read from `/proc`, every 20 ms: this benchmark is for Linux only. The defaults take half an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from timing import load_average

from medseg.errors import MedsegError
from medseg.phantoms.vessels import VesselPhantom, make_vessel_phantom, write_phantom

PHANTOM_SHAPE = (128, 128, 100)
TRAINING = ("--set", "stego.steps=100", "--set", "patches.per_case=40", "-q")
GIGABYTES_FOR_200 = 4.0
COPIES_AN_ADDED_VOXEL = 3
SECONDS_BETWEEN = 0.02


def write_mirrored(path: Path, phantom: VesselPhantom, shape: tuple[int, int, int]) -> None:
    """Write the phantom mirrored until it fills `shape`, so that its vessels go on across the seams."""
    folded = [np.arange(length) % (2 * size) for length, size in zip(shape, phantom.image.shape, strict=True)]
    indices = [np.minimum(n, 2 * size - 1 - n) for n, size in zip(folded, phantom.image.shape, strict=True)]
    nib.openers.Opener.default_compresslevel = 1
    to_left_and_back = phantom.affine @ np.diag([-1, -1, 1, 1])  # as many scanners write it: turning it costs copies
    nib.save(nib.Nifti1Image(phantom.image[np.ix_(*indices)], to_left_and_back), path)


def run_medseg(*arguments: str) -> int:
    """Run `medseg` in a process of its own; return its largest anonymous memory in bytes.

    Raises:
        MedsegError: it failed; what it said stands above.
    """
    process = subprocess.Popen([sys.executable, "-m", "medseg", *arguments], stdout=subprocess.DEVNULL)
    status, most = Path("/proc") / str(process.pid) / "status", 0
    while process.poll() is None:
        lines = status.read_text().splitlines()
        most = max(most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
        time.sleep(SECONDS_BETWEEN)
    if process.returncode:
        raise MedsegError(f"medseg {arguments[0]} must end well, got status {process.returncode}; see its lines above")
    return most * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="reconstructions of each scan; the largest counts")
    parser.add_argument("--side", type=int, default=512, help="voxels along i and j")
    parser.add_argument("--slices", type=int, nargs=2, default=(200, 400), help="voxels along k of the two scans")
    wanted = parser.parse_args()
    if not Path("/proc/self/status").is_file():
        parser.error("this benchmark reads /proc, which only Linux has")
    phantom = make_vessel_phantom(seed=1, shape=PHANTOM_SHAPE)
    most = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom(folder / "small", "phantom", phantom)
        run_medseg("train", "tof_mra", "--scans", str(folder / "small"), "--run", str(folder / "run"), *TRAINING)
        for slices in wanted.slices:
            shape = (wanted.side, wanted.side, slices)
            scan, masks = folder / f"slices_{slices}.nii.gz", folder / f"masks_{slices}"
            write_mirrored(scan, phantom, shape)
            before, start, peaks = load_average(), time.monotonic(), []
            for repeat in range(wanted.repeats):
                out = masks / str(repeat)
                peaks.append(run_medseg("reconstruct", str(folder / "run"), str(scan), "-o", str(out)))
            seconds = (time.monotonic() - start) / wanted.repeats
            found = int(np.count_nonzero(nib.load(out / f"slices_{slices}_seg.nii.gz").dataobj))
            most.append(max(peaks))
            print(
                f"{' x '.join(map(str, shape))} voxels, {found} of them vessel: {most[-1] / 1e9:.2f} GB of anonymous "
                f"memory, {most[-1] / np.prod(shape):.1f} bytes a voxel, {seconds:.0f} s, {wanted.repeats} repeats, "
                f"load {before:.1f} before and {load_average():.1f} after",
                flush=True,
            )
    added = (most[1] - most[0]) / (wanted.side**2 * (wanted.slices[1] - wanted.slices[0]))
    print(f"the shorter scan: {most[0] / 1e9:.2f} GB, target for 512 x 512 x 200 below {GIGABYTES_FOR_200:g} GB")
    print(f"an added voxel: {added:.1f} bytes, {added / 4:.2f} float32 copies, target at most {COPIES_AN_ADDED_VOXEL}")


if __name__ == "__main__":
    main()
