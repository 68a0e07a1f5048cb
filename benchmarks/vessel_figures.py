"""The figures of docs/vessels.md, drawn from phantoms of our own with the package's own functions.

    python benchmarks/vessel_figures.py --docs docs

`vessels_teacher.png`: one slice of a phantom on its way from the image to the gated mask, beside the truth.
`vessels_painting.png`: a window of it before and after vessels were painted into it, with labels, twice. The shipped
student never saw this phantom. It takes less than a minute on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medseg.cli import guarded
from medseg.cli.answers import start_logging
from medseg.config import load_config
from medseg.features.student.vessels.painting import noise_sd_of, paint
from medseg.features.student.vessels.student import shipped_student
from medseg.features.teachers.vessels import UNKNOWN, YES, teach
from medseg.files import replacing
from medseg.phantoms.vessels import VesselPhantom, make_vessel_phantom
from medseg.prepare.vesselness import FluxMaps, flux_maps, tissue_median
from medseg.reconstruction.refine import Volume, refine
from medseg.review.plots import orient

PHANTOM: dict[str, Any] = {
    "seed": 7101,  # far from the seeds of training and test phantoms
    "shape": (128, 128, 84),
    "spacing": (0.55, 0.55, 0.65),
    "noise_sd": 0.21,
    "contrast": 2.4,
    "thin_dimming": 0.3,
    "fat": 3.0,
    "fat_pads": True,
    "small_veins": 12,
    "profile_power": 3.5,
    "grain_mm": 0.35,
}
"""Strands of fat, small veins and more noise than usual, so that every step of the method has something to do."""
CORNER, WINDOW = (32, 32, 10), 64
"""First voxel and side of the window that is painted into: most of it is brain."""
PAINTING_SEEDS = (16, 11)
"""Chosen so that the slices show a branch, and a sheet that stays a negative."""
BRIGHTEST = 3.5
"""Tissue medians shown as white."""
YES_COLOUR, UNKNOWN_COLOUR = (1.0, 0.69, 0.0), (0.36, 0.55, 1.0)
_INK, _DPI = "#202124", 100


@dataclass(frozen=True)
class Steps:
    """The phantom on its way.

    Attributes:
        phantom: with the truth.
        volume: image and maps.
        maps: of the flux rule.
        labels: the teacher's.
        probability: the shipped student's.
        mask: of `medseg segment`.
    """

    phantom: VesselPhantom
    volume: Volume
    maps: FluxMaps
    labels: UInt8[np.ndarray, "i j k"]
    probability: Float[np.ndarray, "i j k"]
    mask: Bool[np.ndarray, "i j k"]


def take_steps() -> Steps:
    """Make the phantom and do with it what `medseg segment` does, and what a teacher does."""
    phantom, spacing = make_vessel_phantom(**PHANTOM), PHANTOM["spacing"]
    region = phantom.brain_mask > 0
    image = (phantom.image / tissue_median(phantom.image.astype(np.float32), region)).astype(np.float32)
    maps = flux_maps(image, region, spacing)
    volume = Volume(image, region, maps.salience, maps.tubularity, spacing, maps.alarm, maps.signal)
    labels = teach(image, region, maps.salience, maps.tubularity, spacing, alarm=maps.alarm)
    sample = {
        "image": torch.from_numpy(image)[None],
        "region": torch.from_numpy(phantom.brain_mask)[None],
        "facts": {"contrast_scale": maps.contrast_scale},
    }
    probability = np.asarray(shipped_student().maps(sample)["student_probability"][0])
    mask = refine(probability, volume, load_config("tof_mra").reconstruct.refine)
    return Steps(phantom, volume, maps, labels, probability, mask)


def draw_teacher(steps: Steps, path: Path) -> None:
    """Six views of the slice that holds most arteries."""
    truth = (steps.phantom.label > 0) & steps.volume.region
    k = int(truth.sum((0, 1)).argmax())
    grey = _grey(steps.volume.image)
    views = (
        ("image j, white = 3.5", grey),
        ("flux salience q, white = 1", _as_rgb(np.clip(steps.maps.salience, 0, 1))),
        ("teacher: yes, unknown", _overlaid(grey, steps.labels)),
        ("student's probability", _as_rgb(steps.probability)),
        ("gated mask with its edge", _overlaid(grey, steps.mask.astype(np.uint8))),
        ("truth inside the brain", _overlaid(grey, truth.astype(np.uint8))),
    )
    _save([(title, orient(picture[:, :, k])) for title, picture in views], path, columns=3, panel_inches=2.7)


def draw_painting(steps: Steps, path: Path) -> None:
    """One window before and after two paintings, each in the slice where most was painted."""
    image, spacing = steps.volume.image, PHANTOM["spacing"]
    noise_sd = noise_sd_of(image, steps.volume.region, spacing)
    window = tuple(slice(first, first + WINDOW) for first in CORNER)
    before, said = image[window], steps.labels[window]
    panels = []
    for number, seed in enumerate(PAINTING_SEEDS):
        painted = paint(
            np.random.default_rng(seed),
            before,
            said,
            spacing,
            contrast_scale=steps.maps.contrast_scale,
            noise_sd=noise_sd,
        )
        k = int(((painted.labels == YES) & (said != YES)).sum((0, 1)).argmax())
        greys = [_grey(values) for values in (before, painted.image)]
        views = (greys[0], _overlaid(greys[0], said), greys[1], _overlaid(greys[1], painted.labels))
        titles = ("window", "the teacher's labels", "painted", "labels") if number == 0 else ("",) * len(views)
        panels += [(title, orient(view[:, :, k])) for title, view in zip(titles, views, strict=True)]
    _save(panels, path, columns=4, panel_inches=2.0)


def _grey(image: np.ndarray) -> Float[np.ndarray, "i j k 3"]:
    return _as_rgb(np.clip(image / BRIGHTEST, 0, 1))


def _as_rgb(values: np.ndarray) -> Float[np.ndarray, "i j k 3"]:
    return np.repeat(values[..., None], 3, axis=-1)


def _overlaid(grey: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "i j k 3"]:
    """The picture, darkened, with labels over it: vessels in yellow, unknown voxels in blue."""
    picture = 0.6 * grey
    for label, colour in ((YES, YES_COLOUR), (UNKNOWN, UNKNOWN_COLOUR)):
        share = 0.85 if label == YES else 0.45
        picture[labels == label] = (1 - share) * picture[labels == label] + share * np.array(colour)
    return picture


def _save(panels: Sequence[tuple[str, np.ndarray]], path: Path, *, columns: int, panel_inches: float) -> None:
    rows = -(-len(panels) // columns)
    titled = sum(bool(panels[row * columns][0]) for row in range(rows))
    size = (columns * panel_inches, rows * panel_inches + 0.25 * titled)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for axes, (title, picture) in zip(figure.subplots(rows, columns).flat, panels, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        if title:
            axes.set_title(title, fontsize=9, color=_INK)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=_DPI, format="png")


def main(arguments: Sequence[str]) -> int:
    """Draw both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, required=True, help="folder that receives the figures")
    asked = parser.parse_args(arguments)
    start_logging(quiet=True, verbose=False)
    torch.set_num_threads(1)
    steps = take_steps()
    for name, draw in (("vessels_teacher.png", draw_teacher), ("vessels_painting.png", draw_painting)):
        path = asked.docs / name
        draw(steps, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
