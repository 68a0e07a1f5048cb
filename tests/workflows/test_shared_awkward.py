"""The awkward volumes of the shared test data, one reconstruction a file: masks come back on the scan's own grid."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medseg.cli import run
from medseg.phantoms.vessels import write_phantoms
from medseg.scans.arrays import read_grid
from medseg.scans.grids import require_same_grid
from medseg.workflows import volumes

_DATA = Path(os.environ.get("MEDSEG_TEST_DATA", "nowhere")) / "awkward"
pytestmark = pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="MEDSEG_TEST_DATA is not set")

_EXPECTED = json.loads((_DATA / "expected.json").read_text(encoding="utf-8")) if _DATA.is_dir() else {}
_SCANS = [name for name in _EXPECTED if "label" not in name and not name.startswith("two_d_images")]
_LIKE_THE_REFERENCE = [name for name in _SCANS if _EXPECTED[name].get("same_world_content_as_reference")]
_GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z")
_GEOMETRY += ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_SMALL = ["stego.steps=3", "stego.batch=4", "stego.fit_points=300", "stego.clusters=4", "patches.per_case=8"]
_SMALL += ["patches.size=24", "prepare.brain_mask=none", "reconstruct.refine=[]"]

Reconstruct = Callable[[str], Path]


@pytest.fixture(scope="module")
def reconstruct(tmp_path_factory: pytest.TempPathFactory) -> Reconstruct:
    """Reconstructs a file of the folder once and returns the folder with the results."""
    work = tmp_path_factory.mktemp("awkward")
    write_phantoms(work / "scans", cases=1, seed=5, shape=(36, 32, 28), spacing=(0.7, 0.7, 0.8))
    changes = [part for change in _SMALL for part in ("--set", change)]
    assert (
        run(["train", "tof_mra_bank", "--scans", str(work / "scans"), "--run", str(work / "run"), "-q", *changes]) == 0
    )

    def once(name: str) -> Path:
        out = work / str(_SCANS.index(name))
        if not out.exists():
            assert run(["reconstruct", str(work / "run"), str(_DATA / name), "-o", str(out), "-q"]) == 0
        return out

    return once


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(*arguments: Any, **_: Any) -> None:
        arguments[3].parent.mkdir(exist_ok=True)
        arguments[3].touch()

    for draw in ("mip_picture", "overlay_picture"):  # drawn in tests/review; here they would take half of the time
        monkeypatch.setattr(volumes, draw, touch)


@pytest.mark.parametrize("name", _SCANS)
def test_a_mask_has_the_grid_of_its_scan_bit_for_bit(name: str, reconstruct: Reconstruct) -> None:
    (path,) = reconstruct(name).glob("*_seg.nii.gz")
    if read_grid(_DATA / name).shape != read_grid(path).shape:
        pytest.fail(f"{read_grid(path).shape}")
    if not name.lower().endswith((".nii", ".nii.gz", ".hdr")):
        require_same_grid(read_grid(_DATA / name), read_grid(path))
        return
    scan, mask = nibabel.load(_DATA / name), nibabel.load(path)
    assert mask.shape == scan.shape
    assert np.array_equal(mask.affine, scan.affine)
    for field in _GEOMETRY:
        assert np.array_equal(mask.header[field], scan.header[field], equal_nan=True), field
    assert mask.get_data_dtype() == np.uint8


@pytest.mark.parametrize("name", _LIKE_THE_REFERENCE)
def test_the_same_content_gives_the_same_probabilities_however_it_is_stored(
    name: str, reconstruct: Reconstruct
) -> None:
    found, known = (_upright_probabilities(reconstruct(which)) for which in (name, "reference.nii.gz"))
    assert known.max() - known.min() > 0.5
    assert np.abs(found - known).max() < 0.05  # stored in other steps, the values differ by their rounding


def _upright_probabilities(out: Path) -> np.ndarray:
    (path,) = out.glob("*_prob.nii.gz")
    return nibabel.as_closest_canonical(nibabel.load(path)).get_fdata().squeeze()
