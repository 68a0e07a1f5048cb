"""Labels of the stored grid lie where the prepared image lies."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from prepare.fans import FAN, SHAPE, painted

from medseg.config import load_config
from medseg.prepare.chain import prepare_case
from medseg.scans.cases import Case
from medseg.workflows import parts

PREPARE = load_config("liver_ultrasound_bare").prepare


def disc() -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (2 * (np.hypot(rows - 130, columns - 130) < 40) + FAN.mask(SHAPE)).clip(0, 2).astype(np.float32)


def test_labels_of_a_picture_are_taken_to_its_sector(tmp_path: Path) -> None:
    shown = painted()
    shown[disc() == 2] = 0.9  # what is labelled is bright
    Image.fromarray((shown * 255).astype(np.uint8)).save(tmp_path / "a.png")
    case = Case("a", tmp_path / "a.png", "a")
    labels = parts.on_prepared_grid(MetaTensor(torch.from_numpy(disc())[None, ..., None]), case, PREPARE)
    image = prepare_case(case, parts.preparation(PREPARE))["image"]
    assert labels.shape == image.shape
    assert set(labels.unique().tolist()) == {0, 1, 2}
    bright = image.as_tensor() > 0.7
    assert float((bright == (labels == 2)).float().mean()) > 0.98


def test_slices_without_a_sector_have_no_labels(tmp_path: Path) -> None:
    slices = np.stack([painted(seed=n) for n in range(3)], axis=-1)
    slices[..., 1] = 0
    truth = np.stack([disc()] * 3, axis=-1)
    affine = np.diag([-0.5, 0.5, 2.0, 1.0])

    def stored(values: np.ndarray) -> np.ndarray:  # right to left, then up: as slices of a body lie
        return values.transpose(1, 0, 2)[:, ::-1].copy()

    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(stored(slices), affine), path)
    lying = MetaTensor(torch.from_numpy(stored(truth))[None], affine=torch.from_numpy(affine))
    labels = parts.on_prepared_grid(lying, Case("a", path, "a"), PREPARE).numpy()
    assert labels.shape == (1, 160, 160, 3)
    assert (labels[..., 1] == -1).all()
    for k in (0, 2):
        assert (labels[..., k] >= 0).all() and (labels[..., k] == 2).mean() > 0.05
    np.testing.assert_array_equal(labels[..., 0], labels[..., 2])
    rows, columns = np.nonzero(labels[0, ..., 0] == 2)
    assert columns.mean() < 80 and 40 < rows.mean() < 100  # left of the middle, in the upper half: not mirrored


def test_labels_of_another_number_of_slices_are_a_mistake(tmp_path: Path) -> None:
    Image.fromarray((painted() * 255).astype(np.uint8)).save(tmp_path / "a.png")
    two = MetaTensor(torch.zeros(1, *SHAPE, 2))
    with pytest.raises(ValueError, match="zip"):
        parts.on_prepared_grid(two, Case("a", tmp_path / "a.png", "a"), PREPARE)
