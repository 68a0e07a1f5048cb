"""This file tests where stored voxels lie on the prepared grid: turned, resampled, resized and in a sector."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.features.filterbank import FilterBank
from medseg.patches.slicing import PatchGeometry
from medseg.phantoms.liver_files import write_liver_phantoms
from medseg.prepare.chain import prepare_case
from medseg.prepare.sector import Sector
from medseg.runs import RunRecord
from medseg.scans.cases import Case
from medseg.workflows import parts
from medseg.workflows.voxel_features import features_at, features_at_places, prepared_voxels


def turned_volume(folder: Path) -> Path:
    """Noise with axes that run to the feet, the left and the back, and three voxel sizes."""
    values = np.random.default_rng(0).normal(300, 40, (30, 34, 38)).astype(np.float32)
    affine = np.array([[0.0, -0.8, 0, 20], [0, 0, -0.6, 30], [-1.1, 0, 0, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "turned.nii.gz")
    return folder / "turned.nii.gz"


@pytest.mark.parametrize("spacing", ["null", "[0.9, 0.7, 0.8]"])
def test_voxels_of_a_turned_volume_lie_where_the_affines_say(spacing: str, tmp_path: Path) -> None:
    config = load_config("tof_mra_bank", ["prepare.brain_mask=none", f"prepare.spacing={spacing}"])
    path = turned_volume(tmp_path)
    sample = prepare_case(Case("turned", path, "turned"), parts.preparation(config.prepare))
    voxels = np.random.default_rng(1).integers(1, 29, (60, 3))
    found = prepared_voxels(sample, voxels)
    to_prepared = np.linalg.inv(np.asarray(sample["image"].affine)) @ nibabel.load(path).affine
    exact = (to_prepared @ np.column_stack([voxels, np.ones(60)]).T)[:3].T
    assert np.abs(found - exact).max() <= 0.5 + 1e-3
    assert len(np.unique(found, axis=0)) > 50


def test_pixels_of_a_resized_picture_lie_where_their_share_of_it_says(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    config = load_config("pictures_bank", ["prepare.resize=45"])
    sample = prepare_case(Case("p", tmp_path / "p.png", "p"), parts.preparation(config.prepare))
    assert sample["image"].shape[1:] == (45, 60, 1)
    voxels = np.array([[0, 0, 0], [89, 119, 0], [40, 100, 0], [41, 7, 0]])
    assert prepared_voxels(sample, voxels).tolist() == [[0, 0, 0], [44, 59, 0], [20, 50, 0], [20, 3, 0]]


def test_pixels_of_a_fan_lie_in_the_nearest_cell_and_those_outside_nowhere(tmp_path: Path) -> None:
    write_liver_phantoms(tmp_path, cases=1, seed=3, size="small")
    path = shutil.copy(next(tmp_path.glob("imgs/*/*.png")), tmp_path / "fan.png")
    config = load_config(
        "liver_ultrasound_bare", ["features.backbone=image_bank", "naming.rules=liver_ultrasound_cues"]
    )
    case = Case("fan", Path(path), "fan")
    sample = prepare_case(case, parts.preparation(config.prepare))
    sector = Sector.from_dict(sample["facts"]["sectors"][0])
    height, width = np.asarray(Image.open(path)).shape[:2]
    inside = np.argwhere(sector.mask((height, width)))[::997]
    found = prepared_voxels(sample, np.column_stack([inside, np.zeros(len(inside), int)]))
    cells = sector.positions().reshape(2, -1)
    for pixel, cell in zip(inside, found, strict=True):  # all 25 600 cells, one pixel after the other
        distance = np.hypot(*(cells - pixel[:, None]))
        assert distance[cell[0] * 160 + cell[1]] < distance.min() + 1.0
    outside = np.array([[0, 0, 0]])
    assert prepared_voxels(sample, outside).tolist() == [[-1, -1, -1]]
    with pytest.raises(MedsegError, match=r"voxel of fan must lie where one looks, got 0 0 0"):
        features_at(case, outside, RunRecord(tmp_path, config, {}), [], torch.device("cpu"))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_features_are_those_of_the_voxel_in_every_plane(plane: str, tmp_path: Path) -> None:
    config = load_config("tof_mra_bank", ["prepare.brain_mask=none"])
    sample = prepare_case(Case("t", turned_volume(tmp_path), "t"), parts.preparation(config.prepare))
    bank = FilterBank()
    shape = tuple(sample["image"].shape[1:])
    whole = bank.features_of_box(sample, tuple(slice(0, length) for length in shape))
    places = np.random.default_rng(2).integers(0, shape, (40, 3))
    geometry = PatchGeometry(plane, 16, 0.5)
    found = features_at_places(sample, places, geometry, [bank], torch.device("cpu"), 8)
    expected = whole[:, *places.T].T
    assert torch.allclose(found, expected.float(), atol=1e-5)
