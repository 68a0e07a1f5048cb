"""This file lets a radiologist review a result folder: it writes or serves the page, and collects what was decided."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import require_folder
from medseg.progress import track
from medseg.review.bundle import MOST_MB, Review, prepared_review, write_pages, write_served_page
from medseg.review.case_views import Subject
from medseg.review.collect import collect
from medseg.review.serve import ReviewServer
from medseg.workflows.manifests import read_manifests
from medseg.workflows.original_scans import OriginalScans

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
    """The cases of a result folder whose scans are there and unchanged, and a line for each of the others."""
    manifests, failed = _manifests(out)
    originals = OriginalScans(out, scans)
    subjects = []
    for manifest in manifests:
        try:
            subjects.append(Subject(out, manifest, originals.require(manifest).image))
        except MedsegError as error:
            failed[manifest["case"]] = str(error)
    return subjects, failed


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
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` starts programs that ignore it
        with suppress(KeyboardInterrupt):
            server.serve_forever()
