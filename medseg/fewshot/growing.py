"""This file grows labels between rounds of teaching: what a probe is sure of teaches the next one.

*Given* labels are those that people gave. Every round begins with them again, so what one round believed wrongly the
next can take back, and no given label is ever changed. A class grows only along places that hang together with a given
label of it, so nobody's vessel appears where nobody pointed; background grows wherever the probe is sure.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int8
from scipy.ndimage import binary_propagation

from medseg.fewshot.places import UNKNOWN

SURE = 0.95
"""Least probability of a class that makes a label of it."""
SURE_OF_NONE = 0.02
"""Largest probability of all classes together that makes background; lower than 1 - `SURE`, for background is the
rule, and a missed branch would teach the next round to miss it."""


def grow_labels(
    given: Int8[np.ndarray, "i j k"],
    probabilities: Float[np.ndarray, "c i j k"],
    region: Bool[np.ndarray, "i j k"],
) -> Int8[np.ndarray, "i j k"]:
    """Labels for the next round.

    Args:
        given: class of each voxel, 0 for background, `UNKNOWN` where nobody said anything.
        probabilities: of the classes 1, 2 ..., by the probe of this round.
        region: where to look; nothing grows outside it, where the probe was never asked.

    Returns:
        The given labels and those that grew.
    """
    grown = given.copy()
    unknown = (given == UNKNOWN) & region
    grown[unknown & (probabilities.sum(0) < SURE_OF_NONE)] = 0
    for number, probability in enumerate(probabilities, start=1):
        begun = given == number
        sure = unknown & (probability > SURE)
        reached = binary_propagation(begun, np.ones((3, 3, 3)), mask=begun | sure)
        grown[reached & sure] = number
    return grown
