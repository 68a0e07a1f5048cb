"""This file builds the stages' objects from config sections, and says what is about to happen.

It is the one place where a config section becomes plain arguments.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Compose, Orientation, Spacing, Transform

from medseg import config as sections
from medseg.errors import MedsegError, mistake_behind
from medseg.features.backbones import load_slice_backbone, to_rgb
from medseg.features.filterbank import FilterBank
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.windows import feature_shape, is_volume_backbone, join_features
from medseg.files import CannotWriteError, hash_content, hash_file, read_record, why_not_written, write_json
from medseg.naming.classes import Naming
from medseg.patches.slicing import PatchGeometry, magnified
from medseg.prepare.chain import angiogram_transforms, prepare_case
from medseg.prepare.picture import Resizedd, picture_transforms
from medseg.prepare.sector import POLAR, Sector, to_sector
from medseg.prepare.ultrasound import ultrasound_transforms, upright_slices
from medseg.reconstruction.refine import Volume
from medseg.scans.arrays import read_grid
from medseg.scans.cases import Case, Listing
from medseg.scans.names import is_picture
from medseg.scans.sources import hash_scan
from medseg.stego.model import Clusterer, load_method

_log = logging.getLogger(__name__)

# Measured on two cores: seconds per million voxels for preparation and flux, and for one reconstruction.
_PREPARE_SECONDS, _RECONSTRUCT_SECONDS, _STEP_SECONDS = 3.0, 4.0, 0.15
_STUDENT_STEP_SECONDS = 1.0
_FACTS = "features.json"
_BYTES_A_VOXEL = 32  # image, region, salience, tubularity, probability and their transient copies


def say_listing(listing: Listing, *, brief: bool = False) -> None:
    """Print what was found, what lacks what, what was ignored and why, and what cannot be used.

    Args:
        listing: what was found.
        brief: print the counts only, because the same command has said the rest already.
    """
    for line in listing.describe()[: 1 if brief else None]:
        _log.info(line)
    if brief:
        return
    for _, problem in listing.problems:
        _log.error(problem)


def none_usable(failed: Mapping[str, str]) -> MedsegError:
    """The line that ends a training without a case; the reasons stand in lines of their own where they are many."""
    if len(failed) == 1:
        return MedsegError(f"SCANS must hold a usable scan to train on, got none: {next(iter(failed.values()))}")
    for problem in failed.values():
        _log.error(problem)
    return MedsegError(f"SCANS must hold a usable scan to train on, got none of {len(failed)}; mend those above")


def start_fabric(run: sections.Run) -> Fabric:
    """Lightning Fabric for the config's devices, launched.

    Raises:
        MedsegError: this machine has no such devices.
    """
    torch.set_float32_matmul_precision("high")
    try:
        fabric = Fabric(
            accelerator=run.device,
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=run.strategy,
            precision=run.precision,
        )
    except (RuntimeError, MisconfigurationException) as error:
        raise MedsegError(
            f"run.device must be one of this machine's, got {run.device} x {run.devices} ({error}); "
            "set run.device=auto and run.devices=1"
        ) from error
    fabric.launch()
    if not fabric.is_global_zero:  # one voice is enough
        logging.getLogger("medseg").setLevel(logging.WARNING)
    return fabric


def gathered(fabric: Fabric, mapping: Mapping[str, str]) -> dict[str, str]:
    """The union of a mapping over all processes."""
    if fabric.world_size == 1:
        return dict(mapping)
    everyone: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, dict(mapping))
    return {key: value for part in everyone for key, value in part.items()}


def preparation(prepare: sections.Prepare) -> Compose:
    """The chain from a case to a prepared sample."""
    if prepare.modality == "picture":
        return picture_transforms(resize=prepare.resize, clear_view=prepare.clear_view)
    if prepare.modality == "liver_ultrasound":
        return ultrasound_transforms(
            fill=prepare.fill_overlays, despeckle=prepare.despeckle, even_gain=prepare.even_gain
        )
    return angiogram_transforms(
        modality=prepare.modality,
        spacing=prepare.spacing,
        n4=prepare.n4,
        n4_shrink=prepare.n4_shrink,
        brain_mask=prepare.brain_mask,
        radii_mm=prepare.radii_mm,
    )


def patch_geometry(patches: sections.Patches) -> PatchGeometry:
    """Plane, window and magnification."""
    return PatchGeometry(patches.plane, patches.size, patches.overlap, patches.magnification, patches.neighbours)


def load_backbones(
    features: sections.Features,
    device: torch.device,
    *,
    student: VesselStudent | LiverStudent | None = None,
    pretrained: bool = True,
) -> list[Any]:
    """The frozen backbones by name; a checkpoint file belongs to the one slice backbone of the list.

    Raises:
        MedsegError: weights cannot be had.
    """

    def load(name: str) -> Any:
        if name == "filter_bank":
            return FilterBank()
        if name == "student":
            assert student is not None  # whoever asks for it has trained or loaded it
            return student
        return load_slice_backbone(
            name, checkpoint=features.checkpoint, feature=features.feature, pretrained=pretrained
        ).to(device)

    return [load(name) for name in features.backbone]


def add_maps(sample: dict[str, Any], backbones: Sequence[Any], device: torch.device) -> dict[str, Any]:
    """The sample with what backbones compute once for the whole volume."""
    for backbone in backbones:
        if isinstance(backbone, VesselStudent | LiverStudent):
            sample = sample | backbone.maps(sample, device)
    return sample


@contextmanager
def prepared(case: Case, prepare: sections.Prepare, cache: Path, *, keep: bool = False) -> Iterator[dict[str, Any]]:
    """The prepared sample of a case, kept on disk until the block ends well, or longer with `keep`.

    An interrupted run, or one that needs a scan twice, so does not prepare it again. The cache holds tensors and plain
    values only, because those can be read back without running anything.

    Raises:
        MedsegError: the scan cannot be used; the message names the case.
        CannotWriteError: the disk is full.
    """
    key = case_hash(case, prepare)
    dataset = PersistentDataset(
        [case], _Prepare(preparation(prepare)), cache_dir=cache, hash_func=partial(_constant_key, key=key)
    )
    kept = cache / f"{key}.pt"
    if kept.is_file() and not zipfile.is_zipfile(kept):  # killed while it was moved here from another disk
        kept.unlink()
    try:
        sample = dict(dataset[0])
    except RuntimeError as error:
        if mistake := mistake_behind(error):
            raise mistake from error
        if error.__cause__ is not None:  # MONAI wraps what its transforms raise
            raise
        reason = why_not_written(error)
        raise CannotWriteError(f"{cache} must be writable, got {reason}; free space or set features.store") from error
    image = sample["image"]  # from the cache it comes without its affine
    sample["image"] = MetaTensor(
        image.as_tensor() if isinstance(image, MetaTensor) else image, affine=sample.pop("affine")
    )
    yield sample
    if not keep:
        kept.unlink(missing_ok=True)


class _Prepare(Transform):
    """A case to its sample, in tensors and plain values; MONAI keeps the results of its own transforms only."""

    def __init__(self, chain: Compose) -> None:
        self._chain = chain

    def __call__(self, data: Case) -> dict[Any, Any]:
        sample = prepare_case(data, self._chain)
        return {**sample, "facts": plain_facts(sample["facts"]), "affine": sample["image"].affine.clone()}


def case_hash(case: Case, prepare: sections.Prepare) -> str:
    """Hash of a scan's content, its given mask and how it is prepared."""
    mask = hash_file(case.mask) if case.mask else case.mask_mode
    return hash_content([hash_scan(case.image, case.pick), mask, case.pick.as_dict(), prepare.model_dump(mode="json")])


def _constant_key(item: Any, key: str) -> bytes:
    return key.encode()


def on_prepared_grid(labels: MetaTensor, case: Case, prepare: sections.Prepare) -> torch.Tensor:
    """Labels of a scan's stored grid where its prepared image lies; -1 in slices without a sector."""
    if prepare.modality == "liver_ultrasound":
        return _on_sector_grid(labels, case, prepare)
    turned = Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(labels)
    if prepare.modality == "picture":
        return turned if prepare.resize is None else Resizedd("labels", prepare.resize)({"labels": turned})["labels"]
    return turned if prepare.spacing is None else Spacing(prepare.spacing, mode="nearest")(turned)


def _on_sector_grid(labels: MetaTensor, case: Case, prepare: sections.Prepare) -> torch.Tensor:
    found = prepare_case(case, preparation(prepare))["facts"]["sectors"]
    upright = labels if is_picture(case.image) else upright_slices(labels)
    slices = np.moveaxis(upright.as_tensor().numpy().astype(np.float32), -1, 0)
    nothing = np.full((1, POLAR, POLAR), -1, np.float32)
    there = [
        nothing if sector is None else to_sector(values, Sector.from_dict(sector), nearest=True)
        for values, sector in zip(slices, found, strict=True)
    ]
    return torch.from_numpy(np.stack(there, axis=-1))


def view_features(
    backbones: Sequence[Any], geometry: PatchGeometry, device: torch.device, display: str
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """How an augmented patch becomes features; None where a volume backbone is used, which sees no patches."""
    if any(is_volume_backbone(backbone) for backbone in backbones):
        return None
    side = feature_shape(geometry, backbones)[1]

    def features(images: torch.Tensor) -> torch.Tensor:
        images = images[:, None] if images.ndim == 3 else images
        patches = to_rgb(magnified(images, geometry.magnification), display).to(device)
        with torch.no_grad():
            blocks = [backbone(patches).float() for backbone in backbones]
        return blocks[0] if len(blocks) == 1 else join_features(blocks, side)

    return features


def load_clusterer(folder: Path, backbones: Sequence[Any], geometry: PatchGeometry, device: torch.device) -> Clusterer:
    """A fitted clusterer, which must have seen the same features.

    Args:
        folder: of one voter's method.
        backbones: that will compute the features.
        geometry: of the patches.
        device: where it will run.

    Raises:
        MedsegError: it was not fitted, or on other features or another patch geometry.
    """
    require_facts(folder, backbones, geometry)
    return load_method(folder).to(device)


def require_facts(folder: Path, backbones: Sequence[Any], geometry: PatchGeometry) -> None:
    """Check that a method was fitted on these features.

    Raises:
        MedsegError: it was not fitted, or on other features or another patch geometry.
    """
    known = read_record(folder / _FACTS, "backbones", "patch", advice="train a new run")
    for name, value in feature_facts(backbones, geometry).items():
        if known.get(name) != value:
            raise MedsegError(
                f"{folder} must be fitted on what its config names, got {name} {known.get(name)} there and {value} "
                "now; train a new run, or restore its config and weights"
            )


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keep beside a method what it was fitted on."""
    write_json(folder / _FACTS, dict(facts))


def feature_facts(backbones: Sequence[Any], geometry: PatchGeometry) -> dict[str, Any]:
    """What a fitted method depends on: backbones with weights, and how patches are shown to them."""
    return {
        "backbones": [f"{backbone.name} {backbone.fingerprint[:16]}" for backbone in backbones],
        "patch": {key: value for key, value in asdict(geometry).items() if key not in ("plane", "overlap")},
    }


def refinement_volume(sample: Mapping[str, Any]) -> Volume:
    """The sample as plain arrays for refinement and pictures."""
    affine = np.asarray(sample["image"].affine, dtype=float)
    spacing = tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(
        image=np.asarray(sample["image"][0]),
        region=np.asarray(sample["region"][0]) > 0,
        salience=np.asarray(sample["salience"][0]),
        tubularity=np.asarray(sample["tubularity"][0]),
        spacing=spacing,  # type: ignore[arg-type]
        alarm=sample["facts"].get("flux_alarm"),
        signal=sample["facts"]["flux_signal"],
        radii_mm=tuple(sample["facts"]["radii_mm"]),
    )


def plain_classes(naming: Naming) -> list[dict[str, Any]]:
    """Class entries as plain values for JSON and label tables."""
    return [entry.as_dict() for entry in naming.classes]


def plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a preparation as JSON values."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in facts.items()}


def say_estimate(cases: Sequence[Case], config: sections.Config, *, training: bool) -> None:
    """Say how many cases, and about how long, how much disk and how much memory they take."""
    if config.prepare.modality in sections.SEEN:
        return  # what pictures cost depends on their backbone, and progress says it soon
    voxels = [_voxels(case) for case in cases]
    millions = sum(voxels) / 1e6
    if training:
        seconds = millions * _PREPARE_SECONDS + config.stego.voters * config.stego.steps * _STEP_SECONDS
        if "student" in config.features.backbone:
            seconds += config.student.rounds * config.student.steps * _STUDENT_STEP_SECONDS
        disk_gb = len(cases) * config.patches.per_case * config.patches.size**2 * 70 * 2 / 1e9 + sum(voxels) * 13 / 1e9
    else:
        seconds = millions * (_PREPARE_SECONDS + _RECONSTRUCT_SECONDS)
        disk_gb = sum(voxels) * 3 / 1e9
    _log.info(
        "%d %s, %.0f million voxels: about %s on two cores without a GPU, %.1f GB of disk, %.1f GB of memory",
        len(cases), "case" if len(cases) == 1 else "cases", millions, _duration(seconds), disk_gb, memory_gb(cases),
    )  # fmt: skip


def memory_gb(cases: Sequence[Case]) -> float:
    """About how much memory one process takes for cases of these sizes, one after the other."""
    return 1.9 + max(_voxels(case) for case in cases) * _BYTES_A_VOXEL / 1e9


def _voxels(case: Case) -> int:
    """How many voxels a scan has; none where its header cannot be read, which is reported when its turn comes."""
    try:
        return int(np.prod(read_grid(case.image, case.pick).shape))
    except MedsegError:
        return 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds / 10), 1) * 10} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
