"""Every layout in data_templates parses, and its files are read with the real readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medseg.scans.folders import find_cases, find_references
from medseg.scans.grids import require_same_grid
from medseg.scans.readers import grid_of, read_image, read_labels

_ROOT = Path(__file__).resolve().parents[1]
_TEMPLATES = _ROOT / "data_templates"
_LAYOUTS = {
    # source: cases, patients, brain masks, labels, given splits
    "suffixes": (3, 3, 3, 3, 0),
    "patient_folders": (3, 3, 3, 3, 0),
    "bids": (3, 3, 3, 3, 0),
    "ixi": (3, 3, 0, 0, 0),
    "nnunet": (3, 3, 0, 3, 3),
    "splits": (3, 3, 0, 3, 3),
    "datalist/datalist.json": (3, 3, 0, 2, 3),
    "csv/cases.csv": (3, 2, 1, 2, 0),
}


def test_every_layout_is_tested() -> None:
    folders = {path.name for path in _TEMPLATES.iterdir() if path.is_dir()}
    assert folders == {source.partition("/")[0] for source in _LAYOUTS}
    readme = (_TEMPLATES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{folder}/`" in readme for folder in folders)


@pytest.mark.parametrize("source", _LAYOUTS)
def test_layout_is_found_and_read(source: str) -> None:
    listing = find_cases(_TEMPLATES / source)
    cases = listing.cases
    found = (
        len(cases),
        len({case.patient for case in cases}),
        sum(case.mask is not None for case in cases),
        len(listing.labels),
        sum(case.split is not None for case in cases),
    )
    assert found == _LAYOUTS[source]
    assert not listing.problems
    for case in cases:
        image = read_image(case.image)
        partners = [path for path in (case.mask, listing.labels.get(case.case_id)) if path]
        for labels in map(read_labels, partners):
            assert labels.sum() > 0
            require_same_grid(grid_of(image), grid_of(labels))
    if listing.labels:
        assert find_references(_TEMPLATES / source) == dict(listing.labels)


def test_templates_are_tiny() -> None:
    assert all(path.stat().st_size < 20_000 for path in _TEMPLATES.rglob("*") if path.is_file())


def test_script_writes_the_same_templates(tmp_path: Path) -> None:
    script = _ROOT / "scripts" / "make_data_templates.py"
    subprocess.run([sys.executable, str(script), "-o", str(tmp_path)], check=True)
    written = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    there = {path.relative_to(_TEMPLATES) for path in _TEMPLATES.rglob("*") if path.is_file()}
    assert set(written) == there - {Path("README.md")}
    for name, path in written.items():
        if path.suffix != ".gz":  # zlib may deflate another way elsewhere
            assert path.read_bytes() == (_TEMPLATES / name).read_bytes()
