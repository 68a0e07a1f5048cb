"""This file runs DatUS on a folder: segments without training, their classes, sharpened masks and, with labels, scores.

A *class* of DatUS is a group of segments that look alike; it has a number and no name. *k-means* here groups the very
keys that the segments come from, cell by cell, and is what DatUS is compared with. Labels are read when the masks of
their case are made and written, and for scores only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer

from medseg.config import as_plain
from medseg.datus.labelling import NOISE, label_segments, pseudo_mask
from medseg.datus.segments import RESOLUTION
from medseg.errors import MedsegError
from medseg.features.backbones import load_slice_backbone
from medseg.files import CannotWriteError, hash_content, require_folder, write_json
from medseg.progress import track
from medseg.runs import versions
from medseg.scans.cases import Case
from medseg.scans.grids import spread_slices
from medseg.scans.schemes import LabelScheme
from medseg.stego.clustering import fit_kmeans
from medseg.stego.model import nearness
from medseg.workflows import parts
from medseg.workflows.correspondence import Viewer
from medseg.workflows.datus_masks import DATUS, Masks, MaskWriter
from medseg.workflows.datus_stages import SegmentedSlice, Stages, Store
from medseg.workflows.evaluation_report import Evaluated, write_report
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.labels import scheme_of
from medseg.workflows.reconstruction import require_apart

_log = logging.getLogger(__name__)

KMEANS = "k-means"
CLUSTERS = 8
"""Clusters where nothing is asked for."""
UNTIL = ("segments", "crops", "labels", "masks")
"""The stages after which a run may end."""
_STAGES = ("prepare", "keys", "segments", "crops", "labels", KMEANS, "masks")
"""What seconds are told of, in the order of the work; the forward passes are in `keys` and `crops`."""
_MOST_CLASSES = 254
"""That a mask of 8 bits can hold beside noise (0) and 255, which readers take for unlabelled."""
_POINTS = 20000
"""Cells that k-means is fitted on, at most."""
_STARTS = 5
"""Of k-means on cells; the tightest result is kept."""


@dataclass(frozen=True)
class DatusSettings:
    """What labels depend on beside the networks.

    Attributes:
        resolution: of the communities.
        clusters: of k-means over the segments.
        classes: that are left after merging.
        seed: of k-means.
    """

    resolution: float
    clusters: int
    classes: int
    seed: int

    def __post_init__(self) -> None:
        if not 2 <= self.clusters <= _MOST_CLASSES:
            raise MedsegError(f"--clusters must be 2 to {_MOST_CLASSES}, got {self.clusters}; 8 to 30 are usual")
        if not 2 <= self.classes <= self.clusters:
            raise MedsegError(
                f"--merge-to must be 2 to the number of clusters ({self.clusters}), got {self.classes}; "
                "give for example --clusters 20 --merge-to 8"
            )
        if not 0 < self.resolution < float("inf"):
            raise MedsegError(
                f"--resolution must be above 0, got {self.resolution}; 1 is as published, 1.5 gives more segments"
            )


def run_datus(
    images: Path | Sequence[Path],
    out: Path,
    *,
    config: str = "pictures",
    overrides: Sequence[str] = (),
    crop_backbone: str | None = None,
    crop_checkpoint: Path | None = None,
    resolution: float = RESOLUTION,
    clusters: int = CLUSTERS,
    merge_to: int | None = None,
    seed: int = 0,
    slices: int | None = None,
    until: str = "masks",
    crf: bool = True,
    processes: int = 2,
    labels: bool = True,
    scheme: LabelScheme | None = None,
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Segment pictures, or the slices of volumes, into classes that nobody named; no network is trained.

    Args:
        images: folders, datalists or single files.
        out: receives the masks, `classes.yaml`, `datus.json`, `stages/` with what was computed, and with labels
            `evaluation/`.
        config: path or shipped name of the config that says how scans are prepared and which networks look at them.
        overrides: `section.key=value`, such as `features.backbone=vit_small_patch8_224.dino`.
        crop_backbone: the network that sees the crops, by name; None: the same.
        crop_checkpoint: its weights, such as MoCo's ResNet-50.
        resolution: of the communities; more gives more and smaller segments.
        clusters: of k-means over the segments.
        merge_to: classes that clusters are merged into; None: as many as clusters.
        seed: of k-means.
        slices: of each volume or cine, evenly spread; the others stay empty. None: all.
        until: the last stage, one of `UNTIL`; what is stored waits for the next ones.
        crf: whether masks are sharpened by the colours; without it, segments that are noise stay without a class.
        processes: for the CRF; 0 computes it here.
        labels: whether labels that lie beside the images are used for scores.
        scheme: what the labels' values and colours mean, instead of what the data set or the config says.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, `out`, `done` and `failed` cases, `seconds` of each stage, `segments`, and with labels
        `rows` with the scores.

    Raises:
        MedsegError: nothing can be segmented so, or an argument is wrong.
    """
    require_folder(out, "-o")
    wanted = DatusSettings(resolution, clusters, clusters if merge_to is None else merge_to, seed)
    if until not in UNTIL:
        raise MedsegError(f"--until must be one of {', '.join(UNTIL)}, got {until}; choose one")
    if slices is not None and slices < 1:
        raise MedsegError(f"--slices must be at least 1, got {slices}; leave it out to take all")
    listing = intake.cases(images, skip=(out,))
    require_apart(listing, out)
    parts.say_listing(listing)
    viewer = Viewer(config, None, overrides, None)
    second = None
    if crop_backbone is not None or crop_checkpoint is not None:
        second = load_slice_backbone(crop_backbone or "checkpoint", checkpoint=crop_checkpoint).to(viewer.device)
    stages = Stages(viewer, second, Store(out / "stages"), resolution)
    failed = dict(listing.problems)
    found = _segment(listing.cases, stages, slices, failed, crops=until != "segments")
    if not found:
        raise MedsegError(f"IMAGES must hold a picture that can be used, got none: {'; '.join(failed.values())}")
    masks = {} if until in UNTIL[:2] else {DATUS: _label(found, wanted, stages.store)}
    if until != "masks":
        lines = _stage_lines(found, stages.store, out)
        return {"lines": lines, "out": str(out), "done": sorted(found), "failed": failed}
    labelled = listing.labels if labels else {}
    if labelled:
        masks[KMEANS] = _kmeans(found, wanted, stages)
    scheme = scheme or scheme_of(viewer.config.naming, listing.scheme)
    writer = MaskWriter(listing, viewer, masks, wanted.classes, scheme, out, labelled, crf=crf, intake=intake)
    with stages.store.timed("masks"):
        writer.write(processes=processes if crf else 0)
    return _answer(writer, stages, found, failed, wanted)


def _segment(
    cases: Sequence[Case], stages: Stages, slices: int | None, failed: dict[str, str], *, crops: bool
) -> dict[str, list[SegmentedSlice]]:
    """The segmented slices of each case; what cannot be used is said and left out."""
    found = {}
    for case in track(cases, "segments"):
        try:
            with stages.store.timed("prepare"):
                sample = stages.viewer.prepared(case)
            count = sample["image"].shape[3]
            found[case.case_id] = stages.of_case(case, sample, spread_slices(count, slices or count), crops=crops)
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[case.case_id] = str(error)
            _log.error(str(error))
    return found


def _label(found: Mapping[str, Sequence[SegmentedSlice]], wanted: DatusSettings, store: Store) -> Masks:
    """The pseudo mask of each slice."""
    every = [one for of_case in found.values() for one in of_case]
    key = hash_content([[one.hash for one in every], asdict(wanted)])
    labels = store.get("labels", "all", key, lambda: {"labels": _labels_of_all(every, wanted)})["labels"]
    ends = np.cumsum([len(one.crops) for one in every])
    each = np.split(labels, ends[:-1])
    return {(one.case_id, one.number): pseudo_mask(one.segments, own) for one, own in zip(every, each, strict=True)}


def _labels_of_all(every: Sequence[SegmentedSlice], wanted: DatusSettings) -> Integer[np.ndarray, " n"]:
    return label_segments(
        torch.from_numpy(np.concatenate([one.crops for one in every])),
        np.concatenate([one.cells for one in every]),
        clusters=wanted.clusters,
        classes=wanted.classes,
        seed=wanted.seed,
    )


def _kmeans(found: Mapping[str, Sequence[SegmentedSlice]], wanted: DatusSettings, stages: Stages) -> Masks:
    """The nearest of as many prototypes as there are classes, cell by cell."""
    every = [one for of_case in found.values() for one in of_case]
    key = hash_content([[one.keys_hash for one in every], wanted.classes, wanted.seed])

    def fit() -> dict[str, np.ndarray]:
        rng = np.random.default_rng(wanted.seed)
        share = -(-_POINTS // len(every))
        points = []
        for one in every:
            stored = stages.stored_keys(one)
            keys = stored["keys"][:, stored["inside"]].T
            points.append(keys[rng.permutation(len(keys))[:share]])
        together = torch.from_numpy(np.concatenate(points)).float()
        fitted = fit_kmeans(together, wanted.classes, metric="cosine", starts=_STARTS, seed=wanted.seed)
        return {"prototypes": fitted.prototypes.numpy()}

    prototypes = torch.from_numpy(stages.store.get(KMEANS, "all", key, fit)["prototypes"])
    masks = {}
    for one in every:
        stored = stages.stored_keys(one)
        nearest = nearness(torch.from_numpy(stored["keys"]).float()[None], prototypes, "cosine")[0].argmax(0)
        masks[one.case_id, one.number] = np.where(stored["inside"], nearest.numpy(), NOISE)
    return masks


def _stage_lines(found: Mapping[str, Sequence[SegmentedSlice]], store: Store, out: Path) -> list[str]:
    """How many segments there are, and the seconds of each stage."""
    slices = sum(map(len, found.values()))
    per_slice = sum(map(sum, _segments_of(found).values())) / slices
    told = ", ".join(f"{stage} {store.seconds[stage]:.1f} s" for stage in _STAGES if stage in store.seconds)
    return [f"{len(found)} cases in {out}: {slices} slices, {per_slice:.1f} segments each", f"  {told}"]


def _segments_of(found: Mapping[str, Sequence[SegmentedSlice]]) -> dict[str, list[int]]:
    """How many segments each slice of a case has."""
    return {case_id: [len(one.cells) for one in of_case] for case_id, of_case in found.items()}


def _answer(
    writer: MaskWriter,
    stages: Stages,
    found: Mapping[str, Sequence[SegmentedSlice]],
    failed: Mapping[str, str],
    wanted: DatusSettings,
) -> dict[str, Any]:
    """What the run says, and `datus.json`."""
    store, out, config = stages.store, writer.out, stages.viewer.config
    seconds = {stage: round(store.seconds[stage], 3) for stage in _STAGES if stage in store.seconds}
    first, *rest = _stage_lines(found, store, out)
    lines = [f"masks of {first}, {wanted.clusters} clusters, {wanted.classes} classes", *rest]
    noise = float(np.mean(writer.noise))
    if noise > 0:
        lines.append(f"  {noise:.1%} of the pixels have no class, being noise; scores take it for one more cluster")
    facts = {
        "settings": asdict(wanted) | {"crf": writer.crf},
        "backbones": [backbone.name for backbone in stages.viewer.backbones],
        "crop_backbones": [backbone.name for backbone in stages.crop_backbones],
        "keys": not stages.centred,
        "seconds": seconds,
        "computed": {stage: store.computed.get(stage, 0) for stage in ("keys", "segments", "crops", "labels")},
        "noise_share": noise,
    }
    segments = _segments_of(found)
    answer: dict[str, Any] = {"out": str(out), "done": sorted(found), "segments": segments, "seconds": seconds}
    if writer.pictures:
        folders = dict.fromkeys(writer.masks, out / "evaluation")
        evaluated = Evaluated(writer.pictures, writer.exhibits, folders, config, writer.scheme, {}, None)
        said = {"images": len(writer.pictures), "seen_in_training": 0, **facts}
        report = write_report(evaluated, out / "evaluation", facts=said, dark=False)
        lines += report["lines"]
        answer["rows"] = report["rows"]
    about = {"config": as_plain(config), "versions": versions()}
    write_json(out / "datus.json", {"schema": "medseg-datus/1", **facts, "segments": segments, **about})
    return {"lines": lines, **answer, "failed": {**failed, **writer.failed}}
