import numpy as np
import pytest
from prepare.angiograms import SHAPE, SPACING, ct_volume, positions_mm, trunk
from scipy import ndimage

from medseg.prepare import ct


@pytest.fixture(scope="module")
def parts():
    return trunk()


@pytest.fixture(scope="module")
def found(parts):
    return ct.find_parts(ct_volume(parts), SPACING)


def inner(mask):
    """Voxels that blur does not reach."""
    return ndimage.binary_erosion(mask)


def test_tissue_and_the_plateau_of_contrast_are_measured(found):
    assert found.tissue_hu == pytest.approx(55, abs=5)
    assert found.plateau_hu == pytest.approx(350, abs=15)
    assert found.dense_hu == pytest.approx(found.plateau_hu + 100, abs=15)


@pytest.mark.parametrize("gap_mm", [2.0, -0.5])
def test_bone_goes_with_its_marrow_and_the_aorta_stays_also_where_it_touches_bone(gap_mm):
    parts = trunk(gap_mm)
    j = ct.in_tissue_units(volume := ct_volume(parts), ct.find_parts(volume, SPACING))
    assert np.mean(j[parts.bone] > 1.7) < 0.02
    assert np.mean(j[inner(parts.vessels)] > 2.5) > 0.97
    assert np.percentile(j[inner(parts.bone)], 99) < 1.4


def test_calcification_beside_the_lumen_is_taken_away_and_the_lumen_beside_it_stays(parts, found):
    j = ct.in_tissue_units(ct_volume(parts), found)
    assert found.calcification[parts.plaque].mean() > 0.4  # blur leaves the rest below the dense level
    assert not found.calcification[~ndimage.binary_dilation(parts.plaque, iterations=2)].any()
    assert j[parts.plaque].mean() < 1.8
    beside = inner(parts.vessels) & ndimage.binary_dilation(parts.plaque, iterations=4)
    assert np.mean(j[beside] > 2.5) > 0.95


def test_without_contrast_there_is_no_plateau_and_marrow_is_no_lumen(parts):
    volume = ct_volume(parts, contrast_hu=45)
    found = ct.find_parts(volume, SPACING)
    assert found.plateau_hu is None
    assert np.mean(ct.in_tissue_units(volume, found)[parts.bone] > 1.7) < 0.02


def test_even_bright_marrow_is_no_lumen(parts):
    volume = ct_volume(parts)
    volume[inner(parts.marrow)] = 330 + 15 * np.random.default_rng(1).standard_normal(SHAPE)[inner(parts.marrow)]
    j = ct.in_tissue_units(volume, ct.find_parts(volume, SPACING))
    assert np.mean(j[parts.bone] > 1.7) < 0.05
    assert np.mean(j[inner(parts.vessels)] > 2.5) > 0.97


def test_metal_is_found_and_is_no_vessel(parts):
    volume = ct_volume(parts)
    volume[30:33, 50:52, 10:14] = 3000
    found = ct.find_parts(volume, SPACING)
    assert found.metal.sum() == 3 * 2 * 4
    assert (ct.in_tissue_units(volume, found)[found.metal] == 1).all()


def test_units_are_one_in_tissue_and_one_more_for_every_150_hu_and_never_less_nor_more_than_dense():
    nothing = np.zeros((1, 1, 5), bool)
    parts = ct.CtParts(50, 350.0, 500, bone=nothing.copy(), calcification=nothing, metal=nothing)
    hounsfield = np.array([[[-1000.0, 50, 200, 1500, 350]]], np.float32)
    np.testing.assert_allclose(ct.in_tissue_units(hounsfield, parts), [[[1, 1, 2, 4, 3]]])
    parts.bone[0, 0, 3] = True
    np.testing.assert_allclose(ct.in_tissue_units(hounsfield, parts), [[[1, 1, 2, 1, 3]]])


def test_soft_tissue_is_neither_fat_nor_blood_with_contrast():
    assert ct.is_soft_tissue(np.array([[[-100.0, 40, 300]]])).tolist() == [[[False, True, False]]]


def test_the_body_holds_its_lungs_and_neither_air_nor_the_table(parts):
    volume = ct_volume(parts)
    y = positions_mm()[1]
    table = (y < -42) & (y > -44)
    volume[table] = 0
    body = ct.body_mask(volume, SPACING)
    dice = 2 * (body & parts.body).sum() / (body.sum() + parts.body.sum())
    assert dice > 0.97
    assert body[parts.lungs].all() and not body[table].any()


def test_a_lung_that_the_volume_cuts_open_is_body_and_air_alone_is_none(parts):
    volume = ct_volume(parts)
    box = volume[12:52, 14:48]
    assert (box[0] < -500).any()
    assert ct.body_mask(box, SPACING).mean() > 0.99
    assert not ct.body_mask(np.full((20, 20, 20), -1000, np.float32), SPACING).any()


def head_ct(skull_hu=1000.0):
    """A head of 2 mm voxels with a neck, and its brain."""
    x, y, z = np.meshgrid(*((np.arange(n) - n / 2) * 2.0 for n in (84, 100, 84)), indexing="ij")
    hu = np.full(x.shape, -1000.0)
    hu[((x / 76) ** 2 + (y / 92) ** 2 < 1) & (z < 30)] = 50
    hu[(x / 76) ** 2 + (y / 92) ** 2 + (np.maximum(z, 0) / 80) ** 2 < 1] = 50
    skull = (x / 68) ** 2 + (y / 84) ** 2 + (z / 70) ** 2 < 1
    brain = (x / 62) ** 2 + (y / 78) ** 2 + (z / 64) ** 2 < 1
    hu[skull], hu[brain] = skull_hu, 38
    hu[(np.hypot(x, y + 20) < 15) & (z < -50)] = 38
    hu += np.random.default_rng(0).normal(0, 10, hu.shape)
    return hu.astype(np.float32), brain


def test_the_brain_is_found_inside_the_skull_without_the_neck():
    hounsfield, brain = head_ct()
    found = ct.brain_mask(hounsfield, (2.0, 2.0, 2.0))
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.95


def test_there_is_no_brain_without_a_skull_around_it_nor_in_a_trunk(parts):
    hounsfield, _ = head_ct(skull_hu=60)
    assert not ct.brain_mask(hounsfield, (2.0, 2.0, 2.0)).any()
    assert not ct.brain_mask(ct_volume(parts), SPACING).any()
