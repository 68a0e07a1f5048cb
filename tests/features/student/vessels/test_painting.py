"""Painted vessels lie where their labels say, at their size in mm, on any grid."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from medseg.features.student.vessels import painting
from medseg.features.student.vessels.fields import smooth_field
from medseg.features.student.vessels.painting import noise_sd_of, paint
from medseg.features.student.vessels.painting_sheets import draw_sheets
from medseg.features.student.vessels.painting_trees import Section, Tube, draw_trees, reaching_into
from medseg.features.student.vessels.painting_tubes import draw_tubes
from medseg.features.teachers.vessels import NO, UNKNOWN, YES

SHAPE = (32, 32, 32)
SPACINGS = [(0.5, 0.5, 0.5), (0.3, 0.3, 0.9), (0.9, 0.9, 0.9), (0.5, 0.5, 3.0)]
PLUG = Section(laminar=0.0, power=2.0, hollow=0.0, flatness=1.0, across=np.array([1.0, 0.0, 0.0]))


def _paint(seed: int, labels: np.ndarray | None = None, spacing=(0.5, 0.5, 0.5), **scan: float) -> painting.Painted:
    labels = np.zeros(SHAPE, np.uint8) if labels is None else labels
    scan = {"contrast_scale": 2.0, "noise_sd": 0.05, **scan}
    return paint(np.random.default_rng(seed), np.ones(SHAPE, np.float32), labels, spacing, **scan)


def _straight(middle_mm, direction, *, size_mm: float | np.ndarray = 16.0, **changes) -> Tube:
    """A straight tube through a window, of radius 1.2 mm and brightness 1 unless changed."""
    tangent = np.array(direction) / np.linalg.norm(direction)
    points = np.array(middle_mm) + np.arange(-30, 30.5, 0.5)[:, None] * tangent
    radii = np.full(len(points), changes.pop("radius_mm", 1.2))
    settings = {"half_mm": 0.25, "brightness": 1.0, "section": PLUG, **changes}
    tube = Tube(points, np.broadcast_to(tangent, points.shape), radii, **settings)
    return reaching_into(tube, np.full(3, 1.0) * size_mm)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("radius_mm", [0.3, 0.5, 1.2, 2.5])
def test_a_tube_adds_its_volume_whatever_the_grid(spacing, radius_mm):
    shape = tuple(round(30 / h) for h in spacing)
    direction = np.array([0.3, 0.2, 1.0])
    tube = _straight((15.1, 14.9, 15.0), direction, radius_mm=radius_mm, size_mm=30.0)
    added, inside = draw_tubes([tube], shape, spacing)
    length = round(30 / spacing[2]) * spacing[2] * np.linalg.norm(direction)
    assert added.sum() * np.prod(spacing) == pytest.approx(np.pi * radius_mm**2 * length, rel=0.1)
    if radius_mm > 1 and max(spacing) < 1:
        assert inside.sum() * np.prod(spacing) == pytest.approx(np.pi * radius_mm**2 * length, rel=0.1)


def test_inside_is_what_a_slow_loop_over_distances_says():
    spacing, shape = (0.4, 0.5, 0.6), (20, 18, 16)
    tube = _straight((4.0, 4.5, 4.8), (1.0, 0.6, -0.4), radius_mm=1.3, size_mm=np.array(shape) * spacing)
    _, inside = draw_tubes([tube], shape, spacing)
    for voxel in np.ndindex(shape):
        centre = (np.array(voxel) + 0.5) * spacing
        away = centre - tube.points_mm[0]
        distance = np.linalg.norm(away - (away @ tube.tangents[0]) * tube.tangents[0])
        if abs(distance - 1.3) > 0.02:
            assert inside[voxel] == (distance < 1.3), voxel


def test_the_section_is_laminar_hollow_or_flat():
    along_k = ((8.25, 8.25, 8.0), (0.0, 0.0, 1.0))
    middle = (16, 16, 16)

    def profile(**changes) -> np.ndarray:
        section = Section(**{**vars(PLUG), **changes})
        return draw_tubes([_straight(*along_k, radius_mm=2.2, section=section)], SHAPE, (0.5, 0.5, 0.5))[0]

    plug, laminar = profile(), profile(laminar=0.6)
    assert plug[19, 16, 16] / plug[middle] == pytest.approx(1, abs=0.01)
    assert laminar[19, 16, 16] / laminar[middle] == pytest.approx(1 - 0.6 * (1.5 / 2.2) ** 2, abs=0.02)
    hollow = profile(hollow=0.4)
    assert hollow[middle] == pytest.approx(0.6 * plug[middle], abs=0.02) and hollow[19, 16, 16] > 0.9
    flat = profile(flatness=1.8) > 0.5  # across i
    assert flat[:, 16, 16].sum() * 1.5 < flat[16, :, 16].sum()
    assert flat.sum() == pytest.approx((plug > 0.5).sum(), rel=0.1)


def test_the_axis_of_a_tube_thinner_than_a_voxel_is_inside():
    _, inside = draw_tubes(
        [_straight((8.1, 8.1, 8.0), (0.0, 0.0, 1.0), radius_mm=0.2, size_mm=28.8)], SHAPE, (0.9, 0.9, 0.9)
    )
    assert inside[9, 9, :30].all() and inside.sum() <= 35


def test_overlapping_tubes_are_no_brighter_than_one():
    crossing = [_straight((8, 8, 8), (1.0, 0.0, 0.0)), _straight((8, 8, 8), (0.0, 1.0, 0.2))]
    added, _ = draw_tubes(crossing, SHAPE, (0.5, 0.5, 0.5))
    assert added.max() <= 1.0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_painted_voxels_are_bright_and_others_are_left_as_they_were(spacing):
    for seed in range(6):
        painted = _paint(seed, spacing=spacing)
        yes = painted.labels == YES
        assert painted.image.shape == painted.labels.shape == painted.weight.shape == SHAPE
        assert np.all(painted.image[yes] > 1 + max(1.5 * 0.05, 0.06 * 2.0))
        assert np.all(painted.weight[yes] == 2) and np.all(painted.weight[~yes] == 1)
        assert np.isfinite(painted.image).all() and painted.image.min() >= 1


def test_every_window_holds_something_painted_and_the_seed_decides_it():
    assert all((_paint(seed).labels != NO).any() for seed in range(20))
    assert np.array_equal(_paint(3).image, _paint(3).image) and not np.array_equal(_paint(3).image, _paint(4).image)


def test_no_vessel_gets_lost_and_doubt_ends_under_a_painted_tube():
    for before in (YES, UNKNOWN):
        blank = _paint(1)
        painted = _paint(1, np.full(SHAPE, before, np.uint8))
        assert np.all(painted.labels[blank.labels == YES] == YES)
        assert np.all(painted.labels[blank.labels != YES] == before)


def test_what_is_too_faint_to_see_is_unknown():
    tubes = [_straight((8, 8, 8), (0.0, 0.0, 1.0), brightness=0.1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painting, "draw_trees", lambda *_, **__: tubes)
        patch.setattr(painting, "SHEETS_SHARE", 0.0)
        for noise_sd, contrast_scale, label in ((0.01, 0.5, YES), (0.1, 0.5, UNKNOWN), (0.01, 2.0, UNKNOWN)):
            labels = _paint(0, noise_sd=noise_sd, contrast_scale=contrast_scale).labels
            assert labels[16, 16, 16] == label


def test_tubes_outshine_the_noise_and_stay_within_their_radii():
    for seed in range(20):
        tubes = draw_trees(np.random.default_rng(seed), np.full(3, 30.0), contrast_scale=2.0, noise_sd=0.3)
        assert len(tubes) >= 1 and all(len(tube.points_mm) for tube in tubes)
        walls = [tube for tube in tubes if tube.half_mm]
        assert all(tube.brightness >= 4 * 0.3 for tube in walls)
        assert all(tube.radii_mm.min() > 0.1 and tube.radii_mm.max() <= 2.5 for tube in walls)
        for tube in walls:
            np.testing.assert_allclose(np.linalg.norm(tube.tangents, axis=1), 1, atol=1e-9)


def test_sheets_and_lumps_stay_what_they_were_called(monkeypatch):
    monkeypatch.setattr(painting, "SHEETS_SHARE", 0.0)
    without = [_paint(seed) for seed in range(8)]
    monkeypatch.setattr(painting, "SHEETS_SHARE", 1.0)
    brighter = 0
    for seed, tubes_only in enumerate(without):
        painted = _paint(seed)
        assert np.array_equal(painted.labels, tubes_only.labels)
        brighter += int((painted.image - tubes_only.image > 0.3).sum())
    assert brighter > 1000


def test_sheets_are_no_tubes():
    """A tube's depth is about half of its width in two directions; a thing here is wide in two or round."""
    for seed in range(10):
        mask = draw_sheets(np.random.default_rng(seed), (48,) * 3, (0.5,) * 3, contrast_scale=2.0) > 0.3
        if mask.sum() > 500:
            depth = distance_transform_edt(np.pad(mask, 1)).max()
            assert mask.sum() > 3 * depth**3


def test_a_field_has_mean_0_sd_1_and_is_smooth():
    drawn = np.stack([smooth_field(np.random.default_rng(n), (12, 10, 8), (1, 1, 2), (20, 60)) for n in range(400)])
    assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(1, abs=0.05)
    assert np.abs(np.diff(drawn, axis=1)).max() < 2 * np.pi / 20 * np.sqrt(6) * 1.01


def test_noise_is_measured_in_tissue_only():
    rng = np.random.default_rng(0)
    image = np.ones((48, 48, 48), np.float32) + 0.1 * rng.standard_normal((48, 48, 48)).astype(np.float32)
    region = np.ones(image.shape, bool)
    assert noise_sd_of(image, region, (0.5, 0.5, 0.5)) == pytest.approx(0.1, rel=0.1)
    image[:20] = 5 + rng.standard_normal((20, 48, 48))
    assert noise_sd_of(image, region, (0.5, 0.5, 0.5)) == pytest.approx(0.1, rel=0.1)
    region[:] = False
    assert noise_sd_of(image, region, (0.5, 0.5, 0.5)) == 0
