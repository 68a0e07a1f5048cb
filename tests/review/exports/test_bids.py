"""Names and sidecars of BIDS derivatives."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from review.exports.painted import CLASSES, GRIDS, VESSEL, labels, mask

from medseg.errors import MedsegError
from medseg.review.exports.bids import bids_name, write_bids, write_bids_description


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sub-01/anat/sub-01_angio.nii.gz", "sub-01/anat/sub-01_desc-medseg_dseg.nii.gz"),
        (
            "sub-A2/ses-pre/angio/sub-A2_ses-pre_acq-tof_run-1_angio.nii.gz",
            "sub-A2/ses-pre/angio/sub-A2_ses-pre_acq-tof_run-1_desc-medseg_dseg.nii.gz",
        ),
        ("sub-01_acq-tof.nii.gz", "sub-01/anat/sub-01_acq-tof_desc-medseg_dseg.nii.gz"),
        ("x/sub-01_desc-preproc_angio.nii.gz", "sub-01/anat/sub-01_desc-medseg_dseg.nii.gz"),
        ("P1/tof.nii.gz", "sub-P1tof/anat/sub-P1tof_desc-medseg_dseg.nii.gz"),
        ("sub-0_1 x.nii.gz", "sub-P1tof/anat/sub-P1tof_desc-medseg_dseg.nii.gz"),
    ],
)
def test_entities_come_from_the_source_else_from_the_case(source: str, expected: str) -> None:
    assert str(bids_name(source, "P1_tof").file("dseg", ".nii.gz")) == expected


def test_name_without_letters_is_refused() -> None:
    with pytest.raises(MedsegError, match="must have letters or digits"):
        bids_name("x.nii.gz", "--")


@pytest.mark.parametrize("grid", GRIDS)
def test_mask_and_sidecar(tmp_path: Path, grid: str) -> None:
    whole = mask(tmp_path, GRIDS[grid], source="sub-01/anat/sub-01_a b.nii.gz")
    write_bids(tmp_path / "bids", whole, bids_name("sub-01/anat/sub-01_angio.nii.gz", "x"), probabilities=None)
    written = nibabel.load(tmp_path / "bids/sub-01/anat/sub-01_desc-medseg_dseg.nii.gz")
    assert np.array_equal(np.asanyarray(written.dataobj), labels())
    assert np.allclose(written.affine, GRIDS[grid], atol=1e-5)
    sidecar = json.loads((tmp_path / "bids/sub-01/anat/sub-01_desc-medseg_dseg.json").read_text())
    assert sidecar == {
        "Sources": ["bids:raw:sub-01/anat/sub-01_a%20b.nii.gz"],
        "SpatialReference": "orig",
        "Manual": False,
    }


def test_probabilities_list_their_classes(tmp_path: Path) -> None:
    maps = tmp_path / "prob.nii.gz"
    maps.write_bytes(b"map")
    write_bids(tmp_path / "bids", mask(tmp_path, GRIDS["LAS"]), bids_name("x", "x"), probabilities=maps)
    folder = tmp_path / "bids/sub-x/anat"
    assert (folder / "sub-x_desc-medseg_probseg.nii.gz").read_bytes() == b"map"
    listed = json.loads((folder / "sub-x_desc-medseg_probseg.json").read_text())["LabelMap"]
    assert listed == [entry.name for entry in CLASSES]


def test_data_set_describes_itself(tmp_path: Path) -> None:
    write_bids_description(tmp_path, CLASSES, scans="../my scans")
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "medseg"
    assert described["DatasetLinks"] == {"raw": "../my%20scans"}
    assert {"Name", "BIDSVersion", "SourceDatasets"} <= described.keys()
    rows = [row.split("\t") for row in (tmp_path / "desc-medseg_dseg.tsv").read_text().splitlines()]
    assert rows[0] == ["index", "name", "color"]
    assert rows[1] == ["1", "vessel", "#e6194b"]
    assert all(len(row) == 3 for row in rows)


def test_one_class_gives_its_name_to_the_map(tmp_path: Path) -> None:
    maps = tmp_path / "prob.nii.gz"
    maps.write_bytes(b"map")
    whole = mask(tmp_path, GRIDS["LAS"])
    alone = type(whole)(
        "x", (whole.labels == 1).astype(np.uint8), whole.grid, whole.header, (VESSEL,), "x", is_reviewed=True
    )
    write_bids(tmp_path / "bids", alone, bids_name("x", "x"), probabilities=maps)
    folder = tmp_path / "bids/sub-x/anat"
    assert (folder / "sub-x_label-vessel_desc-medseg_probseg.nii.gz").is_file()
    assert json.loads((folder / "sub-x_desc-medseg_dseg.json").read_text())["Manual"] is True


def test_picture_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must be a volume"):
        write_bids(tmp_path, mask(tmp_path, GRIDS["LAS"], is_picture=True), bids_name("x", "x"), probabilities=None)
