"""This file shows and measures how sectors are found and overlays filled in, on labelled pictures and a real sweep.

    MEDSEG_TEST_DATA=DATA python benchmarks/liver_sector.py MONTAGE.png [--half tuning|check|both]

Constants were chosen on the *tuning* half, every second training picture; the *check* half are the others. The outlines
were drawn by hand with few corners, so that a perfect sector does not overlap with them fully.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy.ndimage import binary_erosion

from medseg.prepare.overlays import cleaned_frame, find_overlays, grey_of
from medseg.prepare.sector import Sector, find_sector
from medseg.prepare.ultrasound import prepare_frame
from medseg.scans.readers import read_image, read_labels

HALVES = {"tuning": slice(0, None, 2), "check": slice(1, None, 2), "both": slice(None)}
SHOWN_PICTURES, SHOWN_FRAMES, SHOWN_SLICES = 20, 10, 6
TILE = (240, 320)
BRIGHTER = 1.8
"""Factor by which pictures are shown brighter, so that dark parts can be judged."""
FAILED = 0.8
"""Overlap below which a sector counts as failed."""


class Measured(NamedTuple):
    """Of one picture: overlap of the sector, share of organ pixels changed, seconds for sector and for overlays."""

    overlap: float
    organ_changed: float
    sector_s: float
    overlays_s: float


def main() -> None:
    """Measure, print the table, write the montage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("montage", type=Path, help="PNG to write")
    parser.add_argument("--half", choices=list(HALVES), default="tuning", help="which training pictures")
    arguments = parser.parse_args()
    data = Path(os.environ["MEDSEG_TEST_DATA"])
    rows = measured_pictures(data / "us_liver_aul", HALVES[arguments.half])
    rows += swept_frames(data / "us_liver_sweep") + swept_slices(data / "us_liver_sweep")
    Image.fromarray(np.concatenate(rows)).save(arguments.montage)


def measured_pictures(folder: Path, half: slice) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """Print the table of the labelled pictures, and give rows of the montage."""
    measured, rows = {}, []
    for path in sorted((folder / "imgs/train").glob("*.jpg"))[half]:
        picture = np.moveaxis(read_image(path).numpy()[..., 0], 0, -1)
        label = read_labels(folder / "labels/train" / f"{path.stem}.png").numpy()[0, :, :, 0]
        start = time.perf_counter()
        sector = find_sector(grey_of(picture))
        between = time.perf_counter()
        overlays = find_overlays(picture)
        end = time.perf_counter()
        organ = label >= 2
        overlap = 0.0 if sector is None else iou(sector.mask(label.shape), label > 0)
        changed = float(overlays[organ].mean()) if organ.any() else 0.0
        measured[path.stem] = Measured(overlap, changed, between - start, end - between)
        if len(rows) < SHOWN_PICTURES and sector is not None:
            rows.append(shown(picture, sector, overlays, label > 0))
    print_table(measured)
    return rows


def print_table(measured: dict[str, Measured]) -> None:
    """Overlap, organ pixels changed, and times; the worst by name."""
    overlaps, changed, sector_s, overlays_s = np.array(list(measured.values())).T
    worst = sorted(measured, key=lambda name: measured[name].overlap)[:3]
    print(f"pictures                        {len(measured)}")
    print(f"overlap with outline, median    {np.median(overlaps):.3f}")
    print(f"overlap with outline, worst     {', '.join(f'{measured[n].overlap:.3f} ({n})' for n in worst)}")
    print(f"not found / below {FAILED}           {(overlaps == 0).sum()} / {(overlaps < FAILED).sum()}")
    print(f"organ pixels changed            mean {changed.mean():.3%}, most {changed.max():.3%}")
    print(f"seconds: sector, overlays       {np.median(sector_s):.2f}, {np.median(overlays_s):.2f}")


def swept_frames(folder: Path) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """The same of tracked frames, whose fan is known."""
    fan = json.loads((folder / "poses.json").read_text())["fan"]
    half = float(np.radians(fan["half_angle_deg"]))
    column, row = fan["apex_px"]
    true = Sector(row, column, fan["short_radius_px"], fan["long_radius_px"], -half, half)
    rows, overlaps = [], []
    paths = sorted((folder / "frames").glob("*.png"))
    for path in [paths[n] for n in np.linspace(0, len(paths) - 1, SHOWN_FRAMES).astype(int)]:
        picture = read_image(path).numpy()[0, :, :, 0]
        sector = find_sector(picture)
        overlaps.append(0.0 if sector is None else iou(sector.mask(picture.shape), true.mask(picture.shape)))
        if sector is not None:
            rows.append(shown(picture, sector, find_overlays(picture), true.mask(picture.shape)))
    print(f"sweep, overlap with its fan     median {np.median(overlaps):.3f}, worst {min(overlaps):.3f}")
    return rows


def swept_slices(folder: Path) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """The same of axial slices of the volume made of them, whose mask is given."""
    volume, support = (
        np.asarray(read_image(folder / f"{name}_1mm.nii.gz"))[0] for name in ("volume", "volume_support")
    )
    rows, overlaps = [], []
    for k in np.linspace(0, volume.shape[2] - 1, SHOWN_SLICES + 2).astype(int)[1:-1]:
        # Stored right to left and front to back (axes L, P): transposed, rows go from front to back.
        picture, mask = volume[:, :, k].T / volume.max(), support[:, :, k].T > 0
        sector = find_sector(picture, mask)
        overlaps.append(0.0 if sector is None else iou(sector.mask(mask.shape), mask))
        if sector is not None:
            rows.append(shown(picture, sector, np.zeros_like(mask), mask))
    print(f"slices, overlap with the mask   {', '.join(f'{overlap:.2f}' for overlap in overlaps)}")
    return rows


def iou(one: Bool[np.ndarray, "h w"], two: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union."""
    return float((one & two).sum() / (one | two).sum())


def shown(
    picture: Float[np.ndarray, "h w *c"],
    sector: Sector,
    overlays: Bool[np.ndarray, "h w"],
    outline: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "_h _w 3"]:
    """The picture with its outline (red) and sector (green), its overlays, what is left of it, and the sector grid."""
    grey = grey_of(picture)
    outlined, marked = as_colours(grey), as_colours(grey)
    for mask, colour in ((outline, (255, 60, 60)), (sector.mask(grey.shape), (60, 255, 60))):
        outlined[mask & ~binary_erosion(mask, iterations=max(1, max(grey.shape) // 300))] = colour
    marked[overlays] = (255, 60, 60)
    polar = as_colours(prepare_frame(picture, sector))
    return np.concatenate(
        [tile(part) for part in (outlined, marked, as_colours(grey_of(cleaned_frame(picture, sector))), polar)], axis=1
    )


def as_colours(grey: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey values as a brighter picture."""
    return np.repeat((np.clip(grey * BRIGHTER, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)


def tile(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_h _w 3"]:
    """A picture in a tile, its shape kept."""
    height, width = TILE
    image = Image.fromarray(picture)
    scale = min(height / image.height, width / image.width)
    framed = Image.new("RGB", (width, height))
    framed.paste(image.resize((round(image.width * scale), round(image.height * scale))))
    return np.asarray(framed)


if __name__ == "__main__":
    main()
