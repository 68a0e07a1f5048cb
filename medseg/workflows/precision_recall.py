"""This file measures on labelled pictures how well features, codes and a CRF predict that two places are of one class.

*Pairs within* a picture are all pairs of points drawn in it; *pairs between* pictures are all pairs of a picture's
points with those of the picture it resembles most and of a random one. A CRF knows neighbours in one picture only.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.features.correspondence import at_points, pair_cosines
from medseg.files import require_folder, write_json
from medseg.progress import track
from medseg.review.curves import precision_recall_plot
from medseg.scans.cases import Case, Listing
from medseg.scans.folders import find_cases
from medseg.scans.readers import read_labels
from medseg.scoring.precision_recall import PrecisionRecall, crf_affinity, precision_recall
from medseg.workflows import parts
from medseg.workflows.correspondence import Viewer

_log = logging.getLogger(__name__)

WITHIN, BETWEEN = "within a picture", "between pictures"
MOST_SLICES = 4
"""Slices of a stack that are looked at, spread over those with labels."""
_LEAST_POINTS = 2


class _Points(NamedTuple):
    """Points of one slice: vectors by kind, class, and place and colour for the CRF."""

    vectors: Mapping[str, Float[torch.Tensor, "n d"]]
    labels: Int[np.ndarray, " n"]
    place_and_colour: Float[np.ndarray, "n 5"]


def plot_precision_recall(
    images: Path,
    out: Path,
    *,
    config: str = "pictures",
    run: Path | None = None,
    points: int = 100,
    resolution: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw precision against recall of label co-occurrence for features, codes (with a run) and the CRF's kernel.

    Args:
        images: labelled pictures or volumes; unlabelled ones are left out, as are unlabelled pixels.
        out: receives `precision_recall.png` and `precision_recall.json`.
        config: path or shipped name of the config that says which backbones.
        run: a trained run, for codes; its config is used instead.
        points: drawn in each slice.
        resolution: shorter side at which the backbones look.
        seed: of points and random pictures.
        overrides: `section.key=value`.

    Returns:
        `lines` for the terminal, `average_precision` by pairs and kind, `failed` cases.

    Raises:
        MedsegError: no labelled picture, or config or run cannot be used.
    """
    require_folder(out, "-o")
    if points < _LEAST_POINTS:
        raise MedsegError(f"--points must be {_LEAST_POINTS} or more a picture, got {points}; 100 is a good number")
    listing = find_cases(images, skip=(out,))
    parts.say_listing(listing)
    labelled = [case for case in listing.cases if case.case_id in listing.labels]
    if not labelled:
        raise MedsegError(f"{images} must hold labelled pictures, got none with a label; name labels like their images")
    viewer = Viewer(config, run, overrides, resolution)
    rng = np.random.default_rng(seed)
    failed, drawn = dict(listing.problems), list[_Points]()
    for case in track(labelled, "looking"):
        try:
            drawn += _points_of(case, listing, viewer, points, rng)
        except MedsegError as error:
            failed[case.case_id] = str(error)
            _log.error(str(error))
    if not drawn:
        raise MedsegError(f"{images} must hold labelled pixels, got none that can be used; check the labels")
    found = {
        pairs: ({kind: precision_recall(similarity, same) for kind, similarity in kinds.items()}, float(same.mean()))
        for pairs, (kinds, same) in _pairs(drawn, rng).items()
    }
    precision_recall_plot(found, out / "precision_recall.png", "Do alike places have the same label?")
    average = {pairs: {kind: curve.average for kind, curve in curves.items()} for pairs, (curves, _) in found.items()}
    facts = {"cases": len(labelled) - len(failed.keys() & {case.case_id for case in labelled}), "slices": len(drawn)}
    record = {**facts, "points": points, "seed": seed, "average_precision": average}
    write_json(
        out / "precision_recall.json", record | {"chance": {pairs: share for pairs, (_, share) in found.items()}}
    )
    lines = [f"pairs {pairs}: {_listed(curves)}, chance {share:.3f}" for pairs, (curves, share) in found.items()]
    return {
        "lines": ["average precision", *(f"  {line}" for line in lines), f"picture: {out / 'precision_recall.png'}"],
        "average_precision": average,
        "failed": failed,
    }


def _listed(curves: Mapping[str, PrecisionRecall]) -> str:
    return ", ".join(f"{kind} {curve.average:.3f}" for kind, curve in curves.items())


def _points_of(case: Case, listing: Listing, viewer: Viewer, count: int, rng: np.random.Generator) -> Iterator[_Points]:
    """Random labelled points of each slice that is looked at."""
    stored = read_labels(listing.labels[case.case_id], listing.scheme)
    labels = np.asarray(parts.on_prepared_grid(stored, case, viewer.config.prepare)[0])
    sample = viewer.sample(case)
    if labels.shape[-1] != sample["image"].shape[-1]:
        raise MedsegError(
            f"label of case {case.case_id} must have the slices of its image, got {labels.shape[-1]} and "
            f"{sample['image'].shape[-1]}; check the label file"
        )
    with_labels = np.flatnonzero((labels >= 0).any((0, 1)))
    chosen = with_labels[np.unique(np.linspace(0, len(with_labels) - 1, MOST_SLICES).round().astype(int))]
    for number in chosen.tolist() if len(with_labels) else ():
        view = viewer.view(case, sample, number)
        places = np.argwhere(labels[..., number] >= 0)
        pixels = places[rng.choice(len(places), min(count, len(places)), replace=False)]
        if len(pixels) < _LEAST_POINTS:
            continue
        where = torch.from_numpy(pixels / np.maximum(np.array(labels.shape[:2]) - 1, 1))
        maps = {"feature": view.features} | ({} if view.codes is None else {"code": view.codes})
        picture = torch.as_tensor(sample["image"])[..., number].float()
        colours = at_points(picture, where).expand(-1, 3).numpy()
        yield _Points(
            {kind: at_points(values, where) for kind, values in maps.items()},
            labels[pixels[:, 0], pixels[:, 1], number].astype(int),
            np.concatenate([where.numpy() * (np.array(picture.shape[1:]) - 1), 255 * colours], axis=1),
        )


def _pairs(drawn: Sequence[_Points], rng: np.random.Generator) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Similarity of all pairs by kind, and whether their labels are the same; within pictures and between them."""
    same: dict[str, list[np.ndarray]] = defaultdict(list)
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for one in drawn:
        first, second = np.triu_indices(len(one.labels), k=1)
        same[WITHIN].append(one.labels[first] == one.labels[second])
        for kind, vectors in one.vectors.items():
            found[WITHIN][kind].append(pair_cosines(vectors, vectors).numpy()[first, second])
        found[WITHIN]["CRF"].append(crf_affinity(one.place_and_colour[first], one.place_and_colour[second]))
    for index, partners in enumerate(_partners(drawn, rng)):
        one = drawn[index]
        for other in (drawn[partner] for partner in partners):
            same[BETWEEN].append((one.labels[:, None] == other.labels[None]).ravel())
            for kind, vectors in one.vectors.items():
                found[BETWEEN][kind].append(pair_cosines(vectors, other.vectors[kind]).numpy().ravel())
    return {
        pairs: (
            {kind: np.concatenate(values).astype(float) for kind, values in kinds.items()},
            np.concatenate(same[pairs]),
        )
        for pairs, kinds in found.items()
    }


def _partners(drawn: Sequence[_Points], rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """For each slice the one of the most similar mean feature and a random one, never itself; none for a single one."""
    if len(drawn) == 1:
        return
    means = functional.normalize(torch.stack([one.vectors["feature"].mean(0) for one in drawn]), dim=1)
    likeness = (means @ means.T).fill_diagonal_(-torch.inf)
    for index, nearest in enumerate(likeness.argmax(1).tolist()):
        yield nearest, int((index + rng.integers(1, len(drawn))) % len(drawn))
