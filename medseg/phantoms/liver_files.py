"""This file writes liver phantoms as the folders that medseg reads: pictures, cines or volumes, each with its labels.

imgs/train/liver_001.png      the picture (`.mp4`: a cine); every fourth case lies in `val`
labels/train/liver_001.png    its label (`.tif`: one page a frame)
truth/train/liver_001.npz     `overlays` and `vessels`, n h w; `.json`: the sector and what was drawn
classes.yaml                  the names of the labels
liver_001_img.nii.gz, ..._label.nii.gz, ..._facts.json    where volumes are asked for
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import nibabel as nib
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import replacing, write_text
from medseg.phantoms.abdomen import WITHOUT_LIVER
from medseg.phantoms.liver import LiverPhantom, Size, make_liver_phantom
from medseg.progress import track

Form = Literal["pictures", "cines", "volumes"]
PLANES, PLANE_MM = 24, 3.0
"""Slices of a volume and their distance."""
_FRAMES_A_SECOND = 12
_QUALITY = "12"
"""H.264's constant rate factor: 0 is without loss, 23 usual; at 12 the speckle survives."""
_CLASSES = """\
# 0 is outside the sector.
classes:
  - {value: 1, name: sector tissue, colour: "#4363d8"}
  - {value: 2, name: liver, colour: "#e6194b"}
  - {value: 3, name: mass, colour: "#ffe119"}
"""


def write_liver_phantoms(
    folder: Path,
    *,
    cases: int,
    seed: int,
    size: Size = "normal",
    form: Form = "pictures",
    frames: int = 24,
    without_liver: bool = False,
    **settings: Any,
) -> list[Path]:
    """Write phantoms that differ in probe, depth, gain, anatomy, mass and marks.

    Args:
        folder: made where it is missing.
        cases: how many.
        seed: decides all of them; the first cases of a longer series equal a shorter one.
        size: of the pictures.
        form: single pictures, cines (MP4) or volumes (a sweep of parallel planes).
        frames: of a cine.
        without_liver: thyroids, muscles and water baths instead.
        settings: arguments of `make_liver_phantom` that hold for all cases and win over what is drawn.

    Returns:
        The images, in order.
    """
    if cases < 1:
        raise MedsegError(f"the number of phantoms must be at least 1, got {cases}; ask for one or more")
    if form == "cines" and frames < 2:
        raise MedsegError(f"a cine must have at least 2 frames, got {frames}; ask for more, or for pictures")
    shots = {"pictures": 1, "cines": frames, "volumes": PLANES}[form]
    images = []
    for number in track(range(1, cases + 1), "phantoms", cases):
        drawn: dict[str, Any] = {"frames": shots, "size": size}
        if form == "volumes":
            drawn |= {"sweep_mm": PLANE_MM, "overlays": False}
        if without_liver:
            drawn["scene"] = WITHOUT_LIVER[number % len(WITHOUT_LIVER)]
            drawn["probe"] = "linear" if drawn["scene"] == "thyroid" else None
        case_seed = int(np.random.default_rng([seed, number]).integers(2**31))
        phantom = make_liver_phantom(seed=case_seed, **{**drawn, **settings})
        name, split = f"liver_{number:03d}", "train" if number % 4 else "val"
        images.append(
            _write_volume(folder, name, phantom) if form == "volumes" else _write(folder, split, name, phantom)
        )
    if form != "volumes":
        write_text(folder / "classes.yaml", _CLASSES)
    return images


def _write(folder: Path, split: str, name: str, phantom: LiverPhantom) -> Path:
    """One picture or cine with its label and truth; returns the path of the image."""
    is_cine = len(phantom.pictures) > 1
    image = folder / "imgs" / split / f"{name}{'.mp4' if is_cine else '.png'}"
    pages = [Image.fromarray(label) for label in phantom.labels]
    if is_cine:
        _save(image, lambda path: _write_video(path, phantom.pictures))
        label = folder / "labels" / split / f"{name}.tif"
        _save(
            label, lambda path: pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_deflate")
        )
    else:
        _save(image, Image.fromarray(phantom.pictures[0]).save)
        _save(folder / "labels" / split / f"{name}.png", pages[0].save)
    truth = folder / "truth" / split / name
    arrays = {"overlays": phantom.overlays, "vessels": phantom.vessels}
    _save(truth.with_suffix(".npz"), lambda path: np.savez_compressed(path, allow_pickle=False, **arrays))
    if is_cine:
        _save_stack(truth.with_name(f"{name}_label.nii.gz"), phantom.labels, (1.0, 1.0, 1.0))
    write_text(truth.with_suffix(".json"), json.dumps(phantom.facts, indent=1) + "\n")
    return image


def _write_volume(folder: Path, name: str, phantom: LiverPhantom) -> Path:
    """A sweep as a volume in mm with its label; returns the path of the volume."""
    pixel_mm = float(phantom.facts["mm_per_px"])
    spacing = (pixel_mm, pixel_mm, float(phantom.facts["sweep_mm"]))
    image = folder / f"{name}_img.nii.gz"
    _save_stack(image, np.rint(phantom.pictures.mean(axis=-1)).astype(np.uint8), spacing)
    _save_stack(folder / f"{name}_label.nii.gz", phantom.labels, spacing)
    write_text(folder / f"{name}_facts.json", json.dumps(phantom.facts, indent=1) + "\n")
    return image


def _save(path: Path, save: Callable[[Path], object]) -> None:
    with replacing(path) as beside:
        save(beside)


def _save_stack(path: Path, frames: UInt8[np.ndarray, "n h w"], spacing: tuple[float, float, float]) -> None:
    """Frames as axial slices: columns run from right to left, rows from front to back."""
    values = np.ascontiguousarray(frames[:, ::-1].transpose(2, 1, 0))
    nifti = nib.Nifti1Image(values, np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))
    nifti.header.set_xyzt_units("mm")
    _save(path, lambda beside: nib.save(nifti, beside))


def _write_video(path: Path, pictures: UInt8[np.ndarray, "n h w 3"]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FRAMES_A_SECOND, options={"crf": _QUALITY})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # more threads make other bytes
        stream.time_base = Fraction(1, _FRAMES_A_SECOND)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
