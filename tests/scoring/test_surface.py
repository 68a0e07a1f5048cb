"""This file tests surface distances against MONAI's metrics and against the slow definition."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medseg.scoring.surface import hausdorff_95, surface_dice, surface_distances, surface_voxels

# MONAI warns of its own use of its own deprecated argument.
monai_warns = pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(14, 15, 16))
    for axis in range(3):
        smooth = smooth + np.roll(smooth, 1, axis=axis) + np.roll(smooth, -1, axis=axis)
    return smooth > 5, np.roll(smooth, 1, axis=0) + rng.normal(size=smooth.shape) > 6


@monai_warns
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.7, 1.5)])
def test_hausdorff_95_equals_monai(seed: int, spacing: tuple[float, float, float]) -> None:
    predicted, reference = blobs(seed)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
    expected = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
    assert hausdorff_95(predicted, reference, spacing) == pytest.approx(float(expected), rel=1e-5)


@monai_warns
@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_equals_monai(seed: int) -> None:
    predicted, reference = blobs(seed)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
    expected = compute_surface_dice(*tensors, class_thresholds=[1.0], include_background=True)
    assert surface_dice(predicted, reference) == pytest.approx(float(expected), rel=1e-5)


def test_distances_equal_the_slow_definition() -> None:
    predicted, reference = (surface_voxels(mask) for mask in blobs(5))
    spacing = np.array([0.4, 0.7, 1.5])
    slow = [np.sqrt((((voxel - reference) * spacing) ** 2).sum(axis=1)).min() for voxel in predicted]
    assert surface_distances(predicted, reference, (0.4, 0.7, 1.5)) == pytest.approx(slow)


def test_the_inside_of_a_cube_is_no_surface() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[1:4, 1:4, 1:4] = True
    assert len(surface_voxels(mask)) == 26
    assert [2, 2, 2] not in surface_voxels(mask).tolist()


def test_a_shift_of_two_voxels_is_seen_and_one_tolerated() -> None:
    reference = np.zeros((12, 12, 12), dtype=bool)
    reference[3:6, 3:6, 3:6] = True
    assert surface_dice(np.roll(reference, 1, axis=2), reference) == 1
    assert surface_dice(np.roll(reference, 2, axis=2), reference) < 1
    assert surface_dice(np.roll(reference, 6, axis=2), reference) == 0


def test_the_worse_direction_counts() -> None:
    line = np.zeros((24, 3, 3), dtype=bool)
    line[:, 1, 1] = True
    half = line.copy()
    half[12:] = False  # all of it lies on the line, but the line's other end is far from it
    expected_mm = np.percentile([0.0] * 12 + [0.5 * step for step in range(1, 13)], 95)
    assert hausdorff_95(half, line, (0.5, 1.0, 1.0)) == pytest.approx(expected_mm)
    assert hausdorff_95(line, half, (0.5, 1.0, 1.0)) == pytest.approx(expected_mm)


def test_there_is_no_distance_to_nothing() -> None:
    empty, full = np.zeros((4, 4, 4), dtype=bool), np.ones((4, 4, 4), dtype=bool)
    for pair in ((empty, empty), (empty, full), (full, empty)):
        assert math.isnan(hausdorff_95(*pair, (1.0, 1.0, 1.0)))
    assert math.isnan(surface_dice(empty, empty))
    assert surface_dice(empty, full) == surface_dice(full, empty) == 0
