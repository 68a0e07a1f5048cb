"""This file tests that painted masses are found in a painted liver, and that tubes and empty frames hold none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.reconstruction.masses import LEAST_AGREEMENT, find_masses, find_vessels, search_masses

SIZE = 160
ROW, COLUMN = np.indices((SIZE, SIZE))
REGION = np.ones((SIZE, SIZE), bool)
LIVER = ((COLUMN - 80) / 72.0) ** 2 + ((ROW - 72) / 58.0) ** 2 < 1
NOTHING = np.zeros((SIZE, SIZE), bool)


def ellipse(row: float, column: float, height: float, width: float) -> np.ndarray:
    return ((ROW - row) / height) ** 2 + ((COLUMN - column) / width) ** 2 < 1


def painted(marked: np.ndarray, factor: float, seed: int = 0) -> np.ndarray:
    """A speckled liver with depth gain between bright tissue; `marked` pixels are `factor` times as bright."""
    speckle = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 1.0)
    grey = np.where(LIVER, 0.3, 0.5) * (1.2 - 0.4 * ROW / SIZE) * np.exp(0.5 * speckle)
    soft = ndimage.gaussian_filter(marked.astype(float), 1.0)
    return np.clip(grey * (1 + (factor - 1) * soft), 0, 1)


def dice(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))


@pytest.mark.parametrize("factor", [0.45, 2.0], ids=["dark", "bright"])
def test_a_blob_is_where_it_was_painted(factor: float) -> None:
    blob = ellipse(62, 88, 20, 26)
    found = search_masses(painted(blob, factor), REGION, LIVER.astype(float)).probability
    assert found.shape == (SIZE, SIZE) and found.dtype == np.float32
    assert dice(found > 0.5, blob) > 0.9
    assert dice(found > 0.5, blob[::-1, ::-1]) < 0.8, "a turned blob is another one"


def test_a_mass_is_drawn_where_contours_agree_and_not_where_more_is_asked() -> None:
    image = painted(ellipse(62, 88, 20, 26), 0.45)
    assert find_masses(image, REGION, LIVER.astype(float)).max() == pytest.approx(1, abs=0.05)
    assert not find_masses(image, REGION, LIVER.astype(float), agreement=1.0).any()


def test_a_blob_at_the_rim_of_the_liver_stays_inside_it() -> None:
    blob = ellipse(32, 70, 24, 30) & LIVER
    found = search_masses(painted(blob, 0.4), REGION, LIVER.astype(float)).probability > 0.5
    assert dice(found, blob) > 0.7
    assert not (found & ~LIVER).any()


def test_a_mass_that_the_liver_mask_left_out_is_found_in_its_hole() -> None:
    blob = ellipse(62, 88, 20, 26)
    found = find_masses(painted(blob, 0.3), REGION, (LIVER & ~blob).astype(float))
    assert dice(found > 0.5, blob) > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_an_even_liver_holds_no_mass(seed: int) -> None:
    assert not find_masses(painted(NOTHING, 1.0, seed), REGION, LIVER.astype(float)).any()


def test_contours_agree_on_a_blob_more_than_on_speckle() -> None:
    blob = search_masses(painted(ellipse(62, 88, 20, 26), 0.45), REGION, LIVER.astype(float))
    even = search_masses(painted(NOTHING, 1.0), REGION, LIVER.astype(float))
    assert blob.agreement > LEAST_AGREEMENT > even.agreement + 0.1


def test_depth_gain_is_no_mass() -> None:
    steep = painted(NOTHING, 1.0) * np.exp(-1.5 * ROW / SIZE)
    assert not find_masses(steep, REGION, LIVER.astype(float)).any()


def test_a_dark_tube_is_a_vessel_and_no_mass() -> None:
    tube = (np.abs(ROW - 70 - 0.4 * (COLUMN - 80)) < 4) & (np.abs(COLUMN - 80) < 40)
    image = painted(tube, 0.15)
    vessels = find_vessels(image, REGION, LIVER.astype(float))
    assert dice(vessels, tube) > 0.75
    assert not find_masses(image, REGION, LIVER.astype(float)).any()


def test_a_dark_strip_along_the_border_of_the_liver_is_no_vessel() -> None:
    strip = LIVER & ~ndimage.binary_erosion(LIVER, iterations=6) & (COLUMN < 40)
    assert not find_vessels(painted(strip, 0.15), REGION, LIVER.astype(float)).any()


def test_a_wide_blob_and_an_even_liver_hold_no_vessel() -> None:
    assert find_vessels(painted(NOTHING, 1.0), REGION, LIVER.astype(float)).mean() < 0.002
    blob = ellipse(62, 88, 22, 30)
    assert (find_vessels(painted(blob, 0.45), REGION, LIVER.astype(float)) & blob).sum() < 0.1 * blob.sum()


@pytest.mark.parametrize("liver", [NOTHING, ellipse(80, 80, 4, 4)], ids=["none", "tiny"])
def test_without_a_liver_there_is_neither_mass_nor_vessel(liver: np.ndarray) -> None:
    image = painted(ellipse(62, 88, 20, 26), 0.45)
    found = search_masses(image, REGION, liver.astype(float))
    assert found.agreement == 0 and not found.probability.any()
    assert not find_vessels(image, REGION, liver.astype(float)).any()


def test_a_black_frame_is_answered_without_a_mass() -> None:
    assert not find_masses(np.zeros((SIZE, SIZE)), NOTHING, LIVER.astype(float)).any()
