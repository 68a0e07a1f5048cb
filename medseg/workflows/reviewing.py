"""This file lets a radiologist review a result folder: it writes or serves the page, and collects what was decided."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import read_record, require_folder
from medseg.progress import track
from medseg.review.bundle import MOST_MB, Review, prepared_review, write_pages, write_served_page
from medseg.review.case_views import Subject
from medseg.review.collect import collect
from medseg.review.serve import ReviewServer
from medseg.scans.folders import find_cases
from medseg.scans.picks import Pick
from medseg.scans.sources import hash_scan
from medseg.workflows.manifests import read_manifests

_NEEDED = frozenset({"source_sha256", "files", "classes", "compared"})
"""What a manifest must say for a review, beside what every one has."""
_AGAIN = "write the masks again"

_log = logging.getLogger(__name__)


def review_results(
    out: Path, *, scans: Path | None = None, max_mb: float = MOST_MB, serve: bool = False, port: int = 0
) -> dict[str, Any]:
    """Write the review page of a result folder, or serve it until Ctrl-C.

    Args:
        out: a folder that medseg wrote masks to.
        scans: the scans; where they were read from when None.
        max_mb: size of a page in MB (10^6 bytes) beyond which there are several.
        serve: serve the page instead of writing it.
        port: to serve at; 0 takes a free one.

    Returns:
        `lines` for the terminal, `files` and the `queue` of cases; `failed`: cases that are left out.

    Raises:
        MedsegError: nothing can be reviewed.
    """
    require_folder(out, "OUT")
    subjects, failed = find_subjects(out, scans)
    for line in failed.values():
        _log.error(line)
    with prepared_review(out, track(subjects, "preparing the review")) as review:
        failed |= review.failed
        queue = [{"case": case.case_id, "reasons": list(case.reasons)} for case in review.ranked]
        if serve:
            _serve(out, review, port)
            return {"lines": ["stopped"], "queue": queue, "failed": failed}
        files = write_pages(out, review, max_mb=max_mb)
    sizes = sum(path.stat().st_size for path in files) / 1e6
    pages = f" and {len(files) - 1} pages beside it" if len(files) > 1 else ""
    first = queue[0]
    cases = "1 case" if len(queue) == 1 else f"{len(queue)} cases"
    lines = [
        f"{files[0]}{pages}: {cases}, {sizes:.1f} MB; open it in a browser",
        f"first in the queue: {first['case']} ({first['reasons'][0]})",
    ]
    return {"lines": lines, "files": [str(path) for path in files], "queue": queue, "failed": failed}


def collect_reviews(downloads: Path, into: Path, out: Path) -> dict[str, Any]:
    """File the labels that reviewers of a result folder accepted or corrected, see `review/collect.py`.

    Raises:
        MedsegError: `out` holds no results, or nothing was downloaded.
    """
    manifests, failed = _manifests(out)
    answer = collect(downloads, into, out, manifests)
    return answer | {"failed": failed | answer["failed"]}


def find_subjects(out: Path, scans: Path | None) -> tuple[list[Subject], dict[str, str]]:
    """The cases of a result folder whose scans are there and unchanged, and a line for each of the others.

    A scan is sought where the manifest names it, then by its case, then by its content, for names may be pseudonyms.
    """
    manifests, failed = _manifests(out)
    if scans is None:
        scans = Path(str(read_record(out / "summary.json", "scans", advice="name the scans with --scans")["scans"]))
    elif not scans.exists():
        raise MedsegError(f"--scans must be a folder or a file that is there, got {scans}; check the name")
    search = _Search(scans, out)
    subjects = []
    for manifest in manifests:
        source = search.scan_of(manifest)
        if source is None:
            failed[manifest["case"]] = (
                f"{manifest['case']} must have its scan {manifest['source']} in {scans}, got none of that content; "
                "name the scans with --scans"
            )
        else:
            subjects.append(Subject(out, manifest, source))
    return subjects, failed


class _Search:
    """Looks for scans in a folder; files are hashed when they are needed, each once."""

    def __init__(self, scans: Path, out: Path) -> None:
        self.root = scans if scans.is_dir() else scans.parent
        self._scans, self._out = scans, out
        self._hashes: dict[tuple[Path, Pick], str | None] = {}
        self._found: dict[Pick, dict[str, Path]] = {}

    def scan_of(self, manifest: Mapping[str, Any]) -> Path | None:
        """The scan with the content that a manifest names, if it is there."""
        wanted = str(manifest["source_sha256"])
        pick = Pick(**manifest.get("pick", {}))
        named = self.root / str(manifest["source"])
        if named.is_file() and self._hash(named, pick) == wanted:
            return named
        images = self._images(pick)
        of_case = images.get(str(manifest["case"]))
        candidates = [*([of_case] if of_case else []), *images.values()]
        return next((path for path in candidates if self._hash(path, pick) == wanted), None)

    def _images(self, pick: Pick) -> dict[str, Path]:
        """All scans by case, found with what was picked of them."""
        if pick not in self._found:
            try:
                listing = find_cases(self._scans, pick=pick, skip=(self._out,))
                self._found[pick] = {case.case_id: case.image for case in listing.cases}
            except MedsegError:  # no scans there; each case says what it lacks
                self._found[pick] = {}
        return self._found[pick]

    def _hash(self, path: Path, pick: Pick) -> str | None:
        if (path, pick) not in self._hashes:
            try:
                self._hashes[path, pick] = hash_scan(path, pick)
            except (OSError, MedsegError):
                self._hashes[path, pick] = None
        return self._hashes[path, pick]


def _manifests(out: Path) -> tuple[Sequence[dict[str, Any]], dict[str, str]]:
    manifests, failed = read_manifests(out)
    if not manifests and not failed:
        raise MedsegError(f"{out} must be a result folder with manifests, got none; run `medseg segment` first")
    for manifest in manifests:
        missing = sorted(_NEEDED - manifest.keys())
        if missing:
            failed[manifest["case"]] = (
                f"{out}/{manifest['case']}_manifest.json must have {missing[0]}, got none; {_AGAIN}"
            )
    return [manifest for manifest in manifests if manifest["case"] not in failed], failed


def _serve(out: Path, review: Review, port: int) -> None:
    """Serve a review until Ctrl-C."""
    blobs = {name: path for case in review.cases.values() for name, path in case.blobs.items()}
    page = (
        next(iter(review.cases.values())).data.parent.parent / "review.html"
    )  # in the workshop, which goes at the end
    text = write_served_page(page, review)
    with ReviewServer(page, blobs, policy=text.policy, port=port) as server:
        sys.stdout.write(f"{server.url}\nonly this computer can open it; Ctrl-C stops it\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            _log.info("stopped by Ctrl-C")
