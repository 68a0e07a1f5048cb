"""This file writes training patches of scans for other programs, prepared as the ancestors prepared theirs.

Grey values are standardised by mean and SD of the brain, and what lies outside it gets the least value within; a PNG
shows each patch from its least to its largest value. Which patches are drawn says the config, as in training: they
begin in brain, and a share of them is centred where a label-free salience sees vessels. Where the ancestors asked the
labels for that, nobody is asked; labels are only copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int8, UInt8

from medseg.config import Config
from medseg.errors import MedsegError
from medseg.files import CannotWriteError, require_folder
from medseg.naming.rough_masks import NO_VESSEL, UNKNOWN, VESSEL
from medseg.patches.sampling import sample_locations
from medseg.patches.slicing import cut_all
from medseg.prepare.chain import prepare_case
from medseg.progress import track
from medseg.review.exports.patch_folders import CasePatches, Patch, write_patches
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case
from medseg.scans.names import is_picture
from medseg.workflows import parts
from medseg.workflows.intake import AS_IT_IS, Intake
from medseg.workflows.labels import labels_of
from medseg.workflows.rough_labels import (
    FILE_BACKGROUND,
    FILE_UNKNOWN,
    FILE_VESSEL,
    read_rough_labels,
    rough_label_files,
)

_log = logging.getLogger(__name__)


def export_patches(
    config: Config, scans: Path, out: Path, *, rough: Path | None = None, intake: Intake = AS_IT_IS
) -> dict[str, Any]:
    """Write patches of every scan, see `medseg.review.exports.patch_folders`.

    Args:
        config: whose sections `prepare` and `patches` say how scans are prepared and what is drawn of them.
        scans: volumes, best with brain masks; labelled patches of those in folders `val` and `test` are for testing.
        out: folder for the patches.
        rough: folder of rough masks (`medseg annotate --collect`); None takes the labels beside the scans, if any.
        intake: what to take of files that hold several volumes, and what cases are called.

    Returns:
        `lines` for the terminal, `counts` of each list, `failed` by case.

    Raises:
        MedsegError: no case can be used, or a folder.
    """
    require_folder(out, "--out")
    listing = intake.cases(scans, skip=(out,) if rough is None else (out, rough))
    labels = listing.labels if rough is None else rough_label_files(rough)
    failed = dict(listing.problems)

    def drawn() -> Iterator[CasePatches]:
        for case in track(listing.cases, "cutting patches"):
            try:
                known = _labels(case, labels.get(case.case_id), config, is_rough=rough is not None)
                patches = list(_patches(case, known, config))
            except CannotWriteError:
                raise
            except MedsegError as error:
                _log.error(str(error))
                failed[case.case_id] = str(error)
            else:
                yield CasePatches(case.case_id, config.patches.size, case.split in ("val", "test"), patches)
        if {
            case.case_id for case in listing.cases
        } <= failed.keys():  # before an empty folder takes an older one's place
            raise MedsegError(f"{scans} must hold a volume to cut patches from, got none; give scans")

    counts = write_patches(out, drawn())
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return {"lines": [f"patches in {out}: {said}"], "counts": counts, "failed": failed}


def standardised(image: Float[np.ndarray, "i j k"], region: Bool[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    """Grey values with mean 0 and SD 1 in the region, and its least value outside; the region must not be even."""
    inside = image[region]
    values = (image - inside.mean()) / inside.std()
    return np.where(region, values, values[region].min()).astype(np.float32)


def stretched(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """From the least value at 0 to the largest at 255; 0 where all are equal."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) / (high - low or 1) * 255).astype(np.uint8)


def _patches(case: Case, labels: Int8[np.ndarray, "i j k"] | None, config: Config) -> Iterator[Patch]:
    sample = prepare_case(case, parts.preparation(config.prepare))
    region, salience = np.asarray(sample["region"][0]) > 0, np.asarray(sample["salience"][0])
    if not region.any():
        raise MedsegError(f"case {case.case_id} must have a brain to cut patches from, got an empty mask; mend it")
    image = standardised(np.asarray(sample["image"][0]), region)
    patches, geometry = config.patches, parts.patch_geometry(config.patches)
    places = sample_locations(
        image.shape,
        geometry,
        region,
        salience,
        per_case=patches.per_case,
        salient_fraction=patches.salient_fraction,
        scheme=patches.scheme,
        scheme_fraction=patches.scheme_fraction,
        empty=patches.empty,
        seed=config.run.seed,
        image=image,
    )
    shown = replace(geometry, magnification=1, neighbours=0)  # what a network is shown is no patch of the scan
    for place in places.tolist():
        values = cut_all(image[None], [place], shown)[0, 0]
        known = None if labels is None else cut_all(labels[None], [place], shown)[0, 0]
        yield Patch(
            "{}_slice{:03d}_row{:03d}_column{:03d}".format(case.case_id, *place),
            values,
            stretched(values),
            known.astype(np.uint8) if known is not None and (known != UNKNOWN).all() else None,
        )


def _labels(case: Case, path: Path | None, config: Config, *, is_rough: bool) -> Int8[np.ndarray, "i j k"] | None:
    """The label of a case on its prepared grid; None where it has none."""
    if is_picture(case.image):
        raise MedsegError(f"{case.image} must be a volume to have slices of a brain, got a picture; leave it out")
    if path is None:
        return None
    if is_rough:
        read_rough_labels(path, read_grid(case.image, case.pick))  # it must be one
    found = labels_of(path, case, config.prepare, None)
    if not is_rough:
        return np.where(found > 0, VESSEL, NO_VESSEL).astype(np.int8)
    values = np.zeros(3, np.int8)
    values[FILE_UNKNOWN], values[FILE_VESSEL], values[FILE_BACKGROUND] = UNKNOWN, VESSEL, NO_VESSEL
    return values[found]
