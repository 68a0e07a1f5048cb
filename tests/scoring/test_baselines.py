"""This file tests that the simple rules do what their names say, inside the region only, in any grey unit."""

import os
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scoring.baselines import BASELINES, brightest_1_percent, frangi_top_half_percent, median_6mad, otsu

SPACING = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def tube() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy scan with a bright tube of about 1 %, its label, and a region that leaves out a bright corner."""
    i, j, k = np.indices((40, 40, 40))
    label = (i - 20) ** 2 + (j - 20) ** 2 <= 2.3**2
    image = 1 + 2.0 * label + 0.05 * np.random.default_rng(0).normal(size=label.shape)
    region = k < 36
    image[:6, :6, 36:] = 9
    return image.astype(np.float32), label, region


@pytest.mark.parametrize("name", BASELINES)
def test_every_rule_stays_in_the_region_and_meets_the_tube(name: str, tube: tuple[np.ndarray, ...]) -> None:
    image, label, region = tube
    mask = BASELINES[name](image, region, SPACING)
    assert mask.any() and not (mask & ~region).any()
    assert (mask & label).sum() > 0.9 * mask.sum()


@pytest.mark.parametrize("name", BASELINES)
def test_no_rule_depends_on_the_grey_unit(name: str, tube: tuple[np.ndarray, ...]) -> None:
    image, _, region = tube
    mask = BASELINES[name](image, region, SPACING)
    changed = BASELINES[name](128 * image, region, SPACING)
    assert np.array_equal(mask, changed)


def test_the_shares_are_those_of_the_names(tube: tuple[np.ndarray, ...]) -> None:
    image, _, region = tube
    assert brightest_1_percent(image, region, SPACING).sum() == pytest.approx(0.01 * region.sum(), rel=0.02)
    assert frangi_top_half_percent(image, region, SPACING).sum() == pytest.approx(0.005 * region.sum(), rel=0.02)


def test_otsu_and_median_find_exactly_the_tube(tube: tuple[np.ndarray, ...]) -> None:
    image, label, region = tube
    assert np.array_equal(otsu(image, region, SPACING), label & region)
    assert np.array_equal(median_6mad(image, region, SPACING), label & region)


def test_an_empty_region_is_refused() -> None:
    image = np.zeros((5, 5, 5), dtype=np.float32)
    for rule in BASELINES.values():
        with pytest.raises(MedsegError, match="region must hold voxels"):
            rule(image, image > 0, SPACING)


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="MEDSEG_TEST_DATA names no folder of test data")
@pytest.mark.parametrize(
    ("rule", "expected"),
    [(brightest_1_percent, 0.899), (otsu, 0.920), (median_6mad, 0.449)],
    ids=["brightest", "otsu", "median"],
)
def test_the_rules_reach_the_recorded_dice_on_a_phantom(rule: object, expected: float) -> None:
    import nibabel as nib

    from medseg.scoring.overlap import dice

    folder = Path(os.environ["MEDSEG_TEST_DATA"]) / "brava_phantoms_cow"
    image = nib.load(folder / "020_img.nii.gz").get_fdata(dtype=np.float32)
    label = nib.load(folder / "020_label.nii.gz").get_fdata() > 0
    mask = rule(image, np.ones(image.shape, dtype=bool), (0.47, 0.47, 0.8))  # type: ignore[operator]
    assert dice(mask, label) == pytest.approx(expected, abs=1e-3)
