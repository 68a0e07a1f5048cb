"""This file trains a run on a folder of scans: prepare, patches, features, STEGO, names for clusters.

Labels beside the scans reach two places only: the linear probe and the scores that training
reports. They change no weight of the head, no cluster and, unless the config names clusters by
training labels, no mask.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from medseg.config import SEEN, Config, load_config
from medseg.errors import MedsegError
from medseg.features.store import StoredPatches, extract_case, store_key, take_patches
from medseg.features.windows import feature_shape
from medseg.files import CannotWriteError, hash_content, remove_leftovers, require_folder, why_not_written
from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.patches.sampling import sample_locations
from medseg.patches.slicing import PatchGeometry, cut_all
from medseg.reconstruction.refine import require_steps
from medseg.runs import RunRecord, start_run
from medseg.scans.cases import Case, Listing, split_by_patient
from medseg.scans.names import is_picture
from medseg.stego.published import initial_weights
from medseg.stego.settings import StegoSettings, settings_from_preset
from medseg.stego.training import StegoRun, train
from medseg.workflows import parts
from medseg.workflows.checking import usable
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.labels import labels_of, meaning_of, scheme_of
from medseg.workflows.method_names import name_methods
from medseg.workflows.naming import require_naming
from medseg.workflows.point_measures import keep_surroundings, measure_points
from medseg.workflows.run_patches import keep_patches
from medseg.workflows.students import needs_student, student_of_run

_log = logging.getLogger(__name__)
_EVERY_PATCH = {"scheme": "all", "scheme_fraction": 1.0}


def train_run(
    config: str,
    scans: Path,
    run: Path,
    *,
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
    skip: Sequence[Path] = (),
    labels: bool = True,
    pool: Path | None = None,
) -> dict[str, Any]:
    """Train a run, or go on with the one that was interrupted there.

    Args:
        config: path or shipped name.
        scans: folder, datalist, CSV or one scan; labels are not needed.
        run: run folder.
        overrides: `section.key=value`.
        intake: what to take of files that hold several volumes, and what cases are called.
        skip: folders inside `scans` that hold results.
        labels: False looks at no label beside the scans.
        pool: a store that `store_cases` filled for runs that differ in how they pick patches.

    Returns:
        `lines` for the terminal, the run's health numbers, `failed` cases.

    Raises:
        MedsegError: config, scans or run folder cannot be used.
    """
    resolved = load_config(config, overrides)
    require_steps(resolved.reconstruct.refine)
    settings = stego_settings(resolved)
    require_naming(resolved.naming, backbones=resolved.features.backbone)
    require_folder(run, "--run")
    require_folder(RunRecord(run, resolved, {}).store, "features.store")
    listing = intake.cases(scans, skip=(run, *skip))
    listing = listing if labels else replace(listing, labels={})
    fabric = parts.start_fabric(resolved.run)
    if fabric.is_global_zero:
        remove_leftovers(run)
        parts.say_listing(listing)
    training, _ = split_by_patient(listing.cases, validation_fraction=resolved.run.held_out, seed=resolved.run.seed)
    held_out = [case for case in listing.cases if case not in training]
    if not training:
        raise MedsegError(f"{scans} must hold a scan to train on, got {len(held_out)} given for val or test; add some")
    training, unreadable = usable(training)
    if not training:
        raise parts.none_usable(unreadable)
    listing, unfit_labels = _with_fitting_labels(listing, training, resolved)
    parts.say_estimate(training, resolved, training=True)
    # Weights are there, or it is said before long work.
    ready = tuple(name for name in resolved.features.backbone if name != "student")
    parts.load_backbones(resolved.features.model_copy(update={"backbone": ready}), fabric.device)
    if fabric.is_global_zero:
        start_run(run, resolved, training=training, held_out=held_out, scans=scans, device=str(fabric.device))
    fabric.barrier()
    record = RunRecord(run, resolved, {})
    student, failed = None, unreadable | unfit_labels
    if needs_student(resolved):
        student, unused = student_of_run(training, record.student, record.store, resolved, fabric)
        training = tuple(case for case in training if case.case_id not in unused)
        failed |= unused
    backbones = parts.load_backbones(resolved.features, fabric.device, student=student)
    stores, unused = store_cases(training, record, backbones, fabric, pool=pool)
    failed |= unused
    reference, unfit = _label_patches(stores, training, listing, resolved)
    failed |= unfit
    if fabric.is_global_zero:
        for problem in failed.values():
            _log.error(problem)
    failed |= dict(listing.problems)
    dataset = PatchDataset(stores, reference)
    geometry = parts.patch_geometry(resolved.patches)
    if fabric.is_global_zero:
        keep_patches(run, dataset)
    pairs = pairs_of(dataset, resolved)
    identity = hash_content([[store.key for store in stores], parts.feature_facts(backbones, geometry)])
    initial = initial_weights(resolved.stego.start) if resolved.stego.start else None
    display = "rgb" if resolved.prepare.modality in SEEN else "tissue"
    voters: list[StegoRun] = []
    for number, folder in enumerate(record.voters):
        if number:
            _log.info("voter %d of %d", number + 1, len(record.voters))
        try:
            found = train(
                dataset,
                pairs,
                settings,
                run_dir=folder,
                fabric=fabric,
                seed=resolved.run.seed + number,
                identity=identity,
                view_features=parts.view_features(backbones, geometry, fabric.device, display),
                initial=initial,
            )
        except OSError as error:  # of TensorBoard and the like, which do not name the file
            reason = why_not_written(error)
            raise CannotWriteError(
                f"{run} must be writable, got {reason}; free space or choose another --run"
            ) from error
        if fabric.is_global_zero:
            meaning = meaning_of(scheme_of(resolved.naming, listing.scheme))
            measured = measure_points(found.points, dataset, resolved, backbones)
            facts = parts.feature_facts(backbones, geometry)
            first = voters[0].methods if voters else None
            name_methods(found, dataset, folder, resolved, facts, measured, meaning, first=first)
        voters.append(found)
    fabric.barrier()
    found = voters[0]
    if not fabric.is_global_zero:
        return {"lines": [], "failed": {}}
    health = found.health
    return {
        "lines": [f"trained on {len(stores)} cases, {len(dataset)} patches, {found.steps} steps: {run}"],
        "run": str(run),
        "cases": [store.case_id for store in stores],
        "patches": len(dataset),
        "steps": found.steps,
        "shifts": found.shifts._asdict(),
        "mean_code_cosine": health.mean_cosine,
        "effective_rank": health.effective_rank,
        "clusters_used": health.clusters_used,
        "alarms": [alarm for voter in voters for alarm in voter.health.alarms],
        "failed": failed,
    }


def stego_settings(config: Config) -> StegoSettings:
    """The numbers of the config, over those of its preset.

    Raises:
        MedsegError: the preset is unknown, or two numbers do not fit together.
    """
    numbers = config.stego.model_dump(exclude={"preset", "neighbour_slices", "partners", "voters", "start"})
    return settings_from_preset(
        config.stego.preset,
        **{name: value for name, value in numbers.items() if value is not None},
        checkpoint_every=config.run.checkpoint_every,
        workers=config.run.workers,
    )


def pairs_of(dataset: PatchDataset, config: Config) -> np.ndarray:
    """The neighbours of each patch, as the config wants them; see `medseg.patches.pairs`."""
    return find_pairs(
        dataset,
        neighbours=stego_settings(config).neighbours,
        slice_distance=config.stego.neighbour_slices,
        others_first=config.stego.partners == "other_patients",
    )


def store_cases(
    cases: Sequence[Case], record: RunRecord, backbones: Sequence[Any], fabric: Fabric, *, pool: Path | None = None
) -> tuple[list[StoredPatches], dict[str, str]]:
    """Features of every case's patches, each process computing its share; a bad case is left out and said.

    A `pool` keeps prepared scans, and the patches of a run that drew all of them spare others to compute theirs.
    """
    failed: dict[str, str] = {}
    keys = {case.case_id: _patch_key(case, record.config, backbones) for case in cases}
    for number, case in enumerate(cases):
        if number % fabric.world_size != fabric.global_rank or _stored(record.store, keys[case.case_id]):
            continue
        try:
            _store_case(case, record, backbones, keys[case.case_id], fabric.device, pool)
        except CannotWriteError:
            raise
        except MedsegError as error:
            failed[case.case_id] = str(error)
    fabric.barrier()
    failed = parts.gathered(fabric, failed)
    stores = [_stored(record.store, keys[case.case_id]) for case in cases if case.case_id not in failed]
    if not stores:
        raise parts.none_usable(failed)
    return [store for store in stores if store is not None], failed


def _store_case(
    case: Case, record: RunRecord, backbones: Sequence[Any], key: str, device: torch.device, pool: Path | None
) -> None:
    config, patches = record.config, record.config.patches
    geometry = parts.patch_geometry(patches)
    _log.info("%s: preparing", case.case_id)
    kept = (pool or record.store) / "prepared"
    with parts.prepared(case, config.prepare, kept, keep=pool is not None) as sample:
        locations = sample_locations(
            tuple(sample["image"].shape[1:]),
            geometry,
            np.asarray(sample["region"][0]),
            np.asarray(sample["salience"][0]),
            per_case=patches.per_case,
            salient_fraction=patches.salient_fraction,
            scheme=patches.scheme,
            scheme_fraction=patches.scheme_fraction,
            empty=patches.empty,
            seed=config.run.seed,
            image=np.asarray(sample["image"][0]),
        )
        if len(locations):  # before the features, whose index says that the case is complete
            cells = feature_shape(geometry, backbones)[1]
            place = record.store / key[:16]
            keep_surroundings(place, sample, locations, geometry, cells=cells, is_picture=is_picture(case.image))
        everything = config.model_copy(update={"patches": patches.model_copy(update=_EVERY_PATCH)})
        drawn = None if pool is None else _stored(pool, _patch_key(case, everything, backbones))
        if drawn is not None:
            take_patches(drawn, locations, folder=record.store, key=key)
        else:
            _extract(sample, locations, record, backbones, key, device)


def _extract(
    sample: dict[str, Any],
    locations: np.ndarray,
    record: RunRecord,
    backbones: Sequence[Any],
    key: str,
    device: torch.device,
) -> None:
    """Compute and store the features of a case's patches."""
    sample = parts.add_maps(sample, backbones, device)
    geometry = parts.patch_geometry(record.config.patches)
    try:
        extract_case(sample, locations, geometry, backbones, folder=record.store, key=key, device=device)
    except MedsegError as error:
        if len(locations):  # the case has patches, so it is the disk that cannot take them
            raise CannotWriteError(str(error)) from error
        raise


def _patch_key(case: Case, config: Config, backbones: Sequence[Any]) -> str:
    sampled = config.patches.model_dump(include={"per_case", "salient_fraction", "scheme", "scheme_fraction", "empty"})
    return store_key(
        backbones=backbones,
        preparation=config.prepare.model_dump(mode="json"),
        geometry=parts.patch_geometry(config.patches),
        source=parts.case_hash(case, config.prepare),
        sampling={**sampled, "seed": config.run.seed, "case": case.case_id, "patient": case.patient},
    )


def _stored(store: Path, key: str) -> StoredPatches | None:
    """The patches of a case in the store; None where they are missing, or damaged and so to be made again."""
    try:
        stored = StoredPatches(store / key[:16])
        for array in (stored.features, stored.image, stored.salience):
            array(slice(0))  # opens the file, which must be as long as it says
        whole = len(stored.locations) == len(stored)
    except (MedsegError, OSError, ValueError, KeyError, TypeError):
        return None
    return stored if whole and stored.key == key else None


def _with_fitting_labels(listing: Listing, training: Sequence[Case], config: Config) -> tuple[Listing, dict[str, str]]:
    """The listing without labels of the training cases that do not fit their scans, and a line for each of them."""
    labelled = [case for case in training if case.case_id in listing.labels]
    _, unfit = usable(labelled, listing.labels, scheme_of(config.naming, listing.scheme))
    kept = {name: path for name, path in listing.labels.items() if name not in unfit}
    return replace(listing, labels=kept), unfit


def _label_patches(
    stores: Sequence[StoredPatches], cases: Sequence[Case], listing: Listing, config: Config
) -> tuple[list[np.ndarray | None], dict[str, str]]:
    """The labels in each case's patches, None where there is none; a label that does not fit is left out and named."""
    of_id = {case.case_id: case for case in cases}
    scheme = scheme_of(config.naming, listing.scheme)
    found: list[np.ndarray | None] = []
    failed: dict[str, str] = {}
    for store in stores:
        patches = None
        if path := listing.labels.get(store.case_id):
            try:
                on_grid = labels_of(path, of_id[store.case_id], config.prepare, scheme)
                window = PatchGeometry(store.plane, store.geometry.size)
                patches = cut_all(on_grid[None], store.locations, window)[:, 0]
            except MedsegError as error:
                failed[store.case_id] = str(error)
        found.append(patches)
    return found, failed
