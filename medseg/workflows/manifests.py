"""This file seals and reads back the manifests of a result folder, one a case, and says which ones are damaged.

A *sealed* manifest holds the hash of all that it says. That finds accidents and edits; it keeps nobody from writing
another manifest with another hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import hash_content, read_record

_ENDING = "_manifest.json"
_KEYS = ("case", "source", "method", "named_by", "ml", "trained_on_this_case", "run_hash", "seconds", "peak_memory_mb")
_ADVICE = "remove it and run `medseg reconstruct` again"
_SEAL = "receipt_sha256"


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of all that it says, as its last entry."""
    return {**manifest, _SEAL: _hash(manifest)}


def require_seal(path: Path, manifest: Mapping[str, Any]) -> None:
    """Check that a manifest says what it said when it was written.

    Raises:
        MedsegError: it was changed since, or was never sealed.
    """
    if _SEAL not in manifest:
        raise MedsegError(f"{path} must hold a {_SEAL}, got none, as older versions wrote it; {_ADVICE}")
    if manifest[_SEAL] != _hash(manifest):
        raise MedsegError(f"{path} must be as it was written, got an edited or damaged one; restore it, or {_ADVICE}")


def _hash(manifest: Mapping[str, Any]) -> str:
    """Of what a reader of the JSON file gets: there, keys are texts and all sequences are lists."""
    return hash_content(json.loads(json.dumps({key: value for key, value in manifest.items() if key != _SEAL})))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one case.

    Raises:
        MedsegError: it is missing or damaged.
    """
    manifest = read_record(path, *_KEYS, advice=_ADVICE)
    case_id = path.name.removesuffix(_ENDING)
    if manifest["case"] != case_id:
        raise MedsegError(f"{path} must be of the case {case_id}, got {manifest['case']}; {_ADVICE}")
    return manifest


def read_manifests(out: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The manifests in a result folder, sorted by case, and for each damaged one its case and the error."""
    manifests: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    for path in sorted(out.glob(f"[!.]*{_ENDING}")):  # one that begins with a dot was never finished
        try:
            manifests.append(read_manifest(path))
        except MedsegError as error:
            damaged[path.name.removesuffix(_ENDING)] = str(error)
    return manifests, damaged


def is_picture_result(manifest: Mapping[str, Any]) -> bool:
    """Whether a case is a picture: these have shares of pixels where volumes have ml."""
    return "share" in manifest
