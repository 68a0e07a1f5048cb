"""Physics of the flux rule on tubes, sheets and noise made here; spacing in mm, grey values in tissue medians."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg.prepare import flux as flux_module
from medseg.prepare import vesselness
from medseg.prepare.vesselness import (
    drop_small_components,
    drop_unlike_tubes,
    drop_weak_sheets,
    flux_core,
    flux_maps,
    flux_rule,
    half_maximum_edge,
    hysteresis,
    local_contrast,
    oriented_flux,
    radius_edge,
    scratch_array,
    tissue_median,
)

SPACING = (0.5, 0.6, 0.8)
SHAPE = (52, 44, 34)


def positions_mm(shape=SHAPE, spacing=SPACING):
    """Voxel centres in mm from the middle of the volume."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def distance_to_axis(direction, shape=SHAPE, spacing=SPACING, offset_mm=(0.0, 0.0, 0.0)):
    """Distance in mm of each voxel to a straight line through the (shifted) middle."""
    at = positions_mm(shape, spacing) - np.reshape(offset_mm, (3, 1, 1, 1))
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    along = np.einsum("a,aijk->ijk", direction, at)
    return np.linalg.norm(at - along * direction[:, None, None, None], axis=0)


def disc(distance_mm, radius_mm, wall_mm=0.4):
    """1 inside the radius, 0 outside, a soft wall between."""
    return np.clip((radius_mm - distance_mm) / wall_mm + 0.5, 0, 1).astype(np.float32)


def noise(shape, sd, seed=0):
    return (sd * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def scan():
    """A wide and a thin tube in noise, with its label."""
    shape, spacing = (64, 60, 48), (0.5, 0.5, 0.7)
    wide = distance_to_axis((1, 0.3, 0.2), shape, spacing, (0, -5, 0))
    thin = distance_to_axis((0.2, 0.2, 1), shape, spacing, (4, 7, 0))
    tubes = np.maximum(2.5 * disc(wide, 1.5), 1.8 * disc(thin, 0.7))
    label = (wide < 1.5) | (thin < 0.7)
    return (1 + tubes + noise(shape, 0.08)).astype(np.float32), label, spacing


@pytest.fixture(scope="module")
def maps(scan):
    j, _, spacing = scan
    return flux_maps(j, np.ones(j.shape, bool), spacing)


def dice(predicted, reference):
    return 2 * np.count_nonzero(predicted & reference) / (np.count_nonzero(predicted) + np.count_nonzero(reference))


@pytest.mark.parametrize("radius_mm", [0.5, 1.3, 2.5])
def test_flux_is_largest_on_the_axis_of_a_tube_at_unequal_spacing(radius_mm):
    distance = distance_to_axis((1, 0.4, 0.5))
    flux = oriented_flux(1 + disc(distance, radius_mm), SPACING)
    inner = flux[8:-8, 8:-8, 6:-6]
    peak = np.unravel_index(inner.argmax(), inner.shape)
    assert distance[8:-8, 8:-8, 6:-6][peak] < 0.4
    assert flux[distance < 0.3].mean() > 20 * flux[distance > radius_mm + 2].mean()


def test_flux_of_a_tube_does_not_depend_on_its_direction():
    along_each = []
    for direction in (*np.eye(3), (1, 1, 1)):
        distance = distance_to_axis(direction)
        flux = oriented_flux(disc(distance, 1.3, 1.0), SPACING)
        along_each.append(flux[distance < 0.6].mean())
    assert np.ptp(along_each) < 0.15 * np.mean(along_each)


def test_a_sheet_and_a_dark_tube_have_nearly_no_flux():
    tube = distance_to_axis((0, 0, 1))
    bright = oriented_flux(disc(tube, 1.3), SPACING)
    sheet = oriented_flux(disc(np.abs(positions_mm()[0]), 1.3), SPACING)
    dark = oriented_flux(3 - disc(tube, 1.3), SPACING)
    assert sheet.max() < 0.01 * bright.max()
    assert dark[tube < 1].max() < 0.01 * bright.max()


def test_flux_is_linear_in_the_grey_values_and_blind_to_an_offset():
    j = disc(distance_to_axis((1, 1, 0)), 0.9)
    np.testing.assert_allclose(oriented_flux(5 + 2 * j, SPACING), 2 * oriented_flux(j, SPACING), atol=2e-6)


def test_tiled_flux_equals_whole_flux():
    j = 1 + disc(distance_to_axis((1, 0.4, 0.5)), 0.9) + noise(SHAPE, 0.3)
    whole = oriented_flux(j, SPACING)
    tiled = oriented_flux(j, SPACING, tile_voxels=19)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert whole.max() > 0.1


def test_tube_strength_equals_the_eigenvalues_of_an_independent_solver():
    matrices = np.random.default_rng(0).standard_normal((200, 3, 3))
    matrices = matrices + matrices.transpose(0, 2, 1) - 1.5 * np.eye(3)
    values = np.sort(np.linalg.eigvalsh(matrices), axis=1)
    expected = np.where(values[:, 1] < 0, np.sqrt(np.maximum(values[:, 0] * values[:, 1], 0)), 0)
    parts = [matrices[:, a, b] for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(flux_module._tube_strength(*parts), expected, atol=1e-7)
    assert 0 < np.count_nonzero(expected) < len(expected)
    assert flux_module._tube_strength(*np.zeros((6, 4))).max() < 1e-20


def test_tubes_are_more_tubular_than_sheets():
    tube = 1 + 2 * disc(distance_to_axis((1, 0, 0)), 0.8)
    sheet = 1 + 2 * disc(np.abs(positions_mm()[2]), 0.8)
    everywhere = np.ones(SHAPE, bool)
    tubular, flat = (flux_maps(j + noise(SHAPE, 0.02), everywhere, SPACING).tubularity for j in (tube, sheet))
    assert np.median(tubular[distance_to_axis((1, 0, 0)) < 0.6]) > 0.29
    assert np.median(flat[np.abs(positions_mm()[2]) < 0.5]) < 0.15


def test_a_scale_of_the_grey_values_changes_nothing(scan, maps):
    j, _, spacing = scan
    everywhere = np.ones(j.shape, bool)
    grey = 37 * j
    again = flux_maps(grey / tissue_median(grey, everywhere), everywhere, spacing)
    first = flux_maps(j / tissue_median(j, everywhere), everywhere, spacing)
    np.testing.assert_allclose(again.salience, first.salience, atol=1e-4)
    np.testing.assert_array_equal(
        flux_rule(j, everywhere, spacing, maps=again), flux_rule(j, everywhere, spacing, maps=first)
    )


def test_the_rule_draws_a_wide_and_a_thin_tube(scan, maps):
    j, label, spacing = scan
    mask = flux_rule(j, np.ones(j.shape, bool), spacing, maps=maps)
    assert maps.alarm is None
    assert dice(mask, label) > 0.88
    assert dice(mask, np.roll(label, 3, axis=2)) < 0.7


def test_contrast_does_not_change_the_salience_of_vessels(scan):
    j, label, spacing = scan
    everywhere = np.ones(j.shape, bool)
    strong, weak = (flux_maps(1 + gain * (j - 1), everywhere, spacing) for gain in (1.0, 0.5))
    assert weak.scale == pytest.approx(strong.scale / 2, rel=0.1)
    assert np.median(weak.salience[label]) == pytest.approx(np.median(strong.salience[label]), rel=0.1)


def test_salience_is_zero_outside_the_region_and_the_mask_stays_inside(scan):
    j, _, spacing = scan
    region = np.zeros(j.shape, bool)
    region[:, :, 10:40] = True
    inside = flux_maps(j, region, spacing)
    assert not inside.salience[~region].any() and not inside.tubularity[~region].any()
    mask = flux_rule(j, region, spacing, maps=inside)
    assert mask.any() and not mask[~region].any()


@pytest.mark.parametrize("grain_mm", [0.0, 0.4])
def test_noise_without_vessels_raises_the_alarm_and_gives_an_empty_mask(grain_mm):
    grain = gaussian_filter(noise((48, 48, 40), 1), grain_mm / 0.6)
    j = (1 + 0.15 * grain / grain.std()).astype(np.float32)
    everywhere = np.ones(j.shape, bool)
    maps = flux_maps(j, everywhere, (0.6, 0.6, 0.6))
    assert maps.alarm is not None and "no vessels" in maps.alarm
    assert not flux_rule(j, everywhere, (0.6, 0.6, 0.6), maps=maps).any()


def test_noise_never_reaches_the_core_and_faint_vessels_in_it_raise_no_alarm():
    shape, spacing = (60, 60, 48), (0.6, 0.6, 0.6)
    everywhere = np.ones(shape, bool)
    only_noise = flux_maps(1 + noise(shape, 0.15), everywhere, spacing)
    assert only_noise.salience.max() < 0.4
    assert "nothing stands out" in only_noise.alarm
    tube = disc(distance_to_axis((1, 1, 0.5), shape, spacing), 1.4)
    faint = flux_maps(1 + 1.0 * tube + noise(shape, 0.15), everywhere, spacing)
    sd = vesselness._noise_sd(faint.salience, everywhere)
    assert faint.alarm is None
    assert 1 / sd == pytest.approx(
        25, rel=0.01
    )  # the scale is at its floor, in units of which the noise is measured here


def test_too_much_vessel_and_a_constant_volume_raise_the_alarm():
    shape, spacing = (70, 70, 50), (0.6, 0.6, 0.6)
    everywhere = np.ones(shape, bool)
    i, j, _ = positions_mm(shape, spacing)
    bundle = disc(np.hypot(i % 14 - 7, j % 14 - 7), 1.8)
    assert "too much" in flux_maps(1 + 3 * bundle + noise(shape, 0.15), everywhere, spacing).alarm
    assert flux_maps(np.ones(shape, np.float32), everywhere, spacing).alarm is not None
    assert flux_maps(1 + bundle, np.zeros(shape, bool), spacing).alarm is not None


def test_tissue_median_ignores_air_and_vessels():
    image = np.concatenate([np.full(500, 3.0), np.full(1000, 100.0), np.full(20, 900.0)]).reshape(40, 38, 1)
    assert tissue_median(image, np.ones(image.shape, bool)) == 100
    assert tissue_median(image, np.zeros(image.shape, bool)) == 0
    assert tissue_median(0 * image, np.ones(image.shape, bool)) == 0


def test_contrast_is_zero_in_flat_tissue_and_nearly_full_in_a_thin_vessel():
    distance = distance_to_axis((0, 0, 1))
    contrast, background = local_contrast(1 + 2 * disc(distance, 0.9), SPACING)
    assert background.min() >= 1 and background.max() < 1.2
    assert 1.4 < contrast[distance < 0.6].mean() < 2
    assert contrast[distance > 6].max() < 1e-3


def test_one_very_bright_object_does_not_set_the_scale():
    spacing = (0.6, 0.6, 0.6)
    blocks = np.zeros((100, 100, 60), np.float32)  # 5 x 5 x 3 blocks of 20 voxels
    blocks[10::20, 10::20, 10::20] = 1.0
    everywhere = np.ones(blocks.shape, bool)
    assert vesselness._large_vessel_level(blocks, everywhere, spacing) == pytest.approx(1)
    blocks[30, 30, 30] = 20
    assert vesselness._large_vessel_level(blocks, everywhere, spacing) == pytest.approx(1)
    assert vesselness._contraharmonic_mean(blocks, everywhere) > 19
    few = np.zeros(blocks.shape, bool)
    few[:, 10, 10] = True  # no block holds 500 region voxels: one mean over all
    assert vesselness._large_vessel_level(blocks, few, spacing) == pytest.approx(1)


def test_core_drops_specks_and_sheets_but_keeps_tubes_and_the_very_salient():
    q = np.zeros((30, 30, 30), np.float32)
    tubularity = np.full(q.shape, 0.2, np.float32)
    q[2:4, 2:4, 2:28] = 0.5  # a tube
    tubularity[2:4, 2:4, 2:28] = 0.4
    q[10, 5:25, 5:25] = 0.5  # a sheet
    q[20, 5:25, 5:25] = 0.5  # a sheet with a sure vessel in it
    q[20, 5, 5] = 0.8
    q[26, 26, 26] = 0.9  # a speck
    q[15, 2:4, 2:28] = 0.34  # never above the upper threshold
    core = flux_core(q, tubularity, (0.5, 0.5, 0.5))
    assert core[2:4, 2:4, 2:28].all() and core[20, 5:25, 5:25].all()
    assert core.sum() == 2 * 2 * 26 + 20 * 20


def test_hysteresis_keeps_weak_voxels_only_beside_strong_ones():
    probabilities = np.zeros((5, 5, 9))
    probabilities[1, 1, 1:4] = [0.4, 0.7, 0.4]
    probabilities[2, 2, 4] = 0.4  # touches by a corner
    probabilities[4, 4, 7:] = 0.4
    mask = hysteresis(probabilities, 0.3, 0.6)
    assert mask.sum() == 4 and mask[2, 2, 4] and not mask[4, 4, 8]
    assert not hysteresis(probabilities, 0.3, 0.8).any()


def test_small_components_are_measured_in_mm3():
    mask = np.zeros((8, 8, 8), bool)
    mask[0, 0, :4] = True
    mask[5:8, 5:8, 5:8] = True
    assert drop_small_components(mask, (1, 1, 1), 5).sum() == 27
    assert drop_small_components(mask, (1, 1, 2), 8).sum() == 31
    assert not drop_small_components(mask, (0.1, 0.1, 0.1), 1).any()
    assert not drop_small_components(np.zeros((4, 4, 4), bool), (1, 1, 1), 1).any()


def test_the_tubularity_of_a_component_is_the_median_of_an_even_and_an_odd_number_of_voxels():
    mask = np.zeros((1, 3, 9), bool)
    mask[0, 0, :4], mask[0, 2, :3] = True, True
    tubularity = np.zeros(mask.shape)
    tubularity[0, 0, :4], tubularity[0, 2, :3] = [0, 0.2, 0.4, 9], [0.1, 0.25, 9]
    salience = np.full(mask.shape, 0.5)
    kept = drop_unlike_tubes(mask, salience, tubularity, sure_salience=0.7, min_tubularity=0.29)
    assert kept[0, 0, :4].all() and not kept[0, 2].any()


def test_a_weak_sheet_that_hangs_on_a_vessel_is_cut_off_and_a_weak_branch_stays():
    mask = np.zeros((20, 20, 20), bool)
    salience = np.full(mask.shape, 0.35, np.float32)
    tubularity = np.full(mask.shape, 0.2, np.float32)
    vessel, sheet, branch = np.s_[8:10, 8:10, :], np.s_[8, 10:18, :], np.s_[1:8, 8, 8]
    mask[vessel] = mask[sheet] = mask[branch] = True
    salience[vessel] = 0.8
    tubularity[branch] = 0.4
    kept = drop_weak_sheets(mask, salience, tubularity, (0.6, 0.6, 0.6))
    assert kept[vessel].all() and kept[branch].all() and not kept[sheet].any()
    assert drop_unlike_tubes(mask, salience, tubularity, sure_salience=0.7, min_tubularity=0.29)[sheet].all()


def test_half_maximum_edge_finds_the_wall_of_a_blurred_tube():
    spacing = (0.4, 0.4, 0.5)
    distance = distance_to_axis((0.3, 0.2, 1), (50, 50, 30), spacing)
    j = gaussian_filter(1 + 2.0 * disc(distance, 1.2, 0.05), [0.35 / h for h in spacing])
    mask = half_maximum_edge(j, distance < 0.9, spacing)
    assert dice(mask, distance < 1.2) > 0.93
    assert mask.sum() > half_maximum_edge(j, distance < 0.9, spacing, fraction=0.8).sum()


def test_edge_shrinks_a_core_that_is_too_wide_and_grows_one_that_is_too_thin():
    distance = distance_to_axis((0, 0, 1))
    j = 1 + 2 * disc(distance, 1.2, 0.6)
    wide = half_maximum_edge(j, distance < 2.2, SPACING)
    thin = half_maximum_edge(j, distance < 0.8, SPACING)
    assert wide.sum() < (distance < 2.2).sum() and thin.sum() > (distance < 0.8).sum()
    assert dice(wide, thin) > 0.8


def test_radius_edge_is_generous_to_wide_vessels_only():
    q = np.ones(SHAPE, np.float32)
    grown = {}
    for radius_mm in (0.6, 2.4):
        distance = distance_to_axis((0.2, 0.3, 1))
        j = gaussian_filter(1 + 2 * disc(distance, radius_mm, 0.1), [0.5 / h for h in SPACING])
        core = distance < max(0.9 * radius_mm, 0.5)
        grown[radius_mm] = radius_edge(j, core, q, SPACING).sum() / half_maximum_edge(j, core, SPACING).sum()
    assert grown[0.6] <= 1
    assert grown[2.4] > 1.05


def test_radius_edge_needs_salience_and_gives_nothing_for_nothing():
    distance = distance_to_axis((0, 0, 1))
    j = 1 + 2 * disc(distance, 1.2)
    q = np.where(positions_mm()[2] > 0, 0.5, 0.15).astype(np.float32)
    edge = radius_edge(j, distance < 1, q, SPACING)
    assert edge[:, :, -1].any() and not edge[:, :, 0].any()
    assert radius_edge(j, distance < 1, q, SPACING, q_min=0.12)[:, :, 0].any()
    nothing = np.zeros(SHAPE, bool)
    assert not radius_edge(j, nothing, q, SPACING).any() and not half_maximum_edge(j, nothing, SPACING).any()


def test_large_maps_lie_in_a_file_and_hold_the_same_values(scan, maps, monkeypatch):
    monkeypatch.setattr(flux_module, "SCRATCH_VOXELS", 1000)
    assert isinstance(scratch_array((20, 20, 20)), np.memmap)
    j, _, spacing = scan
    on_disk = flux_maps(j, np.ones(j.shape, bool), spacing)
    assert isinstance(on_disk.salience, np.memmap)
    np.testing.assert_array_equal(on_disk.salience, maps.salience)
    np.testing.assert_array_equal(on_disk.tubularity, maps.tubularity)


def test_a_volume_thinner_than_every_halo_is_measured():
    distance = distance_to_axis((1, 0, 0), (40, 30, 3))
    flux = oriented_flux(1 + disc(distance, 1.0), SPACING)
    assert flux.shape == (40, 30, 3) and flux[20, 15, 1] >= 0
    flat = oriented_flux(np.ones((30, 20, 1), np.float32), SPACING)
    assert flat.shape == (30, 20, 1) and not (flat > 1e-6).any()


def test_edges_are_the_same_whatever_is_measured_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    i, j, k = np.indices((40, 24, 22))
    core = ((j - 11 - 3 * np.sin(i / 6)) ** 2 + (k - 10) ** 2) < 9
    image = (np.where(core, 4.0, 1.0) + rng.normal(0, 0.1, core.shape)).astype(np.float32)
    salience = np.where(core, 1.0, 0.3).astype(np.float32)
    spacing = (0.5, 0.6, 0.7)
    whole = radius_edge(image, core, salience, spacing), half_maximum_edge(image, core, spacing)
    monkeypatch.setattr("medseg.prepare.edges.DEPTH_VOXELS", 24 * 22 * 3)
    slabs = radius_edge(image, core, salience, spacing), half_maximum_edge(image, core, spacing)
    assert all(one.any() and np.array_equal(one, other) for one, other in zip(whole, slabs, strict=True))


def test_the_rule_is_the_same_at_any_scale(scan, maps):
    j, _, spacing = scan
    everywhere = np.ones(j.shape, bool)
    wide = flux_maps(j, everywhere, [5 * h for h in spacing], radii_mm=[5 * radius for radius in flux_module.RADII_MM])
    np.testing.assert_allclose(wide.salience, maps.salience, atol=1e-4)
    np.testing.assert_allclose(wide.tubularity, maps.tubularity, atol=1e-4)
    assert wide.alarm is None and wide.contrast_scale == pytest.approx(maps.contrast_scale)
    np.testing.assert_array_equal(
        flux_rule(j, everywhere, [5 * h for h in spacing], maps=wide), flux_rule(j, everywhere, spacing, maps=maps)
    )


def test_the_default_radii_stretch_nothing():
    assert flux_module.length_unit(flux_module.RADII_MM) == 1
    assert flux_module.spacing_in_units((0.3, 0.5, 0.7), flux_module.RADII_MM) == (0.3, 0.5, 0.7)
    assert flux_module.length_unit((2.7, 5.4)) == 2


def test_large_radii_find_what_small_ones_cannot():
    shape, spacing = (60, 56, 40), (1.5, 1.5, 2.0)
    distance = distance_to_axis((0.1, 0.2, 1), shape, spacing)
    j = 1 + 2 * disc(distance, 12.0, 2.0) + noise(shape, 0.1)
    everywhere = np.ones(shape, bool)
    maps = flux_maps(j, everywhere, spacing, radii_mm=(3, 6, 9, 14), core_share_max=0.2, noise_region=distance > 14)
    found = flux_rule(j, everywhere, spacing, maps=maps)
    assert dice(found, distance < 12) > 0.9
    assert dice(flux_rule(j, everywhere, spacing), distance < 12) < 0.5


def test_the_rule_draws_a_tube_in_voxels_that_are_three_times_as_thick():
    shape, spacing = (80, 80, 30), (0.3, 0.3, 0.9)
    everywhere = np.ones(shape, bool)
    for direction in ((0, 0, 1), (1, 0.4, 0.3)):
        distance = distance_to_axis(direction, shape, spacing)
        j = gaussian_filter(1 + 2 * disc(distance, 1.2), [0.2 / h for h in spacing]) + noise(shape, 0.08)
        assert dice(flux_rule(j.astype(np.float32), everywhere, spacing), distance < 1.2) > 0.85


def test_salience_does_not_depend_on_the_tiles(scan, maps, monkeypatch):
    j, _, spacing = scan
    tiled = flux_module.oriented_flux(j, spacing, tile_voxels=23)
    monkeypatch.setattr(vesselness, "oriented_flux", lambda *_, **__: tiled)
    np.testing.assert_allclose(flux_maps(j, np.ones(j.shape, bool), spacing).salience, maps.salience, atol=1e-4)


def test_one_very_bright_object_does_not_set_the_contrast_of_vessels(scan, maps):
    j, _, spacing = scan
    bright = j.copy()
    bright[28:32, 28:32, 20:23] = 60
    everywhere = np.ones(j.shape, bool)
    contrast = local_contrast(bright, spacing)[0]
    assert vesselness._contraharmonic_mean(contrast, everywhere) > 20
    shape = (100, 100, 60)
    blocks = np.zeros(shape, np.float32)
    blocks[10::20, 10::20, 10::20] = 1.0
    blocks[30, 30, 30] = 20
    assert vesselness._large_vessel_level(blocks, np.ones(shape, bool), (0.6, 0.6, 0.6)) == pytest.approx(1)
    level = vesselness._large_vessel_level(maps.contrast, everywhere, spacing)
    assert maps.contrast_scale == pytest.approx(level)


def test_blocks_of_coarse_voxels_are_trusted_by_their_share():
    values = np.zeros((32, 32, 32), np.float32)
    values[4, 4, 4] = 1
    region = np.zeros(values.shape, bool)
    region[:6] = True  # three quarters of the first layer of blocks of 8^3 voxels, fewer than 500
    assert len(vesselness._block_means(values, region, (1.5, 1.5, 1.5))) == 1
    region[1:] = False
    assert not len(vesselness._block_means(values, region, (1.5, 1.5, 1.5)))


def test_noise_can_be_measured_where_the_caller_knows_tissue():
    shape, spacing = (48, 48, 40), (0.6, 0.6, 0.6)
    tube = disc(distance_to_axis((1, 1, 0.5), shape, spacing), 1.4)
    lifted = np.maximum(1 + 2 * tube + noise(shape, 0.1), 1)  # as CT is: nothing below tissue
    tissue = tube == 0
    everywhere = np.ones(shape, bool)
    elsewhere = flux_maps(lifted, everywhere, spacing, noise_region=~tissue)
    inside = flux_maps(lifted, everywhere, spacing, noise_region=tissue)
    assert inside.alarm is None and inside.signal > 2 * elsewhere.signal
