"""Hard phantoms: each case does what its name says, and no test case is drawn by the training family's hand."""

import hashlib
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.hard import (
    TEST_FAMILY,
    TRAINING_RANGES,
    HardCase,
    hard_case,
    training_settings,
    write_hard_phantoms,
    write_training_phantoms,
)
from medseg.phantoms.vessels import make_vessel_phantom

SMALL = {"seed": 3, "shape": (64, 72, 56), "spacing": (0.8, 0.8, 0.9)}


def _small(name: str) -> HardCase:
    """The case with fewer, larger voxels."""
    return replace(hard_case(name), shape=(64, 64, 56), spacing=(0.9, 0.9, 0.9))


def _pair(**settings) -> tuple[np.ndarray, np.ndarray]:
    """Brightness in tissue medians without and with the settings, both without noise."""
    plain, changed = (
        make_vessel_phantom(**SMALL, noise_sd=0.0, shading=0.0, **more).image / 110.0 for more in ({}, settings)
    )
    return plain, changed


def test_the_default_phantom_is_the_one_it_always_was():
    phantom = make_vessel_phantom(**SMALL)
    digest = hashlib.sha256(phantom.image.tobytes()).hexdigest()
    masks = hashlib.sha256(phantom.label.tobytes() + phantom.brain_mask.tobytes()).hexdigest()
    assert (digest[:16], masks[:16]) == ("90d300d8cc19035f", "97ef76b8293ce268")


def test_the_test_family_has_each_hard_case_under_its_own_name():
    names = [case.name for case in TEST_FAMILY]
    assert len(names) >= 16 and len(set(names)) == len(names)
    settings = [dict(case.settings) for case in TEST_FAMILY]
    assert {s["noise_sd"] for s in settings} >= {0.05, 0.6}
    assert {s["contrast"] for s in settings} >= {1.5, 6.0}
    assert {min(case.spacing) for case in TEST_FAMILY} >= {0.3, 0.9}
    assert max(max(case.spacing) for case in TEST_FAMILY) == 1.5
    for name in ("slabs", "fat_pads", "small_veins", "aneurysms", "huge_mm", "stripped"):
        assert any(s.get(name, 0) > (1 if name == "slabs" else 0) for s in settings), name
    assert any(not s.get("arteries", True) for s in settings)
    assert any(s.get("anatomy") == "head" for s in settings)


def test_the_noise_series_differs_in_noise_alone():
    series = [case for case in TEST_FAMILY if case.name.startswith("noise_")]
    rest = [{**case.settings, "noise_sd": 0, "seed": case.seed, "grid": (case.shape, case.spacing)} for case in series]
    assert len(series) == 5 and all(one == rest[0] for one in rest)
    assert [case.settings["noise_sd"] for case in series] == [0.05, 0.15, 0.3, 0.45, 0.6]


def _outside(settings) -> set[str]:
    """Names of the hand's settings that lie outside the training family's ranges."""
    hand = {name: settings[name] for name in TRAINING_RANGES if name in settings}
    hand["texture_coarse_mm"], hand["texture_fine_mm"] = settings["texture_mm"]
    if settings.get("acquired_mm") is None:
        hand.pop("apodise", None)  # nothing fades out where all of k-space was sampled
    limits = {name: TRAINING_RANGES[name] for name in hand}
    return {name for name, value in hand.items() if not limits[name][0] <= value <= limits[name][1]}


@pytest.mark.parametrize("case", TEST_FAMILY, ids=lambda case: case.name)
def test_no_test_case_is_drawn_by_the_training_familys_hand(case):
    growth = {"murray", "tortuosity", "twig_length", "looseness"}
    outside = _outside(case.settings)
    assert outside >= {"profile_power", "texture_coarse_mm", "texture_fine_mm"} | growth
    assert outside & {"grain_mm", "apodise"}


def test_the_training_family_stays_within_its_ranges_and_keeps_other_seeds():
    seeds = {case.seed for case in TEST_FAMILY}
    drawn = [training_settings(np.random.default_rng([5, number])) for number in range(200)]
    assert all(not _outside(settings) for settings in drawn)
    assert not seeds & {settings["seed"] for settings in drawn}


def test_the_training_family_covers_what_scans_differ_in():
    drawn = [training_settings(np.random.default_rng([6, number])) for number in range(300)]
    noise, contrast = (np.array([s[name] for s in drawn]) for name in ("noise_sd", "contrast"))
    in_plane, slices = (np.array([s["spacing"][axis] for s in drawn]) for axis in (0, 2))
    assert noise.min() < 0.05 and 0.4 < noise.max() <= 0.45
    assert contrast.min() < 1.6 and 5.7 < contrast.max() <= 6
    assert in_plane.min() < 0.33 and 0.87 < in_plane.max() <= 0.9 and 1.35 < slices.max() <= 1.5
    for name in ("small_veins", "aneurysms", "huge_mm", "stripped", "fat_pads", "ghost", "slab_dip", "noise_spread"):
        assert 0.03 < np.mean([s[name] > 0 for s in drawn]) < 0.7, name
    assert 0.3 < np.mean([s["acquired_mm"] is not None for s in drawn]) < 0.5
    assert 0.9 < np.mean([s["arteries"] for s in drawn]) < 1
    assert {s["anatomy"] for s in drawn} == {"box", "head"}


@pytest.mark.parametrize("noise_sd", [0.05, 0.6])
def test_the_noise_series_has_the_noise_of_its_names(noise_sd):
    case = _small(f"noise_{round(100 * noise_sd):03d}")
    noisy = case.make()
    clean = replace(case, settings={**case.settings, "noise_sd": 0.0}).make()
    assert np.array_equal(noisy.label, clean.label)
    # Where the signal is high against the noise, Rician noise is Gaussian.
    bright = clean.image > 1.5 * clean.facts["tissue_level"]
    difference = (noisy.image.astype(float) - clean.image)[bright] / clean.facts["tissue_level"]
    assert difference.std() == pytest.approx(noise_sd, rel=0.1)


def test_an_aneurysm_is_a_bright_ball_in_the_label():
    case = hard_case("aneurysm")
    phantom = case.make()
    assert len(phantom.facts["domes"]) == 3
    without = replace(case, settings={**case.settings, "aneurysms": 0}).make()
    assert np.all(phantom.label >= without.label)
    for dome in phantom.facts["domes"]:
        place, radius = np.array(dome["voxel"], int), dome["radius_mm"]
        assert 2 <= radius <= 5
        grid = np.indices(phantom.label.shape).reshape(3, -1).T
        distance = np.linalg.norm((grid - place) * case.spacing, axis=1).reshape(phantom.label.shape)
        assert phantom.label[distance < radius - 1].all()
        tissue = phantom.facts["tissue_level"]
        assert np.median(phantom.image[distance < radius - 1]) > 2 * tissue
        assert without.label[distance < radius].mean() < 0.6


def test_no_vessels_means_an_empty_label_and_nothing_bright_in_the_brain():
    phantom = _small("no_vessels").make()
    assert not phantom.label.any()
    smooth = ndimage.gaussian_filter(phantom.image.astype(float), 0.7) / phantom.facts["tissue_level"]
    deep = ndimage.binary_erosion(phantom.brain_mask > 0, iterations=3)
    assert np.percentile(smooth[deep], 99.9) < 1.6
    assert phantom.facts["branches"] == 0 and phantom.facts["label_share_in_brain"] is None


def test_stripped_means_exact_zeros_and_no_label_outside_the_brain():
    phantom = _small("stripped").make()
    outside = phantom.brain_mask == 0
    assert 0.05 < outside.mean() < 0.9
    assert not phantom.image[outside].any() and not phantom.label[outside].any()
    assert (phantom.image[~outside] > 0).mean() > 0.99 and phantom.label.any()


def test_the_huge_object_is_the_brightest_of_all_and_not_in_the_label():
    for name in ("huge_object", "huge_outside"):
        case = hard_case(name)
        phantom = case.make()
        lump = ndimage.binary_opening(phantom.image > 4.5 * phantom.facts["tissue_level"], iterations=3)
        volume_mm3 = lump.sum() * np.prod(case.spacing)
        assert volume_mm3 > 0.3 * 4 / 3 * np.pi * case.settings["huge_mm"] ** 3
        assert not phantom.label[lump].any()
        assert (phantom.brain_mask[lump].mean() > 0.5) == (name == "huge_object")


def test_veins_are_bright_and_not_in_the_label():
    plain, veined = _pair(small_veins=30, small_vein_level=1.9)
    phantom = make_vessel_phantom(**SMALL, small_veins=30)
    assert np.array_equal(phantom.label, make_vessel_phantom(**SMALL).label)
    brain = phantom.brain_mask > 0
    added = (veined - plain > 0.3) & brain
    assert 0.0005 < added.mean() < 0.02
    assert phantom.label[added].mean() < 0.05
    others = phantom.other_vessels > 0
    assert ndimage.binary_dilation(others)[added].mean() > 0.95 and not (others & (phantom.label > 0)).any()


def test_fat_pads_add_bright_fat_outside_the_brain():
    plain, padded = _pair(fat=3.0, fat_pads=True)
    outside = make_vessel_phantom(**SMALL).brain_mask == 0
    assert (padded[outside] > 2).sum() > 1.3 * (plain[outside] > 2).sum()


def test_where_slabs_meet_it_is_dark():
    plain, dipped = _pair(slabs=2, inflow=1.0, slab_dip=0.4)
    ratio = np.array([np.median(dipped[..., k]) / np.median(plain[..., k]) for k in range(56)])
    ratio /= np.median(ratio)
    assert ratio[27:29].max() < 0.75 and abs(ratio[:15] - 1).max() < 0.05 and abs(ratio[-15:] - 1).max() < 0.05


def test_a_ghost_is_the_arteries_a_third_of_the_volume_away():
    plain, ghosted = _pair(ghost=0.1)
    inner = ndimage.binary_erosion(make_vessel_phantom(**SMALL).label > 0)
    difference = ghosted - plain
    assert np.median(difference[np.roll(inner, 72 // 3, axis=1)]) > 0.08
    assert np.abs(np.median(difference[np.roll(inner, 10, axis=0)])) < 0.02


def test_thin_arteries_are_dimmed_and_thick_ones_are_not():
    plain, dimmed = _pair(thin_dimming=0.6)
    label = make_vessel_phantom(**SMALL).label > 0
    deep = ndimage.distance_transform_edt(label, sampling=SMALL["spacing"])
    assert np.median((dimmed / plain)[deep > 1.5]) > 0.98
    thin = label & (ndimage.maximum_filter(deep, 5) < 0.85)
    assert thin.sum() > 50 and np.median((dimmed / plain)[thin]) < 0.85


def test_cases_are_written_under_their_names_and_another_series_has_other_trees(tmp_path):
    first, second = (
        write_hard_phantoms(tmp_path / str(series), names=["noise_005"], series=series)[0] for series in (0, 1)
    )
    assert first.name == "noise_005_img.nii.gz"
    labels = [np.asarray(nib.load(path.with_name("noise_005_label.nii.gz")).dataobj) for path in (first, second)]
    assert labels[0].any() and not np.array_equal(*labels)
    facts = json.loads(first.with_name("noise_005_facts.json").read_text())
    assert facts["case"] == "noise_005" and facts["noise_sd"] == 0.05


def test_an_unknown_case_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(MedsegError, match=r"must be one of.*got loud.*aneurysm"):
        write_hard_phantoms(tmp_path, names=["noise_005", "loud"])
    assert not list(tmp_path.iterdir())


def test_a_longer_training_series_starts_alike(tmp_path):
    (alone,) = write_training_phantoms(tmp_path / "a", cases=1, seed=2, side=32)
    first, second = write_training_phantoms(tmp_path / "b", cases=2, seed=2, side=32)
    assert [path.name for path in (first, second)] == ["training_001_img.nii.gz", "training_002_img.nii.gz"]
    values = [np.asarray(nib.load(path).dataobj) for path in (alone, first, second)]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[1], values[2])
