"""This file tests that bright objects are found where they are too thick to be vessels, and vessels are not."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.prepare.objects import thick_objects

SHAPE = (60, 64, 56)


def ball(radius_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """A bright ball in the middle of tissue."""
    axes = [(np.arange(n) - n // 2) * h for n, h in zip(SHAPE, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.where(x**2 + y**2 + z**2 < radius_mm**2, 5.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("spacing", [(0.6, 0.6, 0.6), (0.5, 0.5, 1.2)], ids=str)
def test_a_ball_wider_than_any_vessel_is_found_with_its_rim_and_an_aneurysm_is_not(
    spacing: tuple[float, float, float],
) -> None:
    found = thick_objects(ball(11.0, spacing), spacing, largest_radius=2.7)
    assert found is not None
    assert found[ball(11.0, spacing) > 2].all()
    assert not found[:4, :4, :4].any()
    assert thick_objects(ball(4.5, spacing), spacing, largest_radius=2.7) is None


def test_a_long_wide_vessel_and_a_sheet_are_no_thick_objects() -> None:
    spacing = (0.6, 0.6, 0.6)
    i, j, _ = np.indices(SHAPE)
    tube = np.where((i - 30) ** 2 + (j - 32) ** 2 < (2.7 / 0.6) ** 2, 9.0, 1.0).astype(np.float32)
    sheet = np.where(np.abs(i - 30) < 5, 4.0, 1.0).astype(np.float32)
    assert thick_objects(tube, spacing, largest_radius=2.7) is None
    assert thick_objects(sheet, spacing, largest_radius=2.7) is None


def test_wider_vessels_make_the_limit_wider() -> None:
    spacing = (1.2, 1.2, 1.2)
    assert thick_objects(ball(11.0, spacing), spacing, largest_radius=2.7) is not None
    assert thick_objects(ball(11.0, spacing), spacing, largest_radius=8.0) is None


def test_a_volume_that_is_bright_throughout_has_no_object() -> None:
    assert thick_objects(np.full(SHAPE, 3.0, np.float32), (1.0, 1.0, 1.0), largest_radius=2.7) is None
