import logging
import os
import sys
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.vessels import make_vessel_phantom
from medseg.prepare import mra

SPACING = (2.0, 2.0, 2.5)


@pytest.fixture(scope="module")
def head():
    phantom = make_vessel_phantom(seed=11, shape=(90, 108, 44), spacing=SPACING, anatomy="head", smallest_mm=0.8)
    return phantom.image.astype(np.float32), phantom.brain_mask > 0, phantom.label > 0


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_builtin_mask_finds_the_brain_of_a_head_and_keeps_its_arteries(head):
    image, brain, arteries = head
    found = mra.builtin_brain_mask(image, SPACING)
    assert found.dtype == bool
    assert dice(found, brain) > 0.92
    assert (found & brain & arteries).sum() > 0.97 * (brain & arteries).sum()


def test_the_builtin_mask_leaves_out_scalp_and_bone(head):
    image, brain, _ = head
    around = ndimage.binary_dilation(brain, iterations=3)
    found = mra.builtin_brain_mask(image, SPACING)
    assert (found & ~around)[:, :, 15:].sum() < 0.001 * found.sum()  # above the skull base, where arteries enter


def test_the_builtin_mask_of_a_thin_slab_and_of_a_noisy_shaded_head_stays_good(head):
    image, brain, _ = head
    slab = (slice(None), slice(None), slice(14, 30))
    assert dice(mra.builtin_brain_mask(image[slab], SPACING), brain[slab]) > 0.92
    rng = np.random.default_rng(2)
    gain = np.linspace(0.75, 1.3, 90)[:, None, None]
    noisy = np.hypot(image * gain + rng.normal(0, 14, image.shape), rng.normal(0, 14, image.shape)).astype(np.float32)
    assert dice(mra.builtin_brain_mask(noisy, SPACING), brain) > 0.9


def test_the_builtin_mask_closes_cisterns_and_follows_the_carotid_out_of_the_brain():
    image, brain, carotid = np.zeros((70, 80, 40), np.float32), *np.zeros((2, 70, 80, 40), bool)
    i, j, k = np.indices(image.shape)
    across = np.hypot((i - 35) / 30, (j - 40) / 36)
    image[across < 1] = 90  # scalp
    image[across < 0.88] = 15  # bone
    brain[(across < 0.75) & (k >= 12)] = True
    image[brain] = 100
    cistern = (np.hypot(i - 35, j - 40) < 5) & (k >= 12) & (k < 20)  # 20 mm wide, open below
    image[cistern] = 15
    carotid[(np.hypot(i - 35, j - 40) < 2.5) & (k < 13) & (k >= 4)] = True
    image[carotid] = 350
    found = mra.builtin_brain_mask(image, (2.0, 2.0, 2.0))
    assert (found & carotid).sum() > 0.9 * carotid.sum()
    assert (found & cistern).sum() > 0.95 * cistern.sum()
    assert (found & ~brain).sum() < 0.08 * brain.sum()


def test_the_builtin_mask_is_empty_and_says_why_where_no_head_ends_in_view(head, caplog):
    image, _, _ = head
    caplog.set_level(logging.INFO)
    box = image[30:60, 40:70, 10:35]
    assert not mra.builtin_brain_mask(box, SPACING).any()
    assert "surface is not in view" in caplog.text


def test_the_builtin_mask_is_empty_where_a_brain_would_fill_too_little(caplog):
    i, j, k = np.indices((80, 80, 50))
    image = np.where((i - 40) ** 2 + (j - 40) ** 2 + (k - 25) ** 2 < 17**2, 100, 0).astype(np.float32)
    caplog.set_level(logging.INFO)
    assert not mra.builtin_brain_mask(image, (2.0, 2.0, 2.0)).any()
    assert "fills only 4% of the volume" in caplog.text


@pytest.mark.parametrize("nothing", ["ball of 20 mm", "noise"])
def test_the_builtin_mask_is_empty_where_there_is_no_head(nothing):
    rng = np.random.default_rng(4)
    image = rng.uniform(0, 10, (40, 40, 30)).astype(np.float32)
    if nothing != "noise":
        i, j, k = np.indices(image.shape)
        image[(i - 20) ** 2 + (j - 20) ** 2 + (k - 15) ** 2 < 25] = 100
    assert not mra.builtin_brain_mask(image, SPACING).any()


def test_a_stripped_image_is_recognised_and_a_head_with_blanked_air_is_not(head):
    image, brain, _ = head
    assert mra.is_stripped(image * brain, SPACING)
    assert not mra.is_stripped(image, SPACING)
    air = ndimage.uniform_filter(image, 3) < 30
    outside = ndimage.label(air)[0] == ndimage.label(air)[0][0, 0, 0]
    blanked = np.where(outside, 0, image)
    assert mra.constant_background(blanked) == 0
    assert not mra.is_stripped(blanked, SPACING)


def test_noise_that_was_cut_at_zero_is_no_stripped_image():
    cut = np.maximum(np.random.default_rng(5).normal(3, 5, (40, 41, 30)), 0).astype(np.float32)
    assert mra.constant_background(cut) == 0
    assert not mra.is_stripped(cut, (1.0, 1.0, 1.0))


def test_the_constant_background_is_the_exact_value_around_the_image():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (20, 21, 22)).astype(np.float32)
    assert mra.constant_background(image) is None
    image[:, :, :9] = -7.5
    assert mra.constant_background(image) == -7.5
    image[1:, 1:, 1:3] = 3  # another value, but inside
    assert mra.constant_background(image) == -7.5


def test_n4_refuses_an_image_without_foreground():
    speck = np.zeros((20, 20, 20), np.float32)
    speck[3, 3, 3] = 100
    with pytest.raises(MedsegError, match=r"foreground for N4.*prepare\.n4=false"):
        mra.n4(speck, SPACING)


def test_deepbet_that_is_not_installed_is_one_line_with_two_ways_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with pytest.raises(MedsegError, match=r"medseg\[brain\].*builtin"):
        mra.deepbet_brain_mask(np.ones((8, 8, 8), np.float32), np.eye(4), (1, 1, 1))


def test_the_mask_of_deepbet_is_kept_and_its_cisterns_are_closed(monkeypatch):
    brain = np.zeros((40, 40, 20), bool)
    brain[8:32, 8:32, 4:16] = True
    cistern = np.zeros_like(brain)
    cistern[18:22, 18:22, 4:9] = True

    def run_bet(scans, brains, masks, volumes, *, no_gpu):
        scan = nib.Nifti1Image.from_filename(scans[0])
        assert scan.shape == brain.shape
        nib.save(nib.Nifti1Image((brain & ~cistern).astype(np.uint8), scan.affine), masks[0])

    monkeypatch.setitem(sys.modules, "deepbet", types.SimpleNamespace(run_bet=run_bet))
    found = mra.deepbet_brain_mask(brain.astype(np.float32), np.diag([2.0, 2, 2, 1]), (2, 2, 2))
    assert (found | ~brain).all()
    assert (found & ~brain).sum() < 0.05 * brain.sum()


@pytest.mark.skipif(not os.environ.get("MEDSEG_TEST_DATA"), reason="MEDSEG_TEST_DATA names no data folder")
def test_the_builtin_mask_agrees_with_a_given_one_and_keeps_the_label():
    folder = Path(os.environ["MEDSEG_TEST_DATA"]) / "brava_bg0002_phantom"
    image, mask, label = (
        nib.as_closest_canonical(nib.load(folder / f"002_{role}.nii.gz")) for role in ("img", "mask", "label")
    )
    given, arteries = np.asarray(mask.dataobj) > 0, np.asarray(label.dataobj) > 0
    found = mra.builtin_brain_mask(
        image.get_fdata(dtype=np.float32), [float(size) for size in image.header.get_zooms()]
    )
    assert dice(found, given) > 0.9
    assert (found & given & arteries).sum() > 0.97 * (given & arteries).sum()


def test_a_body_in_several_pieces_is_found_with_its_dark_insides():
    rng = np.random.default_rng(6)
    i, j, k = np.indices((84, 40, 30))
    legs = (np.hypot(i - 17, j - 20) < 12) | (np.hypot(i - 62, j - 20) < 12)
    marrow = np.hypot(i - 17, j - 20) < 3
    image = np.hypot(np.where(marrow, 5, np.where(legs, 100, 0)) + rng.normal(0, 4, i.shape), rng.normal(0, 4, i.shape))
    image *= np.exp(-k / 30)  # far from the coil
    found = mra.body_mask(image.astype(np.float32), (2.0, 2.0, 2.0))
    assert dice(found, legs) > 0.95 and found[marrow].all()


def test_a_box_out_of_a_body_is_all_body_and_so_is_a_subtracted_image():
    rng = np.random.default_rng(7)
    box = rng.normal(100, 5, (30, 30, 20)).astype(np.float32)
    assert mra.body_mask(box, (2.0, 2.0, 2.0)).all()
    vessel = np.abs(rng.normal(0, 3, (60, 60, 20)))
    vessel[28:32, 28:32] = 400
    assert mra.body_mask(vessel.astype(np.float32), (2.0, 2.0, 2.0)).all()
