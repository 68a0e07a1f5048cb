"""This file finds cases and references in what a user gives: a folder, a datalist, a CSV or one file.

Whatever is left out is left out with a note. Results of medseg are recognised by their manifests and
are never taken for scans, masks or labels, wherever they lie.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.errors import MedsegError
from medseg.files import hash_file, read_json
from medseg.scans.cases import Case, Listing
from medseg.scans.listings import Draft, read_csv, read_datalist
from medseg.scans.names import (
    DATA_PARTS,
    EXTENSIONS,
    NamedFile,
    given_splits,
    named_files,
    parse_name,
    patients,
    split_extension,
    unique_names,
)

_log = logging.getLogger(__name__)
_OUTPUT_KINDS = ("seg", "prob", "uncertainty", "region")
_OUTPUT_FOLDERS = ("comparison", "plots")
_NAMES_SHOWN = 5
_Ignored = list[tuple[Path, str]]


def find_cases(source: Path | Sequence[Path], *, frame: int | None = None, skip: Sequence[Path] = ()) -> Listing:
    """Find the scans of a source, with their brain masks, labels, patients and given splits.

    Args:
        source: a folder (searched with all below it), a datalist (`.json`), a `.csv`, or one scan; or several of these.
        frame: the frame to take from files with several, from 0.
        skip: files and folders inside `source` to leave out, e.g. where results go.

    Raises:
        MedsegError: `source` is missing, or no usable case is in it.
    """
    drafts, notes = _drafts(source, skip) if isinstance(source, Path) else _drafts_of_all(source, skip)
    with_image = [draft for draft in drafts if draft.images or draft.problems]
    for role, files in (("label", "labels"), ("brain mask", "masks")):
        lone = [path.name for draft in drafts if not (draft.images or draft.problems) for path in getattr(draft, files)]
        if lone:
            notes.append(f"{role} without a scan: {_some(lone)}")
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
        cases.append(
            Case(case_id, draft.images[0], draft.patient or patient, mask, draft.mask_mode, draft.split, frame)
        )
        if draft.labels:
            labels[case_id] = draft.labels[0]
    if not cases:
        got = f"{len(problems)} unusable ({problems[0][1]})" if problems else "none"
        why = f"; {'; '.join(notes)}" if notes else ""
        where = source if isinstance(source, Path) else " ".join(map(str, source))
        raise MedsegError(
            f"{where} must hold at least one scan ({' '.join(EXTENSIONS)}), got {got}{why}; "
            "see data_templates for layouts"
        )
    cases.sort(key=lambda case: case.case_id)
    without = [case.case_id for case in cases if case.mask is None and case.mask_mode is None]
    if without and len(without) < len(cases):
        notes.append(f"no brain mask for {_some(without)}")
    unlabelled = [case.case_id for case in cases if case.case_id not in labels]
    if unlabelled and labels:
        notes.append(f"no label for {_some(unlabelled)}")
    return Listing(tuple(cases), labels, tuple(sorted(problems)), tuple(notes))


def find_references(source: Path) -> dict[str, Path]:
    """Find the reference label of each case, to score against.

    Args:
        source: a folder of labels, or of scans with labels, a datalist, a CSV, or one label file. In a
            folder where nothing is called a label, files without a role, or else files called masks, count.

    Returns:
        Label file by case name, the same names `find_cases` gives.

    Raises:
        MedsegError: no label is there.
    """
    if source.is_file() and split_extension(source.name)[1] in (*EXTENSIONS, ".img"):
        return {parse_name(split_extension(source.name)[0])[0] or source.parent.name: source}
    drafts, _ = _drafts(source, ())
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
    references: dict[str, Path] = {}
    for case_id, draft in zip(_case_ids(named), named, strict=True):
        if len(draft.labels) > 1 or case_id in references:
            names = _some(path.name for path in draft.labels)
            _log.warning("%s has more than one reference (%s) and is left out", case_id, names)
            references.pop(case_id, None)
        elif draft.labels:
            references[case_id] = draft.labels[0]
    if not references:
        raise MedsegError(f"{source} must hold at least one label, got none; name them CASE_label.nii.gz")
    return references


def _drafts(source: Path, skip: Sequence[Path]) -> tuple[list[Draft], list[str]]:
    if source.is_dir():
        if not os.access(source, os.R_OK | os.X_OK):
            raise MedsegError(f"{source} must be readable, got no permission; change its permissions")
        return _from_folder(source, skip)
    if not source.is_file():
        raise MedsegError(f"{source} must be a folder, a datalist, a CSV or a scan, got nothing there; check the name")
    if source.suffix.lower() == ".csv":
        return read_csv(source)
    if source.suffix.lower() == ".json":
        return read_datalist(source)
    if split_extension(source.name)[1] in (*EXTENSIONS, ".img"):
        return _from_file(source)
    raise MedsegError(
        f"{source} must be a folder, .json, .csv or one of {' '.join(EXTENSIONS)}, "
        f"got {source.suffix or 'no extension'}; convert it"
    )


def _drafts_of_all(sources: Sequence[Path], skip: Sequence[Path]) -> tuple[list[Draft], list[str]]:
    """Those of several sources; equal names get the source's folder in front, a scan given twice counts once."""
    drafts: list[Draft] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for source in sources:
        found, said = _drafts(source, skip)
        folder = (source if source.is_dir() else source.parent).resolve().name
        notes += said
        for draft in found:
            images = {path.resolve() for path in draft.images}
            if images and images <= seen:
                continue
            seen |= images
            draft.group = (folder, *draft.group)
            drafts.append(draft)
    return drafts, notes


def _from_folder(source: Path, skip: Sequence[Path]) -> tuple[list[Draft], list[str]]:
    paths, ignored, notes = _walk(source, {path.resolve() for path in skip})
    files, left_out = named_files(paths, source)
    drafts, unclear = _paired(files)
    images = [draft for draft in drafts if draft.images]
    splits = given_splits([draft.images[0].parent.relative_to(source).parts for draft in images])
    for draft, split in zip(images, splits, strict=True):
        draft.split = split
    return drafts, notes + _grouped(ignored + left_out + unclear)


def _from_file(path: Path) -> tuple[list[Draft], list[str]]:
    """One scan, with the mask and the label that lie beside it; of several no one knows which is meant."""
    if path.suffix.lower() == ".img":
        path = next((header for suffix in (".hdr", ".HDR") if (header := path.with_suffix(suffix)).is_file()), path)
    beside, _, _ = _walk(path.parent, set(), deep=False)
    files, _ = named_files(beside, path.parent)
    drafts, _ = _paired(files)
    draft = next((draft for draft in drafts if path in draft.images), None)
    if draft is None:  # called a mask or a label, yet given as a scan
        draft = Draft(split_extension(path.name)[0])
    draft.images = [path]
    notes = []
    for role, partners in (("brain mask", draft.masks), ("label", draft.labels)):
        if len(partners) > 1:
            notes.append(
                f"{len(partners)} {role}s beside {path.name}, none is taken: {_some(p.name for p in partners)}"
            )
            partners.clear()
    return [draft], notes


def _walk(source: Path, skip: set[Path], *, deep: bool = True) -> tuple[list[Path], _Ignored, list[str]]:
    """Volume files below a folder, files left out with the reason, and notes on folders left out."""
    paths: list[Path] = []
    ignored: _Ignored = []
    notes: list[str] = []
    seen = {source.resolve()}

    def note_unreadable(error: OSError) -> None:
        notes.append(f"{error.filename} cannot be read ({error.strerror}) and is skipped")

    for folder_name, folder_names, file_names in os.walk(source, onerror=note_unreadable, followlinks=True):
        folder = Path(folder_name)
        outputs = _outputs(folder, file_names)
        is_output = outputs is not None and folder != source
        if is_output:
            notes.append(f"{folder.relative_to(source)} holds results of medseg and is skipped")
        kept = []
        for name in sorted(folder_names):
            inner = (folder / name).resolve()
            if name.startswith(".") or (outputs is not None and name in _OUTPUT_FOLDERS) or inner in seen:
                continue
            if inner in skip:
                notes.append(f"{(folder / name).relative_to(source)} is where results go and is skipped")
                continue
            seen.add(inner)
            kept.append(name)
        folder_names[:] = kept if deep else []
        here = {name.lower() for name in file_names}
        for name in sorted(file_names):
            path = folder / name
            stem, extension = split_extension(name)
            if is_output or name.startswith("."):
                continue
            if (outputs and name in outputs) or path.resolve() in skip:
                ignored.append((path, "result of medseg"))
            elif extension in EXTENSIONS:
                paths.append(path)
            elif not (extension in DATA_PARTS and _has_header(stem.lower(), extension, here)):
                ignored.append((path, f"not a volume ({extension or path.suffix.lower() or 'no extension'})"))
    return paths, ignored, notes


def _outputs(folder: Path, names: Iterable[str]) -> set[str] | None:
    """Names of the results in a folder by the medseg manifests in it; none where there is no manifest."""
    outputs: set[str] = set()
    manifests = [name for name in names if name.endswith("_manifest.json")]
    is_output = False
    for name in manifests:
        try:
            manifest = read_json(folder / name)
        except MedsegError:
            continue  # somebody else's file
        if isinstance(manifest, dict) and {"run_hash", "source_sha256"} <= manifest.keys():
            is_output = True
            case_id = name.removesuffix("_manifest.json")
            outputs |= {name} | {f"{case_id}_{kind}.nii.gz" for kind in _OUTPUT_KINDS} | set(manifest.get("files", ()))
    return outputs if is_output else None


def _has_header(stem: str, extension: str, here: set[str]) -> bool:
    if extension == ".img":
        return f"{stem}.hdr" in here
    return any(name.endswith((".mhd", ".nhdr")) for name in here)


def _paired(files: Sequence[NamedFile]) -> tuple[list[Draft], _Ignored]:
    """Files of one group and base together; then what has only one possible partner."""
    drafts: dict[tuple[tuple[str, ...], str], Draft] = {}
    alone = [file for file in files if not file.base]
    for file in files:
        if file.base:
            key = (tuple(part.casefold() for part in file.group), file.base.casefold())
            draft = drafts.setdefault(key, Draft(file.base, file.group))
            _files(draft, file.role).append(file.path)
            if file.role == "image":
                draft.base, draft.is_said = file.base, file.is_said
    ignored: _Ignored = []
    in_group: dict[tuple[str, ...], list[Draft]] = {}
    with_base: dict[str, list[Draft]] = {}
    for draft in drafts.values():
        if draft.images:
            in_group.setdefault(draft.group, []).append(draft)
            with_base.setdefault(draft.base.casefold(), []).append(draft)
    for file in alone:  # `P1/mask.nii.gz` belongs to the one scan of P1
        partners = in_group.get(file.group, [])
        if len(partners) == 1:
            _files(partners[0], file.role).append(file.path)
        elif partners:
            ignored.append((file.path, f"unclear of which of {len(partners)} scans it is the {file.role}"))
        else:
            base, group = (file.group[-1], file.group[:-1]) if file.group else (file.role, ())
            _files(drafts.setdefault((file.group, ""), Draft(base, group)), file.role).append(file.path)
    for key, lone in list(drafts.items()):  # the same name elsewhere, e.g. below BIDS derivatives
        partners = with_base.get(lone.base.casefold(), [])
        if not lone.images and len(partners) == 1 and not _overlap(lone, partners[0]):
            partners[0].masks += lone.masks
            partners[0].labels += lone.labels
            del drafts[key]
    return list(drafts.values()), ignored


def _overlap(one: Draft, other: Draft) -> bool:
    return bool((one.masks and other.masks) or (one.labels and other.labels))


def _files(draft: Draft, role: str) -> list[Path]:
    return {"image": draft.images, "mask": draft.masks, "label": draft.labels}[role]


def _case_ids(drafts: Sequence[Draft]) -> list[str]:
    groups = [() if draft.is_named else draft.group for draft in drafts]
    return unique_names([draft.base for draft in drafts], groups)


def _problem(draft: Draft, case_id: str, taken: int) -> str | None:
    """The first thing that makes a case unusable, in one line."""
    if draft.problems:
        return draft.problems[0]
    for role, files in (("scan", draft.images), ("brain mask", draft.masks), ("label", draft.labels)):
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
    except OSError:  # whoever needs the file will say so
        return False


def _grouped(ignored: _Ignored) -> list[str]:
    """One note for each reason."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in ignored:
        by_reason.setdefault(reason, []).append(path.name)
    return [f"ignored, {reason}: {_some(names)}" for reason, names in by_reason.items()]


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    more = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
