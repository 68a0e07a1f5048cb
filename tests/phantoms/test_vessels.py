"""Phantoms: the tree obeys its law, the truth fits the image, the noise is as asked for, the files hold it all."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.anatomy import smooth_field
from medseg.phantoms.scanner import add_rician_noise
from medseg.phantoms.trees import (
    LARGEST_RADIUS_MM,
    SMALLEST_RADIUS_MM,
    Branch,
    Envelope,
    Junction,
    Tree,
    grow_circle_of_willis,
    split_radius,
)
from medseg.phantoms.tubes import draw_tubes
from medseg.phantoms.vessels import make_vessel_phantom, write_phantoms

SMALL = {"shape": (64, 72, 56), "spacing": (0.8, 0.8, 0.9)}


@pytest.fixture(scope="module")
def phantom():
    return make_vessel_phantom(seed=3, **SMALL)


@pytest.fixture(scope="module")
def head():
    return make_vessel_phantom(seed=4, anatomy="head", shape=(120, 136, 60), spacing=(1.1, 1.1, 1.1))


def _tree(seed: int) -> Tree:
    box = np.array([40.0, 40.0, 30.0])
    envelope = Envelope(np.array([0.0, -12, 8]), np.array([66.0, 82, 62]), -box, box)
    return grow_circle_of_willis(np.random.default_rng(seed), envelope)


@pytest.mark.parametrize("seed", range(4))
def test_murrays_law_holds_at_every_junction(seed):
    tree = _tree(seed)
    assert len(tree.junctions) > 20
    assert max(tree.murray_errors()) < 1e-9


def test_murrays_law_is_seen_to_be_broken():
    line = np.zeros((2, 3))
    branches = [Branch("trunk", line, np.array([1.0, 1.0])), Branch("twin", line, np.array([1.0, 1.0]))]
    tree = Tree([*branches, branches[1]], [Junction((0,), (1, 2))])
    assert tree.murray_errors() == pytest.approx([1.0])


def test_a_fork_in_halves_has_radii_known_by_hand():
    assert split_radius(1.0, 0.5) == pytest.approx((0.7937005, 0.7937005))


@pytest.mark.parametrize("seed", range(4))
def test_radii_stay_within_their_range_and_never_grow_along_a_branch(seed):
    for branch in _tree(seed).branches:
        assert branch.radii_mm.min() >= SMALLEST_RADIUS_MM
        assert branch.radii_mm.max() <= LARGEST_RADIUS_MM
        assert np.all(np.diff(branch.radii_mm) <= 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_branches_that_meet_share_a_point(seed):
    tree = _tree(seed)
    for junction in tree.junctions:
        ends = [tree.branches[index].points_mm[-1] for index in junction.inflow]
        starts = [tree.branches[index].points_mm[0] for index in junction.outflow]
        assert np.ptp(np.stack([*ends, *starts]), axis=0).max() < 1e-9


def test_centre_lines_turn_smoothly():
    for branch in _tree(0).branches:
        steps = np.diff(branch.points_mm, axis=0)
        steps = steps / np.linalg.norm(steps, axis=1, keepdims=True)
        assert (steps[1:] * steps[:-1]).sum(1).min() > 0.5


def _straight_tube(radius_mm: float, low: float, high: float) -> Branch:
    points = np.stack([np.linspace(low, high, 60), np.full(60, 5.13), np.full(60, 5.29)], 1)
    return Branch("straight", points, np.full(60, radius_mm))


@pytest.mark.parametrize(("radius_mm", "tolerance"), [(0.4, 0.12), (1.0, 0.03), (2.0, 0.02)])
def test_coverage_adds_up_to_the_volume_of_the_tube(radius_mm, tolerance):
    tube = _straight_tube(radius_mm, -5, 30)
    coverage, _, _ = draw_tubes([tube], (40, 24, 18), (0.5, 0.5, 0.6), np.zeros(3))
    volume = coverage[5:35].sum(dtype=float) * 0.5 * 0.5 * 0.6
    assert volume == pytest.approx(np.pi * radius_mm**2 * 30 * 0.5, rel=tolerance)


def test_the_label_is_the_tube_itself():
    shape, spacing = (20, 24, 18), (0.5, 0.5, 0.6)
    _, _, inside = draw_tubes([_straight_tube(1.5, -5, 20)], shape, spacing, np.zeros(3))
    j, k = np.meshgrid(np.arange(24) * 0.5 - 5.13, np.arange(18) * 0.6 - 5.29, indexing="ij")
    distance = np.hypot(j, k)
    assert inside[:, distance < 1.5].all()
    assert not inside[:, distance > 1.5 + 0.3].any()


def test_a_tube_outside_the_grid_draws_nothing():
    coverage, flow, inside = draw_tubes([_straight_tube(1.0, 100, 120)], (10, 10, 10), (0.5, 0.5, 0.5), np.zeros(3))
    assert not coverage.any() and not flow.any() and not inside.any()


def test_the_profile_is_brightest_on_the_axis():
    coverage, flow, _ = draw_tubes(
        [_straight_tube(2.0, -5, 20)], (20, 24, 18), (0.5, 0.5, 0.6), np.zeros(3), laminar=0.5
    )
    across = (flow / np.maximum(coverage, 1e-6))[10, :, 9]
    assert across[10] > 0.95 and 0.5 < across[7] < 0.85


def test_the_label_is_bright(phantom):
    tissue = np.median(phantom.image[phantom.brain_mask > 0])
    inner = ndimage.binary_erosion(phantom.label > 0)
    assert np.median(phantom.image[inner]) > 2 * tissue
    ranks = phantom.image[phantom.label > 0] > tissue
    assert ranks.mean() > 0.95


def test_a_shifted_label_is_not_bright(phantom):
    shifted = np.roll(phantom.label > 0, 8, axis=0)
    tissue = np.median(phantom.image[phantom.brain_mask > 0])
    assert np.median(phantom.image[shifted]) < 1.5 * tissue


def test_the_label_share_is_that_of_arteries(phantom, head):
    assert 0.003 < phantom.facts["label_share"] < 0.02
    assert 0.002 < head.facts["label_share"] < 0.01


def test_the_same_seed_gives_the_same_voxels_and_another_seed_others(phantom):
    again = make_vessel_phantom(seed=3, **SMALL)
    other = make_vessel_phantom(seed=5, **SMALL)
    assert np.array_equal(again.image, phantom.image) and np.array_equal(again.affine, phantom.affine)
    assert not np.array_equal(other.label, phantom.label)


def test_noise_and_contrast_leave_the_truth_alone(phantom):
    other = make_vessel_phantom(seed=3, noise_sd=0.3, contrast=1.5, shading=0.3, fat=2.4, slabs=2, **SMALL)
    assert np.array_equal(other.label, phantom.label) and np.array_equal(other.brain_mask, phantom.brain_mask)


@pytest.mark.parametrize("noise_sd", [0.05, 0.2])
def test_the_noise_has_the_sd_that_was_asked_for(noise_sd):
    clean = make_vessel_phantom(seed=3, noise_sd=0.0, **SMALL)
    noisy = make_vessel_phantom(seed=3, noise_sd=noise_sd, **SMALL)
    bright = clean.image > 1.0 * np.median(clean.image[clean.brain_mask > 0])
    difference = (noisy.image.astype(float) - clean.image)[bright] / clean.facts["tissue_level"]
    assert difference.std() == pytest.approx(noise_sd, rel=0.05)


@pytest.mark.parametrize("grain_mm", [0.0, 0.5])
def test_noise_in_air_has_the_mean_and_sd_of_a_rayleigh_distribution(grain_mm):
    noise = add_rician_noise(
        np.random.default_rng(0), np.zeros((60, 60, 40)), (0.5, 0.5, 0.6), sd=0.1, grain_mm=grain_mm
    )
    assert noise.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.03)
    assert noise.std() == pytest.approx(0.1 * np.sqrt(2 - np.pi / 2), rel=0.03)


def test_a_smooth_field_has_unit_variance_and_varies_slowly():
    field = smooth_field(np.random.default_rng(1), (90, 80, 70), (1.0, 1.0, 1.5), 3.0)
    assert field.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.4


def test_the_inflow_dims_arteries_towards_the_top(phantom):
    flat = make_vessel_phantom(seed=3, inflow=1.0, noise_sd=0.0, shading=0.0, **SMALL)
    falling = make_vessel_phantom(seed=3, inflow=0.4, noise_sd=0.0, shading=0.0, **SMALL)
    ratio = falling.image / np.maximum(flat.image, 1)
    inner = ndimage.binary_erosion(phantom.label > 0)
    top, bottom = (np.median(ratio[part][inner[part]]) for part in (np.s_[..., -14:], np.s_[..., :14]))
    assert top < 0.75
    assert bottom > 0.9


def test_a_head_has_air_around_a_skull_and_its_brain_mask_holds_most_arteries(head):
    assert head.facts["label_share_in_brain"] > 0.75
    assert 0.3 < head.facts["brain_share"] < 0.6
    corner = head.image[:6, :6]
    assert corner.mean() < 0.3 * head.facts["tissue_level"]
    assert ndimage.label(head.brain_mask)[1] == 1


def test_a_head_has_bright_decoys_outside_the_label(head):
    smooth = ndimage.gaussian_filter(head.image.astype(float), 0.7) / head.facts["tissue_level"]
    outside = (head.brain_mask == 0) & (head.label == 0)
    assert (smooth[outside] > 1.4).sum() > 3 * (head.label > 0).sum()


def test_written_files_agree_with_each_other_and_are_oblique(tmp_path):
    paths = write_phantoms(tmp_path, cases=2, seed=9, shape=(48, 48, 40), noise_sd=0.11)
    assert [path.name for path in paths] == ["phantom_001_img.nii.gz", "phantom_002_img.nii.gz"]
    for path in paths:
        image = nib.load(path)
        assert image.get_data_dtype() == np.int16
        assert image.header.get_xyzt_units()[0] == "mm"
        off_axis = image.affine[:3, :3] / np.array(image.header.get_zooms()[:3])
        assert np.abs(off_axis[~np.eye(3, dtype=bool)]).max() > 0.03
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        for role in ("mask", "label"):
            partner = nib.load(path.with_name(path.name.replace("_img", f"_{role}")))
            assert partner.shape == image.shape and np.array_equal(partner.affine, image.affine)
            assert set(np.unique(partner.dataobj)) == {0, 1}
        facts = json.loads(path.with_name(path.name.replace("_img.nii.gz", "_facts.json")).read_text())
        assert facts["noise_sd"] == 0.11
        assert np.allclose(facts["spacing_mm"], image.header.get_zooms(), atol=1e-5)


def test_cases_of_one_series_differ_and_a_longer_series_starts_alike(tmp_path):
    settings = {"seed": 9, "shape": (32, 32, 32), "spacing": (1.0, 1.0, 1.0)}
    (first,) = write_phantoms(tmp_path / "a", cases=1, **settings)
    again, second = write_phantoms(tmp_path / "b", cases=2, **settings)
    values = [np.asarray(nib.load(path).dataobj) for path in (first, again, second)]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (8, 64, 64)},
        {"spacing": (0.5, 0.5, 0.0)},
        {"anatomy": "head", "shape": (64, 64, 64)},
        {"noise_sd": -0.1},
        {"slabs": 0},
    ],
)
def test_impossible_wishes_are_refused_in_one_line(wrong):
    with pytest.raises(MedsegError, match="must") as caught:
        make_vessel_phantom(seed=0, **wrong)
    assert "\n" not in str(caught.value)


def test_no_phantoms_at_all_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="at least 1"):
        write_phantoms(tmp_path, cases=0, seed=1)
