"""This file gives the flux rule's answer the form of every other method's: a probability of being a vessel."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from medseg.prepare.vesselness import flux_core, radius_edge, scratch_array
from medseg.reconstruction.refine import Volume

SURELY_NOT, EVEN, SURELY = 0.12, 0.30, 0.60
"""Salience q that stands for the probabilities 0, 1/2 and 1: below the weakest wall, the core's threshold, twice it."""


def flux_probability(volume: Volume) -> Float[np.ndarray, "i j k"]:
    """The flux rule as a probability: from the salience, kept above one half inside the rule's mask and below outside.

    So its mask is what exceeds one half, and what it nearly took can be told from what it never considered.
    """
    mask = np.zeros(volume.region.shape, bool)
    if volume.alarm is None:
        core = flux_core(volume.salience, volume.tubularity, volume.spacing, radii_mm=volume.radii_mm)
        mask = radius_edge(volume.image, core, volume.salience, volume.rule_spacing) & volume.region
    probability = scratch_array(mask.shape)
    just_above = np.nextafter(np.float32(0.5), np.float32(1))
    for n, (inside, salience) in enumerate(zip(mask, volume.salience, strict=True)):
        graded = np.interp(salience, [SURELY_NOT, EVEN, SURELY], [0.0, 0.5, 1.0])
        probability[n] = np.where(inside, np.maximum(graded, just_above), np.minimum(graded, 0.5))
    return probability
