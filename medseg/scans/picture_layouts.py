"""This file recognises the folders in which picture data sets come, and pairs their images with labels by name.

A *layout* is told by the paths of its images and labels below the source (`imgs/12.png`, `gt/12.mat`); each has one
function, which says nothing where the paths do not fit. Whatever fits none of them is a folder of images. Class values
follow the *scheme* of a data set: its class number c becomes the value c + 1, and what nobody labelled -1.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.listings import Draft
from medseg.scans.names import (
    PICTURE_EXTENSIONS,
    Split,
    given_splits,
    named_files,
    parse_name,
    patient_folders,
    split_extension,
)
from medseg.scans.pairing import notes_of, paired, some
from medseg.scans.schemes import LabelScheme
from medseg.scans.shipped_schemes import shipped_scheme, stored_as_values

_ANY = "(?:" + "|".join(extension[1:] for extension in PICTURE_EXTENSIONS) + ")"
_SPLITS = "(?P<split>train|val|test)"
_CROPPED_SET = r"(?P<data>[^/]+?)_[^_/]+_crop_[\d.]+"
_IMAGE_FOLDER = re.compile(rf"(?:.+/)?ima?ge?s?/(?:{_SPLITS}/.+|[^/]+)", re.IGNORECASE)
_DATUS = re.compile(rf"{_SPLITS}/images/.+", re.IGNORECASE)
_MOST_LABEL_COLOURS = 64
"""Colours of a PNG that counts as the label of the JPEG beside it; a photograph has thousands."""
_POTSDAM_LISTS: dict[str, Split | None] = {"labelled_train": "train", "unlabelled_train": "train"}
_POTSDAM_LISTS |= {"labelled_test": "test", "all": None}
_SCHEME_OF_CROPS = {"potsdam": "potsdam3", "potsdamraw": "potsdam3", "cityscapes": "cityscapes"}
_SCHEME_OF_CROPS |= {name: name for name in ("cocostuff27", "cocostuff15", "cocostuff3")}
_CURATED = {
    ("cocostuff27", "train"): "Coco164kFull_Stuff_Coarse",
    ("cocostuff27", "val"): "Coco164kFull_Stuff_Coarse_7",
    ("cocostuff15", "train"): "Coco164kFull_Stuff_Coarse_7",
    ("cocostuff15", "val"): "Coco164kFull_Stuff_Coarse_7",
    ("cocostuff3", "train"): "Coco164kFew_Stuff_6",
    ("cocostuff3", "val"): "Coco164kFew_Stuff_6",
}
"""The published list of images that results on a version of CocoStuff are given for."""


@dataclass
class FoundPictures:
    """The cases of a layout.

    Args:
        layout: its name.
        drafts: the cases.
        scheme: what its labels mean; none where they are class values.
        notes: what was left out and why.
        companions: pattern of files that belong to the layout and are not needed.
        lists: files that were read.
    """

    layout: str
    drafts: list[Draft]
    scheme: LabelScheme | None = None
    notes: list[str] = field(default_factory=list)
    companions: str = ""
    lists: list[Path] = field(default_factory=list)


class _Recognise(Protocol):
    def __call__(self, source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None: ...


def standard_layout(source: Path, paths: Sequence[Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """The cases of a known data set; none where the folder looks like no known one.

    Args:
        source: the folder.
        paths: the pictures below it.
        scheme: what labels mean, where the user says it.

    Raises:
        MedsegError: several cropped sets are there.
    """
    files = {path.relative_to(source).as_posix(): path for path in paths}
    for recognise in _LAYOUTS:
        found = recognise(source, files, scheme)
        if found is None or not any(draft.images for draft in found.drafts):
            continue
        used = {path for draft in found.drafts for path in (*draft.images, *draft.labels)}
        companion = re.compile(found.companions, re.IGNORECASE)
        others = [path.name for name, path in files.items() if path not in used and not companion.fullmatch(name)]
        found.notes += [f"ignored, outside the layout: {some(others)}"] if others else []
        if len({draft.split for draft in found.drafts if draft.images} - {None}) < 2:
            for draft in found.drafts:
                draft.split = None
        return found
    return None


def is_image_folder(source: Path, paths: Sequence[Path]) -> bool:
    """Whether pictures lie in `imgs/{train,val}` or `{train,val}/images`, so that volumes elsewhere are not meant."""
    names = [path.relative_to(source).as_posix() for path in paths]
    return any(_DATUS.fullmatch(name) or ((hit := _IMAGE_FOLDER.fullmatch(name)) and hit["split"]) for name in names)


def folder_of_images(source: Path, paths: Sequence[Path], scheme: LabelScheme | None) -> FoundPictures:
    """The cases of any folder of pictures: names and folders say what is a label, and all else is an image."""
    named, left_out = named_files(paths, source, pictures=True)
    drafts, unclear = paired(named, across_folders=False)
    for draft in drafts:  # DatUS keeps the colours in `masks` from which it made the values in `true_masks`
        draft.labels = [path for path in draft.labels if path.parent.name.casefold() == "true_masks"] or draft.labels
    beside = [draft.labels[0].name for draft in drafts if take_label_beside(draft)]
    notes = notes_of(left_out + unclear)
    if beside:
        notes.append(f"PNG of at most {_MOST_LABEL_COLOURS} colours beside a JPEG, taken as its label: {some(beside)}")
    images = [draft for draft in drafts if draft.images]
    folders = [draft.images[0].parent.relative_to(source).parts for draft in images]
    for draft, split in zip(images, given_splits(folders), strict=True):
        draft.split = split
    names = [draft.images[0].relative_to(source).as_posix() for draft in images]
    if any(_DATUS.fullmatch(name) for name in names):
        layout = "DatUS"
    elif any(_IMAGE_FOLDER.fullmatch(name) for name in names):
        layout = "image folder"
    elif patient_folders([draft.group for draft in images]):
        layout = "folders of images, one a patient"
    else:
        layout = "bare folder of images"
    return FoundPictures(layout, drafts, scheme, notes)


def take_label_beside(draft: Draft) -> bool:
    """Make the PNG of `X.jpg` and `X.png` the label, where it has the few colours of one; whether it was done."""
    kinds = {path.suffix.lower(): path for path in draft.images}
    png = kinds.pop(".png", None)
    is_pair = len(draft.images) == 2 and not draft.labels and kinds.keys() <= {".jpg", ".jpeg"}
    if png is None or not is_pair or not _has_few_colours(png):
        return False
    draft.images.remove(png)
    draft.labels.append(png)
    return True


def _potsdam(source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """`imgs/X`, `gt/X` and lists of names; in the set as STEGO has it, the array in `gt/X.mat` is called `gt`."""
    drafts = _matched(files, rf"imgs/(?P<base>[^/]+)\.{_ANY}", rf"(?:gt|labels)/(?P<base>[^/]+)\.{_ANY}")
    lists = {name: path for name in _POTSDAM_LISTS if (path := source / f"{name}.txt").is_file()}
    labels = [path for draft in drafts for path in draft.labels]
    if not lists and not labels:
        return None
    arrays = (path for path in labels if path.suffix.lower() == ".mat")
    is_stego = (first := next(arrays, None)) is not None and "gt" in _array_names(first)
    if is_stego and scheme is None:
        scheme = shipped_scheme("potsdam3")
    found = FoundPictures("Potsdam" if is_stego else "Potsdam-style", drafts, scheme, lists=[*lists.values()])
    if lists:
        found.notes += _keep_listed(drafts, lists)
        found.companions = "(?:imgs|gt|labels)/[^/]+"  # those that no list names are said already
    return found


def _potsdam_raw(source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """The ISPRS download: whole tiles and colour-coded labels."""
    drafts = _matched(
        files,
        r"2_Ortho_RGB/(?P<base>[^/]+)_RGB\.tiff?",
        r"5_Labels_for_participants/(?P<base>[^/]+)_label\.(?:tiff?|png)",
    )
    return FoundPictures("Potsdam-raw", drafts, scheme or shipped_scheme("potsdam3"))


def _cocostuff(source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """`images/train2017/X.jpg` with `annotations/train2017/X.png`, and `curated/train2017/LIST.txt`."""
    drafts = _matched(
        files,
        r"images/(?P<split>train|val)2017/(?P<base>[^/]+)\.jpe?g",
        r"annotations/(?P<split>train|val)2017/(?P<base>[^/]+)\.png",
    )
    if not drafts:
        return None
    found = FoundPictures("CocoStuff", drafts, scheme or shipped_scheme("cocostuff27"))
    assert found.scheme is not None
    for split in ("train", "val"):
        lists = {path.stem: path for path in sorted((source / "curated" / f"{split}2017").glob("*.txt"))}
        published = lists.get(_CURATED.get((found.scheme.name, split), ""))
        chosen = published or (next(iter(lists.values())) if len(lists) == 1 else None)
        found.lists += lists.values()
        if chosen is None:
            found.notes += [f"none of the lists of {split}2017 is for {found.scheme.name}: {some(lists)}"] * bool(lists)
            continue
        wanted = _names_in(chosen)
        here = [draft for draft in drafts if draft.split == split]
        kept = [draft for draft in here if draft.base.casefold() in wanted]
        drafts[:] = [draft for draft in drafts if draft.split != split] + kept
        found.notes.append(f"{split}: {len(kept)} of {len(here)} images are in {chosen.name}")
        found.notes += _missing({chosen.name: wanted}, kept)
        found.companions = r"(?:images|annotations)/(?:train|val)2017/.+"
    return found


def _cityscapes(source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """`leftImg8bit/train/CITY/X_leftImg8bit.png` with `gtFine/train/CITY/X_gtFine_labelIds.png`."""
    drafts = _matched(
        files,
        rf"leftImg8bit/{_SPLITS}/[^/]+/(?P<base>[^/]+)_leftImg8bit\.png",
        rf"gtFine/{_SPLITS}/[^/]+/(?P<base>[^/]+)_gtFine_labelIds\.png",
    )
    others = r"gtFine/.+_gtFine_(?:color|instanceIds|labelTrainIds)\.png"
    return FoundPictures("Cityscapes", drafts, scheme or shipped_scheme("cityscapes"), companions=others)


def _cropped(source: Path, files: Mapping[str, Path], scheme: LabelScheme | None) -> FoundPictures | None:
    """`cropped/NAME_TYPE_crop_RATIO/{img,label}/{train,val}/N`, given as a whole or from any folder of it on."""
    within = re.compile(rf"(?P<set>(?:cropped/)?(?:{_CROPPED_SET}/)?)img/(?:train|val)/[^/]+", re.IGNORECASE)
    folders = sorted({hit["set"] for name in files if (hit := within.fullmatch(name))})
    sets = {folder: hit for folder in folders if (hit := _cropped_name(source, folder))}
    if not sets:
        return None
    if len(sets) > 1:
        raise MedsegError(
            f"{source} must hold one cropped set, got {len(sets)} ({some(PurePosixPath(f).name for f in sets)}); "
            "give the folder of one"
        )
    [(folder, hit)] = sets.items()
    start = re.escape(folder)
    drafts = _matched(
        files,
        rf"{start}img/(?P<split>train|val)/(?P<base>[^/]+)\.{_ANY}",
        rf"{start}label/(?P<split>train|val)/(?P<base>[^/]+)\.{_ANY}",
    )
    known = _SCHEME_OF_CROPS.get(hit["data"].lower())
    scheme = scheme or (shipped_scheme(known) if known else None)
    if scheme and scheme.values is not None:  # crops of a known set hold class values, no longer the set's own ids
        scheme = stored_as_values(scheme)
    return FoundPictures(f"cropped set of {hit['data']}", drafts, scheme)


_LAYOUTS: tuple[_Recognise, ...] = (_cityscapes, _cocostuff, _potsdam_raw, _cropped, _potsdam)


def _cropped_name(source: Path, folder: str) -> re.Match[str] | None:
    name = PurePosixPath(folder).name if folder not in ("", "cropped/") else source.resolve().name
    return re.fullmatch(_CROPPED_SET, name, re.IGNORECASE)


def _matched(files: Mapping[str, Path], image: str, label: str) -> list[Draft]:
    """Drafts of all files whose paths fit: `base` is the name, `split` the part it is given for."""
    drafts: dict[tuple[str | None, str], Draft] = {}
    for role, pattern in (("images", re.compile(image, re.IGNORECASE)), ("labels", re.compile(label, re.IGNORECASE))):
        for name, path in files.items():
            if hit := pattern.fullmatch(name):
                base = parse_name(hit["base"], keep_number=True)[0] or hit["base"]
                part = cast("Split | None", (hit.groupdict().get("split") or "").lower() or None)
                draft = Draft(base, (part,) if part else (), split=part)
                getattr(drafts.setdefault((part, base.casefold()), draft), role).append(path)
    return list(drafts.values())


def _keep_listed(drafts: list[Draft], lists: Mapping[str, Path]) -> list[str]:
    """Keep the cases that Potsdam's lists name, with their splits; notes on the others."""
    names = {name: _names_in(path) for name, path in lists.items()}
    wanted = names.get("all", frozenset().union(*names.values()))
    left = [draft.base for draft in drafts if draft.images and draft.base.casefold() not in wanted]
    drafts[:] = [draft for draft in drafts if draft.base.casefold() in wanted]
    for draft in drafts:
        of = {split for name, split in _POTSDAM_LISTS.items() if split and draft.base.casefold() in names.get(name, ())}
        draft.split = next(iter(of), None)
        if len(of) > 1:
            draft.problems.append(
                f"{draft.base} must be for training or for testing, got it in lists for both in "
                f"{lists['labelled_test'].parent}; take it out of one"
            )
    said = lists["all"].name if "all" in lists else " or ".join(path.name for path in lists.values())
    notes = [f"ignored, not in {said}: {some(left)}"] if left else []
    return notes + _missing({lists[name].name: found for name, found in names.items()}, drafts)


def _names_in(path: Path) -> frozenset[str]:
    """Names in a list, one a line, with or without folder and extension; upper and lower case are the same."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(f"{path} must be a text file in UTF-8, got {error}; save it again") from error
    stems = (split_extension(PurePosixPath(line.strip().replace("\\", "/")).name)[0] for line in lines if line.strip())
    return frozenset((parse_name(stem, keep_number=True)[0] or stem).casefold() for stem in stems)


def _missing(lists: Mapping[str, Collection[str]], drafts: Sequence[Draft]) -> list[str]:
    here = {draft.base.casefold() for draft in drafts if draft.images}
    lone = {name: sorted(set(wanted) - here) for name, wanted in lists.items()}
    return [f"named in {name} without an image: {some(names)}" for name, names in lone.items() if names]


def _array_names(path: Path) -> set[str]:
    """Names of the arrays in a `.mat` file; none where it is damaged, which its reader says better."""
    import scipy.io

    try:
        return {name for name, _, _ in scipy.io.whosmat(str(path))}
    except (OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError, struct.error, zlib.error):
        return set()


def _has_few_colours(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # whoever reads it says what is too large
            with Image.open(path) as image:
                return image.getcolors(_MOST_LABEL_COLOURS) is not None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
