"""This file tells from names what a file is: its role, the case it belongs to, its group; DICOM by its content.

A *role* is image, mask (of the brain) or label. The *base* is a file name without extension and role
suffix. The *group* is the folders of a file below the source without those that only name a role
(`imagesTr`, `labels`), so that a scan and its label have the same group and base. A picture has no brain
mask: what is called a mask is its label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from medseg.files import is_plain
from medseg.scans.dicom.heads import may_be_dicom

Role = Literal["image", "mask", "label"]
Split = Literal["train", "val", "test"]

EXTENSIONS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".hdr")
PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".npy", ".mat")
DICOM_EXTENSIONS = (".dcm", ".dicom", ".ima", ".zip")
"""DICOM needs none of them: what it is is told by content. A zip archive holds DICOM files."""
VIDEO_EXTENSIONS = (".gif", ".mp4", ".avi", ".mov", ".mkv")
KINDS = (
    f"a volume ({' '.join(EXTENSIONS)}), DICOM (files or a .zip), "
    f"a picture ({' '.join(PICTURE_EXTENSIONS[:2])} .tif .npy .mat ...) or a video (.mp4 .gif ...)"
)
"""What can be given, for error lines: all extensions would make them too long."""
DATA_PARTS = (".img", ".raw", ".zraw", ".raw.gz")
"""Extensions of files that hold the voxels of a header file of the same name."""

_LONGEST_NAME = 200
"""Bytes of a case's name: file systems end at 255, and `.12345678.part.` and `_uncertainty.nii.gz` come to it."""

_IMAGE = r"img|image|tof|mra|angio|0000"
_MASK = r"(?:desc-)?brain[_-]?mask|mask"
_LABEL = r"label|vessel|seg|gt|(?:(?:label|desc)-[a-z0-9]+_)?dseg|(?:label|desc)-vessels?_mask"
# The label comes first: BIDS writes `_label-vessel_mask`. A lazy base finds the longest suffix.
_WORDS: tuple[tuple[Role, str], ...] = (("label", _LABEL), ("mask", _MASK), ("image", _IMAGE))
_ENDINGS = tuple((role, re.compile(rf"(?P<base>.+?)[_-](?:{words})", re.IGNORECASE)) for role, words in _WORDS)
_ALONE = tuple((role, re.compile(words, re.IGNORECASE)) for role, words in _WORDS)
_IMAGE_ENDING = _ENDINGS[2][1]
_FOLDERS: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("image", re.compile(r"ima?ge?s?(?P<part>tr|ts|val)?|scans?", re.IGNORECASE)),
    ("label", re.compile(r"(?:labels?|segs?|gts?)(?P<part>tr|ts|val)?|segmentations?|references?", re.IGNORECASE)),
    ("mask", re.compile(r"(?:brain[_-]?)?masks?", re.IGNORECASE)),
)
_PICTURE_LABEL_FOLDER = re.compile(r"(?:true[_-]?)?masks?|annotations?|ground[_-]?truths?", re.IGNORECASE)
_PICTURE_FOLDERS = (*_FOLDERS[:2], ("label", _PICTURE_LABEL_FOLDER))
_SPLIT_OF_FOLDER: dict[str, Split] = {"train": "train", "training": "train", "tr": "train", "test": "test"}
_SPLIT_OF_FOLDER |= {"testing": "test", "ts": "test", "val": "val", "valid": "val", "validation": "val"}
_OTHER_CONTRAST = re.compile(
    r"(?:sub-\S+_(?:T1w|T2w|PDw|FLAIR|T2starw|T1map|T2map|bold|sbref|dwi|epi|phase\w*|magnitude\d?|swi|asl|m0scan)"
    r"|IXI\d+-\w+-\d+-(?:T1|T2|PD|DTI\S*))",
    re.IGNORECASE,
)
_NNUNET_IMAGES = re.compile(r"images(?:tr|ts|val)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<base>.+)_(?P<number>\d{4})")
_BIDS_SUBJECT = re.compile(r"(sub-[a-zA-Z0-9]+)(?:_|$)")


@dataclass(frozen=True)
class NamedFile:
    """One file and what its name says.

    Args:
        path: the file.
        base: its name without extension and role suffix; empty where the name is a role alone.
        role: what it is.
        is_said: whether name or folder say the role; else it is an image by default.
        group: the folders below the source, without those that only name a role.
    """

    path: Path
    base: str
    role: Role
    is_said: bool
    group: tuple[str, ...]


def is_picture(path: PurePath) -> bool:
    """Whether a file is a picture, an array of pixels or a video: by its name, or by content where that says nothing.

    DICOM without a place in the patient is a picture: ultrasound, colours, secondary captures.
    """
    if has_known_name(path) or not isinstance(path, Path):
        return has_picture_name(path)
    return dicom_kind(path) == "picture"


def is_dicom(path: Path) -> bool:
    """Whether a file, a folder or a zip archive holds DICOM and is no other kind of file by its name."""
    return not has_known_name(path) and dicom_kind(path) is not None


def has_known_name(path: PurePath) -> bool:
    """Whether the name alone says what a file is; that of DICOM does not."""
    return path.name.lower().endswith((*EXTENSIONS, *DATA_PARTS, *PICTURE_EXTENSIONS, *VIDEO_EXTENSIONS))


def has_picture_name(path: PurePath) -> bool:
    """Whether a file is a picture, an array of pixels or a video, by its name."""
    return path.name.lower().endswith((*PICTURE_EXTENSIONS, *VIDEO_EXTENSIONS))


def dicom_kind(path: Path) -> str | None:
    """`slice`, `volume`, `picture` or `other` of what holds DICOM; pydicom is loaded only if it may be so."""
    if path.suffix.lower() != ".zip" and not path.is_dir() and not may_be_dicom(path):
        return None
    from medseg.scans.dicom.entries import kind_of

    return kind_of(path)


def split_extension(name: str) -> tuple[str, str]:
    """A file name without its extension, and the extension in lower case (empty when it is not ours).

    >>> split_extension("many.dots.v2.NII.GZ")
    ('many.dots.v2', '.nii.gz')
    """
    for extension in (*EXTENSIONS, *DATA_PARTS, *PICTURE_EXTENSIONS, *VIDEO_EXTENSIONS, *DICOM_EXTENSIONS):
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)], extension
    return name, ""


def is_usable_name(name: str, *, everywhere: bool = False) -> bool:
    """Whether a case of this name can give its files theirs, within the folder of the results.

    Args:
        name: of the case.
        everywhere: also on Windows, where a file that is there already need not come from.

    >>> [is_usable_name(name) for name in ("sub-01", "Größe 2", "12:30", "../evil", ".hidden", "a" + chr(27), "")]
    [True, True, True, False, False, False, False]
    """
    forbidden = set('/\\:*?"<>|') if everywhere else set("/\\")
    return (
        is_plain(name)  # bytes that are no text cannot be written down either
        and not set(name) & forbidden
        and not name.startswith(".")
        and (name == name.strip() or not everywhere)
        and 0 < len(name.encode()) <= _LONGEST_NAME
    )


def parse_name(stem: str, *, keep_number: bool = False) -> tuple[str, Role | None]:
    """Base and role of a file name without extension; no role where the name says none.

    What is left of the name of a mask or label may end like an image: `X_ToF_mask` belongs to `X_ToF`.

    Args:
        stem: the name without extension.
        keep_number: `_0000` is a number of a series here, not nnU-Net's first channel.

    >>> parse_name("IXI002-Guys-0828-MRA"), parse_name("sub-01_desc-brain_mask"), parse_name("tof")
    (('IXI002-Guys-0828', 'image'), ('sub-01', 'mask'), ('tof', 'image'))
    """
    for role, alone in _ALONE:
        if alone.fullmatch(stem):
            return (stem if role == "image" else ""), role
    for role, ending in _ENDINGS:
        if match := ending.fullmatch(stem):
            if role == "image":
                return (stem, None) if keep_number and stem.endswith("0000") else (match["base"], role)
            image = _IMAGE_ENDING.fullmatch(match["base"])
            inner = image and not (keep_number and match["base"].endswith("0000"))
            return (image["base"] if image and inner else match["base"]), role
    return stem, None


def named_files(
    paths: Sequence[Path], source: Path, *, pictures: bool = False
) -> tuple[list[NamedFile], list[tuple[Path, str]]]:
    """Role, base and group of files below `source`, and the files left out with the reason.

    Args:
        paths: the files.
        source: the folder that groups start from.
        pictures: they are pictures: masks are labels, and `_0000` is a number outside of nnU-Net's folders.
    """
    series = _numbered_series(paths)
    files, ignored = [], []
    for path in paths:
        stem = split_extension(path.name)[0]
        folders = path.parent.relative_to(source).parts
        group, folder_role = _group(folders, _PICTURE_FOLDERS if pictures else _FOLDERS)
        numbered = _NUMBERED.fullmatch(stem)
        in_nnunet = bool(folders and _NNUNET_IMAGES.fullmatch(folders[-1]))
        if in_nnunet and numbered and numbered["number"] != "0000":
            ignored.append((path, "further channel of an nnU-Net image"))
            continue
        if _OTHER_CONTRAST.fullmatch(stem):
            ignored.append((path, "another contrast by its name"))
            continue
        is_number = _in_series(path, stem, series) or (pictures and not in_nnunet)
        base, said = parse_name(stem, keep_number=is_number)
        role = _role(stem, said, folder_role)
        if pictures and role == "mask":
            role = "label"
        if role == "image" and any(folder.lower() == "derivatives" for folder in folders):
            ignored.append((path, "image below derivatives"))
            continue
        files.append(NamedFile(path, base, role, said is not None or folder_role is not None, group))
    return _without_strangers(files, ignored)


def _without_strangers(
    files: list[NamedFile], ignored: list[tuple[Path, str]]
) -> tuple[list[NamedFile], list[tuple[Path, str]]]:
    """Leave out `X_center` beside `X_img`: a word nobody knows is no second scan of the same case."""
    said = {(file.path.parent, file.base.casefold()) for file in files if file.role == "image" and file.is_said}
    kept = []
    for file in files:
        heads = [file.base[: match.start()].casefold() for match in re.finditer("[_-]", file.base)]
        known = next((head for head in heads if (file.path.parent, head) in said), None)
        if file.role == "image" and not file.is_said and known:
            ignored.append((file.path, f"unknown role beside the scan of {known}"))
        else:
            kept.append(file)
    return kept, ignored


def given_splits(folders: Sequence[tuple[str, ...]]) -> list[Split | None]:
    """Train, val or test by the folders above each file; none where only one of the three is there."""
    splits: list[Split | None] = []
    for parts in folders:
        group = [part.lower() for part in _group(parts)[0]]
        splits.append(next((_SPLIT_OF_FOLDER[part] for part in group if part in _SPLIT_OF_FOLDER), None))
    return splits if len(set(splits) - {None}) > 1 else [None] * len(splits)


def unique_names(bases: Sequence[str], groups: Sequence[tuple[str, ...]]) -> list[str]:
    """Names that differ also where case does not count: equal ones get as many folders in front as needed.

    >>> unique_names(["tof", "tof", "x"], [("P1",), ("P2",), ("P2",)])
    ['P1_tof', 'P2_tof', 'x']
    """
    depths = [0] * len(bases)
    while True:
        names = [
            "_".join((*group[len(group) - depth :], base))
            for base, group, depth in zip(bases, groups, depths, strict=True)
        ]
        count = Counter(name.casefold() for name in names)
        deeper = [n for n, name in enumerate(names) if count[name.casefold()] > 1 and depths[n] < len(groups[n])]
        if not deeper:
            return names
        for n in deeper:
            depths[n] += 1


def patients(case_ids: Sequence[str], bases: Sequence[str], groups: Sequence[tuple[str, ...]]) -> list[str]:
    """Whose scan each is: BIDS `sub-`, else the folder where every folder holds its own scans, else the case."""
    folders = patient_folders(groups) or [""] * len(groups)
    found = []
    for case_id, base, group, folder in zip(case_ids, bases, groups, folders, strict=True):
        subject = next((match[1] for part in (base, *group) if (match := _BIDS_SUBJECT.match(part))), None)
        found.append(subject or folder or case_id)
    return found


def patient_folders(groups: Sequence[tuple[str, ...]]) -> list[str] | None:
    """The folder of each scan, where every folder holds its own scans; else none.

    >>> patient_folders([("train", "P1"), ("train", "P2")]), patient_folders([("P1",), ()])
    (['P1', 'P2'], None)
    """
    folders = [tuple(part for part in group if part.lower() not in _SPLIT_OF_FOLDER) for group in groups]
    while folders and all(folders) and len({folder[0] for folder in folders}) == 1:
        folders = [folder[1:] for folder in folders]
    return [folder[0] for folder in folders] if len(folders) > 1 and all(folders) else None


def _role(stem: str, said: Role | None, folder_role: Role | None) -> Role:
    """A folder of labels or masks beats the name, unless that contradicts it outright."""
    if folder_role == "label":
        return "mask" if said == "mask" and "brain" in stem.lower() else "label"
    if folder_role == "mask":
        return "label" if said == "label" else "mask"
    return said or "image"


def _group(
    folders: tuple[str, ...], known: Sequence[tuple[Role, re.Pattern[str]]] = _FOLDERS
) -> tuple[tuple[str, ...], Role | None]:
    """Folders without those that name a role (their `Tr`/`Ts` stays), and the innermost such role."""
    group: list[str] = []
    found: Role | None = None
    for folder in folders:
        for role, words in known:
            if match := words.fullmatch(folder):
                found = role
                group += [part] if (part := match.groupdict().get("part")) else []
                break
        else:
            group.append(folder)
    return tuple(group), found


def _numbered_series(paths: Sequence[PurePath]) -> set[tuple[PurePath, str]]:
    """Folder and base of names that count on after `_0000`, as `scan_0000, scan_0001` do."""
    numbers: dict[tuple[PurePath, str], set[str]] = {}
    for path in paths:
        if match := _NUMBERED.fullmatch(split_extension(path.name)[0]):
            numbers.setdefault((path.parent, match["base"].casefold()), set()).add(match["number"])
    return {key for key, found in numbers.items() if len(found) > 1 and not _NNUNET_IMAGES.fullmatch(key[0].name)}


def _in_series(path: PurePath, stem: str, series: set[tuple[PurePath, str]]) -> bool:
    found = re.match(r"(.+)_0000", stem)
    return found is not None and (path.parent, found[1].casefold()) in series
