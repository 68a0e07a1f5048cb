import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.naming.annotations import cells_along, slice_axis
from medseg.naming.classes import read_classes
from medseg.naming.effort import Effort
from medseg.naming.rough_masks import NO_VESSEL, UNKNOWN, VESSEL
from medseg.phantoms.vessels import write_phantoms
from medseg.scans.arrays import read_grid
from medseg.scans.folders import find_cases
from medseg.scans.grids import spread_slices
from medseg.workflows.annotating import annotation_page, collect_annotations
from medseg.workflows.rough_labels import effort_of_annotations, file_values, read_rough_labels, rough_label_files

SHAPE = (64, 60, 48)
CELL = 8


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, cases=2, seed=5, shape=SHAPE, spacing=(0.7, 0.7, 0.8))
    return folder


def ticks(scans: Path, case: str, indices: list[int], **more: object) -> dict:
    """What an annotator says who ticks exactly the cells that hold a vessel."""
    scan = scans / f"{case}_img.nii.gz"
    image = nibabel.load(scan)
    label = np.asarray(nibabel.load(scans / f"{case}_label.nii.gz").dataobj) > 0
    axis = slice_axis(image.affine)
    slices = []
    for index in indices:
        found = {tuple(int(n) // CELL for n in voxel) for voxel in np.argwhere(label.take(index, axis))}
        slices.append({"index": index, "ticked": [list(place) for place in sorted(found)], "seen": True})
    entry = {
        "case": case,
        "source_sha256": hash_file(scan),
        "shape": list(image.shape),
        "affine": image.affine.tolist(),
        "plane": "axial",
        "cell": CELL,
        "slices": slices,
        "seconds": 30.0,
        "annotator": "Ada",
        "time": "2026-11-30T12:00:00Z",
    }
    return entry | more


def save(folder: Path, *entries: dict, name: str = "medseg_annotation.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"schema": "medseg-annotation/1", "annotations": list(entries)}))
    return folder


def test_the_page_holds_the_slices_of_every_case(scans, tmp_path):
    answer = annotation_page(scans, tmp_path / "out", cell=CELL, slices=2, modality="tof")
    assert answer["cases"] == ["phantom_001", "phantom_002"] and not answer["failed"]
    assert "4 slices of 2 cases" in answer["lines"][0]
    text = Path(answer["file"]).read_text(encoding="utf-8")
    assert hash_file(scans / "phantom_001_img.nii.gz") in text and str(scans) not in text
    assert "label" not in json.dumps(json.loads(text.split('id="medseg-data">')[1].split("</script>")[0])["cases"][0])


def test_the_page_does_not_depend_on_labels(scans, tmp_path):
    for name in ("img", "mask"):
        for case in ("phantom_001", "phantom_002"):
            (tmp_path / f"{case}_{name}.nii.gz").write_bytes((scans / f"{case}_{name}.nii.gz").read_bytes())
    pages = [annotation_page(place, tmp_path / name)["file"] for place, name in ((scans, "a"), (tmp_path, "b"))]
    first, second = (
        json.loads(Path(page).read_text().split('id="medseg-data">')[1].split("</script>")[0]) for page in pages
    )
    assert first["cases"] == second["cases"] and first["cases"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cell": 3}, "--cell must be 4 to 128"),
        ({"slices": 0}, "--slices must be at least 1"),
        ({"max_mb": 0.01}, "MB"),
        ({"modality": "liver_ultrasound"}, "--modality must be tof, ce_mra or cta, got liver_ultrasound"),
    ],
)
def test_a_setting_out_of_range_is_one_line(scans, tmp_path, settings, said):
    with pytest.raises(MedsegError, match=said):
        annotation_page(scans, tmp_path / "out", **settings)


def test_a_scan_that_cannot_be_read_is_left_out(scans, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "good.nii.gz").write_bytes((scans / "phantom_001_img.nii.gz").read_bytes())
    (given / "bad.nii.gz").write_bytes(b"no scan")
    answer = annotation_page(given, tmp_path / "out")
    assert answer["cases"] == ["good"] and list(answer["failed"]) == ["bad"]


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_rough_masks_lie_on_the_scans(scans, tmp_path, method):
    indices = spread_slices(SHAPE[2], 3)
    entries = [ticks(scans, case, indices) for case in ("phantom_001", "phantom_002")]
    answer = collect_annotations(save(tmp_path / "downloads", *entries), scans, tmp_path / "out", method=method)
    cells = sum(len(part["ticked"]) for entry in entries for part in entry["slices"])
    assert not answer["failed"]
    assert f": 2, from {cells} ticked cells, 1.0 min; slices judged: 6" in answer["lines"][-1]
    for case in ("phantom_001", "phantom_002"):
        scan, label = (nibabel.load(scans / f"{case}_{kind}.nii.gz") for kind in ("img", "label"))
        rough = nibabel.load(tmp_path / f"out/{case}_rough.nii.gz")
        assert (rough.affine == scan.affine).all() and rough.get_data_dtype() == np.uint8
        values, truth = np.asarray(rough.dataobj), np.asarray(label.dataobj) > 0
        unseen = np.setdiff1d(np.arange(SHAPE[2]), indices)
        assert (values[:, :, unseen] == 0).all()
        found, true = values[:, :, indices] == 1, truth[:, :, indices]
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.75
        rows, columns = cells_along(SHAPE, 2, CELL)
        assert 0 < answer["cases"][case]["effort"]["counts"]["cells"] < 0.5 * 3 * rows * columns
    classes = read_classes(tmp_path / "out/classes.yaml").classes
    assert [(entry.value, entry.name, entry.background) for entry in classes] == [
        (1, "vessel", False),
        (2, "no vessel", True),
    ]
    assert "0 is unknown" in (tmp_path / "out/classes.yaml").read_text()
    record = json.loads((tmp_path / "out/annotations.json").read_text())
    assert record["effort"] == {"counts": {"cells": cells}, "minutes": 1.0}
    assert record["cases"]["phantom_001"]["effort"]["minutes"] == 0.5 and record["annotations"][0]["annotator"] == "Ada"


def test_what_was_collected_is_read_back(scans, tmp_path):
    entries = [ticks(scans, "phantom_001", [20]), ticks(scans, "phantom_002", [10, 20], seconds=45)]
    collect_annotations(save(tmp_path / "downloads", *entries), scans, tmp_path / "out")
    one, two = (sum(len(part["ticked"]) for part in entry["slices"]) for entry in entries)
    assert effort_of_annotations(tmp_path / "out") == Effort({"cells": one + two}, 1.25)
    assert effort_of_annotations(tmp_path / "out", ["phantom_002"]) == Effort({"cells": two}, 0.75)
    files = rough_label_files(tmp_path / "out")
    assert list(files) == ["phantom_001", "phantom_002"]
    grid = read_grid(scans / "phantom_001_img.nii.gz")
    labels = read_rough_labels(files["phantom_001"], grid)
    stored = np.asarray(nibabel.load(files["phantom_001"]).dataobj)
    assert labels.dtype == np.int8
    for stored_value, value in ((0, UNKNOWN), (1, VESSEL), (2, NO_VESSEL)):
        assert ((labels == value) == (stored == stored_value)).all() and (labels == value).any()
    assert (file_values(labels) == stored).all()
    (tmp_path / "out/phantom_002_rough.nii.gz").unlink()
    with pytest.raises(MedsegError, match=r"phantom_002_rough\.nii\.gz must be a rough mask, got no such file"):
        rough_label_files(tmp_path / "out")


def test_what_is_no_rough_mask_is_one_line(scans, tmp_path):
    scan, label = (scans / f"phantom_001_{kind}.nii.gz" for kind in ("img", "label"))
    grid = read_grid(scan)
    with pytest.raises(MedsegError, match=r"phantom_001_label\.nii\.gz must be a rough mask with 2 .*, got no 2"):
        read_rough_labels(label, grid)
    image = nibabel.load(label)
    strange = np.asarray(image.dataobj).astype(np.uint8)
    strange[:2] = 3
    nibabel.Nifti1Image(strange, image.affine).to_filename(tmp_path / "strange.nii.gz")
    with pytest.raises(MedsegError, match=r"must be a rough mask \(0 unknown, .*\), got the value 3; collect"):
        read_rough_labels(tmp_path / "strange.nii.gz", grid)
    nibabel.Nifti1Image(strange[:-1], image.affine).to_filename(tmp_path / "other.nii.gz")
    with pytest.raises(MedsegError, match="64 x 60 x 48 voxels"):
        read_rough_labels(tmp_path / "other.nii.gz", grid)
    with pytest.raises(MedsegError, match=r"must hold annotations\.json and rough masks, got none; collect"):
        effort_of_annotations(tmp_path)
    for content, said in (("[]", "a JSON object"), ('{"cases": {"a": 3}}', "mask and effort of each case")):
        (tmp_path / "annotations.json").write_text(content)
        with pytest.raises(MedsegError, match=said):
            rough_label_files(tmp_path)


def test_a_picture_is_one_line(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    Image.fromarray(values).save(tmp_path / "liver.png")
    with pytest.raises(MedsegError, match="must hold a volume that can be shown"):
        annotation_page(tmp_path, tmp_path / "out")


def test_annotating_needs_no_torch():
    code = "import sys; from medseg.workflows import annotating; print('torch' in sys.modules, 'monai' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split() == [b"False"] * 2
    )


def test_only_the_scan_and_the_ticks_count(scans, tmp_path):
    given = tmp_path / "scans"
    given.mkdir()
    for path in scans.glob("phantom_001_*.nii.gz"):
        (given / path.name).write_bytes(path.read_bytes())
    downloads = save(tmp_path / "downloads", ticks(scans, "phantom_001", [20]))
    collect_annotations(downloads, given, tmp_path / "one")
    noise = nibabel.load(given / "phantom_001_label.nii.gz")
    values = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
    nibabel.Nifti1Image(values, noise.affine, noise.header).to_filename(given / "phantom_001_label.nii.gz")
    collect_annotations(downloads, given, tmp_path / "two")
    for name in ("phantom_001_rough.nii.gz", "annotations.json", "classes.yaml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_of_several_annotations_the_last_one_counts(scans, tmp_path):
    late = ticks(scans, "phantom_001", [20], annotator="Bob", time="2026-12-01T12:00:00Z")
    folder = save(tmp_path / "downloads/below", late, name="medseg_annotation (1).json").parent
    save(folder, ticks(scans, "phantom_001", [10]))
    answer = collect_annotations(folder, scans, tmp_path / "out")
    assert "annotation of Bob counts, being later than that of Ada" in answer["lines"][0]
    assert answer["cases"]["phantom_001"]["annotator"] == "Bob"


def test_a_second_batch_is_added_to_the_first(scans, tmp_path):
    out = tmp_path / "out"
    collect_annotations(save(tmp_path / "first", ticks(scans, "phantom_001", [20])), scans, out)
    second = save(tmp_path / "second", ticks(scans, "phantom_002", [20]))
    answer = collect_annotations(second, scans, out)
    assert "collected earlier, and kept: phantom_001" in answer["lines"]
    assert list(rough_label_files(out)) == ["phantom_001", "phantom_002"]
    record = json.loads((out / "annotations.json").read_text())
    assert [entry["case"] for entry in record["annotations"]] == ["phantom_001", "phantom_002"]
    assert record["effort"]["minutes"] == 1.0 == effort_of_annotations(out).minutes
    collect_annotations(second, scans, out)  # again: nothing counts twice
    assert json.loads((out / "annotations.json").read_text()) == record


def test_rough_masks_beside_the_scans_are_no_scans(scans, tmp_path):
    given = tmp_path / "scans"
    shutil.copytree(scans, given)
    folder = save(tmp_path / "downloads", ticks(scans, "phantom_001", [20]))
    collect_annotations(folder, given, given / "ticks", patches=True)
    listing = find_cases(given)
    assert [case.case_id for case in listing.cases] == ["phantom_001", "phantom_002"]
    assert any("ticks holds results of medseg" in note for note in listing.notes)


def test_patches_are_written_on_request(scans, tmp_path):
    downloads = save(tmp_path / "downloads", ticks(scans, "phantom_001", [20]))
    answer = collect_annotations(downloads, scans, tmp_path / "out", patches=True)
    assert "64 all, 64 labelled_train" in answer["lines"][-1]
    assert len(list((tmp_path / "out/patches/gt").iterdir())) == 64


def test_each_bad_annotation_is_one_line_and_the_good_one_counts(scans, tmp_path, caplog):
    good = ticks(scans, "phantom_001", [20])
    other = ticks(scans, "phantom_002", [20])
    empty = [{"index": 20, "ticked": [], "seen": False}]
    folder = save(tmp_path / "downloads", good, other | {"slices": empty}, other | {"case": "nobody"})
    save(folder / "a", other | {"source_sha256": "00"})
    (folder / "medseg_annotation (2).json").write_text("{")
    with caplog.at_level(logging.ERROR):
        answer = collect_annotations(folder, scans, tmp_path / "out")
    assert list(answer["cases"]) == ["phantom_001"]
    lines = sorted(answer["failed"].values())
    for said in ("a ticked cell or a judged slice", "none of that name", "another scan of that name", "readable JSON"):
        assert sum(said in line for line in lines) == 1, said
    assert len(lines) == 4 and all(line.isprintable() for line in lines) and len(caplog.records) == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotations.json",
        "classes.yaml",
        "phantom_001_rough.nii.gz",
    ]


def test_a_case_without_vessels_is_background_where_it_was_judged(scans, tmp_path):
    none = ticks(scans, "phantom_002", []) | {"slices": [{"index": 20, "ticked": [], "seen": True}]}
    folder = save(tmp_path / "downloads", ticks(scans, "phantom_001", [20]), none)
    answer = collect_annotations(folder, scans, tmp_path / "out", patches=True)
    assert "phantom_002: no cell was ticked, so all judged slices (1) are background" in answer["lines"]
    path = rough_label_files(tmp_path / "out")["phantom_002"]
    labels = read_rough_labels(path, read_grid(scans / "phantom_002_img.nii.gz"))
    assert (labels[..., 20] == NO_VESSEL).all() and (np.delete(labels, 20, 2) == UNKNOWN).all()
    with pytest.raises(MedsegError, match=r"must hold at least one ticked cell, got none \(judged slices: 1\)"):
        collect_annotations(save(tmp_path / "empty", none), scans, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_scan_on_another_grid_is_one_line(scans, tmp_path):
    entry = ticks(scans, "phantom_001", [20])
    entry["affine"][0][3] += 5
    answer = collect_annotations(save(tmp_path / "downloads", entry), scans, tmp_path / "out")
    assert "shifted by" in answer["failed"]["phantom_001"] and not answer["cases"]


def test_nothing_to_collect_is_one_line(scans, tmp_path):
    with pytest.raises(MedsegError, match=r"must hold medseg_annotation\.json, got none"):
        collect_annotations(tmp_path, scans, tmp_path / "out")
    with pytest.raises(MedsegError, match="--method must be one of kmeans, mixture, got otsu"):
        collect_annotations(tmp_path, scans, tmp_path / "out", method="otsu")
