"""This file says where the liver lies in one ultrasound frame, without labels: a prior, cues, and a random walker.

The words of `prepare/liver_cues.py` hold. *Edges* are a frozen network's features of stride 16, in which the walker
sees borders; the *context* are those of stride 32, each of which sees a large part of the frame: what resembles the
first answer there more than the rest does is more likely liver. A *setting* is one choice of prior and offset; a
*lesson* is what a frame teaches: the mean of all settings.

The orientation is part of the prior: the liver reaches deeper at the left of the frame, as in the usual views through
the right side. Mirrored frames are answered worse (Dice .72 for .80), mostly without an alarm.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.special import expit, logit

from medseg.features.teachers.random_walk import RandomWalker
from medseg.prepare.liver_cues import (
    CELLS,
    HAND_SET,
    Cues,
    LiverConstants,
    cue_logit,
    frame_cues,
    log_intensity,
    network_view,
    prior_logit,
    prior_logits,
    standard_edges,
)

__all__ = [
    "CELLS",
    "HAND_SET",
    "Cues",
    "Lesson",
    "LiverConstants",
    "cue_logit",
    "final_answer",
    "frame_cues",
    "leaning",
    "likeness",
    "log_intensity",
    "network_view",
    "next_lesson",
    "prior_logit",
    "standard_edges",
    "teach_frame",
    "teach_from_cues",
    "walk",
    "why_no_liver",
]

CERTAIN_MARGIN = 0.15
"""Distance from one half that the mean of all settings has in certain cells."""
SURE = 1e-3
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""
TINY = 1e-6
"""Added to lengths of features before dividing by them."""
LEAST_AREA, MOST_AREA = 0.2, 0.65
"""Shares of the sector's cells that a liver takes; frames of livers had .29 to .61, photographs from .15."""
LEAST_AGREEMENT = 0.85
"""Agreement of the settings; frames of livers had .90 to .98."""
LEAST_CERTAIN = 0.45
"""Share of certain cells; frames of livers had .56 to .85."""
MOST_CONTRAST = 1.62
"""Difference of mean likeness between liver and rest: 1.06 to 1.55 in frames of livers; above 1.7 in noise, where deep
features only know how far the frame's border is."""


class Lesson(NamedTuple):
    """What a frame teaches.

    Attributes:
        probability: of liver, the mean of all settings.
        certain: where all settings agree and their mean is far from one half.
        agreement: mean Dice of the settings with their mean, 0 to 1; 0 where the mean is empty.
    """

    probability: Float32[np.ndarray, "48 48"]
    certain: Bool[np.ndarray, "48 48"]
    agreement: float


def walk(
    prior: Float[np.ndarray, "48 48"],
    cues: Cues,
    edges: Float[np.ndarray, "c 48 48"] | None,
    *,
    gamma: float,
    beta: float,
    intensity_share: float,
) -> Float[np.ndarray, "48 48"]:
    """Let an answer spread up to borders; it becomes 0 outside the region.

    Args:
        prior: probability of liver.
        cues: of the frame, for its smoothed intensity and region.
        edges: see `standard_edges`; None for borders of intensity alone.
        gamma: pull of the prior.
        beta: sharpness of borders.
        intensity_share: of intensity in the borders, edges having 1.
    """
    walker = _walker(cues, edges, pull=gamma, sharpness=beta, intensity_share=intensity_share)
    return walker.answers((prior * cues.region)[None])[0]


def teach_frame(
    image: Float[np.ndarray, "i j"],
    region: Bool[np.ndarray, "i j"],
    edges: Float[np.ndarray, "c 48 48"] | None,
    context: Float[np.ndarray, "d 48 48"] | None = None,
    constants: LiverConstants = HAND_SET,
) -> Lesson:
    """Find the liver in a frame that nothing was learnt about.

    Every setting walks once; with a context, likeness to that answer is added to its logits, and it walks again.

    Args:
        image: display values, 0 to 1, on the sector grid.
        region: pixels inside the picture.
        edges: features of stride 16, see `standard_edges`; None leaves prior and cues without a walker.
        context: the same of stride 32; None does without the second step.
        constants: see there.
    """
    return teach_from_cues(frame_cues(image, region, constants), edges, context, constants)


def teach_from_cues(
    cues: Cues,
    edges: Float[np.ndarray, "c 48 48"] | None,
    context: Float[np.ndarray, "d 48 48"] | None = None,
    constants: LiverConstants = HAND_SET,
) -> Lesson:
    """The same as `teach_frame`, where the cues are at hand."""
    c = constants
    seen = cue_logit(cues, c)
    offsets = (c.offset - c.offset_spread, c.offset, c.offset + c.offset_spread)
    logits = np.stack([prior + seen + offset for prior in prior_logits(c) for offset in offsets])
    answers = expit(logits) * cues.region
    if edges is not None:
        walker = _walker(cues, edges, pull=c.pull, sharpness=c.sharpness, intensity_share=c.intensity_share)
        answers = walker.answers(answers)
        if context is not None:
            like = likeness(context, answers, cues.region) - c.likeness_from
            answers = walker.answers(expit(logits + c.likeness_weight * like) * cues.region)
    return _lesson(answers)


def next_lesson(
    student: Float[np.ndarray, "48 48"],
    cues: Cues,
    edges: Float[np.ndarray, "c 48 48"] | None,
    constants: LiverConstants = HAND_SET,
) -> Lesson:
    """What a frame teaches in a later round: the student's answer, corrected by cues and borders.

    The settings are the student as it is, and its logits with those of the cues behind a walker (of twice the pull, for
    a student is a better prior than an ellipse; without edges no walker).

    Args:
        student: its probability of liver.
        cues: of the frame.
        edges: as for `teach_frame`.
        constants: see there.
    """
    c = constants
    believed = logit(np.clip(np.asarray(student, np.float64), SURE, 1 - SURE))
    corrected = expit(c.later_trust * (believed + cue_logit(cues, c))) * cues.region
    if edges is not None:
        corrected = walk(corrected, cues, edges, gamma=2 * c.pull, beta=c.sharpness, intensity_share=c.intensity_share)
    return _lesson(np.stack([corrected, student * cues.region]))


def final_answer(
    student: Float[np.ndarray, "48 48"],
    cues: Cues,
    edges: Float[np.ndarray, "c 48 48"] | None,
    constants: LiverConstants = HAND_SET,
) -> Float[np.ndarray, "48 48"]:
    """A student's probability after the last walker; without edges as it is. 0 outside the region."""
    if edges is None:
        return np.asarray(student * cues.region, np.float64)
    c = constants
    return walk(student, cues, edges, gamma=c.final_pull, beta=c.sharpness, intensity_share=c.final_share)


def likeness(
    context: Float[np.ndarray, "c 48 48"],
    answers: Float[np.ndarray, "n 48 48"],
    region: Bool[np.ndarray, "48 48"],
) -> Float[np.ndarray, "n 48 48"]:
    """How much more each cell resembles the liver of an answer than the rest, from -2 to 2.

    The difference of two cosines: with the mean feature of cells above one half and of those below, each cell counting
    by its distance from one half. 0 where an answer has only one of the two.
    """
    unit = context / (np.linalg.norm(context, axis=0) + TINY)
    weights = np.stack([np.maximum(answers - 0.5, 0), np.maximum(0.5 - answers, 0)]) * region
    means = np.tensordot(weights, unit, ((2, 3), (1, 2)))
    means /= np.linalg.norm(means, axis=2, keepdims=True) + TINY
    liver, rest = np.tensordot(means, unit, 1)
    has_both = weights.any((2, 3)).all(0)
    return np.where(has_both[:, None, None], liver - rest, 0)


def leaning(cues: Cues, edges: Float[np.ndarray, "c 48 48"] | None, constants: LiverConstants = HAND_SET) -> float:
    """To which side a frame leans: above 0 as the prior expects, below 0 rather mirrored.

    An answer from a prior without sides is compared with the prior and with its mirror image. Three of four frames
    lean to the right side, so one frame says little, but most frames of a folder should lean so.
    """
    c = constants
    prior = prior_logit(c)
    mirrored = prior[:, ::-1]
    answer = expit((prior + mirrored) / 2 + cue_logit(cues, c) + c.offset) * cues.region
    if edges is not None:
        answer = walk(answer, cues, edges, gamma=c.pull, beta=c.sharpness, intensity_share=c.intensity_share)
    return float(((prior - mirrored) * (answer > 0.5)).mean())


def why_no_liver(
    lesson: Lesson, region: Bool[np.ndarray, "48 48"], context: Float[np.ndarray, "c 48 48"] | None = None
) -> str | None:
    """Why a frame seems to show no liver, in words; None where nothing speaks against one.

    Black frames, most photographs, noise (with a context) and scattered answers are told. Other organs and mirrored
    frames are mostly not: the prior puts something like a liver into every frame that has echoes.

    Args:
        lesson: of the first round.
        region: cells that were seen; slices of a tilted sweep see a part of the sector.
        context: of the frame; without it noise is not told.
    """
    if not region.any():
        return "nothing is seen in the sector"
    liver, rest = region & (lesson.probability > 0.5), region & (lesson.probability <= 0.5)
    area, certain = float(liver.sum() / region.sum()), float(lesson.certain[region].mean())
    if area < LEAST_AREA:
        return f"hardly anything looks like liver ({area:.0%} of the sector)"
    if area > MOST_AREA:
        return f"nearly everything looks like liver ({area:.0%} of the sector)"
    if lesson.agreement < LEAST_AGREEMENT:
        return f"the teacher's settings disagree (agreement {lesson.agreement:.2f})"
    if certain < LEAST_CERTAIN:
        return f"the teacher is certain about little ({certain:.0%} of the sector)"
    if context is not None:
        like = likeness(context, lesson.probability[None], region)[0]
        if rest.any() and (margin := float(like[liver].mean() - like[rest].mean())) > MOST_CONTRAST:
            return f"features follow the place in the frame alone, as in noise (contrast {margin:.2f})"
    return None


def _walker(
    cues: Cues, edges: np.ndarray | None, *, pull: float, sharpness: float, intensity_share: float
) -> RandomWalker:
    maps = [(cues.grey[None], intensity_share if edges is not None else 1.0)]
    if edges is not None:
        maps.append((edges, 1.0))
    return RandomWalker(maps, cues.region, pull=pull, sharpness=sharpness)


def _lesson(answers: Float[np.ndarray, "n 48 48"]) -> Lesson:
    mean = answers.mean(0)
    inside, of_mean = answers > 0.5, mean > 0.5
    certain = (inside == of_mean).all(0) & (np.abs(mean - 0.5) > CERTAIN_MARGIN)
    sizes = inside.sum((1, 2)) + of_mean.sum()
    dice = 2 * (inside & of_mean).sum((1, 2)) / np.maximum(sizes, 1)
    return Lesson(mean.astype(np.float32), certain, float(dice.mean()))
