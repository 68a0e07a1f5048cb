"""This file says what a run, a folder of scans or the installation holds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.config import shipped_configs
from medseg.errors import MedsegError
from medseg.files import read_record
from medseg.runs import METHODS, RunRecord, open_run, versions
from medseg.scans.arrays import read_grid
from medseg.scans.folders import find_cases
from medseg.scans.names import is_picture
from medseg.scans.picks import WHOLE, Pick

_log = logging.getLogger(__name__)


def describe(what: Path | None, *, pick: Pick = WHOLE) -> dict[str, Any]:
    """Describe a run folder (it has a `run.yaml`), scans, or with None this installation.

    Returns:
        `lines` for a person and the same facts for a program.
    """
    if what is None:
        return _installation()
    for folder in (what, what / "run"):  # a result folder of `medseg run` holds its run
        if (folder / "run.yaml").is_file():
            return _run(open_run(folder))
    return _scans(what, pick)


def _installation() -> dict[str, Any]:
    configs = [name for name in shipped_configs() if name != "default"]
    lines = [f"{package} {number}" for package, number in versions().items()]
    return {"lines": [*lines, f"configs: {', '.join(configs)}"], "versions": versions(), "configs": configs}


_STEERS = {
    "picture": {"modality", "resize", "clear_view"},
    "liver_ultrasound": {"modality", "fill_overlays", "despeckle", "even_gain", "pixel_mm"},
}


def _run(record: RunRecord) -> dict[str, Any]:
    train = sorted(case for case, entry in record.inputs.items() if entry["split"] == "train")
    held_out = sorted(case for case, entry in record.inputs.items() if entry["split"] == "held_out")
    methods = [name for name in METHODS if record.has_method(name)]
    store_bytes = _folder_bytes(record.store)
    prepare = record.config.prepare
    steers = _STEERS.get(prepare.modality)  # the other keys are of volumes
    rows = {
        "backbone": ", ".join(record.config.features.backbone),
        "trained on": ", ".join(train),
        "held out": ", ".join(held_out) or "none",
        "methods": ", ".join(methods) or "not trained to the end; run the same `medseg train` again",
        "feature store": f"{record.store}, {store_bytes / 1e6:.0f} MB",
        "preparation": json.dumps(prepare.model_dump(mode="json", include=steers)),
    }
    lines = [f"{name}: {value}" for name, value in rows.items()]
    cards = record.method_folders(record.config.reconstruct.method)[0] / "cards.json"
    clusters = read_record(cards, "cards")["cards"] if cards.is_file() else []
    return {
        "lines": lines,
        "train": train,
        "held_out": held_out,
        "methods": methods,
        "feature_store_bytes": store_bytes,
        "clusters": clusters,
    }


def _scans(what: Path, pick: Pick) -> dict[str, Any]:
    listing = find_cases(what, pick=pick)
    failed = dict(listing.problems)
    cases: list[dict[str, Any]] = []
    for case in listing.cases:
        try:
            grid = read_grid(case.image, case.pick)
        except MedsegError as error:
            failed[case.case_id] = str(error)
            continue
        cases.append(
            {
                "case": case.case_id,
                "patient": case.patient,
                "image": str(case.image),
                "mask": str(case.mask) if case.mask else case.mask_mode,
                "label": str(listing.labels[case.case_id]) if case.case_id in listing.labels else None,
                "shape": list(grid.shape),
            }
        )
        if not is_picture(case.image):
            spacing = [round(length, 4) for length in grid.spacing]
            cases[-1] |= {"spacing_mm": spacing, "orientation": grid.orientation}
    rows = [f"  {entry['case']}: {_size(entry)}" for entry in cases]
    for problem in failed.values():
        _log.error(problem)
    return {"lines": [*listing.describe(), *rows], "cases": cases, "failed": failed}


def _size(entry: Mapping[str, Any]) -> str:
    if "spacing_mm" not in entry:
        height, width, *frames = entry["shape"]
        return f"{height} x {width} pixels" + "".join(f", {count} frames" for count in frames if count > 1)
    shape = " x ".join(map(str, entry["shape"]))
    return f"{shape} voxels of {' x '.join(f'{length:g}' for length in entry['spacing_mm'])} mm, {entry['orientation']}"


def _folder_bytes(folder: Path) -> int:
    return sum((Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names)
