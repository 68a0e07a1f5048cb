"""This file labels the voxels of an angiogram for the student: vessel, no vessel, or unknown.

Its words: *core*, *edge*, q and tubularity are those of `prepare/vesselness.py` and `prepare/edges.py`; a *wall* voxel
lies between the strict edge, inside which every reader would see vessel, and the generous one, outside which none
would; a *faint* tube is too weak for the core; a *rejected* component was salient enough for it, but failed the test
of its size or shape. Unknown voxels have no part in the loss, so a label need not be guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_dilation, generate_binary_structure

from medseg.prepare.edges import drop_unlike_tubes, hysteresis, label_components, radius_edge
from medseg.prepare.vesselness import (
    CORE_HIGH,
    CORE_LOW,
    NOISE_FLOOR_MADS,
    STATISTICS_VOXELS,
    SURE_SALIENCE,
    flux_core,
)

Spacing = Sequence[float]

NO, YES, UNKNOWN = 0, 1, 2
"""What the teacher says about a voxel. Uint8, so that a volume's labels can be kept beside it."""
STRICT_THIN, STRICT_WIDE = 0.65, 0.42
"""Fractions of the strict edge in thin and wide vessels: .1 above the rule's, so that a YES is inside whatever the
vessel's profile."""
GENEROUS_THIN, GENEROUS_WIDE = 0.45, 0.22
"""Fractions of the generous edge: .1 below the rule's. The band of unknown walls must stay narrow, or the student
learns no wall at all."""
GENEROUS_SALIENCE = 0.12
"""Least q of the generous edge, below the rule's .22: noise flattens q, and where it is strong half of a thin vessel's
wall lies between the two."""
FAINT_LOW, FAINT_HIGH = 0.15, 0.22
"""q of the hysteresis for faint tubes: half of the core's, where vessels and grain mix."""
FAINT_TUBULARITY = 0.26
"""Median tubularity above which something faint may be a vessel; a little below the core's .29."""
REJECTED_TUBULARITY = 0.25
"""Median tubularity above which a rejected component may be a vessel. Sheets lie below and are negatives: a student
that is not told that fat is no vessel finds it."""
FLOOR_SHARE = 0.98
"""Noise of q, over its largest possible value, from which on the volume's scale is that of its noise: there whole
trees fail the tests of strength and shape, and nothing salient is called a negative."""
SURE_YES, SURE_NO = 0.9, 0.05
"""Probabilities of the student beyond which an unknown voxel becomes known. Unequal, because a vessel that is wrongly
NO in the next round is lost, and walls are worth more doubt than background."""

_NEIGHBOURS = generate_binary_structure(3, 3)


def teach(
    image: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
    salience: Float[np.ndarray, "i j k"],
    tubularity: Float[np.ndarray, "i j k"],
    spacing: Spacing,
    *,
    alarm: str | None,
) -> UInt8[np.ndarray, "i j k"]:
    """Label a volume by the flux rule.

    Args:
        image: grey values in tissue medians.
        region: where vessels are sought.
        salience: q, 0 outside the region.
        tubularity: of the same volume.
        spacing: voxel size in mm.
        alarm: why the volume holds no vessel that the rule believes in, or None.

    Returns:
        YES inside the strict edge. UNKNOWN from there to the generous edge, in the rest of the core, in faint tubes
        and in rejected components that are strong or tubular (each grown by one voxel), and outside the region; in
        very noisy volumes in all that is faint or rejected. NO elsewhere; with an alarm everywhere in the region,
        because such a volume is an example of no vessels.
    """
    labels = np.where(region, np.uint8(NO), np.uint8(UNKNOWN))
    if alarm is not None:
        return labels
    core = flux_core(salience, tubularity, spacing)
    strict = radius_edge(image, core, salience, spacing, thin_fraction=STRICT_THIN, wide_fraction=STRICT_WIDE)
    generous = core
    for _ in range(2):  # an edge step adds at most one voxel, and in noise the core is thinner than that
        generous = generous | radius_edge(
            image,
            generous,
            salience,
            spacing,
            q_min=GENEROUS_SALIENCE,
            thin_fraction=GENEROUS_THIN,
            wide_fraction=GENEROUS_WIDE,
        )
    labels[generous] = UNKNOWN
    labels[binary_dilation(_doubtful(core, salience, tubularity, region), _NEIGHBOURS) & ~_shell(core)] = UNKNOWN
    labels[strict & region] = YES
    return labels


def settle(
    labels: UInt8[np.ndarray, "i j k"],
    probability: Float[np.ndarray, "i j k"],
    region: Bool[np.ndarray, "i j k"],
) -> UInt8[np.ndarray, "i j k"]:
    """Make known what the student of the round before is sure about.

    Only unknown voxels of the region change, so rejected sheets stay negatives and the outside stays unknown. Those
    with a probability above .9 become YES where a chain of such voxels (26 neighbours) leads to a YES; apart from all
    known vessels they may be what the student imagines, and stay unknown. Those below .05 become NO.

    Args:
        labels: what `teach` gave, unchanged by this call.
        probability: of a vessel, by the student.
        region: where vessels are sought; labels do not tell a doubtful voxel from one outside.
    """
    unknown = (labels == UNKNOWN) & region
    settled = labels.copy()
    settled[unknown & (probability < SURE_NO)] = NO
    known = labels == YES
    components, count = label_components(known | (unknown & (probability > SURE_YES)))
    hangs_on = np.zeros(count + 1, bool)
    hangs_on[components[known]] = True
    settled[unknown & hangs_on[components]] = YES
    return settled


def _shell(core: np.ndarray) -> np.ndarray:
    """The core and its neighbours, whose labels the two edges decide."""
    return binary_dilation(core, _NEIGHBOURS)


def _doubtful(core: np.ndarray, salience: np.ndarray, tubularity: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Faint tubes, and rejected components that may be vessels."""
    # Without the shell, the halo of a strong vessel would be one component with the faint branches that leave it.
    apart = np.where(_shell(core), 0, salience)
    faint = hysteresis(apart, FAINT_LOW, FAINT_HIGH)
    if _at_noise_floor(salience, region):
        return faint
    faint = drop_unlike_tubes(faint, salience, tubularity, sure_salience=np.inf, min_tubularity=FAINT_TUBULARITY)
    rejected = hysteresis(salience, CORE_LOW, CORE_HIGH) & ~core
    rejected = drop_unlike_tubes(
        rejected, salience, tubularity, sure_salience=SURE_SALIENCE, min_tubularity=REJECTED_TUBULARITY
    )
    return faint | rejected


def _at_noise_floor(salience: np.ndarray, region: np.ndarray) -> bool:
    """Whether noise set the scale of q, so that the rule's thresholds reject vessels too."""
    step = max(1, salience.size // STATISTICS_VOXELS)
    positive = salience[::step][region[::step]]
    positive = positive[positive > 0]
    if not positive.size:
        return False
    noise_sd = 1.4826 * float(np.median(np.abs(positive - np.median(positive))))
    return noise_sd > FLOOR_SHARE / NOISE_FLOOR_MADS
