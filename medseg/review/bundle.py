"""This file makes the review of a result folder: blobs and data of each case, ranked, in one page or several.

Cases are read one at a time; what the page needs of each is kept in a *workshop*, a hidden folder beside the results
that goes when the review is written. The *weight* of a case is what it adds to a page, in bytes.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.files import write_text
from medseg.review.blobs import stored_grey, stored_share, write_blob
from medseg.review.case_views import Subject, read_view
from medseg.review.evidence import measure
from medseg.review.facts import alarms_of, amount_of, facts_of
from medseg.review.page import SOFTWARE, PageText, base64_bytes, is_review_page, write_index, write_page
from medseg.review.queue import Evidence, Ranked, rank_cases
from medseg.review.slice_pictures import slice_pictures
from medseg.review.windows import windows_of

SCHEMA = "medseg-review/1"
MOST_MB = 300.0
"""Size of one page in MB (10^6 bytes) up to which browsers open it well."""
_BYTES_A_MB = 1_000_000
_PAGE = "review.html"
_ELEMENT_BYTES = 100
"""Of the tags around a blob."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What the page needs of one case.

    Attributes:
        evidence: for the queue.
        data: file with its JSON, without rank and reasons.
        blobs: file of each blob by its name.
    """

    evidence: Evidence
    data: Path
    blobs: Mapping[str, Path]

    @property
    def weight(self) -> int:
        """Bytes that it adds to a page."""
        blobs = sum(base64_bytes(path.stat().st_size) + _ELEMENT_BYTES for path in self.blobs.values())
        return blobs + self.data.stat().st_size


@dataclass(frozen=True)
class Review:
    """A result folder that is ready to be written as pages or served.

    Attributes:
        title: of the page.
        created: when, ISO.
        classes: of the masks.
        cases: by name.
        ranked: the queue.
        failed: why a case is not in it.
    """

    title: str
    created: str
    classes: tuple[Mapping[str, Any], ...]
    cases: Mapping[str, Prepared]
    ranked: tuple[Ranked, ...]
    failed: Mapping[str, str]

    def data_of(self, ranked: Ranked) -> dict[str, Any]:
        """The data of a case as the page gets them."""
        data: dict[str, Any] = json.loads(self.cases[ranked.case_id].data.read_text(encoding="utf-8"))
        return data | {"rank": ranked.rank, "reasons": list(ranked.reasons)}

    def head(self, *, served: bool, part: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The data of a page but for its cases."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            "created": self.created,
            "software": SOFTWARE,
            "served": served,
            "part": part,
            "parts": list(parts),
            "classes": list(self.classes),
        }


@contextmanager
def prepared_review(out: Path, subjects: Iterable[Subject]) -> Iterator[Review]:
    """Prepare all cases of a result folder; what was prepared goes when the block ends.

    Args:
        out: the result folder; the workshop stands in it.
        subjects: its cases. One that cannot be shown is left out with the reason.

    Raises:
        MedsegError: none can be shown.
    """
    cases: dict[str, Prepared] = {}
    classes: dict[int, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix=".review_", dir=out) as workshop:
        for number, subject in enumerate(subjects):
            folder = Path(workshop) / str(number)
            folder.mkdir()
            try:
                cases[subject.case_id] = prepare_subject(subject, folder, f"case{number}")
            except MedsegError as error:
                failed[subject.case_id] = str(error)
                _log.error(str(error))
                continue
            for entry in subject.manifest["classes"]:
                classes.setdefault(entry["value"], entry)
        if not cases:
            raise MedsegError(
                f"{out} must hold a case that can be shown, got none ({next(iter(failed.values()), 'no case')}); "
                "name the scans with --scans"
            )
        yield Review(
            f"Review of {out.resolve().name}",
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(_plain_class(classes[value]) for value in sorted(classes)),
            cases,
            tuple(rank_cases([case.evidence for case in cases.values()])),
            failed,
        )


def prepare_subject(subject: Subject, folder: Path, name: str) -> Prepared:
    """Write blobs and data of a case.

    Args:
        subject: the case.
        folder: where to.
        name: what the names of its blobs begin with; names of cases may hold anything.

    Raises:
        MedsegError: it cannot be shown.
    """
    manifest = subject.manifest
    view = read_view(subject, folder)
    amount, unit = amount_of(manifest)
    evidence = measure(
        subject.case_id,
        view.labels,
        view.image,
        uncertainty=view.uncertainty,
        region=view.region,
        others=view.others,
        background=subject.background,
        by_frame=view.is_picture,
        amount=amount,
        unit=unit,
        alarms=alarms_of(manifest, view.image.shape[2]),
    )
    windows = windows_of(view.image, subject.facts.get("modality"), view.region, is_picture=view.is_picture)
    first = (windows[0].low, windows[0].high)
    blobs = {"mask": view.mask}
    stored = {"image": stored_grey(view.image, first)}
    for kind, share in (("probability", view.probability), ("uncertainty", view.uncertainty)):
        if share is not None:
            stored[kind] = stored_share(share)
    for kind, values in stored.items():
        blobs[kind] = folder / f"{kind}.nii.gz"
        write_blob(blobs[kind], values, view.header, window=first if kind == "image" else (0.0, 1.0))
    if view.region is not None:
        blobs["region"] = folder / "region.nii.gz"
        write_blob(blobs["region"], stored_grey(view.region.astype("f4"), (0.0, 1.0)), view.header)
    shown = {entry["value"]: entry["colour"] for entry in manifest["classes"] if not entry.get("background")}
    slices = slice_pictures(view.image, view.labels, view.affine, first, colours=shown, by_frame=view.is_picture)
    names = {kind: f"{name}-{kind}" for kind in blobs}
    data = {
        "case": subject.case_id,
        "label": subject.case_id,
        "source_sha256": manifest["source_sha256"],
        "run_hash": manifest["run_hash"],
        "method": manifest["method"],
        "named_by": manifest["named_by"],
        "facts": facts_of(subject, view, evidence),
        "unit": "px" if view.is_picture else "mm",
        "kind": "frames" if view.is_picture else "volume",
        **{kind: names.get(kind) for kind in ("image", "mask", "probability", "uncertainty", "region")},
        "slices": slices,
        "window": list(first),
        "presets": [{"name": window.name, "low": window.low, "high": window.high} for window in windows],
    }
    write_text(folder / "data.json", json.dumps(data, ensure_ascii=False))
    return Prepared(evidence, folder / "data.json", {names[kind]: path for kind, path in blobs.items()})


def write_pages(out: Path, review: Review, *, max_mb: float = MOST_MB) -> list[Path]:
    """Write `review.html`, or, where it would be larger than `max_mb`, an index of that name and several pages.

    Pages of an earlier review that are not needed any more are removed.

    Returns:
        The files; `review.html` is the first.
    """
    text = PageText(served=False)
    parts = _split(review, text.bytes, max_mb)
    names = [_PAGE] if len(parts) == 1 else [f"review_{number}.html" for number in range(1, len(parts) + 1)]
    listed = [
        {"file": name, "cases": [ranked.case_id for ranked in part]} for name, part in zip(names, parts, strict=True)
    ]
    for number, (name, part) in enumerate(zip(names, parts, strict=True), start=1):
        others = listed if len(parts) > 1 else []
        head = review.head(served=False, part=f"{number} of {len(parts)}", parts=others)
        head |= {"index": _PAGE} if others else {}
        blobs = [blob for ranked in part for blob in review.cases[ranked.case_id].blobs.items()]
        write_page(out / name, text, head, (review.data_of(ranked) for ranked in part), blobs)
    if len(parts) > 1:
        entries = [
            (name, [(ranked.rank, ranked.case_id, ranked.reasons[0]) for ranked in part])
            for name, part in zip(names, parts, strict=True)
        ]
        write_index(out / _PAGE, review.title, entries)
        names = [_PAGE, *names]
    for old in out.glob("review_*.html"):
        if old.name not in names and is_review_page(old):
            old.unlink()
    return [out / name for name in names]


def write_served_page(path: Path, review: Review) -> PageText:
    """Write the page without blobs, which fetches them from its server; gives the text that it was made of."""
    text = PageText(served=True)
    head = review.head(served=True, part="1 of 1", parts=[])
    write_page(path, text, head, (review.data_of(ranked) for ranked in review.ranked))
    return text


def _split(review: Review, page_bytes: int, max_mb: float) -> list[list[Ranked]]:
    """Cases of each page, in the order of their ranks; a page has one at the least."""
    parts: list[list[Ranked]] = [[]]
    used = page_bytes
    for ranked in review.ranked:
        weight = review.cases[ranked.case_id].weight
        if parts[-1] and used + weight > max_mb * _BYTES_A_MB:
            parts.append([])
            used = page_bytes
        if page_bytes + weight > max_mb * _BYTES_A_MB:
            _log.warning(
                "%s alone makes a page of %.0f MB; `medseg review --serve` shows it without one",
                ranked.case_id,
                (page_bytes + weight) / _BYTES_A_MB,
            )
        parts[-1].append(ranked)
        used += weight
    return parts


def _plain_class(entry: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: entry[key] for key in ("value", "name", "colour")}
    return plain | ({"background": True} if entry.get("background") else {})
