"""Every layout in data_templates parses, and its files are read with the real readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.scans.folders import find_cases, find_references
from medseg.scans.grids import require_same_grid
from medseg.scans.readers import grid_of, read_image, read_labels

_ROOT = Path(__file__).resolve().parents[1]
_TEMPLATES = _ROOT / "data_templates"
_LAYOUTS = {
    # source: cases, patients, brain masks, labels, given splits
    "image_folder": (3, 3, 0, 2, 3),
    "bare_images": (3, 3, 0, 0, 0),
    "side_by_side": (2, 2, 0, 2, 0),
    "cine_frames": (4, 2, 0, 0, 0),
    "datus": (3, 3, 0, 3, 3),
    "potsdam_style": (3, 3, 0, 2, 3),
    "potsdam": (3, 3, 0, 2, 3),
    "potsdam_raw": (2, 2, 0, 2, 0),
    "cocostuff": (3, 3, 0, 3, 3),
    "cityscapes": (3, 3, 0, 3, 3),
    "cropped": (3, 3, 0, 3, 3),
    "suffixes": (3, 3, 3, 3, 0),
    "patient_folders": (3, 3, 3, 3, 0),
    "bids": (3, 3, 3, 3, 0),
    "ixi": (3, 3, 0, 0, 0),
    "nnunet": (3, 3, 0, 3, 3),
    "splits": (3, 3, 0, 3, 3),
    "datalist/datalist.json": (3, 3, 0, 2, 3),
    "csv/cases.csv": (3, 2, 1, 2, 0),
}
_CLASSES = {
    # data set: layout that is said, names of the classes of sky, hill and tower
    "image_folder": ("image folder", 1, 0, 2),
    "side_by_side": ("bare folder of images", "sky", 0, "tower"),
    "datus": ("DatUS", 1, 0, 2),
    "potsdam_style": ("Potsdam-style", 1, 0, 2),
    "potsdam": ("Potsdam", "roads and cars", "trees and vegetation", "buildings and clutter"),
    "potsdam_raw": ("Potsdam-raw", "roads and cars", "trees and vegetation", "buildings and clutter"),
    "cocostuff": ("CocoStuff", "sky", "plant", "building"),
    "cityscapes": ("Cityscapes", "sky", "terrain", -1),
    "cropped": ("cropped set of cocostuff3", "sky", "plant", -1),
}
_SKY, _HILL, _TOWER = (0, 15), (11, 12), (6, 5)
"""Row and column of a pixel of each in the first picture."""


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
        for labels in (read_labels(path, listing.scheme) for path in partners):
            assert (labels > 0).any()
            require_same_grid(grid_of(image), grid_of(labels))
    if listing.labels:
        references = find_references(_TEMPLATES / source)
        assert references == dict(listing.labels)
        assert references.scheme == listing.scheme


@pytest.mark.parametrize("source", _CLASSES)
def test_classes_of_a_picture_data_set_are_read(source: str) -> None:
    layout, *expected = _CLASSES[source]
    listing = find_cases(_TEMPLATES / source)
    assert f"layout: {layout}" in listing.notes
    labels = read_labels(listing.labels[listing.cases[0].case_id], listing.scheme)[0, :, :, 0]
    names = {value: name for value, name, _ in listing.scheme.classes} if listing.scheme else {}
    found = [int(labels[pixel]) for pixel in (_SKY, _HILL, _TOWER)]
    assert [names.get(value, value) for value in found] == expected


def test_templates_are_tiny() -> None:
    assert all(path.stat().st_size < 20_000 for path in _TEMPLATES.rglob("*") if path.is_file())


def test_script_writes_the_same_templates(tmp_path: Path) -> None:
    script = _ROOT / "scripts" / "make_data_templates.py"
    subprocess.run([sys.executable, str(script), "-o", str(tmp_path)], check=True)
    written = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    there = {path.relative_to(_TEMPLATES) for path in _TEMPLATES.rglob("*") if path.is_file()}
    assert set(written) == there - {Path("README.md")}
    for name, path in written.items():
        if path.suffix in (".png", ".jpg", ".tif"):
            new, old = (np.asarray(Image.open(file), np.float64) for file in (path, _TEMPLATES / name))
            assert np.abs(new - old).mean() <= (3 if path.suffix == ".jpg" else 0)
        elif path.suffix != ".gz":  # zlib may deflate another way elsewhere
            assert path.read_bytes() == (_TEMPLATES / name).read_bytes()
