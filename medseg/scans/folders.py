"""This file finds cases and references in what a user gives: a folder, a datalist, a CSV or one file.

A case is a volume, a picture or a video. Where a folder holds volumes, pictures beside them are no cases. Whatever is
left out is left out with a note. Results of medseg are recognised by their manifests and are never taken for scans,
masks or labels, wherever they lie.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.scans.cases import Case, Listing
from medseg.scans.dicom.entries import entry_of
from medseg.scans.dicom_files import DicomFiles, name_of_folder, sort_dicom
from medseg.scans.listings import Draft, read_csv, read_datalist
from medseg.scans.names import (
    EXTENSIONS,
    KINDS,
    given_splits,
    is_dicom,
    is_picture,
    is_usable_name,
    named_files,
    parse_name,
    patients,
    split_extension,
    unique_names,
)
from medseg.scans.pairing import notes_of, paired, some
from medseg.scans.picks import WHOLE, Pick
from medseg.scans.picture_layouts import folder_of_images, is_image_folder, standard_layout, take_label_beside
from medseg.scans.schemes import LabelScheme, scheme_from_classes_yaml
from medseg.scans.shipped_schemes import load_scheme
from medseg.scans.walking import LEADS_OUT, walk

_log = logging.getLogger(__name__)


class References(dict[str, Path]):
    """Label file by case name.

    Attributes:
        scheme: what the labels mean, where the data set or the user says it.
    """

    scheme: LabelScheme | None = None

    def of(self, case_id: str) -> Path | None:
        """The label of a case; by the file's own name too, for `P1_tof_label` is else that of a case `P1`."""
        named = [path for path in self.values() if split_extension(path.name)[0] == f"{case_id}_label"]
        return named[0] if len(named) == 1 else self.get(case_id)


@dataclass
class _Found:
    drafts: list[Draft]
    notes: list[str] = field(default_factory=list)
    scheme: LabelScheme | None = None


def find_cases(
    source: Path | Sequence[Path],
    *,
    pick: Pick = WHOLE,
    skip: Sequence[Path] = (),
    scheme: str | Path | None = None,
) -> Listing:
    """Find the scans and pictures of a source, with their brain masks, labels, patients and given splits.

    Args:
        source: a folder (searched with all below it), a datalist (`.json`), a `.csv`, or one scan; or several of these.
        pick: what to take of files that hold several volumes, and of folders that hold several series.
        skip: files and folders inside `source` to leave out, e.g. where results go.
        scheme: what the values of label pictures mean: the name of a shipped scheme or a `classes.yaml`. Without it,
            that of the `classes.yaml` in `source`, else that of the data set whose layout is recognised.

    Raises:
        MedsegError: `source` is missing, no usable case is in it, or there is no such scheme.
    """
    given = None if scheme is None else load_scheme(scheme)
    found = _found(source, skip, given, pick) if isinstance(source, Path) else _found_in_all(source, skip, given, pick)
    drafts, notes = found.drafts, found.notes
    with_image = [draft for draft in drafts if draft.images or draft.problems]
    for role, files in (("label", "labels"), ("brain mask", "masks")):
        lone = [path.name for draft in drafts if not (draft.images or draft.problems) for path in getattr(draft, files)]
        if lone:
            notes.append(f"{role} without a scan: {some(lone)}")
    case_ids = _case_ids(with_image)
    prefix = 0 if isinstance(source, Path) else 1  # the folder of the source itself says nothing about patients
    owners = patients(case_ids, [draft.base for draft in with_image], [draft.group[prefix:] for draft in with_image])
    taken = Counter(case_id.casefold() for case_id in case_ids)
    cases, labels, problems = [], {}, []
    for draft, case_id, patient in zip(with_image, case_ids, owners, strict=True):
        problem = _problem(draft, case_id, taken[case_id.casefold()])
        if problem:
            problems.append((case_id, problem))
            continue
        mask = draft.masks[0] if draft.masks else None
        cases.append(Case(case_id, draft.images[0], draft.patient or patient, mask, draft.mask_mode, draft.split, pick))
        if draft.labels:
            labels[case_id] = draft.labels[0]
    if not cases:
        got = f"{len(problems)} unusable ({problems[0][1]})" if problems else "none"
        why = f"; {'; '.join(notes)}" if notes else ""
        where = source if isinstance(source, Path) else " ".join(map(str, source))
        raise MedsegError(
            f"{where} must hold at least one scan: {KINDS}, got {got}{why}; see data_templates for layouts"
        )
    cases.sort(key=lambda case: case.case_id)
    without = [case.case_id for case in cases if case.mask is None and case.mask_mode is None]
    if without and len(without) < len(cases):
        notes.append(f"no brain mask for {some(without)}")
    unlabelled = [case.case_id for case in cases if case.case_id not in labels]
    if unlabelled and labels:
        notes.append(f"no label for {some(unlabelled)}")
    return Listing(tuple(cases), labels, tuple(sorted(problems)), tuple(notes), found.scheme)


def find_references(source: Path, *, scheme: str | Path | None = None, skip: Sequence[Path] = ()) -> References:
    """Find the reference label of each case, to score against.

    Args:
        source: a folder of labels, or of scans with labels, a datalist, a CSV, or one label file. In a
            folder where nothing is called a label, files without a role, or else files called masks, count.
        scheme: as for `find_cases`.
        skip: folders that hold results, in which nothing is a label.

    Returns:
        Label file by case name, the same names `find_cases` gives.

    Raises:
        MedsegError: no label is there, or there is no such scheme.
    """
    given = None if scheme is None else load_scheme(scheme)
    references = References()
    if source.is_file() and _is_image(source):
        references.scheme = given or (_scheme_beside(source) if is_picture(source) else None)
        name = parse_name(split_extension(source.name)[0], keep_number=is_picture(source))[0]
        references[name or source.parent.name] = source
        return references
    everything = _found(source, skip, given, WHOLE)
    drafts, references.scheme = everything.drafts, everything.scheme
    found = [draft for draft in drafts if draft.labels and draft.images]
    found = found or [draft for draft in drafts if draft.labels]
    if not found and any(draft.images for draft in drafts):
        found = [draft for draft in drafts if draft.images and not draft.is_said]
        for draft in found:
            draft.labels = draft.images
    elif not found:
        found = [draft for draft in drafts if draft.masks]
        for draft in found:
            draft.labels = draft.masks
        if found:
            _log.info("nothing in %s is called a label; its %d masks are taken as references", source, len(found))
    # The names are those of find_cases, which counts every scan, labelled or not.
    named = [draft for draft in drafts if draft.images] if all(draft.images for draft in found) else found
    for case_id, draft in zip(_case_ids(named), named, strict=True):
        if len(draft.labels) > 1 or case_id in references:
            names = some(path.name for path in draft.labels)
            _log.warning("%s has more than one reference (%s) and is left out", case_id, names)
            references.pop(case_id, None)
        elif draft.labels:
            references[case_id] = draft.labels[0]
    if not references:
        raise MedsegError(f"{source} must hold at least one label, got none; name them CASE_label.nii.gz")
    return references


def _found(source: Path, skip: Sequence[Path], scheme: LabelScheme | None, pick: Pick) -> _Found:
    if source.is_dir():
        if not os.access(source, os.R_OK | os.X_OK):
            raise MedsegError(f"{source} must be readable, got no permission; change its permissions")
        return _from_folder(source, skip, scheme, pick)
    if not source.is_file():
        raise MedsegError(
            f"{source} must be a folder, a datalist, a CSV, a scan or a picture, got nothing there; check the name"
        )
    if source.suffix.lower() in (".csv", ".json"):
        drafts, notes = read_csv(source) if source.suffix.lower() == ".csv" else read_datalist(source)
        if scheme is None and any(is_picture(path) for draft in drafts for path in draft.images):
            scheme = _scheme_beside(source)
        return _Found(drafts, notes, scheme)
    if _is_image(source):
        return _from_file(source, scheme, pick)
    got = source.suffix or "no extension"
    raise MedsegError(f"{source} must be a folder, .json, .csv, {KINDS}, got {got}; convert it")


def _found_in_all(sources: Sequence[Path], skip: Sequence[Path], scheme: LabelScheme | None, pick: Pick) -> _Found:
    """What several sources hold; equal names get the source's folder in front, a scan given twice counts once."""
    everything = _Found([], scheme=scheme)
    seen: set[Path] = set()
    for source in sources:
        found = _found(source, skip, scheme, pick)
        if everything.scheme and found.scheme and found.scheme != everything.scheme:
            raise MedsegError(
                f"{source} must have labels that mean the same as those before it, got {found.scheme.name} after "
                f"{everything.scheme.name}; name one scheme for all"
            )
        everything.scheme = everything.scheme or found.scheme
        folder = (source if source.is_dir() else source.parent).resolve().name
        everything.notes += found.notes
        for draft in found.drafts:
            images = {path.resolve() for path in draft.images}
            if images and images <= seen:
                continue
            seen |= images
            draft.group = (folder, *draft.group)
            everything.drafts.append(draft)
    return everything


def _from_folder(source: Path, skip: Sequence[Path], scheme: LabelScheme | None, pick: Pick) -> _Found:
    here = walk(source, {path.resolve() for path in skip})
    dicom = sort_dicom(here.dicom, source, pick.series)
    here.pictures = sorted([*here.pictures, *dicom.pictures])
    here.left_out += dicom.left_out
    here.volumes += dicom.volumes
    meant = is_image_folder(source, here.pictures) and not is_image_folder(source, here.volumes)
    if scheme is None and here.classes and (meant or not here.volumes):
        scheme = scheme_from_classes_yaml(here.classes)
    pictures = standard_layout(source, here.pictures, scheme) if here.pictures else None
    # Volumes win, unless the folders say that images are pictures and volumes lie somewhere else.
    if pictures is None and here.pictures and (not here.volumes or meant):
        pictures = folder_of_images(source, here.pictures, scheme)
    if pictures is not None:
        left_out = [(path, reason) for path, reason in here.left_out if path not in pictures.lists]
        left_out += [(path, "a volume beside pictures") for path in here.volumes]
        pictures.drafts += _unusable(dicom, source)
        notes = [f"layout: {pictures.layout}", *here.notes, *pictures.notes, *notes_of(left_out)]
        return _Found(pictures.drafts, notes, pictures.scheme)
    files, unknown = named_files(here.volumes, source)
    files = [replace(file, path=dicom.volumes.get(file.path, file.path)) for file in files]
    drafts, unclear = paired(files)
    drafts += _unusable(dicom, source)
    images = [draft for draft in drafts if draft.images]
    splits = given_splits([draft.images[0].parent.relative_to(source).parts for draft in images])
    for draft, split in zip(images, splits, strict=True):
        draft.split = split
    beside = [(path, "a picture beside volumes") for path in here.pictures]
    return _Found(drafts, here.notes + notes_of(here.left_out + beside + unknown + unclear), scheme)


def _unusable(dicom: DicomFiles, source: Path) -> list[Draft]:
    """Cases that are there and cannot be read, each with its problem."""
    files, _ = named_files(list(dicom.problems), source)
    return [Draft(file.base or file.path.name, file.group, problems=[dicom.problems[file.path]]) for file in files]


def _from_file(path: Path, scheme: LabelScheme | None, pick: Pick) -> _Found:
    """One image, with the mask and the label that lie beside it; of several no one knows which is meant."""
    if path.suffix.lower() == ".img":
        path = next((header for suffix in (".hdr", ".HDR") if (header := path.with_suffix(suffix)).is_file()), path)
    try:
        name, path = _name_and_file(path, pick)
    except MedsegError as error:
        return _Found([Draft(split_extension(path.name)[0], problems=[str(error)])], scheme=scheme)
    here = walk(path.parent, set(), deep=False, named=path)
    beside = here.pictures if is_picture(path) else here.volumes
    if name not in beside:
        beside.append(name)
    files, _ = named_files(beside, path.parent, pictures=is_picture(path))
    drafts, _ = paired([replace(file, path=path if file.path == name else file.path) for file in files])
    draft = next((draft for draft in drafts if path in draft.images), None)
    if draft and is_picture(path):
        take_label_beside(draft)
    if draft is None or path not in draft.images:  # called a mask or a label, yet given as a scan
        draft = Draft(split_extension(name.name)[0])
    draft.images = [path]
    notes = notes_of([(link, reason) for link, reason in here.left_out if reason == LEADS_OUT])
    for role, partners in (("brain mask", draft.masks), ("label", draft.labels)):
        if len(partners) > 1:
            notes.append(f"{len(partners)} {role}s beside {path.name}, none is taken: {some(p.name for p in partners)}")
            partners.clear()
    if scheme is None and here.classes and is_picture(path):
        scheme = scheme_from_classes_yaml(here.classes)
    return _Found([draft], notes, scheme)


def _name_and_file(path: Path, pick: Pick) -> tuple[Path, Path]:
    """The path that names a case, and the file by which it is read: for a DICOM slice its folder and the first one.

    Raises:
        MedsegError: it is DICOM that cannot be read, or that holds several series.
    """
    if is_picture(path) or not is_dicom(path):
        return path, path
    entry = entry_of(path, pick.series)
    if len(entry.instances) == 1 or entry.first.place.member is not None:
        return path, path
    return name_of_folder(path.parent, path.parent), entry.first.place.path


def _scheme_beside(path: Path) -> LabelScheme | None:
    """What the `classes.yaml` in the folder of a file says, if there is one of the user's."""
    classes = walk(path.parent, set(), deep=False).classes
    return scheme_from_classes_yaml(classes) if classes else None


def _is_image(path: Path) -> bool:
    return split_extension(path.name)[1] in (*EXTENSIONS, ".img") or is_picture(path) or is_dicom(path)


def _case_ids(drafts: Sequence[Draft]) -> list[str]:
    groups = [() if draft.is_named else draft.group for draft in drafts]
    return unique_names([draft.base for draft in drafts], groups)


def _problem(draft: Draft, case_id: str, taken: int) -> str | None:
    """The first thing that makes a case unusable, in one line."""
    if draft.problems:
        return draft.problems[0]
    if not is_usable_name(case_id):
        where = draft.images[0] if draft.images else case_id
        return f"{where} must have a name of up to 200 plain characters, got {case_id!r}; rename it"
    image = "image" if any(map(is_picture, draft.images)) else "scan"
    for role, files in ((image, draft.images), ("brain mask", draft.masks), ("label", draft.labels)):
        if len(files) > 1:
            names = ", ".join(str(path) for path in files)
            return f"{case_id} must have one {role}, got {len(files)} ({names}); remove or rename all but one"
    for path in (*draft.images, *draft.masks):
        if not os.access(path, os.R_OK):
            return f"{path} must be readable, got no access to it; mend its permissions or the link, or remove it"
    if draft.masks and draft.labels and _same_content(draft.masks[0], draft.labels[0]):
        return (
            f"{draft.masks[0]} must be a brain mask, got the same file as the label {draft.labels[0]}; "
            "`_mask` may be a vessel label here: rename or remove it"
        )
    if taken > 1:
        return f"{case_id} must be the name of one case, got {taken} ({draft.images[0]}); rename one"
    return None


def _same_content(one: Path, other: Path) -> bool:
    try:
        return 0 < one.stat().st_size == other.stat().st_size and hash_file(one) == hash_file(other)
    except (OSError, MedsegError):  # whoever needs the file will say so
        return False
