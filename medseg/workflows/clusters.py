"""This file shows the clusters of a run as a gallery, and gives a run another number of clusters.

RUN/clusters.html     the gallery: one page that needs no network, with a slider for the number of clusters
RUN/clusters.json     the same of the run's own clusters, for programs:
    schema, run, method, voter, voters, metric, clusters
    cards             of each cluster: cluster, colour, name, sure, reason, share, facts, typical, borderline
    ks                by number of clusters: the name of each cluster, null where it has none
    agreement         share of the places shown that the page gives to the same cluster as the method does
    notes             what one must know to read it

All numbers of clusters are fitted to the sample of points that the run's own clusters were fitted to; `set_clusters`
fits them in the same way, so that a run becomes what the page showed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, read_record, require_folder, write_json
from medseg.naming.cards import MEASUREMENTS, ClusterCard, measure_clusters
from medseg.naming.classes import read_classes
from medseg.naming.rulebook import Rule, load_rules, verdicts
from medseg.patches.datasets import PatchDataset
from medseg.progress import track
from medseg.review.gallery.page import SCHEMA, Card, Clustering, StoredCodes, place_data, write_gallery
from medseg.review.gallery.patches import Patches
from medseg.review.gallery.places import assign, borderline_places, typical_places
from medseg.runs import RunRecord, open_run
from medseg.scans.schemes import colour_of
from medseg.stego.choice import contingency, fit_codes
from medseg.stego.clustering import PointSample, fit_kmeans, sample_points
from medseg.stego.losses import Terms
from medseg.stego.methods import codes_at
from medseg.stego.model import ClusterModel
from medseg.workflows.choosing import Candidate, kept_states, make_method, measured
from medseg.workflows.cluster_patches import PageSpace, shown_patches
from medseg.workflows.naming import require_naming
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import stego_settings

METHODS = ("stego", "kmeans")
"""Methods that have a gallery."""
FEWEST, MOST = 2, 24
"""Numbers of clusters that the page offers; more cannot be told apart by their colours."""
PATCHES = 64
"""Patches of the page: enough for strips of eight from several cases."""
_DISPLAY = {"brightness": "display value, 0 black to 1 white"}
_WORDS: Mapping[str, Mapping[str, str]] = {
    "picture": {**_DISPLAY, "salience": "strength of edges, 0 to 1"},
    "liver_ultrasound": {**_DISPLAY, "salience": "probability of liver by position and the cues along each ray"},
}
"""Words of measurements where they are not those of angiograms, by modality."""
_COLOURS = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4",
    "#008c8c", "#c8a2ff", "#9a6324", "#fffac8", "#a01010", "#aaffc3", "#808000", "#ffb07a", "#2020a0", "#00a0ff",
    "#b05080", "#5f9f00", "#7f5fff", "#c0c0c0",
)  # fmt: skip
"""Colours of clusters that can be told apart as a veil over grey, those of low numbers best."""
_VIEWS = {
    "axial": "seen from the feet: the patient's right is on the left, the front on top",
    "coronal": "seen from the front: the patient's right is on the left, the head on top",
    "sagittal": "seen from the side: the front is on the left, the head on top",
}
_PLACE_WORDS = {
    "mm": "Places are mm to the right, to the front and to the head, as `medseg name --space mm` takes them.",
    "px": "Places are row and column of the picture, from 0, as `medseg name --space voxel` takes them.",
    "sector": "Patches are sectors: depths go down from the probe, rays to the right, 0 to 159.",
}
"""How places are told, by their unit."""


class _Fitted(NamedTuple):
    """Prototypes among the page codes, and the cluster of each sampled point."""

    prototypes: Float[np.ndarray, "k m"]
    assignments: Int[np.ndarray, " n"]


def show_clusters(
    run: Path, out: Path | None = None, *, method: str = "stego", patches: int = PATCHES
) -> dict[str, Any]:
    """Write the gallery of a run's clusters and its JSON file.

    Args:
        run: a trained run; of several voters the first is shown.
        out: the page (`.html`), or a folder for it; None: the run's.
        method: one of `METHODS`.
        patches: shown at most.

    Returns:
        `lines` for the terminal, `file`, `json`, and what the JSON file holds.

    Raises:
        MedsegError: the run has no such clusters, its patches are no longer stored, or the page would be too large.
    """
    if method not in METHODS:
        raise MedsegError(f"--method must be one of {', '.join(METHODS)}, got {method}; choose one of them")
    if patches < 1:
        raise MedsegError(f"--patches must be at least 1, got {patches}; {PATCHES} is a good start")
    record = open_run(run)
    file = _page_file(run, out)
    folder, cards = _method_of(record, method)
    model = ClusterModel.load(folder)
    dataset = kept_patches(record)
    points, codes = _points_and_codes(record, model, dataset, voter=0)
    space = PageSpace.of(codes, model.metric)
    shown, stored, agreement = shown_patches(record, dataset, model, space, patches)
    fitted = _fit_all(record, model, codes, space)
    measurements = measured(points, record)
    rules = _rules(record, folder)
    clusterings, colours = {}, _lasting_colours(fitted, own=model.clusters)
    for k, one in fitted.items():
        is_own = k == model.clusters
        found = cards if is_own else measure_clusters(one.assignments, measurements, points.case, clusters=k)
        named = _named(found, rules, folder if is_own else None)
        clusterings[k] = Clustering(
            one.prototypes, [replace(card, colour=colour) for card, colour in zip(named, colours[k], strict=True)]
        )
    notes = _notes(record, method, rules, space, points, shown, agreement)
    head = {
        "title": f"Clusters of {run.resolve().name}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.resolve().name,
        "method": method,
        "changeable": method == "stego",
        "notes": notes,
    }
    words = {**MEASUREMENTS, **_WORDS.get(record.config.prepare.modality, {})}
    write_gallery(file, head, shown, stored, clusterings, own=model.clusters, words=words)
    content = {
        "schema": SCHEMA,
        "run": run.resolve().name,
        "method": method,
        "voter": 1,
        "voters": len(record.voters),
        "metric": model.metric,
        "clusters": model.clusters,
        "cards": _with_places(clusterings[model.clusters], shown, stored),
        "ks": {str(k): [card.name for card in one.cards] for k, one in clusterings.items()},
        "agreement": agreement,
        "notes": notes,
    }
    write_json(file.with_suffix(".json"), content)
    return {
        "lines": [
            f"{file}: {model.clusters} clusters of {method} in {len(shown.sources)} patches, "
            f"{file.stat().st_size / 1e6:.1f} MB; open it in a browser",
            *(card.reason for card in clusterings[model.clusters].cards if card.name),
        ],
        "file": str(file),
        "json": str(file.with_suffix(".json")),
        **content,
    }


def set_clusters(run: Path, clusters: int) -> dict[str, Any]:
    """Give the method `stego` of every voter another number of clusters, as the gallery shows them.

    Args:
        run: a trained run, whose patches are still stored.
        clusters: K.

    Returns:
        `lines` for the terminal, `run`, `clusters`, and `names` of the first voter's clusters.

    Raises:
        MedsegError: the run has no such clusters, or K is out of range.
    """
    record = open_run(run)
    if not FEWEST <= clusters <= MOST:
        raise MedsegError(f"--set-clusters must be from {FEWEST} to {MOST}, got {clusters}; choose one of the gallery")
    if record.config.naming.source == "hand":
        raise MedsegError(
            f"naming.source of {run} must be another than hand, since a hand-written file names the clusters "
            "of before; train with naming.source=clusters, and write the file after --set-clusters"
        )
    require_naming(record.config.naming, backbones=record.config.features.backbone)
    _method_of(record, "stego", is_named=False)
    dataset, settings = kept_patches(record), stego_settings(record.config)
    is_changed = False
    for number, voter in enumerate(track(record.voters, "fitting clusters")):
        state, folder = _state_of(voter), voter / "methods" / "stego"
        before = ClusterModel.load(folder)
        # A whole method stays as the gallery shows it, unless a voter before it changed, whose classes it has.
        if not is_changed and before.clusters == clusters == _cards_in(folder) and (folder / "classes.yaml").is_file():
            continue
        is_changed = True
        points, codes = _points_and_codes(record, before, dataset, voter=number)
        assert before.head is not None
        model = fit_codes(before.head, codes, settings, clusters=clusters, seed=record.config.run.seed + number)
        made = Candidate(state["step"], model, {}, Terms(*state["shifts"]))
        make_method(made, points, dataset, voter, record, {"signal": "--set-clusters", "chosen": made.as_dict()})
    naming = read_classes(record.method_folders("stego")[0] / "classes.yaml")
    names = [next((entry.name for entry in naming.classes if n in entry.clusters), None) for n in range(clusters)]
    of_voters = f" for each of {len(record.voters)} voters" if len(record.voters) > 1 else ""
    return {
        "lines": [
            f"{run} has {clusters} clusters now{of_voters}: "
            + ", ".join(f"{n} {name}" for n, name in enumerate(names) if name),
            *(["masks of before are out of date: run `medseg reconstruct` again"] if is_changed else []),
        ],
        "run": str(run),
        "clusters": clusters,
        "names": names,
    }


def _page_file(run: Path, out: Path | None) -> Path:
    if out is not None and out.suffix.lower() in (".html", ".htm"):
        if out.is_dir():
            raise CannotWriteError(f"{out} must be a file or new, got a folder; choose another -o")
        require_folder(out.parent, "-o")
        return out
    require_folder(out or run, "-o")
    return (out or run) / "clusters.html"


def _method_of(record: RunRecord, method: str, *, is_named: bool = True) -> tuple[Path, list[ClusterCard]]:
    """Folder and cards of a method of the first voter; its names may be wanting where a change was interrupted."""
    needed = "classes.yaml" if is_named else "weights.safetensors"
    if not all((folder / needed).is_file() for folder in record.method_folders(method)):
        raise MedsegError(
            f"{record.folder} must be trained to the end, got no method {method}; run the same `medseg train` again"
        )
    folder = record.method_folders(method)[0]
    if not (folder / "cards.json").is_file():  # of a checkpoint that was imported
        raise MedsegError(
            f"{folder} must hold cards.json, got none: nothing is known of the clusters of an imported checkpoint; "
            "train a run on your scans"
        )
    content = read_record(folder / "cards.json", "cards", advice="train the run anew")
    return folder, [ClusterCard(**card) for card in content["cards"]]


def _cards_in(folder: Path) -> int:
    return len(read_record(folder / "cards.json", "cards", advice="train the run anew")["cards"])


def _state_of(voter: Path) -> dict[str, Any]:
    """The checkpoint that a voter's method `stego` was made of: the chosen one, or the last."""
    states, choice = kept_states(voter / "checkpoints"), voter / "methods" / "stego" / "choice.json"
    if not choice.is_file():
        return states[-1]
    step = read_record(choice, "chosen", advice="run `medseg choose` again")["chosen"]["step"]
    return next((state for state in states if state["step"] == step), states[-1])


def _points_and_codes(
    record: RunRecord, model: ClusterModel, dataset: PatchDataset, *, voter: int
) -> tuple[PointSample, Float[Tensor, "n e"]]:
    """The points that a voter's clusters were fitted to, and their codes."""
    settings = stego_settings(record.config)
    seed = record.config.run.seed + voter
    points = sample_points(
        dataset, settings.fit_points, settings.fit_salient_share, seed, salient_top=settings.salient_top
    )
    return points, points.features if model.head is None else codes_at(model.head, dataset, points)


def _fit_all(
    record: RunRecord, model: ClusterModel, codes: Float[Tensor, "n e"], space: PageSpace
) -> dict[int, _Fitted]:
    """Clusterings for every K of the page; the run's own is the method itself."""
    settings, seed = stego_settings(record.config), record.config.run.seed
    projected = space.project(codes)
    fitted = {model.clusters: _Fitted(space.project(model.prototypes), model.assign_codes(codes).numpy())}
    others = [k for k in range(FEWEST, MOST + 1) if k != model.clusters and k <= len(codes)]
    for k in track(others, "fitting clusters"):
        if model.head is not None:
            other = fit_codes(model.head, codes, settings, clusters=k, seed=seed)
            fitted[k] = _Fitted(space.project(other.prototypes), other.assign_codes(codes).numpy())
        else:  # features have many channels
            values = torch.from_numpy(projected).float()
            found = fit_kmeans(values, k, metric="euclidean", starts=settings.kmeans_starts, seed=seed)
            nearest = torch.cdist(values, found.prototypes).argmin(1)
            fitted[k] = _Fitted(found.prototypes.double().numpy(), nearest.numpy())
    return dict(sorted(fitted.items()))


def _lasting_colours(fitted: Mapping[int, _Fitted], *, own: int) -> dict[int, list[str]]:
    """A colour for each cluster; one that has most points of a cluster of the K beside it keeps its colour."""
    numbers = {own: list(range(own))}
    for neighbours in ([k for k in fitted if k <= own][::-1], [k for k in fitted if k >= own]):
        for before, k in pairwise(neighbours):
            shared = np.zeros((before, k), dtype=np.int64)
            counted = contingency(fitted[before].assignments, fitted[k].assignments)
            shared[: counted.shape[0], : counted.shape[1]] = counted
            rows, columns = linear_sum_assignment(-shared)
            kept = {int(column): numbers[before][row] for row, column in zip(rows, columns, strict=True)}
            free = iter(sorted(set(range(max(fitted))) - set(kept.values())))
            numbers[k] = [kept[n] if n in kept else next(free) for n in range(k)]
    return {k: [_COLOURS[n] if n < len(_COLOURS) else colour_of(n) for n in found] for k, found in numbers.items()}


def _rules(record: RunRecord, folder: Path) -> tuple[Rule, ...]:
    """The rules that name the run's clusters; none where something else does."""
    naming = record.config.naming
    by_rules = naming.source == "rules" and read_classes(folder / "classes.yaml").named_by == "rules"
    return load_rules(naming.rules) if by_rules and naming.rules is not None else ()


def _named(cards: Sequence[ClusterCard], rules: Sequence[Rule], folder: Path | None) -> list[Card]:
    """Cards with names: by the rules, or for the run's own clusters as its `classes.yaml` in the folder says."""
    said: dict[int, tuple[str | None, float | None, str]] = {}
    if rules:
        said = {one.cluster: (one.name, one.sure, one.reason) for one in verdicts(cards, rules)}
    elif folder is not None:
        naming = read_classes(folder / "classes.yaml")
        for entry in () if naming.named_by == "clusters" else naming.classes:
            by = naming.named_by.replace("_", " ")
            said |= {n: (entry.name, None, f"cluster {n} is {entry.name}: named by {by}") for n in entry.clusters}
    nothing = (None, None, "")
    return [Card(card.cluster, "", *said.get(card.cluster, nothing), card.facts["share"], card.facts) for card in cards]


def _with_places(one: Clustering, patches: Patches, stored: StoredCodes) -> list[dict[str, Any]]:
    found = assign(stored.codes, one.prototypes)
    return [
        {
            **card.as_dict(),
            "typical": [place_data(patches, place) for place in typical_places(found, patches, n)],
            "borderline": [place_data(patches, place) for place in borderline_places(found, patches, n)],
        }
        for n, card in enumerate(one.cards)
    ]


def _notes(
    record: RunRecord,
    method: str,
    rules: Sequence[Rule],
    space: PageSpace,
    points: PointSample,
    patches: Patches,
    agreement: float,
) -> list[str]:
    """What one must know to read the page."""
    salient = float(points.salient.mean())
    of_them = f", {salient:.0%} of them from the most salient ones: shares are shares of this sample" if salient else ""
    notes = [
        f"Measured on {len(points)} sampled voxels{of_them}.",
        f"{len(patches.sources)} of the patches that the run was trained on are shown, the more salient ones first.",
    ]
    if patches.turned:
        notes.append(f"Patches are {patches.plane}, {_VIEWS[patches.plane]}.")
    notes += [words for unit, words in _PLACE_WORDS.items() if any(one.unit == unit for one in patches.sources)]
    if len(record.voters) > 1:
        notes.append(f"The run has {len(record.voters)} voters with clusters of their own; these are the first one's.")
    if space.kept < 1:
        notes.append(
            f"{len(space.mean)} channels of {method} are reduced to {space.basis.shape[1]}, which keep "
            f"{space.kept:.1%} of the squared distances."
        )
    notes.append(f"On the places shown, the page and the method agree in {agreement:.2%} (codes have 256 steps here).")
    if not rules:
        notes.append("No rule names the clusters of this run: names stand only where the run itself has them.")
    return notes
