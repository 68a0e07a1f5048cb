"""How much memory and time a cine takes: reading, preparing and writing 30 and 300 frames of 1024 x 768.

    python benchmarks/cine_memory.py [--frames 30 300]

A painted fan with a moving ellipse is written as a video; in place of a network stands an answer that costs nothing, so
that what is measured is everything else of `medseg segment`. Each cine is done by a process of its own. Resident memory
is its largest (`ru_maxrss`, mapped scratch files included), for Linux and macOS.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from timing import load_average

from medseg.config import load_config
from medseg.naming.classes import ClassEntry, Naming
from medseg.reconstruction.uncertainty import Agreement
from medseg.scans.cases import Case
from medseg.workflows import parts
from medseg.workflows.predictors import Predicted, Predictor
from medseg.workflows.reconstruction import CaseWriter

HEIGHT, WIDTH = 768, 1024
APEX, NEAR, FAR, HALF_ANGLE = (-60.0, 512.0), 120.0, 780.0, 0.6
MOST_ADDED_MB = 150
CLASSES = (("sector tissue", "#0072b2"), ("liver", "#d55e00"), ("mass", "#cc79a7"))


def paint(path: Path, count: int) -> None:
    """Write a video of a fan full of speckle, in which an ellipse moves down and up."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    radius, angle = np.hypot(rows - APEX[0], columns - APEX[1]), np.arctan2(columns - APEX[1], rows - APEX[0])
    fan = (radius > NEAR) & (radius < FAR) & (abs(angle) < HALF_ANGLE)
    with iio.imopen(path, "w", plugin="pyav") as video:
        video.init_video_stream("libx264", fps=25)
        for number in range(count):
            depth = 400 + 40 * np.sin(number / 10)
            inside = ((rows - depth) / 160) ** 2 + ((columns - 500) / 210) ** 2 < 1
            speckle = gaussian_filter(rng.rayleigh(1, (HEIGHT, WIDTH)), 2)
            grey = np.clip(fan * speckle * np.where(inside, 60, 90), 0, 255).astype(np.uint8)
            video.write_frame(np.repeat(grey[..., None], 3, axis=2))


@dataclass(frozen=True)
class Painted(Predictor):
    """Says the same of every frame: a liver in the middle, a mass within, sector tissue around.

    Attributes:
        asked: when the prepared cine came, and how many frames it has.
    """

    asked: list[float] = field(default_factory=list)

    def predict(self, sample, config, device):  # type: ignore[no-untyped-def]
        """Class probabilities, on which all agree."""
        shape = sample["image"].shape[1:]
        self.asked[:] = time.monotonic(), shape[2]
        v, u = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
        liver = 1 / (1 + np.exp(20 * (np.hypot(u / 0.8, (v - 0.5) / 0.35) - 1)))
        mass = 1 / (1 + np.exp(20 * (np.hypot(u / 0.1, (v - 0.5) / 0.1) - 1)))
        classes = np.stack([1 - liver, liver * (1 - mass), liver * mass]).astype(np.float32)
        probabilities = np.repeat(classes[..., None], shape[2], axis=3)
        agreement = Agreement(probabilities.shape)
        agreement.add(probabilities)
        return Predicted({self.main: probabilities}, agreement, {})


def write_one(cine: Path, out: Path) -> None:
    """Prepare and write one cine, and print seconds a frame of both and the largest resident memory in MB."""
    config = load_config("liver_ultrasound", ["prepare.pixel_mm=0.3"])
    entries = tuple(ClassEntry(value, name, colour) for value, (name, colour) in enumerate(CLASSES, start=1))
    naming = {"student": Naming(entries, "rules")}
    predictor = Painted("student", naming, {}, (), parts.patch_geometry(config.patches), "painted", lambda _: False)
    start = time.monotonic()
    CaseWriter(predictor, config, cine.parent, out, torch.device("cpu")).write(Case(cine.stem, cine, cine.stem))
    written = time.monotonic() - predictor.asked[0]
    prepared, count = predictor.asked[0] - start, predictor.asked[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(f"{prepared / count:.3f} {written / count:.3f} {peak:.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=(30, 300), help="frames of the two cines")
    parser.add_argument("--one", type=Path, nargs=2, metavar=("CINE", "OUT"), help="do one cine in this process")
    wanted = parser.parse_args()
    if wanted.one:
        write_one(*wanted.one)
        return
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for count in wanted.frames:
            cine, out = Path(name) / f"cine_{count}.mp4", Path(name) / f"masks_{count}"
            paint(cine, count)
            before = load_average()
            command = [sys.executable, __file__, "--one", str(cine), str(out)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            prepare, write, peak = (float(number) for number in answer.splitlines()[-1].split())
            peaks.append(peak)
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / count / 1e6
            print(
                f"{count} frames of {WIDTH} x {HEIGHT}: {peak:.0f} MB; seconds a frame: {prepare:.2f} to prepare, "
                f"{write:.2f} to write {size:.1f} MB; load {before:.1f} before and {load_average():.1f} after",
                flush=True,
            )
    print(f"the longer cine takes {peaks[1] - peaks[0]:.0f} MB more, target at most {MOST_ADDED_MB} MB")


if __name__ == "__main__":
    main()
