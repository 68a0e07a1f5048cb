"""This file does the part of a training that comes before its first step: features and pairs.

Both are a function of the images and of the config, so training on the same run folder (or the same
`features.store`) finds them and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.patches.datasets import PatchDataset
from medseg.runs import RunRecord, start_run
from medseg.scans.cases import split_by_patient
from medseg.workflows import parts, training
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.students import needs_student


def precompute_pairs(
    config: str,
    scans: Path,
    run: Path,
    *,
    overrides: Sequence[str] = (),
    intake: Intake = AS_IT_IS,
) -> dict[str, Any]:
    """Prepare the cases, store the features of their patches, and find each patch's partners.

    Args:
        config: path or shipped name.
        scans: folder, datalist, CSV or one scan.
        run: run folder that training will use.
        overrides: `section.key=value`.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, `store`, `patches`, `neighbours`, `failed` cases.

    Raises:
        MedsegError: config, scans or run folder cannot be used.
    """
    resolved = load_config(config, overrides)
    if needs_student(resolved):
        raise MedsegError("features.backbone must need no training, got student; train the run instead")
    require_folder(run, "--run")
    listing = intake.cases(scans, skip=(run,))
    fabric = parts.start_fabric(resolved.run)
    parts.say_listing(listing)
    cases, _ = split_by_patient(listing.cases, validation_fraction=resolved.run.held_out, seed=resolved.run.seed)
    held_out = [case for case in listing.cases if case not in cases]
    if not cases:
        raise MedsegError(f"{scans} must hold a scan to train on, got {len(held_out)} given for val or test; add some")
    backbones = parts.load_backbones(resolved.features, fabric.device)
    start_run(run, resolved, training=cases, held_out=held_out, scans=scans, device=str(fabric.device))
    record = RunRecord(run, resolved, {})
    stores, failed = training.store_cases(cases, record, backbones, fabric)
    dataset = PatchDataset(stores, [None] * len(stores))
    pairs = training.pairs_of(dataset, resolved)
    patients = np.array([stores[store].patient for store in dataset.store_index])
    others = float((patients[pairs] != patients[:, None]).mean())
    return {
        "lines": [
            f"features of {len(dataset)} patches of {len(stores)} cases: {record.store}",
            f"{pairs.shape[1]} partners for each, {others:.0%} of them from other patients; training finds them again",
        ],
        "store": str(record.store),
        "patches": len(dataset),
        "neighbours": int(pairs.shape[1]),
        "failed": failed | dict(listing.problems),
    }
