"""This file tests each refinement step, and that their order is the config's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.reconstruction.refine import STEPS, Volume, refine, require_steps

SHAPE = (24, 20, 16)


def tube(radius: float = 2.0) -> np.ndarray:
    """A bright tube along k in the middle of the volume: its true mask."""
    i, j, _ = np.indices(SHAPE)
    return (i - 12) ** 2 + (j - 10) ** 2 <= radius**2


def volume(**changes: object) -> Volume:
    truth = tube()
    given = {
        "image": np.where(truth, 4.0, 1.0).astype(np.float32),
        "region": np.ones(SHAPE, bool),
        "salience": truth.astype(np.float32),
        "tubularity": truth.astype(np.float32),
        "spacing": (1.0, 1.0, 1.0),
    }
    return Volume(**{**given, **changes})  # type: ignore[arg-type]


def probability(mask: np.ndarray, inside: float = 0.9, outside: float = 0.1) -> np.ndarray:
    return np.where(mask, inside, outside).astype(np.float32)


def test_without_steps_the_mask_is_what_is_more_probable_than_not() -> None:
    assert np.array_equal(refine(probability(tube()), volume(), []), tube())


def test_nothing_lies_outside_the_region() -> None:
    region = np.zeros(SHAPE, bool)
    region[:, :, :8] = True
    mask = refine(probability(tube()), volume(region=region), [("region", {})])
    assert np.array_equal(mask, tube() & region)


def test_an_alarm_empties_the_mask_and_no_alarm_leaves_it() -> None:
    steps = [("flux_alarm", {})]
    assert not refine(probability(tube()), volume(alarm="too dim"), steps).any()
    assert refine(probability(tube()), volume(), steps).any()


def test_hysteresis_keeps_weak_voxels_that_touch_strong_ones_only() -> None:
    soft = probability(tube(), inside=0.9, outside=0.0)
    soft[12, 13, :] = 0.4  # beside the wall
    soft[2, 2, :] = 0.4  # alone
    mask = refine(soft, volume(), [("hysteresis", {"low": 0.3, "high": 0.6})])
    assert mask[12, 13].all()
    assert not mask[2, 2].any()


def test_small_components_go_by_their_volume_in_mm3() -> None:
    soft = probability(tube())
    soft[2, 2, 2:4] = 0.9  # two voxels
    assert refine(soft, volume(), [("components", {"min_mm3": 3.0})])[2, 2].sum() == 0
    assert refine(soft, volume(), [("components", {"min_mm3": 2.0})])[2, 2].sum() == 2
    large_voxels = volume(spacing=(2.0, 1.0, 1.0))
    assert refine(soft, large_voxels, [("components", {"min_mm3": 3.0})])[2, 2].sum() == 2


def test_a_component_that_is_no_tube_goes() -> None:
    soft = probability(tube())
    soft[2:6, 2:6, 2:6] = 0.9
    mask = refine(soft, volume(), [("tubes", {})])
    assert not mask[2:6, 2:6, 2:6].any()
    assert np.array_equal(mask, tube())


def test_a_faint_sheet_that_hangs_on_a_vessel_is_cut_off() -> None:
    sheet = np.zeros(SHAPE, bool)
    sheet[14:22, 6:14, 8] = True
    sheet &= ~tube()
    salience = np.where(tube(), 1.0, np.where(sheet, 0.32, 0.0)).astype(np.float32)
    mask = refine(probability(tube() | sheet), volume(salience=salience), [("weak_sheets", {})])
    assert np.array_equal(mask, tube())


@pytest.mark.parametrize("step", ["half_maximum_edge", "radius_edge"])
def test_an_edge_step_widens_a_mask_that_is_too_thin(step: str) -> None:
    thin = tube(1.0)
    mask = refine(probability(thin), volume(salience=np.ones(SHAPE, np.float32)), [(step, {})])
    assert thin.sum() < mask.sum() <= tube(3.0).sum()


@pytest.mark.parametrize("step", ["crf_2d", "crf_3d"])
def test_a_crf_follows_the_grey_values(step: str) -> None:
    soft = probability(tube(), inside=0.6, outside=0.4)
    soft[12, 10, 8] = 0.45  # a hole inside
    soft[4, 4, 8] = 0.55  # a speck outside
    mask = refine(soft, volume(), [(step, {})])
    assert mask[12, 10, 8]
    assert not mask[4, 4, 8]


def test_a_3d_crf_over_slabs_agrees_with_one_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SHAPE)
    soft = np.clip(probability(tube(), 0.7, 0.3) + noise, 0, 1).astype(np.float32)
    whole = refine(soft, volume(), [("crf_3d", {})])
    monkeypatch.setattr("medseg.reconstruction.refine._SLAB_SLICES", 8)
    parts = refine(soft, volume(), [("crf_3d", {})])
    assert (whole == parts).mean() > 0.999


def test_steps_run_in_the_order_that_is_given() -> None:
    soft = probability(tube())
    soft[2, 2, 2:4] = 0.9
    region = np.ones(SHAPE, bool)
    region[2, 2, 3] = False  # cuts the speck below the limit
    steps = [("region", {}), ("components", {"min_mm3": 2.0})]
    first = refine(soft, volume(region=region), steps)
    second = refine(soft, volume(region=region), steps[::-1])
    assert first[2, 2].sum() == 0
    assert second[2, 2].sum() == 1


def test_an_unknown_step_or_number_lists_what_there_is() -> None:
    with pytest.raises(MedsegError, match="radius_edge"):
        require_steps([("radius", {})])
    with pytest.raises(MedsegError, match="min_mm3"):
        require_steps([("components", {"mm3": 1})])
    require_steps([(name, {}) for name in STEPS])


def test_the_gate_keeps_components_with_a_core_and_adds_possible_cores() -> None:
    """Three tubes: one that both see, a speck that only the network sees, one that the rule sees best."""
    sure, alone, half = tube(), np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    alone[2:5, 2:5, 2:14] = True
    half[19:22, 2:5, 2:14] = True
    seen = sure | half
    soft = np.select([sure | alone, half], [0.9, 0.3], 0.05).astype(np.float32)
    given = volume(salience=seen.astype(np.float32), tubularity=seen.astype(np.float32))
    assert np.array_equal(refine(soft, given, [("gate", {"alone_mm3": 200})]), sure | half)
    assert np.array_equal(refine(soft, given, [("gate", {"alone_mm3": 200, "least_probability": 0.4})]), sure)
    # What only the network sees is 108 mm3 large, too much for a speck, but without noise the rule knows better.
    assert np.array_equal(refine(soft, given, [("gate", {"alone_mm3": 100})]), sure | half)
    noisy = replace(given, signal=20.0)
    assert np.array_equal(refine(soft, noisy, [("gate", {"alone_mm3": 100})]), sure | alone | half)


def test_where_the_rule_raised_an_alarm_the_gate_trusts_large_components_only() -> None:
    soft = probability(tube())
    given = volume(alarm="no vessels found", signal=8.0)
    assert np.array_equal(refine(soft, given, [("gate", {})]), tube())
    assert not refine(soft, given, [("gate", {"alone_mm3": 1000})]).any()


@pytest.mark.parametrize(
    ("changes", "share", "kept"),
    [
        ({}, 0.06, True),
        ({"signal": 5.0}, 0.06, False),
        ({"signal": 6.0}, 0.06, True),
        ({}, 0.01, False),
        ({"alarm": "no vessels found: a photograph"}, 0.06, False),
        ({"alarm": "no vessels found: noise", "signal": 8.0}, 0.06, True),
    ],
)
def test_pure_noise_and_too_many_vessels_leave_an_empty_mask(
    changes: dict[str, float], share: float, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    mask = refine(probability(tube()), volume(**changes), [("alarm", {"most_share": share})])
    assert np.array_equal(mask, tube() if kept else np.zeros(SHAPE, bool))
    assert bool(caplog.messages) is not kept


def test_the_gate_drops_what_is_too_small() -> None:
    speck = np.zeros(SHAPE, bool)
    speck[2, 2, 2:6] = True
    given = volume(salience=(speck | tube()).astype(np.float32), tubularity=(speck | tube()).astype(np.float32))
    assert not refine(probability(speck), given, [("gate", {"min_mm3": 5.0})])[speck].any()
    assert refine(probability(tube()), given, [("gate", {"min_mm3": 5.0})])[tube()].all()


@pytest.mark.parametrize(("signal", "kept"), [(40.0, False), (12.0, True), (7.0, True)])
def test_in_noise_the_wall_needs_less_salience(signal: float, kept: bool) -> None:
    truth = tube()
    given = volume(salience=np.where(truth, 0.15, 0.0).astype(np.float32), signal=signal)
    mask = refine(probability(truth), given, [("radius_edge", {})])
    assert np.array_equal(mask, truth if kept else np.zeros(SHAPE, bool))
