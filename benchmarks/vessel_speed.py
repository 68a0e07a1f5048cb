"""What the vessel methods cost, as ratios in one run: the flux rule, the student's prediction and training, `segment`.

    python benchmarks/vessel_speed.py --work DIR [flux student training segment]

`flux`: maps and rule against scikit-image's Frangi filter with three scales, on one volume of 160^3 voxels. `student`:
prediction of that volume against the network's convolutions alone, with the same shapes and precision. `training`:
steps a second, and how much of a step it takes to draw the windows. `segment`: the whole command on a phantom head of
512 x 512 x 160 voxels, in a process of its own: seconds, and the largest memory of that process with what it mapped of
its scratch files (POSIX only). What is compared is measured in turns, so that both see the same machine; convolutions
have no norms, because prediction folds them. The phantom head is written once and kept, as is what was measured of
`segment`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.data import MetaTensor
from skimage.filters import frangi
from timing import Work, compare, load_average
from torch import Tensor, nn

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.errors import MedsegError
from medseg.features.student.precision import half_precision
from medseg.features.student.training import train_student
from medseg.features.student.vessels.course import VesselCourse, VesselSettings
from medseg.features.student.vessels.network import folded
from medseg.features.student.vessels.student import VesselStudent, load_student
from medseg.features.student.vessels.volumes import store_volume
from medseg.features.student.vessels.windows import draw_windows
from medseg.features.teachers.vessels import teach
from medseg.files import read_json, write_json
from medseg.phantoms.vessels import make_vessel_phantom, write_phantom
from medseg.prepare.vesselness import flux_maps, flux_rule, tissue_median

PARTS = ("flux", "student", "training", "segment")
SIDE, SPACING = 160, (0.5, 0.5, 0.6)
HEAD_SIDE, HEAD_SLICES, HEAD_SPACING = 512, 160, (0.45, 0.45, 0.8)
FEW_STEPS, MORE_STEPS, WINDOWS_DRAWN = 10, 40, 20
CPU = torch.device("cpu")


def main() -> int:
    """Measure the parts that were asked for and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--work", type=Path, required=True, help="folder for the phantoms and the results of segment")
    parser.add_argument("--student", default="shipped", help="the network: shipped, or a folder with a student")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each pair (default 3)")
    parser.add_argument("--side", type=int, default=SIDE, help="voxels along each axis of the small volume")
    parser.add_argument("--head-side", type=int, default=HEAD_SIDE, help="voxels along i and j of the head")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    if strange := set(asked.parts) - set(PARTS):
        parser.error(f"PART must be among {', '.join(PARTS)}, got {', '.join(sorted(strange))}")
    start_logging(quiet=True, verbose=False)
    if set(asked.parts) & set(PARTS[:3]):
        sample = small_sample(asked.side)
        if "flux" in asked.parts:
            time_flux(sample, asked.repeats)
        if "student" in asked.parts:
            time_prediction(load_student(asked.student), sample, asked.repeats)
        if "training" in asked.parts:
            time_training(load_student(asked.student), sample, asked.work / "training")
    if "segment" in asked.parts:
        time_segment(asked.work, asked.student, asked.head_side)
    return 0


def small_sample(side: int) -> dict[str, Any]:
    """A prepared phantom whose every voxel is looked at."""
    phantom = make_vessel_phantom(seed=0, shape=(side, side, side), spacing=SPACING)
    everywhere = np.ones(phantom.image.shape, bool)
    image = phantom.image.astype(np.float32)
    image /= tissue_median(image, everywhere)
    maps = flux_maps(image, everywhere, SPACING)
    return {
        "image": MetaTensor(torch.from_numpy(image)[None], affine=torch.diag(torch.tensor([*SPACING, 1.0]))),
        "region": torch.ones(1, *image.shape, dtype=torch.uint8),
        "salience": torch.from_numpy(maps.salience)[None],
        "tubularity": torch.from_numpy(maps.tubularity)[None],
        "case_id": "phantom",
        "facts": {"contrast_scale": maps.contrast_scale, "flux_alarm": maps.alarm},
    }


def time_flux(sample: dict[str, Any], repeats: int) -> None:
    """The rule against Frangi's filter."""
    image = np.asarray(sample["image"][0])
    everywhere = np.ones(image.shape, bool)

    def rule() -> np.ndarray:
        return flux_rule(image, everywhere, SPACING, maps=flux_maps(image, everywhere, SPACING))

    def filtered() -> np.ndarray:
        return frangi(image, sigmas=(1, 2, 3), black_ridges=False)

    print(f"flux rule and Frangi's filter on {' x '.join(map(str, image.shape))} voxels", flush=True)
    compare(Work("flux rule", rule), Work("Frangi", filtered), repeats, unit="volume", target="at most 2x")


def time_prediction(student: VesselStudent, sample: dict[str, Any], repeats: int) -> None:
    """The student's maps against its convolutions alone."""
    calls = convolutions(student, sample)

    def bare() -> None:
        with torch.inference_mode(), half_precision(CPU):
            for layer, shown in calls:
                layer(shown)

    def maps() -> object:
        return student.maps(sample, CPU)

    bare()
    print(f"\nthe student on {' x '.join(map(str, sample['image'].shape[1:]))} voxels", flush=True)
    target = "at most 1.43x, 70 % of the rate"
    compare(Work("prediction", maps), Work("convolutions", bare), repeats, unit="volume", target=target)


def convolutions(student: VesselStudent, sample: dict[str, Any]) -> list[tuple[nn.Conv3d, Tensor]]:
    """Every convolution of a prediction in its order, with values of the shape, type and layout that it is shown."""
    net, calls = folded(student.net), list[tuple[nn.Conv3d, Tensor]]()

    def note(layer: nn.Module, shown: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv3d)
        calls.append((layer, torch.rand_like(shown[0])))

    for layer in net.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_pre_hook(note)
    with patch("medseg.features.student.vessels.student.folded", return_value=net):
        student.maps(sample, CPU)
    for layer in net.modules():
        layer._forward_pre_hooks.clear()
    return calls


def time_training(student: VesselStudent, sample: dict[str, Any], folder: Path) -> None:
    """Steps a second without what a training costs only once, and the share of a step that draws its windows."""
    arrays = [np.asarray(sample[name][0]) for name in ("image", "region", "salience", "tubularity")]
    labels = teach(arrays[0], arrays[1] > 0, arrays[2], arrays[3], SPACING, alarm=sample["facts"]["flux_alarm"])
    volume = store_volume(folder / "volume", sample, labels, key="speed")
    fabric = Fabric(accelerator="cpu", devices=1)
    before, seconds = load_average(), []
    for steps in (FEW_STEPS, MORE_STEPS):
        run = folder / f"steps_{steps}"
        shutil.rmtree(run, ignore_errors=True)
        settings = VesselSettings(widths=student.net.widths, rounds=1, steps=steps)
        start = time.perf_counter()
        train_student(VesselCourse([volume], settings, start=student), run_dir=run, fabric=fabric, seed=0)
        seconds.append(time.perf_counter() - start)
    a_step = (seconds[1] - seconds[0]) / (MORE_STEPS - FEW_STEPS)
    start = time.perf_counter()
    for number in range(WINDOWS_DRAWN):
        seeds = [(0, 1, number, item) for item in range(settings.batch)]
        draw_windows([volume], seeds, window=settings.window, centred=settings.centred, painted=settings.painted)
    drawing = (time.perf_counter() - start) / WINDOWS_DRAWN
    print(
        f"\nstudent training, {settings.batch} windows of {settings.window}^3, {torch.get_num_threads()} threads: "
        f"{1 / a_step:.2f} steps a second, {a_step:.3f} s a step, {drawing:.3f} s of it to draw the windows; "
        f"load {before:.1f} before and {load_average():.1f} after",
        flush=True,
    )


def time_segment(work: Path, student: str, side: int) -> None:
    """The whole command in a process of its own, once; with the same folder the result is only printed."""
    scan, out, done = work / f"head_{side}_img.nii.gz", work / f"segment_{side}", work / f"segment_{side}.json"
    if not done.is_file():
        if not scan.is_file():
            start = time.perf_counter()
            write_head(work, side)
            print(f"\nphantom head of {side} x {side} voxels: {time.perf_counter() - start:.0f} s", flush=True)
        shutil.rmtree(out, ignore_errors=True)
        command = ["segment", str(scan), "-o", str(out), "--set", f"student.start={student}", "-q"]
        before, start = load_average(), time.perf_counter()
        usage = run_medseg(*command)
        manifest = read_json(next(out.glob("*_manifest.json")))
        found = {
            "shape": manifest["geometry"]["shape"],
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_gb": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
            "region_ml": manifest["facts"]["region_ml"],
            "region_source": manifest["facts"]["region_source"],
            "ml": manifest["ml"],
            "load": [before, load_average()],
        }
        write_json(done, found)
    found = read_json(done)
    print(
        f"\nsegment of {' x '.join(map(str, found['shape']))} voxels, brain of {found['region_ml']:.0f} ml "
        f"({found['region_source']}): {found['seconds']:.0f} s, {found['cpu_seconds']:.0f} s of computing, "
        f"largest memory {found['peak_gb']:.2f} GB, "
        f"load {found['load'][0]:.1f} before and {found['load'][1]:.1f} after",
        flush=True,
    )


def write_head(work: Path, side: int) -> None:
    """A phantom head; its brain mask stays away, as a newcomer has none."""
    slices = HEAD_SLICES * side // HEAD_SIDE
    spacing = tuple(size * HEAD_SIDE / side for size in HEAD_SPACING)
    phantom = make_vessel_phantom(
        seed=3, shape=(side, side, slices), spacing=(spacing[0], spacing[1], spacing[2]), anatomy="head", fat_pads=True
    )
    with TemporaryDirectory(dir=work) as beside:
        image = write_phantom(Path(beside), f"head_{side}", phantom)
        image.replace(work / image.name)


def run_medseg(*arguments: str) -> Any:
    """Run `medseg` in a process of its own; return what it used.

    Raises:
        MedsegError: it failed; what it said stands above.
    """
    process = subprocess.Popen([sys.executable, "-m", "medseg", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MedsegError(f"medseg {arguments[0]} must end well, got status {process.returncode}; see its lines above")
    return usage


if __name__ == "__main__":
    sys.exit(guarded(main))
