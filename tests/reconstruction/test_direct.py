"""This file tests that the flux rule's probability tells its mask."""

from __future__ import annotations

import numpy as np

from medseg.phantoms.vessels import make_vessel_phantom
from medseg.prepare.vesselness import flux_maps, flux_rule
from medseg.reconstruction.direct import flux_probability
from medseg.reconstruction.refine import Volume

SPACING = (0.6, 0.6, 0.6)


def phantom_volume(alarm: str | None = None) -> tuple[Volume, np.ndarray]:
    phantom = make_vessel_phantom(seed=3, shape=(64, 64, 40), spacing=SPACING)
    image = (phantom.image / 110).astype(np.float32)
    region = np.ones(image.shape, bool)
    maps = flux_maps(image, region, SPACING)
    volume = Volume(image, region, maps.salience, maps.tubularity, SPACING, alarm)
    return volume, flux_rule(image, region, SPACING, maps=maps)


def test_the_rules_mask_is_what_exceeds_one_half() -> None:
    volume, mask = phantom_volume()
    probability = flux_probability(volume)
    assert mask.any()
    assert np.array_equal(probability > 0.5, mask)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_bright_vessels_are_surer_than_walls_and_tissue_is_sure_to_be_none() -> None:
    volume, mask = phantom_volume()
    probability = flux_probability(volume)
    assert (probability[volume.salience > 0.61] > 0.99).any()
    assert (probability[~mask & (volume.salience < 0.1)] == 0).all()


def test_an_alarm_leaves_nothing_above_one_half() -> None:
    volume, _ = phantom_volume(alarm="no vessels found")
    assert not (flux_probability(volume) > 0.5).any()
