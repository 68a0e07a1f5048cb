"""This file says in plain words what the review page tells of a case: amounts, who found and named them, the scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.naming.effort import Effort, in_words
from medseg.review.case_views import Subject, View
from medseg.review.queue import Evidence, amount_in_words

FOUND_BY: Mapping[str, str] = {
    "student": "a network that a rule taught",
    "flux": "a rule for bright tubes",
    "teacher": "a rule for the liver",
    "stego": "STEGO, groups of like-looking tissue",
    "kmeans": "k-means, groups of like-looking tissue",
    "untrained": "an untrained network",
    "linear": "a network taught with labels",
    "clicks": "groups of like-looking tissue that a person named",
    "probe": "a small network taught with a few labels",
}
"""What each method is, by its name."""
NAMED_BY: Mapping[str, str] = {
    "rules": "rules",
    "clusters": "nobody: each group is a class",
    "training_labels": "labels of the training scans",
    "clicks": "the clicks of a person",
    "hand": "a person",
    "oracle": "the labels it is scored with; no result",
}
"""Who gave classes their names."""


def amount_of(manifest: Mapping[str, Any]) -> tuple[float | None, str]:
    """How much is marked in all, and the unit; classes that are no finding do not count."""
    amounts, unit = _amounts(manifest)
    if not amounts:
        return None, unit
    found = {entry["name"] for entry in manifest["classes"] if not entry.get("background")}
    return sum(amount for name, amount in amounts.items() if name in found), unit


def alarms_of(manifest: Mapping[str, Any], frames: int) -> tuple[str, ...]:
    """What the program said against its own mask.

    Args:
        manifest: of the case.
        frames: or slices that the case has.
    """
    said = manifest.get("alarms", {})
    words = [str(alarm)] if (alarm := manifest.get("facts", {}).get("flux_alarm")) else []
    if said:
        number, reason = min(said.items(), key=lambda entry: int(entry[0]))
        where = f"{len(said)} of {frames} frames or slices stay empty; number {int(number) + 1}: " if frames > 1 else ""
        words.append(f"{where}{reason}")
    return tuple(words)


def facts_of(subject: Subject, view: View, evidence: Evidence) -> list[list[str]]:
    """Rows of what is said of a case: a name and a value."""
    manifest = subject.manifest
    amounts, unit = _amounts(manifest)
    several = view.is_picture and view.image.shape[2] > 1
    kind = "Volume" if unit == "ml" else "Mean area" if several else "Area"
    found = {entry["name"] for entry in manifest["classes"] if not entry.get("background")} - _not_sought(manifest)
    shares = manifest.get("share", {}) if view.is_picture else {}
    rows = [
        [
            f"{kind} of {name}",
            amount_in_words(amount, unit) + (f" ({shares[name]:.0%} of the picture)" if name in shares else ""),
        ]
        for name, amount in amounts.items()
        if name in found
    ]
    if evidence.components is not None:
        rows.append(["Separate pieces", str(evidence.components)])
    if evidence.uncertainty is not None:
        rows.append(["Mean uncertainty along the mask", f"{evidence.uncertainty:.2f} of 1"])
    method, named = str(manifest["method"]), str(manifest["named_by"])
    rows += [
        ["Found by", FOUND_BY.get(method, method)],
        ["Named by", NAMED_BY.get(named, named)],
        ["Effort", in_words(named, Effort.from_dict(manifest.get("effort", {})))],
        ["Trained on this scan", "yes, without a label" if manifest["trained_on_this_case"] else "no"],
        ["Scan", _grid_in_words(view)],
    ]
    if view.hidden:
        rows.append(["Not shown", f"{view.hidden} frames without a sector: names may be burnt into them"])
    return rows


def _not_sought(manifest: Mapping[str, Any]) -> set[str]:
    """Classes that a step finds inside others, where no such step was asked for: `vessels` finds the class vessel."""
    steps = [str(next(iter(step))) if isinstance(step, (list, dict)) else str(step) for step in manifest["refine"]]
    inside = {entry["name"] for entry in manifest["classes"] if entry.get("inside")}
    return {name for name in inside if not any(step.startswith(name) for step in steps)}


def _amounts(manifest: Mapping[str, Any]) -> tuple[Mapping[str, float], str]:
    """Amount by class in the best unit that is known."""
    for key, unit in (("area_cm2", "cm²"), ("ml", "ml"), ("area_px", "pixels")):
        if manifest.get(key):
            return manifest[key], unit
    return {}, "ml"


def _grid_in_words(view: View) -> str:
    if view.is_picture:
        width, height, count = view.image.shape
        return f"{height} x {width} pixels" + (f", {count} frames" if count > 1 else "")
    shape = " x ".join(map(str, view.image.shape))
    lengths = " x ".join(f"{(view.affine[:3, axis] ** 2).sum() ** 0.5:.2f}" for axis in range(3))
    return f"{shape} voxels of {lengths} mm"
