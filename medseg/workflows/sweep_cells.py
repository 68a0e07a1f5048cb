"""This file trains, reconstructs and scores one cell of a sweep; and before the cells of a seed, what they share.

The *ground* of a sweep is what all its cells stand on: config, scans, and which patients are held out. These are drawn
once, with the config's own seed, so that every cell is scored on the same patients and cells can be paired. What a seed
shares does not depend on how patches are picked: prepared scans, the trained student, and the features of every patch
that may be picked. A cell takes its student and features from there and so gets, byte for byte, what it would have
computed itself (slice backbones: to the last bits, which depend on the batch). Its head is trained from scratch.

Labels are hashed and scored against, and never reach the training or the masks of a cell.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.config import Config, as_plain, load_config
from medseg.errors import MedsegError
from medseg.files import hash_content, hash_file, read_record, remove_leftovers, write_json
from medseg.naming.effort import Effort
from medseg.reconstruction.refine import require_steps
from medseg.runs import RunRecord
from medseg.scans.cases import split_by_patient
from medseg.scans.folders import find_references
from medseg.scans.pairing import some
from medseg.scans.sources import hash_scan
from medseg.scoring.overlap import UNION
from medseg.scoring.sweeps import SCORES, CellScores
from medseg.workflows import parts
from medseg.workflows.checking import usable
from medseg.workflows.intake import Intake
from medseg.workflows.naming import require_naming
from medseg.workflows.reconstruction import peak_memory_mb, reconstruct_run
from medseg.workflows.scoring import score_results
from medseg.workflows.students import needs_student, student_of_run
from medseg.workflows.sweep_plan import EVERYTHING, Cell
from medseg.workflows.training import stego_settings, store_cases, train_run

_log = logging.getLogger(__name__)

HELD_OUT = "run.held_out=0.25"
"""The share of the patients that a sweep holds out unless it is told another: enough of 20 for a mean."""
_FITTED = ("stego", "kmeans", "untrained")
_RECORD, _SHARED = "cell.json", "shared.json"
_MACHINE = ("device", "devices", "nodes", "strategy", "workers", "checkpoint_every")
_AFTER_TRAINING = ("naming", "reconstruct", "review")


@dataclass(frozen=True)
class Ground:
    """What all cells of a sweep stand on.

    Attributes:
        config: path or shipped name.
        overrides: `section.key=value`.
        scans: folder, datalist, CSV or one scan.
        references: the same with labels of the held-out cases.
        out: folder of the sweep; nothing in it is a scan.
        split: `train` or `val` by case.
        patients: patient of each held-out case.
        trained_on: hash of scans, split and weights that the config names.
        scored_on: hash of the held-out labels and of the rules that the config names.
    """

    config: str
    overrides: tuple[str, ...]
    scans: Path
    references: Path
    out: Path
    split: Mapping[str, str]
    patients: Mapping[str, str]
    trained_on: str
    scored_on: str

    def config_of(self, cell: Cell) -> Config:
        """The resolved config of a cell."""
        return load_config(self.config, (*self.overrides, *cell.overrides))

    def request(self, cell: Cell) -> str:
        """Hash of everything that decides the scores of a cell."""
        plain = as_plain(self.config_of(cell))
        plain["run"] = {key: value for key, value in plain["run"].items() if key not in _MACHINE}
        plain["features"].pop("store")
        plain.pop("review")
        return hash_content([plain, self.trained_on, self.scored_on])

    def training(self) -> str:
        """Hash of what the trainings of all cells have in common."""
        plain = as_plain(self.config_of(Cell(EVERYTHING, 1.0, 0)))
        common = {section: values for section, values in plain.items() if section not in (*_AFTER_TRAINING, "run")}
        common["features"].pop("store")
        return hash_content([common, plain["run"]["precision"], self.trained_on])

    def intake(self, *results: Path) -> Intake:
        """The cases of the sweep with their split; nothing in its folder, or in those named here, is a scan."""
        return Intake(split=self.split, results=(self.out, *results))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Ground:
        """The ground of plain values."""
        paths = {key: Path(content[key]) for key in ("scans", "references", "out")}
        return cls(**{**content, **paths, "overrides": tuple(content["overrides"])})


def find_ground(
    config: str, scans: Path, out: Path, *, references: Path | None = None, overrides: Sequence[str] = ()
) -> tuple[Ground, dict[str, str]]:
    """Check what a sweep stands on, before any work.

    Args:
        config: path or shipped name.
        scans: folder, datalist, CSV or one scan.
        out: folder of the sweep.
        references: where labels of held-out cases are; with the scans when None.
        overrides: `section.key=value`; `run.seed` draws the held-out patients and `run.held_out` is their share.

    Returns:
        The ground, and one line for each case that cannot be used.

    Raises:
        MedsegError: config or scans cannot be used, or no patient is left to train on or to score.
    """
    overrides = (HELD_OUT, *overrides)
    resolved = load_config(config, overrides)
    _require_sweepable(resolved)
    listing = Intake(results=(out,)).cases(scans, skip=())
    parts.say_listing(listing)
    training, _ = split_by_patient(listing.cases, validation_fraction=resolved.run.held_out, seed=resolved.run.seed)
    held_out = [case for case in listing.cases if case not in training]
    patients = len({case.patient for case in listing.cases})
    if not training or not held_out:
        what = "hold out" if training else "train on"
        raise MedsegError(
            f"{scans} must leave a patient to {what}, got {patients} of {len(listing.cases)} "
            f"{'case' if len(listing.cases) == 1 else 'cases'}; add scans of other patients"
            + ("" if patients < 2 else ", or set run.held_out=0.25")
        )
    training, failed = usable(training)
    if not training:
        raise parts.none_usable(failed)
    source = references or scans
    found = find_references(source, skip=(out,))
    labels = {case.case_id: label for case in held_out if (label := found.of(case.case_id)) is not None}
    scored, unfit = usable([case for case in held_out if case.case_id in labels], labels, found.scheme)
    failed |= unfit
    hashes = {case.case_id: hash_scan(case.image, case.pick) for case in (*training, *scored)}
    seen = {hashes[case.case_id] for case in training}
    for case in scored:
        if hashes[case.case_id] in seen:
            failed[case.case_id] = f"{case.image} must not be trained on, got a copy of it there; delete one of them"
    scored = tuple(case for case in scored if case.case_id not in failed)
    for problem in failed.values():
        _log.error(problem)
    if not scored:
        raise MedsegError(
            f"{source} must hold a label of a held-out case, {some(case.case_id for case in held_out)}, got none that "
            "can be used; name it like its scan, or name its folder with --references"
        )
    if unlabelled := [case.case_id for case in held_out if case.case_id not in labels]:
        _log.warning("no label in %s for %s: held out, but not scored", source, some(unlabelled))
    split = {case.case_id: "train" for case in training} | {case.case_id: "val" for case in scored}
    masks = {case.case_id: hash_file(case.mask) if case.mask else case.mask_mode for case in (*training, *scored)}
    of_labels = {case.case_id: hash_file(labels[case.case_id]) for case in scored}
    ground = Ground(
        config,
        overrides,
        scans,
        source,
        out,
        split,
        {case.case_id: case.patient for case in scored},
        hash_content([split, hashes, masks, _content(resolved.features.checkpoint, resolved.stego.start)]),
        hash_content([of_labels, _content(resolved.naming.rules, resolved.naming.classes)]),
    )
    return ground, failed | dict(listing.problems)


def _content(*names: Path | str | None) -> list[str | None]:
    """The content of files that a config names, so that a changed one is noticed; shipped ones go by their names."""
    return [hash_file(Path(name)) if name is not None and Path(name).is_file() else None for name in names]


def _require_sweepable(config: Config) -> None:
    require_steps(config.reconstruct.refine)
    require_naming(config.naming, backbones=config.features.backbone)
    stego_settings(config)
    if config.reconstruct.method not in _FITTED:
        raise MedsegError(
            f"reconstruct.method must be fitted on patches without labels in a sweep, {', '.join(_FITTED)}, got "
            f"{config.reconstruct.method}; set it to stego"
        )
    if config.naming.source != "rules":
        raise MedsegError(
            f"naming.source must be rules in a sweep, for nobody can name the clusters of every cell, got "
            f"{config.naming.source}; set it to rules"
        )
    if config.run.devices * config.run.nodes > 1:
        raise MedsegError(
            f"run.devices and run.nodes must be 1 in a sweep, got {config.run.devices} and {config.run.nodes}; "
            "--jobs trains several cells at a time"
        )


def share_seed(ground: Ground, seed: int, shared: Path) -> None:
    """Make what the cells of a seed share: prepared scans, the trained student, the features of all patches.

    Args:
        ground: of the sweep.
        seed: of the cells.
        shared: receives `features` (for all seeds) and a folder for the seed.

    Raises:
        MedsegError: no scan can be used.
    """
    cell = Cell(EVERYTHING, 1.0, seed)
    config = ground.config_of(cell)
    features = config.features.model_copy(update={"store": shared / "features"})
    record = RunRecord(shared / str(seed), config.model_copy(update={"features": features}), {})
    remove_leftovers(record.folder)
    fabric = parts.start_fabric(config.run)
    listing = ground.intake().cases(ground.scans, skip=())
    training = [case for case in listing.cases if ground.split[case.case_id] == "train"]
    student = None
    if needs_student(config):
        student, failed = student_of_run(training, record.student, record.store, record.config, fabric)
        training = [case for case in training if case.case_id not in failed]
    backbones = parts.load_backbones(config.features, fabric.device, student=student)
    store_cases(training, record, backbones, fabric, pool=record.store)  # a scan that fails is said by each cell
    write_json(record.folder / _SHARED, {"request": ground.training(), "peak_memory_mb": peak_memory_mb()})


def is_shared(ground: Ground, seed: int, shared: Path) -> bool:
    """Whether all that the cells of a seed share is there."""
    try:
        return bool(read_record(shared / str(seed) / _SHARED)["request"] == ground.training())
    except (MedsegError, KeyError):
        return False


def run_cell(ground: Ground, cell: Cell, folder: Path, *, shared: Path | None = None) -> dict[str, Any]:
    """Train a cell, or go on with it, write masks of the held-out patients and score them.

    Args:
        ground: of the sweep.
        cell: what to train.
        folder: receives the results, and `run` with the run.
        shared: what `share_seed` made; None computes everything here.

    Returns:
        `lines` for the terminal, the `cell`'s scores, `failed` scans that training had to leave out.

    Raises:
        MedsegError: no scan can be trained on, or a held-out case has no score; the cell does not count as done then.
    """
    started = time.monotonic()
    run, intake = folder / "run", ground.intake(folder)
    if shared is not None:
        _take_student(shared / str(cell.seed) / "student", run / "student")
    trained = train_run(
        ground.config,
        ground.scans,
        run,
        overrides=(*ground.overrides, *cell.overrides),
        intake=intake,
        labels=False,
        pool=None if shared is None else shared / "features",
    )
    made = reconstruct_run(run, ground.scans, folder, held_out=True, intake=intake, brief=True)
    _require_none_failed(made["failed"])
    scored = score_results(folder, ground.references, scans=ground.scans, skip=(ground.out, folder))
    _require_none_failed(scored["failed"])
    config = ground.config_of(cell)
    table = folder / "scores.json"
    rows = [
        row
        for row in read_record(table, "rows")["rows"]
        if row["method"] == config.reconstruct.method and row["structure"] == UNION
    ]
    missing = set(ground.patients) - {row["case_id"] for row in rows}
    if missing:
        raise MedsegError(f"{folder} must hold scores of every held-out case, got none of {', '.join(sorted(missing))}")
    found = CellScores(
        cell.scheme,
        cell.size,
        cell.seed,
        trained["patches"],
        {row["case_id"]: {score: _number(row["scores"][score]) for score in SCORES} for row in rows},
        dict(ground.patients),
        rows[0]["naming"],
        Effort.from_dict(rows[0]["effort"]),
        trained["steps"],
        round(time.monotonic() - started, 1),
        _checkpoint(run, config),
    )
    facts = {"schema": "medseg-sweep-cell/1", "request": ground.request(cell), "scores_sha256": hash_file(table)}
    said = {"left_out": trained["failed"], "peak_memory_mb": peak_memory_mb()}
    write_json(folder / _RECORD, {**facts, **said, **found.as_dict()})
    if shared is not None:
        shutil.rmtree(run / "features", ignore_errors=True)  # copies of what is shared
    return {"lines": [*trained["lines"], *made["lines"], *scored["lines"]], "cell": found, "failed": trained["failed"]}


def done_cell(ground: Ground, cell: Cell, folder: Path) -> CellScores | None:
    """The scores of a cell that was finished for the same request and is still as it was written; None otherwise."""
    try:
        record = read_record(folder / _RECORD, "request", "scores_sha256")
        found = CellScores.from_dict(record)
        same = record["request"] == ground.request(cell) and record["scores_sha256"] == hash_file(
            folder / "scores.json"
        )
        return found if same and found.checkpoint == _checkpoint(folder / "run", ground.config_of(cell)) else None
    except MedsegError:
        return None


def left_out(folder: Path) -> dict[str, str]:
    """Scans that the training of a finished cell had to leave out, and why."""
    return dict(read_record(folder / _RECORD)["left_out"])


def measured_gb(folders: Sequence[Path]) -> float | None:
    """The largest peak memory of the processes that finished in these folders; None where none did."""
    peaks = []
    for path in (folder / name for folder in folders for name in (_RECORD, _SHARED)):
        if path.is_file() and (peak := read_record(path).get("peak_memory_mb")) is not None:
            peaks.append(peak / 1024)
    return max(peaks, default=None)


def _checkpoint(run: Path, config: Config) -> str:
    """SHA-256 of the trained weights; of several voters the hash of theirs."""
    method = config.reconstruct.method
    found = [hash_file(folder / "weights.safetensors") for folder in RunRecord(run, config, {}).method_folders(method)]
    return found[0] if len(found) == 1 else hash_content(found)


def _take_student(made: Path, folder: Path) -> None:
    """Copy a trained student, whole or not at all; training states stay where they are."""
    if not made.is_dir() or folder.is_dir():
        return
    beside = folder.with_name(".student")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    shutil.copytree(made, beside, ignore=shutil.ignore_patterns("checkpoints", ".*"))
    beside.rename(folder)


def _require_none_failed(failed: Mapping[str, str]) -> None:
    if failed:
        raise MedsegError(next(iter(failed.values())))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
