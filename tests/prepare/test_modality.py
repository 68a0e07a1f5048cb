import re

import numpy as np
import pytest
from prepare.angiograms import ct_volume, mr_volume, trunk
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.vessels import make_vessel_phantom
from medseg.prepare import modality
from medseg.prepare.flux import RADII_MM
from medseg.prepare.vesselness import tissue_median


@pytest.fixture(scope="module")
def hounsfield():
    return ct_volume(trunk())


@pytest.fixture(scope="module")
def mr():
    return mr_volume(trunk())


@pytest.fixture(scope="module")
def tof():
    phantom = make_vessel_phantom(seed=3, shape=(56, 56, 44), spacing=(0.6, 0.6, 0.6))
    image = phantom.image.astype(np.float32)
    return image / tissue_median(image, np.ones(image.shape, bool))


def why(j, *, kind="tof", signal=100.0):
    return modality.why_no_angiogram(
        j, np.ones(j.shape, bool), (0.6, 0.6, 0.6), modality=kind, signal=signal, radii_mm=RADII_MM
    )


def test_hounsfield_units_are_told_from_mr_values(hounsfield, mr):
    assert modality.is_ct(hounsfield)
    padded = hounsfield.copy()
    padded[:8] = -3024  # outside of the scanner's circle
    assert modality.is_ct(padded)
    for other in (mr, mr - 1000, mr - 5000, (mr - mr.mean()) / mr.std()):
        assert not modality.is_ct(other) and not modality.may_be_ct(other)


def test_a_box_of_a_body_without_air_may_be_ct(hounsfield):
    box = hounsfield[24:44, 10:40]
    box = np.where(box < -200, -100, box)
    assert not modality.is_ct(box)
    assert modality.may_be_ct(box)


def test_each_wrong_modality_is_one_line_that_names_the_right_config(hounsfield, mr):
    for kind in ("tof", "ce_mra"):
        with pytest.raises(MedsegError, match=r"^a\.nii must be an MR image, got CT values .*config cta$"):
            modality.require_modality(hounsfield, kind, "a.nii")
        modality.require_modality(mr, kind, "a.nii")
    with pytest.raises(MedsegError, match=r"^a\.nii must be CT in Hounsfield units .*config tof_mra or ce_mra for MR$"):
        modality.require_modality(mr, "cta", "a.nii")
    modality.require_modality(hounsfield, "cta", "a.nii")


def test_an_angiogram_is_one(tof):
    assert why(tof) is None
    assert why(tof, signal=3.0) is None


def test_scattered_zeros_are_missing_values_and_blank_areas_are_not(tof):
    holes = tof.copy()
    holes[np.random.default_rng(0).random(tof.shape) < 0.4] = 0
    assert re.search(r"3\d% of the region are missing values", why(holes))  # the rest lies beside dark fluid
    blank = tof.copy()
    blank[:22] = 0
    assert why(blank) is None
    cut = np.maximum(np.random.default_rng(1).normal(0.7, 0.8, tof.shape), 0).astype(np.float32)
    assert np.mean(cut == 0) > 0.15
    assert "missing" not in (why(cut) or "")


def test_grey_values_without_a_tissue_level_look_like_ultrasound():
    rng = np.random.default_rng(1)
    speckle = ndimage.gaussian_filter(rng.exponential(size=(40, 40, 40)), 0.6) ** 2
    speckle *= np.exp(-np.arange(40) / 6)
    speckle = (speckle / tissue_median(speckle, np.ones(speckle.shape, bool))).astype(np.float32)
    assert "looks like ultrasound" in why(speckle)
    assert why(speckle, kind="ce_mra") is None  # a body has many tissues


def test_dark_tubes_are_named_where_no_bright_ones_stand_out(tof):
    inverted = np.maximum(2 - tof, 0) * 1.0
    assert "dark tubes stand out" in why(inverted, signal=5.0)
    assert why(inverted, signal=100.0) is None


def test_noise_has_no_dark_tubes():
    noise = (1 + 0.1 * np.random.default_rng(2).standard_normal((40, 40, 40))).astype(np.float32)
    assert why(noise, signal=4.0) is None
