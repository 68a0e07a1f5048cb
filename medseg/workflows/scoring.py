"""This file scores a result folder against references, beside rules that everybody can have for free."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config import SEEN
from medseg.errors import MedsegError
from medseg.files import read_json, require_folder
from medseg.naming.classes import ClassEntry, read_classes
from medseg.naming.effort import Effort
from medseg.progress import track
from medseg.review.collect import DECISIONS
from medseg.review.plots import score_plot
from medseg.runs import DIRECT_METHODS, METHODS, OWN_CLASSES, versions
from medseg.scans.arrays import read_grid, read_label_values, read_values
from medseg.scans.folders import find_references
from medseg.scans.grids import require_same_grid, require_same_size
from medseg.scans.picks import WHOLE
from medseg.scans.pseudonyms import as_pseudonyms
from medseg.scans.schemes import LabelScheme
from medseg.scoring.baselines import BASELINES
from medseg.scoring.layout import as_lines
from medseg.scoring.overlap import UNION, score_labels
from medseg.scoring.tables import (
    ScoreRow,
    class_table,
    score_table,
    write_evaluation_results,
    write_scores_csv,
    write_scores_json,
)
from medseg.workflows import checking
from medseg.workflows.manifests import is_picture_result, read_manifests
from medseg.workflows.original_scans import OriginalScans
from medseg.workflows.results import read_frames, read_mask

_log = logging.getLogger(__name__)
_REGIONS = ("all", "brain")


def score_results(
    out: Path,
    references: Path,
    *,
    into: Path | None = None,
    scans: Path | None = None,
    region: str = "all",
    classes: str | Path | None = None,
    pseudonyms: Path | None = None,
    skip: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score every case of a result folder that has a reference.

    Args:
        out: a folder that `medseg reconstruct` wrote.
        references: folder, datalist, CSV or one label file.
        into: where `scores.csv`, `scores.json` and `evaluation_results.txt` go; `out` when None.
        scans: the scans, for the baselines; where the reconstruction read them when None.
        region: `all` counts everything, also misses outside the brain mask; `brain` counts inside
            `CASE_region` only.
        classes: what label pictures mean: a `classes.yaml`, or the name of a known data set; by layout when None.
        pseudonyms: the key of results under pseudonyms: which is whose.
        skip: folders inside `references` that hold results.

    Returns:
        `lines` for the terminal, `aggregates` by method, `failed` cases.

    Raises:
        MedsegError: nothing to score.
    """
    require_region(region)
    into = into or out
    require_folder(into, "-o")
    manifests, failed = read_manifests(out)
    if any(manifest["named_by"] == "clusters" for manifest in manifests):
        raise MedsegError(
            f"{out} must hold classes to be scored, got clusters without names; match them with `medseg evaluate RUN "
            "IMAGES`, or reconstruct with --set naming.source=training_labels"
        )
    if not manifests and not failed:
        raise MedsegError(f"{out} must be a result folder with manifests, got none; run `medseg reconstruct` first")
    found = find_references(references, scheme=classes, skip=skip)
    if pseudonyms is not None:
        found = as_pseudonyms(found, pseudonyms)
    pairs = [(manifest, label) for manifest in manifests if (label := found.of(manifest["case"])) is not None]
    for manifest in manifests:
        if found.of(manifest["case"]) is None:
            _log.info("%s has no reference in %s and is not scored", manifest["case"], references)
    for problem in failed.values():
        _log.error(problem)
    if not pairs and not failed:
        some = ", ".join(sorted(found)[:3]) or "no label"
        raise MedsegError(f"{references} must hold a label of a case in {out}, got {some}; name it like its scan")
    originals = OriginalScans(out, scans)
    if (references / DECISIONS).is_file():
        _log.warning(
            "%s holds labels of a review of masks: a score against them says how much reviewers changed, not how good "
            "masks are that they did not draw",
            references,
        )
    entries = read_classes(out / "classes.yaml").classes
    rows: list[ScoreRow] = []
    for manifest, reference in track(pairs, "scoring"):
        try:
            if not is_picture_result(manifest):
                checking.pair(reference, out / f"{manifest['case']}_seg.nii.gz", WHOLE)
            rows += _score_case(manifest, reference, out, originals, region, entries, found.scheme)
        except MedsegError as error:
            failed[manifest["case"]] = str(error)
            _log.error(str(error))
    if not rows:
        return {"lines": ["no case could be scored"], "failed": failed}
    method = pairs[0][0]["method"]
    facts = {"versions": versions(), "region": region, "run_hash": manifests[0]["run_hash"]}
    write_scores_csv(into / "scores.csv", rows)
    write_scores_json(into / "scores.json", rows, facts=facts)
    write_evaluation_results(into / "evaluation_results.txt", rows, dataset=out.resolve().name, method=method)
    score_plot(rows, into / "plots" / "scores.png")
    aggregates = read_json(into / "scores.json")["aggregates"]
    by_class = class_table(rows)
    lines = [
        *as_lines(score_table(rows, title=_title(rows, region, several=by_class is not None))),
        *([] if by_class is None else as_lines(by_class)),
        *_lost(aggregates, method),
        f"tables: {into}/scores.csv",
    ]
    return {"lines": lines, "aggregates": aggregates, "region": region, "failed": failed}


def _title(rows: Sequence[ScoreRow], region: str, *, several: bool) -> str:
    cases = {row.case_id for row in rows}
    seen = {row.case_id for row in rows if row.trained_on_this_case}
    count = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    what = "all classes together, " if several else ""
    return f"{what}{count}, {len(seen) or 'none'} of them trained on (without labels), region {region}"


def _lost(aggregates: Sequence[Mapping[str, Any]], method: str) -> list[str]:
    """A line for each rival of the same run that has the higher mean Dice over all foreground."""
    means = {entry["method"]: entry["spreads"]["dice"]["mean"] for entry in aggregates if entry["structure"] == UNION}
    own = means.get(method)
    direct = {name for names in DIRECT_METHODS.values() for name in names}
    known = (*(name for name in METHODS if name not in OWN_CLASSES), *sorted(direct))  # those saw labels or clicks
    rivals = [name for name in known if name != method and None not in (own, means.get(name)) and means[name] > own]
    return [f"{name} has the higher mean Dice here ({means[name]:.3f})" for name in rivals]


def require_region(region: str) -> None:
    """Check the name of a region before long work.

    Raises:
        MedsegError: there is no such region.
    """
    if region not in _REGIONS:
        raise MedsegError(f"--region must be one of {', '.join(_REGIONS)}, got {region}; choose one")


def _score_case(
    manifest: Mapping[str, Any],
    reference_path: Path,
    out: Path,
    originals: OriginalScans,
    region: str,
    classes: Sequence[ClassEntry],
    scheme: LabelScheme | None,
) -> Iterator[ScoreRow]:
    case = manifest["case"]
    names = {entry.value: entry.name for entry in classes}
    background = [entry.value for entry in classes if entry.background]
    picture = is_picture_result(manifest)
    truth, grid = read_label_values(reference_path, scheme)
    spacing = grid.spacing
    read = read_frames if picture else read_mask
    predicted = read(out, f"{case}_seg")
    if picture:
        require_same_size(reference_path, predicted.shape, truth.shape)
    else:
        require_same_grid(read_grid(out / f"{case}_seg.nii.gz"), grid)
    looked_at = read(out, f"{case}_region") > 0
    known = truth >= 0
    inside = looked_at & known if region == "brain" else known if not known.all() else None
    truth = np.maximum(truth, 0).astype(np.uint8)

    def rows(
        labels: np.ndarray, method: str, source: Mapping[str, Any] = {}, trained: bool | None = None
    ) -> list[ScoreRow]:
        naming, effort = source.get("named_by", "none"), Effort.from_dict(source.get("effort", {}))
        scores = score_labels(labels, truth, spacing, region=inside, names=names, background=background)
        return [
            ScoreRow(
                case, method, _in_pixels(values) if picture else values, naming, structure, region, trained, effort
            )
            for structure, values in scores.items()
        ]

    # The rules that everybody can have for free find vessels.
    of_vessels = manifest["facts"].get("modality") not in SEEN
    image = _image_of(manifest, originals) if of_vessels and not picture else None
    if image is not None:
        for name, baseline in BASELINES.items():
            yield from rows(baseline(image, looked_at, spacing).astype(np.uint8), name)
    trained = manifest["trained_on_this_case"]
    for method in manifest.get("compared", ()):
        source = _source_of_compared(manifest, method)
        yield from rows(read(out, f"comparison/{case}_{method}"), method, source, trained)
    yield from rows(predicted, manifest["method"], manifest, trained)


def _source_of_compared(manifest: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    """Who named a compared method's classes, and the effort; results of older versions say it of the main one only."""
    if method in (sources := manifest.get("compared_sources", {})):
        return sources[method]
    return {"named_by": "training_labels" if method == "linear" else manifest["named_by"]}


def _in_pixels(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of a picture: lengths are in pixels, and it has no volume."""
    words = {"hd95_mm": "hd95_px", "centreline_mm": "centreline_px"}
    return {words.get(name, name): value for name, value in scores.items() if name != "volume_difference_ml"}


def _image_of(manifest: Mapping[str, Any], originals: OriginalScans) -> np.ndarray | None:
    """The grey values for the baselines; without them a line says that their rows are missing."""
    case = originals.find(manifest)
    if case is None:
        _log.warning(
            "%s: no scan with the content of %s is in %s, so the baseline rows are left out; name the scans with "
            "--scans",
            manifest["case"],
            manifest["source"],
            originals.place or "a place that is known",
        )
        return None
    return read_values(case.image, case.pick)[0]
