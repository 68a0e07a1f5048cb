"""This file proves that every mask of a result folder is the one that was written and lies where its scan lies.

It reads everything again: manifests, masks, maps and, where they are there, the scans. It finds what was damaged,
mixed up or edited, because each manifest holds hashes of all files and of itself. It does not find a forger, who can
write a mask and a manifest that agree; against one, keep a copy of the manifests, or of their hashes, elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.naming.classes import read_classes
from medseg.progress import track
from medseg.scans.picks import WHOLE
from medseg.scans.receipts import require_consistent, require_mask, require_scan
from medseg.scans.sources import hash_scan
from medseg.workflows.manifests import read_manifests, require_seal
from medseg.workflows.original_scans import OriginalScans

_log = logging.getLogger(__name__)
_ADVICE = "restore it, or reconstruct the case again"
_RESULTS = tuple(f"*_{kind}{end}" for kind in ("seg", "prob", "uncertainty", "region") for end in (".nii.gz", ".png"))
_RESULTS += ("comparison/*.nii.gz", "comparison/*.png", "*_frames/*.png")
"""Where results lie; what else is in the folder belongs to somebody else."""


def verify_results(out: Path, scans: Path | None = None) -> dict[str, Any]:
    """Check every case of a result folder.

    Args:
        out: a folder that `medseg reconstruct`, `segment` or `run` wrote.
        scans: the scans; where they were when None, and then it is no error that they have gone.

    Returns:
        `lines` for the terminal, `cases` that are verified, `failed` cases and files.

    Raises:
        MedsegError: the folder holds no results, or `scans` is not there.
    """
    manifests, failed = read_manifests(out)
    if not manifests and not failed:
        raise MedsegError(f"{out} must be a result folder with manifests, got none; run `medseg reconstruct` first")
    if scans is not None and not scans.exists():
        raise MedsegError(f"--scans must be a folder or a file that is there, got {scans}; check the name")
    originals = OriginalScans(out, scans)
    damaged = tuple(f"{case_id}_" for case_id in failed)
    known: set[int] | None = None
    try:
        known = {entry.value for entry in read_classes(out / "classes.yaml").classes}
    except MedsegError as error:
        failed["classes.yaml"] = str(error)
    cases: list[dict[str, Any]] = []
    lines: list[str] = []
    for manifest in track(manifests, "verifying"):
        case_id = manifest["case"]
        try:
            verified = _verify_case(out, manifest, manifests, known, originals)
        except MedsegError as error:
            failed[case_id] = str(error)
            continue
        cases.append({"case": case_id, **verified})
        lines.append(f"{case_id}: verified ({_in_words(verified)})")
    named = {name for manifest in manifests for name in manifest.get("files", ())}
    for name in _strays(out, named, originals):
        if name.rpartition("/")[2].startswith(damaged):
            continue  # its manifest is there, and what is wrong with it has been said
        failed[name] = f"{out / name} must belong to a case with a manifest, got none that names it; remove it"
    for problem in failed.values():
        _log.error(problem)
    lines.append(f"{len(cases)} of {len(manifests)} cases verified" + (f", {len(failed)} problems" if failed else ""))
    return {"lines": lines, "cases": cases, "failed": failed}


def _verify_case(
    out: Path,
    manifest: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    known: set[int] | None,
    originals: OriginalScans,
) -> dict[str, Any]:
    """Check one case, from the manifest to the scan, so that the first problem is the one that explains the others.

    Raises:
        MedsegError: something is not as it was written.
    """
    path = out / f"{manifest['case']}_manifest.json"
    require_seal(path, manifest)
    try:
        receipt, files = manifest["geometry"], manifest["files"]
        require_consistent(str(path), receipt)
        mask = out / receipt["mask"]["file"]
        if receipt["mask"]["sha256"] != files[receipt["mask"]["file"]]:
            raise MedsegError(f"{path} must name one hash of {mask.name}, got two; {_ADVICE}")
    except (KeyError, TypeError) as error:
        raise MedsegError(f"{path} must name its mask and files, got none ({error}); {_ADVICE}") from error
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise MedsegError(f"{path} must name files of its folder, got {name}; {_ADVICE}")
        if not (out / name).is_file():
            raise MedsegError(f"{out / name} must be there, as {path.name} says, got no file; {_ADVICE}")
    _require_not_swapped(mask, manifest, others)
    require_mask(mask, receipt, str(path))
    found = {int(value) for value, count in receipt["mask"]["voxels"].items() if count}
    if known is not None and not found <= known:
        strange = ", ".join(map(str, sorted(found - known)))
        raise MedsegError(f"{mask} must hold classes that {out / 'classes.yaml'} names, got {strange}; {_ADVICE}")
    for name, digest in files.items():
        if hash_file(out / name) != digest:
            raise MedsegError(f"{out / name} must have the content that {path.name} names, got another; {_ADVICE}")
    return {"files": len(files) - 1, "scan": _verify_scan(mask, manifest, originals)}


def _require_not_swapped(mask: Path, manifest: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Check that a mask is not that of another case, which explains more than that its content is another."""
    digest = hash_file(mask)
    if digest == manifest["files"][mask.name]:
        return
    for other in others:
        if other is not manifest and digest == other.get("geometry", {}).get("mask", {}).get("sha256"):
            raise MedsegError(
                f"{mask} must be the mask of {manifest['case']}, got that of {other['case']}; put each in its place"
            )


def _verify_scan(mask: Path, manifest: Mapping[str, Any], originals: OriginalScans) -> str:
    """Check the scan of a case, and that the mask lies on its grid; say so, or that it is not there."""
    case = originals.find(manifest) or originals.called(manifest)
    if case is None:
        if originals.is_given:
            raise MedsegError(
                f"{originals.place} must hold the scan of {manifest['case']} ({manifest['source']}), got none; "
                "give the folder it was segmented from"
            )
        return "not there"
    digest = hash_scan(case.image, case.pick)
    if digest != manifest["source_sha256"]:
        raise MedsegError(
            f"{case.image} must be the scan that {manifest['case']} was made of "
            f"(SHA-256 {manifest['source_sha256'][:12]}), got {digest[:12]}; restore it, or reconstruct the case again"
        )
    require_scan(case.image, mask, manifest["geometry"], case.pick)
    return "verified"


def _strays(out: Path, named: set[str], originals: OriginalScans) -> Iterator[str]:
    """Results by their name and place that no manifest names; the user's own labels are none."""
    labels = {path.resolve() for path in originals.listing(WHOLE).labels.values()}
    for pattern in _RESULTS:
        for path in sorted(out.glob(pattern)):
            name = path.relative_to(out).as_posix()
            if name not in named and path.resolve() not in labels:
                yield name


def _in_words(verified: Mapping[str, Any]) -> str:
    count = verified["files"]
    others = f"{count} other file" + ("" if count == 1 else "s")
    scan = "scan" if verified["scan"] == "verified" else "its scan is not there; name it with --scans"
    return f"mask, {others}, {scan}"
