"""This file evaluates a run on labelled pictures, as STEGO is evaluated: whole pictures, mirrored too, with a CRF.

Each slice that has labels goes through the networks once; other processes sharpen what they say (the CRF). What is
kept of a picture is a *table* a method: its pixels by cluster and class. Clusters are named from the tables at the end,
see `evaluation_naming`. Labels are read here, beside the prediction, never on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer, UInt8

from medseg.config import CHANGEABLE_AFTER_TRAINING, Config, change_config
from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.naming.matching import count_table
from medseg.prepare.chain import invert, prepare_case
from medseg.progress import track
from medseg.reconstruction.dense_crf import LabelledSlice, SliceJob, in_bytes, label_slices
from medseg.reconstruction.slices import slice_log_probabilities
from medseg.runs import TRAINED_METHODS, RunRecord, open_run, versions
from medseg.scans.cases import Case, Listing
from medseg.scans.schemes import LabelScheme
from medseg.scans.sources import hash_scan
from medseg.workflows import parts
from medseg.workflows.evaluation_naming import PictureTables
from medseg.workflows.evaluation_report import Evaluated, Exhibit, write_report
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.labels import labels_of, scheme_of
from medseg.workflows.results import CaseFiles

_log = logging.getLogger(__name__)

EXHIBIT_PIXELS = 512
"""Longer side to which the panels' pictures are thinned out, so that a few of them can be kept in memory."""


def evaluate_run(
    run: Path,
    images: Path,
    out: Path,
    *,
    flip: bool = True,
    crf: bool = True,
    processes: int = 2,
    panels: int = 8,
    export: bool = False,
    dark: bool = False,
    scheme: LabelScheme | None = None,
    held_out: bool = False,
    intake: Intake = AS_IT_IS,
    overrides: Sequence[str] = (),
    brief: bool = False,
) -> dict[str, Any]:
    """Score every method of a run on labelled pictures, with each way of naming its clusters.

    Args:
        run: a trained run folder.
        images: labelled pictures; those without a label, and pixels without one, do not count.
        out: receives `evaluation.json`, `evaluation.csv`, `confusion/` and `panels/`.
        flip: whether codes are averaged over each picture and its mirror image.
        crf: whether the probabilities are sharpened by the colours.
        processes: for the CRF; 0 computes it here.
        panels: pictures to draw beside their labels.
        export: also write each method's labels at the pictures' own size to `export/`.
        dark: light letters on dark pages.
        scheme: what the labels' values and colours mean, instead of what the data set or the config says.
        held_out: only the pictures that training did not see.
        intake: what to take of files that hold several volumes, and what cases are called.
        overrides: `section.key=value` for prepare, naming and reconstruct, and for run.
        brief: leave out the list of cases, which the same command has said already.

    Returns:
        `lines` for the terminal, `rows` with the scores, `published` names and values, `failed` cases.

    Raises:
        MedsegError: the run is not of pictures or not trained to the end, or no label can be used.
    """
    record = open_run(run)
    config = change_config(record.config, overrides, sections=(*CHANGEABLE_AFTER_TRAINING, "run"))
    if config.prepare.modality != "picture":
        raise MedsegError(
            f"{run} must be a run on pictures to be evaluated, got prepare.modality {config.prepare.modality}; "
            "score its masks with `medseg reconstruct` and `medseg score`"
        )
    require_folder(out, "-o")
    listing = intake.cases(images, skip=(out, run))
    parts.say_listing(listing, brief=brief)
    labelled = [case for case in listing.cases if case.case_id in listing.labels]
    if not labelled:
        raise MedsegError(f"{images} must hold labelled pictures, got none with a label; name labels like their images")
    seen = {case.case_id for case in labelled if record.trained_on(hash_scan(case.image, case.pick))}
    cases = [case for case in labelled if not (held_out and case.case_id in seen)]
    if not cases:
        raise MedsegError(f"{images} must hold a label that training did not see, got none; leave out --held-out")
    device = parts.start_fabric(config.run).device
    evaluation = Evaluation(
        record, config, listing, scheme or scheme_of(config.naming, listing.scheme), device,
        flip=flip, crf=crf, exhibited=_spread_out(cases, panels), export_to=out / "export" if export else None,
    )  # fmt: skip
    for found in label_slices(evaluation.jobs(cases), processes=processes if crf else 0):
        evaluation.take(found)
    if not evaluation.pictures:
        raise MedsegError(
            f"{images} must hold a picture whose label can be used, got none of {len(cases)}; mend those above"
        )
    shown = len(seen & {picture.case_id for picture in evaluation.pictures})
    facts = {
        "run": str(run), "run_hash": record.run_hash(), "versions": versions(), "images": len(evaluation.pictures),
        "seen_in_training": shown, "flip": flip, "crf": crf, "resize": config.prepare.resize,
    }  # fmt: skip
    answer = write_report(evaluation.found, out, facts=facts, dark=dark)
    return answer | {"failed": {**dict(listing.problems), **evaluation.failed}}


@dataclass
class _Picture:
    """A case between its preparation and its last slice."""

    case: Case
    sample: Mapping[str, Any]
    labels: Integer[np.ndarray, "h w n"]
    frames: Sequence[int]
    found: dict[int, Mapping[str, Integer[np.ndarray, "h w"]]] = field(default_factory=dict)


class Evaluation:
    """Pictures become jobs for the CRF, and their results become tables.

    Args:
        record: the run.
        config: its config, perhaps changed since.
        listing: cases and their labels.
        scheme: what the labels mean.
        device: where networks run.
        flip: see `evaluate_run`.
        crf: see `evaluate_run`.
        exhibited: cases to keep a picture of.
        export_to: folder for the cluster of each pixel; None: they are not kept.

    Attributes:
        pictures: the tables of each finished case.
        failed: the reason of each case that could not be used.
    """

    def __init__(
        self,
        record: RunRecord,
        config: Config,
        listing: Listing,
        scheme: LabelScheme | None,
        device: torch.device,
        *,
        flip: bool,
        crf: bool,
        exhibited: frozenset[str],
        export_to: Path | None,
    ) -> None:
        self.record, self.config, self.listing, self.scheme, self.device = record, config, listing, scheme, device
        self.flip, self.crf, self.exhibited, self.export_to = flip, crf, exhibited, export_to
        self.backbones = parts.load_backbones(config.features, device)
        self.models = load_models(record, config, self.backbones, device)
        self.transforms = parts.preparation(config.prepare)
        self.pictures: list[PictureTables] = []
        self.exhibits: list[Exhibit] = []
        self.failed: dict[str, str] = {}
        self._open: dict[str, _Picture] = {}

    def jobs(self, cases: Sequence[Case]) -> Iterator[SliceJob]:
        """A job for each slice with labels; a picture or label that cannot be used is said and left out."""
        magnification = self.config.patches.magnification
        for case in track(cases, "evaluating"):
            try:
                picture = self._prepared(case)
            except MedsegError as error:
                self.failed[case.case_id] = str(error)
                _log.error(str(error))
                continue
            if not picture.frames:
                _log.warning("%s has no labelled pixel and does not count", case.case_id)
                continue
            self._open[case.case_id] = picture
            image = torch.as_tensor(picture.sample["image"])
            slices = slice_log_probabilities(
                picture.sample, self.models, self.backbones,
                flip=self.flip, device=self.device, magnification=magnification, frames=picture.frames,
            )  # fmt: skip
            for frame, found in slices:
                shown = in_bytes(image[..., frame].permute(1, 2, 0).numpy())
                yield SliceJob(
                    case.case_id, frame, shown, {name: maps.cpu().numpy() for name, maps in found.items()}, self.crf
                )

    def take(self, found: LabelledSlice) -> None:
        """Keep what a job gave; with its last slice a picture is counted, and let go."""
        picture = self._open[found.case_id]
        picture.found[found.frame] = found.labels
        if len(picture.found) < len(picture.frames):
            return
        del self._open[found.case_id]
        case = picture.case
        true = np.stack([picture.labels[..., frame] for frame in picture.frames], axis=-1)
        clusters = {
            name: np.stack([picture.found[frame][name] for frame in picture.frames], axis=-1) for name in self.models
        }
        columns = int(true.max()) + 1
        tables = {
            name: count_table(values.ravel(), true.ravel(), clusters=self.models[name].clusters, classes=columns)
            for name, values in clusters.items()
        }
        self.pictures.append(PictureTables(case.case_id, case.patient, tables))
        if case.case_id in self.exhibited:
            self.exhibits.append(_exhibit(picture, true, clusters))
        if self.export_to is not None:
            self._export(picture, clusters)

    @property
    def found(self) -> Evaluated:
        """Everything that the report needs."""
        folders = {name: self.record.method_folders(name)[0] for name in self.models}
        sources = {case.case_id: case for case in self.listing.cases}
        return Evaluated(self.pictures, self.exhibits, folders, self.config, self.scheme, sources, self.export_to)

    def _prepared(self, case: Case) -> _Picture:
        on_sample = labels_of(self.listing.labels[case.case_id], case, self.config.prepare, self.scheme)
        sample = prepare_case(case, self.transforms)
        frames = list(range(on_sample.shape[-1]))
        if self.export_to is None:
            frames = np.flatnonzero((on_sample >= 0).any((0, 1))).tolist()
        return _Picture(case, sample, on_sample, frames)

    def _export(self, picture: _Picture, clusters: Mapping[str, Integer[np.ndarray, "h w n"]]) -> None:
        """Write the cluster of each pixel at the picture's own size; names are known at the end only."""
        assert self.export_to is not None
        case = picture.case
        for name, values in clusters.items():
            stored = invert(torch.from_numpy(values.astype(np.uint8))[None], picture.sample, nearest=True)[0]
            CaseFiles(self.export_to / "clusters", case.case_id, case.image, case.pick, {}).labels(name, stored)


def load_models(record: RunRecord, config: Config, backbones: Sequence[Any], device: torch.device) -> dict[str, Any]:
    """The fitted methods of a run; of several voters the first.

    Raises:
        MedsegError: the run was not trained to the end, or on other features.
    """
    geometry = parts.patch_geometry(config.patches)
    names = [name for name in TRAINED_METHODS if record.has_method(name)]
    if not names:
        raise MedsegError(f"{record.folder} must be trained to the end, got no method; run the same `medseg train`")
    if config.stego.voters > 1:
        _log.info("of %d voters the first is evaluated, because each has clusters of its own", config.stego.voters)
    return {name: parts.load_clusterer(record.method_folders(name)[0], backbones, geometry, device) for name in names}


def _exhibit(
    picture: _Picture, true: Integer[np.ndarray, "h w n"], clusters: Mapping[str, Integer[np.ndarray, "h w n"]]
) -> Exhibit:
    """The slice with the most labelled pixels, thinned out."""
    best = int((true >= 0).sum((0, 1)).argmax())
    step = -(-max(true.shape[:2]) // EXHIBIT_PIXELS)
    image = torch.as_tensor(picture.sample["image"])[..., picture.frames[best]].permute(1, 2, 0).numpy()
    shown: UInt8[np.ndarray, "h w 3"] = in_bytes(np.ascontiguousarray(image[::step, ::step]))
    return Exhibit(
        picture.case.case_id,
        shown,
        true[::step, ::step, best].copy(),
        {name: values[::step, ::step, best].copy() for name, values in clusters.items()},
    )


def _spread_out(cases: Sequence[Case], count: int) -> frozenset[str]:
    """Names of so many cases, evenly over all of them."""
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    return frozenset(cases[place].case_id for place in places.tolist())
