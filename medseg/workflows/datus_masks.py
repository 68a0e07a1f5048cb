"""This file sharpens the pseudo masks of DatUS by the colours of the pictures, writes them, and counts them in tables.

A *table* holds pixels by class of a method and true class; see `evaluation_naming`. Labels are read when the masks of
their case are written, and are never handed to what makes masks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8

from medseg.datus.labelling import NOISE, log_probabilities
from medseg.errors import MedsegError
from medseg.naming.classes import Naming, one_class_a_cluster, write_classes
from medseg.naming.matching import count_table
from medseg.prepare.chain import invert
from medseg.prepare.frames import one_frame
from medseg.progress import track
from medseg.reconstruction.dense_crf import LabelledSlice, SliceJob, in_bytes, label_slices
from medseg.scans.cases import Case, Listing
from medseg.scans.masks import write_label_tables
from medseg.scans.pictures import iterate_frames
from medseg.scans.schemes import LabelScheme
from medseg.workflows import parts
from medseg.workflows.correspondence import Viewer
from medseg.workflows.datus_stages import shown
from medseg.workflows.evaluation import EXHIBIT_PIXELS
from medseg.workflows.evaluation_naming import PictureTables
from medseg.workflows.evaluation_report import Exhibit
from medseg.workflows.frames import without_names
from medseg.workflows.intake import Intake
from medseg.workflows.labels import labels_of
from medseg.workflows.results import CaseFiles

_log = logging.getLogger(__name__)

DATUS = "datus"
_PANELS = 8  # cases that are drawn beside their labels
Masks = Mapping[tuple[str, int], Integer[np.ndarray, "hc wc"]]
"""The pseudo mask of each slice, by case and number."""


@dataclass
class _Open:
    """A case between its first and its last sharpened slice."""

    case: Case
    sample: dict[str, Any]
    numbers: list[int]
    labels: dict[str, Integer[np.ndarray, "h w n"]]
    missing: int


@dataclass
class MaskWriter:
    """Sharpens pseudo masks, writes them, and counts them against labels where there are any.

    Attributes:
        listing: the cases.
        viewer: prepares them.
        masks: pseudo masks by method; those of `DATUS` are written, the others are counted only.
        classes: how many there are.
        scheme: what labels mean.
        out: result folder.
        labelled: label file of each case that is to be scored.
        crf: whether masks are sharpened.
        intake: whether masks keep the free text of headers.
        pictures: the tables of each scored case.
        exhibits: what is to be drawn.
        failed: the reason of each label that cannot be used.
        noise: share of noise in each slice.
    """

    listing: Listing
    viewer: Viewer
    masks: Mapping[str, Masks]
    classes: int
    scheme: LabelScheme | None
    out: Path
    labelled: Mapping[str, Path]
    crf: bool
    intake: Intake
    pictures: list[PictureTables] = field(default_factory=list)
    exhibits: list[Exhibit] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    noise: list[float] = field(default_factory=list)
    _open: dict[str, _Open] = field(default_factory=dict)
    _occurring: dict[tuple[str, int, str], Integer[np.ndarray, " t"]] = field(default_factory=dict)

    def write(self, *, processes: int) -> None:
        """All masks, `classes.yaml` and the tables of its colours."""
        for found in label_slices(self._jobs(), processes=processes):
            self._take(found)
        write_classes(self.out / "classes.yaml", self.naming)
        write_label_tables(self.out, parts.plain_classes(self.naming))

    @property
    def naming(self) -> Naming:
        """Each class under its number."""
        return one_class_a_cluster(self.classes)

    def _jobs(self) -> Iterator[SliceJob]:
        numbers: dict[str, list[int]] = {}
        for case_id, number in self.masks[DATUS]:
            numbers.setdefault(case_id, []).append(number)
        cases = {case.case_id: case for case in self.listing.cases}
        for case_id, of_case in track(list(numbers.items()), "masks"):
            sample = self.viewer.prepared(cases[case_id])
            shape = tuple(sample["image"].shape[1:])
            labels = {method: np.full(shape, NOISE, np.int16) for method in self.masks}
            self._open[case_id] = _Open(cases[case_id], sample, of_case, labels, len(of_case))
            for number in of_case:
                maps = {method: self._map(method, case_id, number, shape[:2]) for method in self.masks}
                picture = in_bytes(shown(sample, number).permute(1, 2, 0).numpy())
                yield SliceJob(case_id, number, picture, maps, self.crf)

    def _map(self, method: str, case_id: str, number: int, size: tuple[int, int]) -> Float[np.ndarray, "_ h w"]:
        """Log-probabilities of the classes that occur; a class that is nowhere would cost as much as any other."""
        mask = self.masks[method][case_id, number]
        occurring = np.unique(mask)
        if self.crf and len(occurring) > 1:  # noise is as likely to be any class, and the CRF decides
            occurring = occurring[occurring != NOISE]
        self._occurring[case_id, number, method] = occurring
        return log_probabilities(mask, size, occurring)

    def _take(self, found: LabelledSlice) -> None:
        """Keep what a job gave; with its last slice a case is written, then scored, and let go."""
        of_case = self._open[found.case_id]
        inside = np.asarray(of_case.sample["region"][0])[..., found.frame] > 0
        for method, places in found.labels.items():
            classes = self._occurring.pop((found.case_id, found.frame, method))
            of_case.labels[method][..., found.frame] = np.where(inside, classes[places], NOISE)
        self.noise.append(
            float((of_case.labels[DATUS][..., found.frame][inside] == NOISE).mean()) if inside.any() else 0.0
        )
        of_case.missing -= 1
        if of_case.missing:
            return
        del self._open[found.case_id]
        self._write(of_case)
        if found.case_id in self.labelled:
            try:
                self._score(of_case)
            except MedsegError as error:
                self.failed[found.case_id] = str(error)
                _log.error(str(error))

    def _write(self, of_case: _Open) -> None:
        """The mask on the stored grid; of pictures also the coloured mask and the overlay."""
        case = of_case.case
        values = torch.from_numpy((of_case.labels[DATUS] + 1).astype(np.uint8))
        stored: UInt8[np.ndarray, "i j k"] = invert(values[None], of_case.sample, nearest=True)[0]
        colours = {entry.value: entry.colour for entry in self.naming.classes}
        target = CaseFiles(
            self.out, case.case_id, case.image, case.pick, colours, keep_identity=self.intake.keep_identity
        )
        if not target.is_picture:
            target.labels("seg", stored)
            return
        with target.open_frames(stored.shape[2]) as files:
            for index, picture in enumerate(iterate_frames(case.image, case.pick)):
                files.labels("seg", index, stored[..., index])
                files.looks(
                    index, stored[..., index], without_names(picture, one_frame(of_case.sample, index)["facts"])
                )

    def _score(self, of_case: _Open) -> None:
        """Count pixels by class of each method and true class; noise is a row of its own."""
        case, numbers = of_case.case, of_case.numbers
        true = labels_of(self.labelled[case.case_id], case, self.viewer.config.prepare, self.scheme)[..., numbers]
        if not (true >= 0).any():
            _log.warning("%s has no labelled pixel and does not count", case.case_id)
            return
        count = self.classes
        clusters = {
            method: np.where(values[..., numbers] == NOISE, count, values[..., numbers])
            for method, values in of_case.labels.items()
        }
        tables = {
            method: count_table(values.ravel(), true.ravel(), clusters=count + 1, classes=int(true.max()) + 1)
            for method, values in clusters.items()
        }
        self.pictures.append(PictureTables(case.case_id, case.patient, tables))
        if len(self.exhibits) < _PANELS:
            best = int((true >= 0).sum((0, 1)).argmax())
            step = -(-max(true.shape[:2]) // EXHIBIT_PIXELS)
            picture = in_bytes(shown(of_case.sample, numbers[best]).permute(1, 2, 0).numpy())
            thinned = {method: values[::step, ::step, best].copy() for method, values in clusters.items()}
            self.exhibits.append(
                Exhibit(case.case_id, picture[::step, ::step].copy(), true[::step, ::step, best].copy(), thinned)
            )
