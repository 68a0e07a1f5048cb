"""This file reads back the manifests of a result folder, one a case, and says which ones are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_record

_ENDING = "_manifest.json"
_KEYS = ("case", "source", "method", "named_by", "ml", "trained_on_this_case", "run_hash", "seconds", "peak_memory_mb")
_ADVICE = "remove it and run `medseg reconstruct` again"


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
