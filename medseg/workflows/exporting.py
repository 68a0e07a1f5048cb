"""This file hands the masks of a result folder to other programs, each case on its own: a bad one is one line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, require_folder
from medseg.progress import track
from medseg.review.exports import TARGETS
from medseg.review.exports.bids import BidsName, bids_name, write_bids, write_bids_description
from medseg.review.exports.folders import exported_files, replacing_folder
from medseg.review.exports.masks import Mask
from medseg.review.exports.monai import write_datalist
from medseg.review.exports.named_nifti import write_named_nifti
from medseg.review.exports.nnunet import FIRST_CHANNEL, dataset_name, write_dataset_json
from medseg.review.exports.slicer import write_slicer
from medseg.review.exports.training_files import write_frames, write_image, write_labels_of
from medseg.workflows.exported_cases import Results, open_results
from medseg.workflows.manifests import is_picture_result

_log = logging.getLogger(__name__)
DATASET_ID = 501
"""Number of the nnU-Net data set where none is chosen: above those of the published ones."""
_SECTIONS = {"val": "validation", "test": "testing"}
Manifest = Mapping[str, Any]


@dataclass
class _Answer:
    """What is said of one target.

    Attributes:
        folder: where its files went.
        done: cases that are written.
        failed: why others are not.
        notes: further lines.
        files: what was written.
    """

    folder: Path
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Pair:
    """Files of a case for training, relative to their data set."""

    images: tuple[str, ...]
    labels: tuple[str, ...]


def export_results(
    out: Path,
    targets: Sequence[str],
    *,
    into: Path | None = None,
    scans: Path | None = None,
    labels: Path | None = None,
    dataset_id: int = DATASET_ID,
    keep_identity: bool = False,
) -> dict[str, Any]:
    """Export the masks of a result folder.

    Args:
        out: a folder that `medseg reconstruct` wrote.
        targets: some of `TARGETS`.
        into: where to; `OUT/export/TARGET` when None. Several targets get a folder each in it.
        scans: where the scans are now; where the reconstruction read them when None.
        labels: masks that a reviewer has accepted or corrected; they take the place of the automatic ones.
        dataset_id: number of the nnU-Net data set.
        keep_identity: let DICOM SEG name the patient of its source.

    Returns:
        `lines` for the terminal, `failed` by case (and target, where there are several), and the `files`.

    Raises:
        MedsegError: there is no such target, or nothing to export.
    """
    targets = tuple(dict.fromkeys(targets))
    if unknown := [target for target in targets if target not in TARGETS]:
        raise MedsegError(f"--to must be one of {', '.join(TARGETS)}, got {unknown[0]}; choose one")
    if not targets:
        raise MedsegError(f"--to must name a target, got none; choose of {', '.join(TARGETS)}")
    results, damaged = open_results(out, scans=scans, labels=labels)
    for problem in damaged.values():
        _log.error(problem)
    failed, lines, files = dict(damaged), [], []
    for target in targets:
        folder = out / "export" / target if into is None else into if len(targets) == 1 else into / target
        require_folder(folder, "--into")
        answer = _Answer(folder)
        several = f" ({target})" if len(targets) > 1 else ""
        try:
            _export(results, target, answer, dataset_id=dataset_id, keep_identity=keep_identity)
        except CannotWriteError:
            raise
        except MedsegError as error:  # the other targets go on
            _log.error(str(error))
            failed[target] = str(error)
        else:
            lines += [f"{target}: {answer.done} of {len(results.manifests)} cases in {answer.folder}", *answer.notes]
            files += answer.files
        failed |= {f"{case}{several}": problem for case, problem in answer.failed.items()}
    return {"lines": lines, "failed": failed, "files": [str(path) for path in files]}


def _export(results: Results, target: str, answer: _Answer, *, dataset_id: int, keep_identity: bool) -> None:
    if target == "bids":
        return _bids(results, answer)
    if target == "nnunet":
        answer.folder /= dataset_name(dataset_id)
        return _nnunet(results, answer)
    if target == "monai":
        return _monai(results, answer)

    def write(manifest: Manifest) -> None:
        mask = results.mask_of(manifest)
        if target == "slicer" and mask.is_sheared:
            answer.notes.append(f"{mask.case_id} lies on a sheared grid: resample it before 3D Slicer saves it again")
        answer.files += _write_alone(results, target, answer.folder, mask, manifest, keep_identity=keep_identity)

    _each(results.manifests, write, answer, target)
    answer.files = list(dict.fromkeys(answer.files))  # the tables of classes are those of every case
    answer.notes += _unreviewed(results)


def _write_alone(
    results: Results, target: str, folder: Path, mask: Mask, manifest: Manifest, *, keep_identity: bool
) -> list[Path]:
    """The files of a target in which cases have nothing to do with each other."""
    if target == "nifti":
        return write_named_nifti(folder, mask)
    if target == "slicer":
        return write_slicer(folder, mask)
    if target == "mesh":
        from medseg.review.exports.mesh import write_meshes

        return write_meshes(folder, mask)
    from medseg.review.exports.dicom_seg import write_dicom_seg

    case = results.scans.require(manifest)
    path = folder / f"{mask.case_id}_seg.dcm"
    classes = [entry.as_dict() for entry in mask.classes]
    write_dicom_seg(path, mask.labels, classes, source=case.image, pick=case.pick, keep_identity=keep_identity)
    return [path]


def _bids(results: Results, answer: _Answer) -> None:
    folder = answer.folder
    taken: dict[str, str] = {}
    with replacing_folder(folder) as beside:

        def write(manifest: Manifest) -> None:
            name = _free_name(manifest, taken)
            maps = results.out / f"{manifest['case']}_prob.nii.gz"
            write_bids(beside, results.mask_of(manifest), name, probabilities=maps if maps.is_file() else None)

        _each(results.manifests, write, answer, "bids")
        _require_some(answer)
        write_bids_description(beside, results.classes, scans=_relative(results.scans.place or results.out, folder))
    answer.files = exported_files(folder)
    answer.notes += _unreviewed(results)


def _free_name(manifest: Manifest, taken: dict[str, str]) -> BidsName:
    """The BIDS name of a case; what two cases would share only the first one gets."""
    case = manifest["case"]
    name = bids_name(manifest["source"], case)
    other = taken.setdefault(name.entities.casefold(), case)
    if other != case:
        raise MedsegError(f"{case} must have a BIDS name of its own, got {name.entities} as {other} has; rename one")
    return name


def _nnunet(results: Results, answer: _Answer) -> None:
    folder = answer.folder
    pictures = all(is_picture_result(manifest) for manifest in results.manifests)
    ending = ".png" if pictures else ".nii.gz"
    colour = pictures and any(_is_coloured(results, manifest) for manifest in results.manifests)
    training = 0
    with replacing_folder(folder) as beside:
        for part in ("imagesTr", "labelsTr"):  # nnU-Net wants both
            (beside / part).mkdir()

        def write(manifest: Manifest) -> None:
            nonlocal training
            case = manifest["case"]
            if is_picture_result(manifest) != pictures:
                raise MedsegError(f"{case} must be a volume like other cases here, got a picture; export it alone")
            is_training = results.accepted is None or case in results.accepted
            images, labels = ("imagesTr", "labelsTr") if is_training else ("imagesTs", None)
            mask = results.mask_of(manifest)
            if mask.is_sheared:
                raise MedsegError(f"{case} must lie on a grid with square axes for nnU-Net, got shear; resample it")
            pair = _write_pair(results, manifest, mask, beside, images, labels, FIRST_CHANNEL, colour=colour)
            training += len(pair.labels)

        _each(results.manifests, write, answer, "nnunet")
        _require_training(results, answer, training)
        write_dataset_json(
            beside,
            results.classes,
            training=training,
            ending=ending,
            modality=_modality(results.manifests),
            colour=colour,
            reviewed=results.accepted is not None,
        )
    answer.files = exported_files(folder)
    answer.notes += _how_many(results)


def _monai(results: Results, answer: _Answer) -> None:
    folder = answer.folder
    entries: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "testing": []}
    colour = any(_is_coloured(results, manifest) for manifest in results.manifests if is_picture_result(manifest))
    patients: dict[str, str] = {}
    with replacing_folder(folder) as beside:

        def write(manifest: Manifest) -> None:
            is_accepted = results.accepted is None or manifest["case"] in results.accepted
            case, mask = results.scans.require(manifest), results.mask_of(manifest)
            labels = "labels" if is_accepted else None
            pair = _write_pair(results, manifest, mask, beside, "images", labels, "", colour=colour)
            section = _SECTIONS.get(case.split or "", "training") if is_accepted else "testing"
            # Scans of one patient must stay on one side of a split; whose they are is nobody's business.
            patient = patients.setdefault(case.patient, f"patient {len(patients) + 1}")
            masks: Sequence[str | None] = pair.labels or (None,) * len(pair.images)
            for image, label in zip(pair.images, masks, strict=True):
                files = {"image": image} if label is None else {"image": image, "label": label}
                name = Path(image).name.removesuffix(".png" if mask.is_picture else ".nii.gz")
                entries[section].append({**files, "case": name, "patient": patient})

        _each(results.manifests, write, answer, "monai")
        _require_training(results, answer, sum(len(entries[name]) for name in ("training", "validation")))
        write_datalist(beside, results.classes, entries, reviewed=results.accepted is not None)
    answer.files = exported_files(folder)
    answer.notes += _how_many(results)


def _write_pair(
    results: Results,
    manifest: Manifest,
    mask: Mask,
    folder: Path,
    images: str,
    labels: str | None,
    suffix: str,
    *,
    colour: bool,
) -> _Pair:
    """Image and mask of a volume, or of each frame of a picture; nothing of a case that fails stays."""
    case, ending = mask.case_id, ".png" if mask.is_picture else ".nii.gz"
    count = mask.labels.shape[2] if mask.is_picture else 1
    bases = [case] if count == 1 else [f"{case}_frame{number:04d}" for number in range(1, count + 1)]
    names = [(f"{base}{suffix}{ending}", f"{base}{ending}") for base in bases]
    pair = _Pair(
        tuple(f"{images}/{image}" for image, _ in names),
        tuple(f"{labels}/{label}" for _, label in names) if labels else (),
    )
    try:
        if mask.is_picture:
            targets = folder / images, folder / labels if labels else None
            write_frames(*targets, names, results.frames_of(manifest), mask, colour=colour)
        else:
            write_image(folder / pair.images[0], results.image_of(manifest), mask)
            if labels:
                write_labels_of(folder / pair.labels[0], mask)
    except MedsegError:
        for name in (*pair.images, *pair.labels):
            (folder / name).unlink(missing_ok=True)
        raise
    return pair


def _each(manifests: Sequence[Manifest], write: Callable[[Manifest], None], answer: _Answer, target: str) -> None:
    """Write every case; one that fails does not stop the others."""
    for manifest in track(manifests, f"exporting to {target}"):
        try:
            write(manifest)
        except CannotWriteError:
            raise
        except MedsegError as error:
            answer.failed[manifest["case"]] = str(error)
            _log.error(str(error))
        else:
            answer.done += 1


def _is_coloured(results: Results, manifest: Manifest) -> bool:
    try:
        return next(results.frames_of(manifest)).shape[2] >= 3
    except MedsegError:  # said when the case is written
        return False


def _modality(manifests: Sequence[Manifest]) -> str:
    """Name of nnU-Net's channel: `CT` for computed tomography, else what the scans are."""
    kinds = {str(manifest.get("facts", {}).get("modality", "image")) for manifest in manifests}
    return "image" if len(kinds) > 1 else "CT" if kinds == {"cta"} else next(iter(kinds))


def _require_some(answer: _Answer) -> None:
    if not answer.done:
        raise MedsegError(
            f"{answer.folder} must get a case, got none that can be exported "
            f"({next(iter(answer.failed.values()), 'no manifest is whole')})"
        )


def _require_training(results: Results, answer: _Answer, count: int) -> None:
    _require_some(answer)
    if not count:
        raise MedsegError(
            f"--labels must hold an accepted mask of a case in {results.out}, got none; name it CASE_label.nii.gz"
        )


def _unreviewed(results: Results) -> list[str]:
    """A line on masks that nobody has accepted although others are."""
    if results.accepted is None:
        return []
    rest = sum(manifest["case"] not in results.accepted for manifest in results.manifests)
    return [f"{rest} of them without an accepted mask: the automatic one is exported"] if rest else []


def _how_many(results: Results) -> list[str]:
    """Which masks others will train on."""
    if results.accepted is None:
        return ["the masks are automatic and no reviewer has accepted them: give accepted ones with --labels"]
    rest = sum(manifest["case"] not in results.accepted for manifest in results.manifests)
    return [f"{rest} without an accepted mask: images to test on"] if rest else []


def _relative(scans: Path, folder: Path) -> str:
    """Where the scans are, seen from a folder; their name alone where no way leads there."""
    try:
        return Path(os.path.relpath((scans if scans.is_dir() else scans.parent).resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return scans.name
