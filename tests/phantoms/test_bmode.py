"""The simulated ultrasound scanner: speckle has the statistics of theory, and shadow, mirror and gain are as set."""

import numpy as np
import pytest

from medseg.phantoms.bmode import Scanner, Tissue, display, echoes, scan_converted, tissue_points
from medseg.phantoms.probes import View
from medseg.phantoms.scenes import Part, Scene
from medseg.phantoms.shapes import Ellipsoid, Liver, Points, Slab

VIEW = View("curved", (240, 320), -60.0, 160.0, 1.6, 50.0, 140.0, 0.55)
EVEN = Part("even", Slab(-9, 999), 0.0, soft_db=0.0)
QUIET = Scanner(noise_db=-90.0)


def _echoes(*parts: Part, scanner: Scanner = QUIET, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Envelope, shadow and ranges of a scene of parts."""
    rng = np.random.default_rng(seed)
    grid = VIEW.beam_grid(400, 240)
    points = tissue_points(VIEW, grid, 0.0, (0.0, 0.0), 0.0)
    scene = Scene("liver", parts)
    envelope, shadow = echoes(rng, VIEW, scene, Tissue(rng, VIEW, scanner.looks), scanner, points, grid[0, :, 0])
    return envelope, shadow, grid[0, :, 0]


def _length(values: np.ndarray, axis: int) -> float:
    """Lag (samples) at which the autocorrelation falls to a half."""
    values = np.moveaxis(values - values.mean(), axis, 0)
    lags = np.arange(30)
    alike = [(values[lag:] * values[: len(values) - lag]).mean() / (values**2).mean() for lag in lags]
    below = int(np.argmax(np.array(alike) < 0.5))
    return float(below - 1 + (alike[below - 1] - 0.5) / (alike[below - 1] - alike[below]))


def test_the_envelope_of_even_tissue_is_rayleigh_distributed():
    envelope, _, _ = _echoes(EVEN)
    inner = envelope[60:-60, 30:-30]
    assert inner.mean() / inner.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.12)  # 1.913
    assert (inner**2).mean() == pytest.approx(1, abs=0.1)
    # The median of a Rayleigh distribution lies at sqrt(2 ln 2) sigma, its rms at sqrt(2) sigma.
    assert np.median(inner) / np.sqrt((inner**2).mean()) == pytest.approx(np.sqrt(np.log(2)), abs=0.04)


def test_averaging_four_looks_doubles_the_ratio_of_mean_to_deviation():
    envelope, _, _ = _echoes(EVEN, scanner=Scanner(noise_db=-90.0, looks=4))
    power = envelope[60:-60, 30:-30] ** 2
    assert power.mean() / power.std() == pytest.approx(2, abs=0.2)


def test_speckle_is_longer_across_the_beam_than_along_it_and_grows_with_depth():
    envelope, _, ranges = _echoes(EVEN)
    step = ranges[1]
    lengths = []
    for rows in (slice(60, 140), slice(300, 380)):
        per_line = (VIEW.radius_mm + ranges[rows].mean()) * 2 * VIEW.half_angle / (envelope.shape[1] - 1)
        lengths.append((_length(envelope[rows], 0) * step, _length(envelope[rows], 1) * per_line))
    (shallow_along, shallow_across), (deep_along, deep_across) = lengths
    assert shallow_across > 1.2 * shallow_along and deep_across > 2 * deep_along
    assert deep_across > 1.4 * shallow_across and deep_along >= shallow_along


def test_levels_in_db_come_back_in_the_envelope():
    brighter = Part("bright", Slab(60, 100), 6.0, soft_db=0.0)
    envelope, _, ranges = _echoes(EVEN, brighter)
    inside, above = ((ranges > low) & (ranges < high) for low, high in ((75, 90), (20, 50)))
    ratio = (envelope[inside, 80:160] ** 2).mean() / (envelope[above, 80:160] ** 2).mean()
    assert 10 * np.log10(ratio) == pytest.approx(6, abs=0.7)


def test_bone_casts_a_shadow_along_the_beam_and_a_cyst_brightens_what_lies_behind():
    bone = Part("bone", Ellipsoid((0, 0, 30), (6, 3, 50)), 0.0, soft_db=0.0, loss=90.0)
    cyst = Part("cyst", Ellipsoid((35, 0, 50), (9, 9, 50)), -40.0, soft_db=0.0, loss=-3.0)
    envelope, shadow, ranges = _echoes(EVEN, bone, cyst)
    deep, middle = ranges > 80, slice(117, 123)
    assert shadow[deep][:, middle].min() > 18 and shadow[deep][:, :60].max() == 0
    assert (envelope[deep][:, middle] ** 2).mean() < 0.05
    line = int((np.arctan2(35, 50 + VIEW.radius_mm) / VIEW.half_angle + 1) / 2 * 239)
    assert (envelope[deep][:, line - 4 : line + 5] ** 2).mean() > 2


def test_noise_rises_with_depth_where_no_echo_is():
    empty = Part("empty", Slab(-9, 999), -90.0, soft_db=0.0)
    envelope, _, ranges = _echoes(empty, scanner=Scanner(noise_db=-20.0))
    deep, shallow = ((envelope[rows] ** 2).mean() for rows in (ranges > 130, (ranges > 60) & (ranges < 70)))
    assert 10 * np.log10(deep) == pytest.approx(-21.5, abs=1)
    assert 10 * np.log10(deep / shallow) == pytest.approx(21, abs=1.5)


def test_the_display_is_the_logarithm_within_its_range():
    scanner = Scanner(liver_grey=0.4, range_db=50.0, smooth=0.0)
    shown = display(scanner, np.float32([[1.0, 10.0, 100.0, 0.001]]))
    assert shown.ravel() == pytest.approx([0.4, 0.8, 1.0, 0.0])


def test_behind_the_diaphragm_the_scene_is_mirrored():
    liver = Liver(10, (0, 0, 30, 80), (300, 0), 0.0, 0.0, (0.0, 0.0), 0.0)
    scene = Scene("liver", (), liver, mirror_db=6.0)
    depth = np.float32([[60], [105], [120], [135]])
    points = Points(np.zeros_like(depth), np.zeros_like(depth), depth, depth)
    radius = depth - liver.to_dome(points) - 30  # of the wavy dome
    folded, beyond = scene.fold(points)
    assert beyond.ravel()[:2] == pytest.approx([0, 0]) and beyond.ravel()[3] == pytest.approx(
        135 - 30 - radius[3, 0], abs=0.01
    )
    assert folded.z[0, 0] == 60 and folded.z[3, 0] < folded.z[2, 0] < 30 + radius[2, 0]
    assert scene.mirror_loss_db(beyond)[0, 0] == 0 and scene.mirror_loss_db(beyond)[3, 0] > 6


def test_scan_conversion_puts_each_sample_where_its_beam_ran():
    grid = VIEW.beam_grid(300, 200)
    for values, expected in zip(grid, VIEW.polar, strict=True):
        picture = scan_converted(VIEW, values)
        assert np.abs(picture - expected)[VIEW.mask].max() < 0.01
        assert not picture[~VIEW.mask].any()


def test_positions_of_beams_and_of_pixels_agree():
    rows, columns = np.array([100, 200]), np.array([200, 140])
    x, z = VIEW.positions(VIEW.polar[:, rows, columns])
    assert x == pytest.approx((columns - 160) / 1.6, abs=1e-3)
    assert z == pytest.approx((rows + 60) / 1.6 - 50, abs=1e-3)
