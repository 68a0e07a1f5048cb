"""This file joins files that belong to one case: an image, its brain mask, its label. Only names count, never order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.scans.listings import Draft
from medseg.scans.names import NamedFile

_NAMES_SHOWN = 5
LeftOut = list[tuple[Path, str]]
"""Files that are no part of a case, each with the reason."""


def paired(files: Sequence[NamedFile], *, across_folders: bool = True) -> tuple[list[Draft], LeftOut]:
    """Files of one group and base together; then what has only one possible partner.

    Args:
        files: what the names say.
        across_folders: a label alone may join the only image of its name in any other folder; else only where the
            folders of one contain those of the other, so that `cine_2/frame_7` never gets the label of `cine_1`.
    """
    drafts: dict[tuple[tuple[str, ...], str], Draft] = {}
    alone = [file for file in files if not file.base]
    for file in files:
        if file.base:
            key = (tuple(part.casefold() for part in file.group), file.base.casefold())
            draft = drafts.setdefault(key, Draft(file.base, file.group))
            _files(draft, file.role).append(file.path)
            if file.role == "image":
                draft.base, draft.is_said = file.base, file.is_said
    ignored: LeftOut = []
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
        if lone.images or len(partners) != 1 or _overlap(lone, partners[0]):
            continue
        if across_folders or _is_contained(lone.group, partners[0].group):
            partners[0].masks += lone.masks
            partners[0].labels += lone.labels
            del drafts[key]
    return list(drafts.values()), ignored


def notes_of(left_out: LeftOut) -> list[str]:
    """One note for each reason."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out:
        by_reason.setdefault(reason, []).append(path.name)
    return [f"ignored, {reason}: {some(names)}" for reason, names in by_reason.items()]


def some(names: Iterable[str]) -> str:
    """The first names and how many more there are."""
    shown = list(names)
    more = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _overlap(one: Draft, other: Draft) -> bool:
    return bool((one.masks and other.masks) or (one.labels and other.labels))


def _is_contained(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    fewer, more = sorted(({part.casefold() for part in group} for group in (one, other)), key=len)
    return fewer <= more


def _files(draft: Draft, role: str) -> list[Path]:
    return {"image": draft.images, "mask": draft.masks, "label": draft.labels}[role]
