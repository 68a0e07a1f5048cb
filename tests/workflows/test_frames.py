"""Ultrasound pictures and cines come back frame by frame, with areas and without the names that are burnt in."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg.config import Config, load_config
from medseg.naming.classes import ClassEntry, Naming
from medseg.reconstruction.uncertainty import Agreement
from medseg.scans.cases import Case
from medseg.scans.stacks import read_stack
from medseg.workflows import parts
from medseg.workflows.predictors import Predicted, Predictor
from medseg.workflows.reconstruction import CaseWriter, write_cases

HEIGHT, WIDTH = 240, 320
NAME = (slice(8, 24), slice(8, 70))
"""Where a name is burnt in, outside the sector."""
CLASSES = (
    ClassEntry(1, "sector tissue", "#0072b2", background=True),
    ClassEntry(2, "liver", "#d55e00"),
    ClassEntry(3, "mass", "#cc79a7"),
)


@dataclass(frozen=True)
class Painted(Predictor):
    """Calls the upper half of the sector grid liver, in later frames more of it."""

    def predict(self, sample: Mapping[str, Any], config: Config, device: torch.device) -> Predicted:
        probabilities = np.zeros((3, *sample["image"].shape[1:]), np.float32)
        for k in range(probabilities.shape[3]):
            probabilities[1, : 80 + 10 * k, :, k] = 0.9
        probabilities[0] = 0.9 - probabilities[1]
        agreement = Agreement(probabilities.shape)
        agreement.add(probabilities)
        return Predicted({"student": probabilities}, agreement, {})


def frames(count: int) -> np.ndarray:
    """A fan full of speckle, and beside it a name."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    radius, angle = np.hypot(rows + 30, columns - 160), np.arctan2(columns - 160, rows + 30)
    fan = (radius > 50) & (radius < 250) & (abs(angle) < 0.6)
    speckle = np.stack([gaussian_filter(rng.rayleigh(1, (HEIGHT, WIDTH)), 1) for _ in range(count)])
    shown = np.clip(fan * speckle * 80, 0, 255).astype(np.uint8)
    shown[:, NAME[0], NAME[1]] = np.tile([255, 0, 0], (16, 21))[:, :62]
    return shown


def save_tiff(path: Path, pages: np.ndarray) -> Path:
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)
    return path


def write(source: Path, out: Path, *overrides: str) -> dict[str, Any]:
    """The manifest of one case."""
    config = load_config("liver_ultrasound", ["reconstruct.refine=[]", *overrides])
    naming = {"student": Naming(CLASSES, "rules")}
    geometry = parts.patch_geometry(config.patches)
    predictor = Painted("student", naming, {}, (), geometry, "painted", lambda _: False)
    writer = CaseWriter(predictor, config, source.parent, out, torch.device("cpu"))
    case = Case("a", source, "a")
    write_cases(writer, [case], parts.start_fabric(config.run), failed={}, model="painted")
    manifest: dict[str, Any] = json.loads((out / "a_manifest.json").read_text(encoding="utf-8"))
    assert all((out / name).is_file() for name in manifest["files"])
    return manifest


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_cine_gets_the_area_of_each_class_in_each_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = save_tiff(tmp_path / "a.tif", frames(3)), tmp_path / "out"
    with caplog.at_level(logging.INFO):
        manifest = write(source, out, "prepare.pixel_mm=0.5")
    stack = read_stack(out / "a_seg.nii.gz")
    assert stack.shape == (HEIGHT, WIDTH, 3)
    for k in range(3):
        assert np.array_equal(opened(out / "a_frames" / f"{k + 1:04d}_seg.png"), stack[..., k])
    with (out / "a_areas.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    liver = [row for row in rows if row["class"] == "liver"]
    assert [int(row["frame"]) for row in liver] == [1, 2, 3]
    pixels = [int((stack[..., k] == 2).sum()) for k in range(3)]
    assert [int(row["pixels"]) for row in liver] == pixels
    assert pixels[0] < pixels[1] < pixels[2]
    assert float(liver[0]["cm2"]) == pytest.approx(pixels[0] * 0.25 / 100, abs=1e-3)
    assert manifest["area_px"]["liver"] == pytest.approx(np.mean(pixels), abs=0.1)
    assert manifest["area_cm2"]["liver"] == pytest.approx(np.mean(pixels) * 0.25 / 100, abs=1e-3)
    assert {"a_areas.csv", "plots/a_areas.png"} <= manifest["files"].keys()
    assert f"liver {manifest['area_cm2']['liver']:.1f} cm2" in caplog.text
    (summary,) = json.loads((out / "summary.json").read_text(encoding="utf-8"))["cases"]
    assert summary["area_cm2"] == manifest["area_cm2"]


def test_a_burnt_in_name_does_not_leave(tmp_path: Path) -> None:
    source, out = save_tiff(tmp_path / "a.tif", frames(2)), tmp_path / "out"
    write(source, out)
    for k in range(2):
        overlay = opened(out / "a_frames" / f"{k + 1:04d}_overlay.png")
        assert not overlay[NAME].any()
        labels = opened(out / "a_frames" / f"{k + 1:04d}_seg.png")
        assert not labels[NAME].any()
        deep = overlay[labels == 1].astype(int)  # sector tissue is what remains: it is not tinted
        assert np.abs(deep - deep[:, :1]).max() == 0
        assert deep.mean() > 20


def test_one_picture_has_an_area_and_no_curve(tmp_path: Path) -> None:
    source, out = save_tiff(tmp_path / "a.png", frames(1)), tmp_path / "out"
    manifest = write(source, out)
    assert manifest["area_px"]["liver"] == int((opened(out / "a_seg.png") == 2).sum()) > 1000
    assert "area_cm2" not in manifest
    assert manifest["share"]["liver"] == pytest.approx(manifest["area_px"]["liver"] / (HEIGHT * WIDTH))
    assert {path.name for path in out.iterdir() if path.name.startswith("a_")} == {
        *(f"a_{kind}.png" for kind in ("seg", "colour", "overlay", "uncertainty", "region")),
        "a_manifest.json",
    }
    assert not (out / "plots").exists()


def test_frames_may_inform_their_neighbours(tmp_path: Path) -> None:
    source = save_tiff(tmp_path / "a.tif", frames(3))
    alone = write(source, tmp_path / "alone")
    together = write(source, tmp_path / "together", "reconstruct.refine=[{frames: {sd_frames: 5}}]")
    assert together["area_px"] != alone["area_px"]
    stack = read_stack(tmp_path / "together" / "a_seg.nii.gz")
    areas = [int((stack[..., k] == 2).sum()) for k in range(3)]
    assert max(areas) - min(areas) < 100


def test_a_volume_goes_its_own_way(tmp_path: Path) -> None:
    slices = frames(3)
    slices[:, NAME[0], NAME[1]] = 0
    stored = slices.transpose(2, 1, 0)[:, ::-1]  # right to left, then up: as slices of a body lie
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([-0.5, 0.5, 2.0, 1.0])), tmp_path / "a.nii.gz")
    manifest = write(tmp_path / "a.nii.gz", tmp_path / "out")
    labels = np.asarray(nibabel.load(tmp_path / "out" / "a_seg.nii.gz").dataobj)
    assert labels.shape == stored.shape
    assert manifest["ml"]["liver"] == pytest.approx(int((labels == 2).sum()) * 0.5 / 1000)
    assert manifest["ml"]["liver"] > 0
    assert "area_px" not in manifest
    assert {"a_prob.nii.gz", "plots/a_overlay.png"} <= manifest["files"].keys()


def test_a_volume_of_one_slice_has_an_area(tmp_path: Path) -> None:
    stored = frames(1).transpose(2, 1, 0)[:, ::-1].copy()
    stored[NAME[1], :, :] = 0
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([-0.5, 0.5, 2.0, 1.0])), tmp_path / "a.nii.gz")
    manifest = write(tmp_path / "a.nii.gz", tmp_path / "out")
    assert manifest["area_cm2"]["liver"] == pytest.approx(manifest["area_px"]["liver"] * 0.25 / 100, abs=1e-3)
