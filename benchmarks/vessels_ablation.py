"""This file takes the recipe apart: what Dice and clDice are lost without each of its pieces.

One student is trained shortly on two phantoms, one seed; only rows that change a training train anew. Pieces that the
library has no switch for are replaced here, by patching the function or constant that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from vessels_answers import Answers, Steps, ask_run, core_mask, without
from vessels_cases import Plan, Scores, TestPhantom, prepared_phantom, print_grid, print_scores

from medseg.features.student.vessels.student import VesselStudent
from medseg.prepare import flux, vesselness
from medseg.reconstruction.refine import refine
from medseg.runs import RunRecord

CASES = ("noise_030", "bright_fat", "huge_object", "faint")
"""Noise, sheets that are no vessels, a scale that may be ruined, and low contrast."""
TRAINING_PHANTOMS, STEPS = 2, 60
FULL = "full recipe"
SHOWN = ("STEGO", "student", "flux rule")

Patch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Variant:
    """The recipe without a piece.

    Attributes:
        overrides: of the config.
        patches: what is replaced while it trains and predicts.
        touches: whose masks differ from those of the full recipe.
        same_student: only STEGO is trained anew, on the student of the full recipe.
    """

    overrides: Sequence[str] = ()
    patches: Sequence[Patch] = ()
    touches: Sequence[str] = SHOWN
    same_student: bool = False


def hessian_flux(
    j: Float[np.ndarray, "i j k"],
    spacing: Sequence[float],
    *,
    radii_mm: Sequence[float] = flux.RADII_MM,
    region: Bool[np.ndarray, "i j k"] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """In place of the oriented flux: the same measure of the Gaussian Hessian, at the scales of the same radii.

    The factor makes both equal on the axis of an ideal tube, so that constants of the rule keep their meaning.
    """
    return _hessian_strength(j, spacing, radii_mm) * np.float32(_tube_factor(tuple(radii_mm)))


def _hessian_strength(j: np.ndarray, spacing: Sequence[float], radii_mm: Sequence[float]) -> np.ndarray:
    strongest = np.zeros(j.shape, np.float32)
    for radius_mm in radii_mm:
        scale_mm = radius_mm / np.sqrt(2)  # where the Hessian of a tube of this radius is strongest
        sigma = [scale_mm / size for size in spacing]
        parts = []
        for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
            order = [(a == axis) + (b == axis) for axis in range(3)]
            parts.append(gaussian_filter(j, sigma, order=order) * (scale_mm / spacing[a] * scale_mm / spacing[b]))
        strength = flux._tube_strength(*parts) / radius_mm  # over the radius, because a flux is in 1/mm
        np.maximum(strongest, strength, out=strongest, casting="same_kind")
    return strongest


def _tube_factor(radii_mm: tuple[float, ...]) -> float:
    """Oriented flux over Hessian strength on the axis of a straight tube of middle radius."""
    side, size_mm, radius_mm = 48, 0.5, 0.9
    i, j, _ = np.indices((side, side, side)) - side // 2
    tube = (np.hypot(i, j) * size_mm < radius_mm).astype(np.float32)
    middle = (side // 2,) * 3
    spacing = (size_mm,) * 3
    return float(flux.oriented_flux(tube, spacing)[middle] / _hessian_strength(tube, spacing, radii_mm)[middle])


def ungated(steps: Steps) -> Steps:
    """The steps without the flux rule's say, but without specks too."""
    return [("components", {"min_mm3": 2.0}) if step[0] == "gate" else step for step in steps]


def _global_level(values: np.ndarray, region: np.ndarray, spacing: Sequence[float]) -> float:
    """In place of the blocks: one contraharmonic mean of the whole region."""
    return vesselness._contraharmonic_mean(values, region)


def _without_lift() -> AbstractContextManager[Any]:
    lifted = VesselStudent.features_of_box

    def bare(self: VesselStudent, sample: Mapping[str, Any], box: Any) -> Any:
        features = lifted(self, sample, box)
        features[-1] = 0
        return features

    return patch.object(VesselStudent, "features_of_box", bare)


VARIANTS: Mapping[str, Variant] = {
    FULL: Variant(("stego.voters=3",)),
    "Hessian instead of flux": Variant(patches=(lambda: patch.object(vesselness, "oriented_flux", hessian_flux),)),
    "no block scale": Variant(patches=(lambda: patch.object(vesselness, "_large_vessel_level", _global_level),)),
    "no tubularity test": Variant(patches=(lambda: patch.object(vesselness, "CORE_TUBULARITY", -1.0),)),
    "no painting": Variant(("student.painted=0",), touches=SHOWN[:2]),
    "no second round, as many steps": Variant(("student.rounds=1", f"student.steps={2 * STEPS}"), touches=SHOWN[:2]),
    "no lift": Variant(patches=(_without_lift,), touches=SHOWN[:1], same_student=True),
    "preset shifts": Variant(("stego.shifts=preset",), touches=SHOWN[:1], same_student=True),
}


def run(plan: Plan) -> None:
    """Train and measure each variant, and print the table."""
    rows: dict[str, dict[str, dict[str, Scores]]] = {}
    for name in VARIANTS:
        for case in plan.test_cases if plan.trial else CASES:
            key = name.replace(" ", "_").replace(",", "")
            cell = plan.cell(f"ablation/{key}/{case}", partial(_measure, plan, name, case))
            for row, scores in cell["rows"].items():
                if cell["vessels"]:
                    rows.setdefault(row, {})[case] = scores
    for method in SHOWN:
        table = {
            row: {case: scores[method] for case, scores in by_case.items()}
            for row, by_case in rows.items()
            if all(method in scores for scores in by_case.values())
        }
        print_scores(f"Ablation, {method}", table)
        print_grid("clDice by phantom", table, "cldice")


def _measure(plan: Plan, name: str, case_name: str) -> dict[str, Any]:
    """Scores of a variant on one phantom; the full recipe also gives the rows that change nothing but its steps."""
    variant = VARIANTS[name]
    first: list[str] = []
    if variant.same_student:
        first = ["student.steps=0", f"student.start={_trained(plan, FULL).student}"]
    with ExitStack() as stack:
        for enter in variant.patches:
            stack.enter_context(enter())
        record = _trained(plan, name, first)
        case = prepared_phantom(plan, case_name, record.config)
        methods = ["stego", "stego 1", "student", "flux"] if name == FULL else ["stego 1", "student", "flux"]
        asked = ask_run(record, case.sample, methods=methods)
        steps = record.config.reconstruct.refine
        flux_mask = (asked.of["flux"] > 0.5) & case.volume.region
        rows = {name: _scores(case, asked, steps, flux_mask, variant.touches)}
        if name == FULL:
            rows["vote of three"] = {"STEGO": case.scores(refine(asked.of["stego"], case.volume, steps))}
            rows["no edge"] = _scores(case, asked, without(steps, "radius_edge"), core_mask(case.volume), SHOWN)
            rows["no gate, components of 2 mm3"] = _scores(case, asked, ungated(steps), flux_mask, SHOWN[:2])
    return case.facts | {"rows": rows}


def _trained(plan: Plan, name: str, last: Sequence[str] = ()) -> RunRecord:
    variant, key = VARIANTS[name], name.replace(" ", "_").replace(",", "")
    overrides = ("stego.voters=1", f"student.steps={STEPS}", *variant.overrides)
    scans = plan.training_scans(TRAINING_PHANTOMS)
    return plan.trained(f"ablation_{key}", "tof_mra", scans, *overrides, last=last)


def _scores(
    case: TestPhantom, asked: Answers, steps: Steps, flux_mask: np.ndarray, wanted: Sequence[str]
) -> dict[str, Scores]:
    masks: dict[str, Callable[[], np.ndarray]] = {
        "STEGO": partial(refine, asked.of["stego 1"], case.volume, steps),
        "student": partial(refine, asked.of["student"], case.volume, steps),
        "flux rule": lambda: flux_mask,
    }
    return {method: case.scores(masks[method]()) for method in wanted}
