"""This file writes 3-D masks of a folder of scans with a trained run: one manifest a case, last.

No argument on this way can carry a reference: cases hold an image and perhaps a brain mask, and
`find_cases` gives labels in a place of its own that is not read here.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from medseg.config import CHANGEABLE_AFTER_TRAINING, SEEN, Config, as_plain, change_config
from medseg.errors import MedsegError
from medseg.files import CannotWriteError, hash_content, hash_file, remove_leftovers, require_folder, write_json
from medseg.naming.classes import write_classes
from medseg.prepare.chain import prepare_case
from medseg.reconstruction.refine import require_steps
from medseg.review.areas import area_plot
from medseg.runs import open_run, source_of, versions
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case, Listing
from medseg.scans.masks import write_label_tables
from medseg.scans.names import is_picture
from medseg.scans.pixel_sizes import pixel_size_mm
from medseg.scans.pseudonyms import without_reasons
from medseg.scans.receipts import geometry_receipt
from medseg.scans.sources import hash_scan
from medseg.scoring.areas import Areas, write_areas
from medseg.workflows import parts
from medseg.workflows.checking import usable
from medseg.workflows.exporting import export_results
from medseg.workflows.frames import Answers, write_frames
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.manifests import read_manifest, read_manifests, sealed
from medseg.workflows.predictors import Predictor, predictor_of_run
from medseg.workflows.results import CaseFiles
from medseg.workflows.volumes import write_volume

_log = logging.getLogger(__name__)

FOUND_BY = {"mass": "masses", "vessel": "vessels"}
"""The refine step that finds a class which lies inside another one, by its name in the rules."""


def reconstruct_run(
    run: Path,
    scans: Path,
    out: Path,
    *,
    compare: bool = False,
    held_out: bool = False,
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
    brief: bool = False,
) -> dict[str, Any]:
    """Reconstruct every case of `scans`; finished cases with the same manifest are skipped.

    Args:
        run: a trained run folder.
        scans: folder, datalist, CSV or one scan.
        out: result folder.
        compare: also write the masks of the other methods to `out/comparison`.
        held_out: only the cases that training did not see.
        overrides: `section.key=value` for prepare, naming and reconstruct, and for run (device, processes).
        intake: what to take of files that hold several volumes, and what cases are called.
        brief: leave out the list of cases, which the same command has said already.

    Returns:
        `lines` for the terminal, `done`, `skipped` and `failed` cases.

    Raises:
        MedsegError: the run is not trained, no scan was found, or an override is wrong.
    """
    record = open_run(run)
    config = change_config(record.config, overrides, sections=(*CHANGEABLE_AFTER_TRAINING, "run", "review"))
    require_steps(config.reconstruct.refine)
    require_folder(out, "-o")
    listing = intake.cases(scans, skip=(out, run))
    require_apart(listing, out)
    fabric = parts.start_fabric(config.run)
    if fabric.is_global_zero:
        parts.say_listing(listing, brief=brief)
    predictor = predictor_of_run(record, config, fabric.device, compare=compare)
    seen = predictor.trained_on if held_out else lambda _: False
    cases = [case for case in listing.cases if not seen(hash_scan(case.image, case.pick))]
    if not cases:
        raise MedsegError(f"{scans} must hold a scan that training did not see, got none; leave out --held-out")
    if fabric.is_global_zero:
        parts.say_estimate(cases, config, training=False)
    writer = CaseWriter(predictor, config, scans, out, fabric.device, intake)
    return write_cases(writer, cases, fabric, failed=dict(listing.problems), model=record.folder)


def write_cases(
    writer: CaseWriter, cases: Sequence[Case], fabric: Fabric, *, failed: Mapping[str, str], model: Path | str
) -> dict[str, Any]:
    """Write every case that is not done yet, each process its share; a bad case is reported and the others go on.

    Args:
        writer: does one case.
        cases: of all processes.
        fabric: the processes.
        failed: cases that cannot even be read, with the reason.
        model: for `summary.json`: the run folder, or the name of what was used without one.

    Returns:
        `lines` for the terminal, `done`, `skipped` and `failed` cases.
    """
    failed = dict(failed) if fabric.is_global_zero else {}
    if fabric.is_global_zero:
        remove_leftovers(writer.out)
    mine = cases[fabric.global_rank :: fabric.world_size]
    skipped = [case.case_id for case in mine if writer.is_done(case)]
    todo, unfit = usable([case for case in mine if case.case_id not in skipped])
    failed |= unfit
    for problem in unfit.values():
        _log.error(problem)
    if skipped:
        _log.info("%d of %d cases are done already and are skipped", len(skipped), len(mine))
    for number, case in enumerate(todo, start=1):
        _log.info("%s (%d of %d)", case.case_id, number, len(todo))
        try:
            writer.write(case)
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[case.case_id] = str(error)
            _log.error(str(error))
    fabric.barrier()
    failed = parts.gathered(fabric, failed)
    skipped = sorted(parts.gathered(fabric, dict.fromkeys(skipped, "")))
    done = sorted(case.case_id for case in cases if case.case_id not in failed and case.case_id not in skipped)
    out = writer.out
    if fabric.is_global_zero and (done or skipped):
        writer.write_shared_files()
        write_json(out / "summary.json", _summary(out, writer.scans, model, without_reasons(failed, cases), cases))
    if not fabric.is_global_zero:
        return {"lines": [], "failed": {}}
    lines = [f"masks in {out}: {len(done)} written, {len(skipped)} skipped, {len(failed)} failed"]
    if (targets := writer.config.review.exports) and (done or skipped):
        exported = export_results(out, targets, scans=writer.scans, keep_identity=writer.intake.keep_identity)
        lines += exported["lines"]
        failed |= exported["failed"]
    return {"lines": lines, "out": str(out), "done": done, "skipped": skipped, "failed": failed}


def require_apart(listing: Listing, out: Path) -> None:
    """Check that no result would replace a file of the user's; beside the scans, ours is what has a manifest."""
    inputs = [path for case in listing.cases for path in (case.image, case.mask) if path] + [*listing.labels.values()]
    if out.resolve() not in {path.parent.resolve() for path in inputs}:
        return
    for case in listing.cases:
        kinds = ("seg", "prob", "uncertainty", "region")
        results = (out / f"{case.case_id}_{kind}{end}" for kind in kinds for end in (".nii.gz", ".png"))
        strange = next((path for path in results if path.exists()), None)
        if strange and not (out / f"{case.case_id}_manifest.json").exists():
            raise MedsegError(
                f"{strange} must be free for a result, got a file that is none; move it or choose another -o"
            )


class CaseWriter:
    """Predicts case after case and writes what belongs to each: masks, maps, pictures and, last, the manifest.

    Args:
        predictor: the methods.
        config: preparation, refinement and machine.
        scans: what the user gave; manifests name scans relative to it.
        out: result folder.
        device: where networks run.
        intake: whether masks keep the free text of headers.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: Config,
        scans: Path,
        out: Path,
        device: torch.device,
        intake: Intake = AS_IT_IS,
    ) -> None:
        self.predictor, self.config, self.scans, self.out, self.device = predictor, config, scans, out, device
        self.intake = intake
        self.transforms = parts.preparation(config.prepare)
        named = predictor.naming[predictor.main]
        _log.info("method %s, classes named by %s", predictor.main, named.named_by)
        for reason in named.reasons:
            _log.info("  %s", reason)
        if self._is_ultrasound:
            _log.info("  the liver is sought where it usually lies: mirrored frames and other organs may get one too")

    def request(self, case: Case, source: str) -> str:
        """Hash of everything that decides this case's masks; `source` is that of its scan."""
        plain = as_plain(self.config)
        mask = hash_file(case.mask) if case.mask else case.mask_mode
        wanted = {section: plain[section] for section in CHANGEABLE_AFTER_TRAINING}
        classes = {name: parts.plain_classes(naming) for name, naming in self.predictor.naming.items()}
        return hash_content(
            [
                self.predictor.model_hash,
                self.predictor.main,
                wanted,
                source,
                mask,
                case.pick.as_dict(),
                classes,
            ]
        )

    def is_done(self, case: Case) -> bool:
        """Whether the manifest there answers the same request and its files are there."""
        path = self.out / f"{case.case_id}_manifest.json"
        if not path.is_file():
            return False
        try:
            manifest = read_manifest(path)
            files = manifest["files"]
            return manifest["request"] == self.request(case, hash_scan(case.image, case.pick)) and all(
                hash_file(self.out / name) == sha for name, sha in files.items()
            )
        except (MedsegError, KeyError, TypeError, OSError):
            return False

    def write(self, case: Case) -> None:
        """Everything of one case.

        Raises:
            MedsegError: the scan cannot be used.
        """
        start = time.monotonic()
        main = self.predictor.main
        source = hash_scan(case.image, case.pick)
        sample = prepare_case(case, self.transforms)
        probabilities, agreement, alarms = self.predictor.predict(sample, self.config, self.device)
        _say_alarms(case.case_id, alarms, sample["image"].shape[3])
        named = self.predictor.naming[main]
        colours = {entry.value: entry.colour for entry in named.classes}
        backdrop = [entry.value for entry in named.classes if entry.background]
        target = CaseFiles(self.out, case.case_id, case.image, case.pick, colours, backdrop, self.intake.keep_identity)
        refine = self.config.reconstruct.refine
        value_of = {entry.name: entry.value for entry in named.classes}
        inside = {
            FOUND_BY[entry.name]: (entry.value, value_of[entry.inside])
            for entry in named.classes
            if entry.inside and entry.name in FOUND_BY
        }
        answers = Answers(probabilities, agreement, main, self.predictor.values, refine, inside)
        write = self._write_picture if target.is_picture else self._write_volume
        files, amounts = write(target, sample, answers)
        manifest = {
            "case": case.case_id,
            "source": source_of(case, self.scans),
            "pick": case.pick.as_dict(),
            "source_sha256": source,
            "geometry": geometry_receipt(case.image, target.mask_of(files), list(value_of.values()), case.pick),
            "request": self.request(case, source),
            "run_hash": self.predictor.model_hash,
            "config_hash": hash_content(as_plain(self.config)),
            "versions": versions(),
            "method": main,
            **self.predictor.source_of(main),
            "compared": [name for name in self.predictor.naming if name != main],
            "compared_sources": {
                name: self.predictor.source_of(name) for name in self.predictor.naming if name != main
            },
            "classes": parts.plain_classes(named),
            "planes": list(self.config.reconstruct.planes),
            "refine": as_plain(self.config)["reconstruct"]["refine"],
            "facts": parts.plain_facts(sample["facts"]),
            "alarms": {str(number): reason for number, reason in alarms.items()},
            **amounts,
            "trained_on_this_case": self.predictor.trained_on(source),
            "seconds": round(time.monotonic() - start, 1),
            "peak_memory_mb": peak_memory_mb(),
            "files": {path.relative_to(self.out).as_posix(): hash_file(path) for path in files},
        }
        write_json(self.out / f"{case.case_id}_manifest.json", sealed(manifest))
        _log.info("%s: %s, %.0f s", case.case_id, _in_words(amounts), manifest["seconds"])

    def _write_picture(
        self, target: CaseFiles, sample: Mapping[str, Any], answers: Answers
    ) -> tuple[list[Path], dict[str, dict[str, float]]]:
        """All frames of a picture, and how large the classes are in them; the areas of an ultrasound cine are drawn."""
        classes = self.predictor.naming[answers.main].classes
        files, pixels = write_frames(target, sample, answers, [entry.value for entry in classes])
        areas = Areas(tuple(entry.name for entry in classes), pixels, self._pixel_mm(target.source))
        if self._is_ultrasound and len(pixels) > 1:
            files += [self.out / f"{target.case_id}_areas.csv", self.out / "plots" / f"{target.case_id}_areas.png"]
            write_areas(files[-2], areas)
            area_plot(areas, files[-1], title=target.case_id)
        total = math.prod(read_grid(target.source, target.pick).shape[:2]) * len(pixels)
        shares = {name: int(counts) / total for name, counts in zip(areas.names, pixels.sum(0), strict=True)}
        return files, {"ml": {}, "share": shares, **areas.means()}

    def _write_volume(
        self, target: CaseFiles, sample: Mapping[str, Any], answers: Answers
    ) -> tuple[list[Path], dict[str, dict[str, float]]]:
        """Masks, maps and pictures of a volume, and how much there is of each class."""
        classes = self.predictor.naming[answers.main].classes
        as_picture = self.config.prepare.modality in SEEN
        files, voxels = write_volume(target, sample, answers, [entry.value for entry in classes], as_picture=as_picture)
        names = tuple(entry.name for entry in classes)
        voxel_ml = abs(float(np.linalg.det(read_grid(target.source, target.pick).affine[:3, :3]))) / 1000
        amounts = {"ml": {name: int(count) * voxel_ml for name, count in zip(names, voxels, strict=True)}}
        pixel_mm = self._pixel_mm(target.source)
        if self._is_ultrasound and pixel_mm is not None:  # a single slice: it has an area
            amounts |= Areas(names, voxels[None], pixel_mm).means()
        return files, amounts

    @property
    def _is_ultrasound(self) -> bool:
        return self.config.prepare.modality == "liver_ultrasound"

    def _pixel_mm(self, source: Path) -> tuple[float, float] | None:
        """Height and width of a pixel: what the user says, else what an ultrasound's file says."""
        given = self.config.prepare.pixel_mm
        if given is not None and is_picture(source):
            return given, given
        return pixel_size_mm(source) if self._is_ultrasound else None

    def write_shared_files(self) -> None:
        """Class names and colours for ITK-SNAP, 3D Slicer and medseg."""
        naming = self.predictor.naming[self.predictor.main]
        write_classes(self.out / "classes.yaml", naming)
        write_label_tables(self.out, parts.plain_classes(naming))


def _say_alarms(case_id: str, alarms: Mapping[int, str], count: int) -> None:
    """Say which slices stay empty, and why the first of them does."""
    if not alarms:
        return
    number, reason = next(iter(alarms.items()))
    if count > 1:
        reason = f"{len(alarms)} of {count} frames or slices stay empty; number {number + 1}: {reason}"
    else:
        reason = f"{reason}, so it stays empty"
    _log.warning("%s: %s; look whether this is a liver", case_id, reason)


def _in_words(amounts: Mapping[str, Mapping[str, float]]) -> str:
    """How much there is of each class, in the best unit that is known."""
    areas = amounts.get("area_cm2", {})
    shares = {} if areas else amounts.get("share", {})
    found = [f"{name} {area:.1f} cm2" for name, area in areas.items() if area > 0]
    found += [f"{name} {share:.0%}" for name, share in shares.items() if share > 0]
    found += [f"{name} {amount:.2f} ml" for name, amount in amounts["ml"].items()]
    return ", ".join(found) or "no class"


def peak_memory_mb() -> int | None:
    """The most memory that this process has taken; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows has no such accounting in the standard library
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def _summary(
    out: Path, scans: Path, model: Path | str, failed: Mapping[str, str], cases: Sequence[Case]
) -> dict[str, Any]:
    manifests, damaged = read_manifests(out)
    for problem in damaged.values():
        _log.warning("%s; summary.json goes without it", problem)
    amounts = ("ml", "area_px", "area_cm2")
    costs = ("seconds", "peak_memory_mb")
    keys = ("case", "source", "method", "named_by", "effort", *amounts, "trained_on_this_case", *costs)
    # A path may name the patient as well as a case does.
    place = {} if any(case.alias for case in cases) else {"scans": str(scans.resolve())}
    return {
        **place,
        "run": str(model.resolve()) if isinstance(model, Path) else model,
        "cases": [{key: manifest[key] for key in keys if key in manifest} for manifest in manifests],
        "failed": dict(failed),
    }
