"""Exports of a result folder: every source format into every target, and what happens to bad cases."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK
import slicerio
import trimesh
from monai.data import load_decathlon_datalist
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from review.exports.painted import CLASSES, GRIDS, SHEARED, labels, write_scan

from medseg.errors import MedsegError
from medseg.files import CannotWriteError, hash_file
from medseg.naming.classes import ClassEntry, Naming, write_classes
from medseg.review.exports import TARGETS
from medseg.scans.arrays import read_grid
from medseg.scans.folders import find_cases
from medseg.scans.listings import read_datalist
from medseg.scans.masks import write_labels
from medseg.scans.picture_masks import write_index_png
from medseg.scans.sources import hash_scan
from medseg.scans.stacks import write_stack
from medseg.workflows.exporting import export_results

SCANS = {
    "P1_tof": ("P1/tof.nii.gz", "oblique"),
    "P2_tof": ("P2/tof.mha", "LAS"),
    "P3_tof": ("P3/tof.nrrd", "anisotropic"),
}
OF_VOLUMES = [target for target in TARGETS if target != "dicom-seg"]


def _manifest(out: Path, case: str, source: Path, scans: Path, **more: Any) -> None:
    content = {
        "case": case,
        "source": source.relative_to(scans).as_posix(),
        "source_sha256": hash_file(source),
        "pick": {},
        "method": "stego",
        "named_by": "rules",
        "ml": {"vessel": 1.0},
        "facts": {"modality": "tof"},
        "trained_on_this_case": False,
        "run_hash": "0",
        "seconds": 1,
        "peak_memory_mb": 1,
        "files": {},
    }
    (out / f"{case}_manifest.json").write_text(json.dumps({**content, **more}))


def _shared(out: Path, scans: Path, classes: tuple[ClassEntry, ...] = CLASSES) -> None:
    write_classes(out / "classes.yaml", Naming(classes, "rules"))
    (out / "summary.json").write_text(json.dumps({"scans": str(scans)}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A result folder with three volumes that came in three formats."""
    scans, out = tmp_path / "scans", tmp_path / "out"
    out.mkdir()
    for case, (name, grid) in SCANS.items():
        first = write_scan(scans / name if name.endswith(".nii.gz") else tmp_path / f"{case}.nii.gz", GRIDS[grid])
        if first.parent == tmp_path:
            (scans / name).parent.mkdir()
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(first)), str(scans / name))
        write_labels(out / f"{case}_seg.nii.gz", labels(), source=scans / name)
        _manifest(out, case, scans / name, scans)
    _shared(out, scans)
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A result folder with a coloured photograph and a grey cine of two frames."""
    scans, out = tmp_path / "photos", tmp_path / "photo_out"
    scans.mkdir()
    out.mkdir()
    picture = np.zeros((8, 6, 3), np.uint8)
    picture[2, 1] = (255, 0, 51)
    Image.fromarray(picture).save(scans / "meadow.png")
    found = np.zeros((8, 6), np.uint8)
    found[2, 1] = 4
    write_index_png(out / "meadow_seg.png", found, {4: "#3cb44b"})
    _manifest(out, "meadow", scans / "meadow.png", scans, share={"x": 0.1}, ml={})
    pages = [Image.fromarray(np.full((8, 6), grey, np.uint8)) for grey in (51, 102)]
    pages[0].save(scans / "cine.tif", save_all=True, append_images=pages[1:])
    frames = np.stack([found, np.where(found > 0, 0, 1).astype(np.uint8)], axis=2)
    write_stack(out / "cine_seg.nii.gz", frames)
    _manifest(out, "cine", scans / "cine.tif", scans, share={"x": 0.1}, ml={})
    _shared(out, scans)
    return out


def _place(path: Path, index: tuple[float, float, float]) -> np.ndarray:
    """Position (RAS, mm) of a voxel by an independent reader."""
    image = SimpleITK.ReadImage(str(path))
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index)) * (-1, -1, 1)


def test_every_source_format_leaves_in_every_target(results: Path) -> None:
    answer = export_results(results, OF_VOLUMES)
    assert answer["failed"] == {}
    assert all(Path(name).is_file() for name in answer["files"])
    assert sum("3 of 3 cases" in line for line in answer["lines"]) == len(OF_VOLUMES)
    for case, (_, grid) in SCANS.items():
        where = (GRIDS[grid] @ (6, 5, 3, 1))[:3]
        export = results / "export"
        for path in (
            export / "nifti" / f"{case}_seg.nii.gz",
            export / "slicer" / f"{case}.seg.nrrd",
            export / "bids" / f"sub-{case.replace('_', '')}/anat/sub-{case.replace('_', '')}_desc-medseg_dseg.nii.gz",
            export / "nnunet/Dataset501_medseg/labelsTr" / f"{case}.nii.gz",
            export / "nnunet/Dataset501_medseg/imagesTr" / f"{case}_0000.nii.gz",
            export / "monai/labels" / f"{case}.nii.gz",
        ):
            assert np.allclose(_place(path, (6, 5, 3)), where, atol=1e-4), path
        assert np.array_equal(slicerio.read_segmentation(str(export / f"slicer/{case}.seg.nrrd"))["voxels"], labels())
        mesh = trimesh.load(export / "mesh" / f"{case}_4_a_mass_b.stl")
        assert np.allclose(mesh.vertices.mean(axis=0) * (-1, -1, 1), where, atol=0.02)
        voxel_mm3 = abs(np.linalg.det(GRIDS[grid][:3, :3]))
        assert mesh.volume == pytest.approx(voxel_mm3, rel=0.02)


def test_images_keep_the_values_of_their_scans(results: Path) -> None:
    export_results(results, ["nnunet"])
    for case, (name, _) in SCANS.items():
        scan = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(results.parent / "scans" / name)))
        image = nibabel.load(results / f"export/nnunet/Dataset501_medseg/imagesTr/{case}_0000.nii.gz")
        assert np.array_equal(np.asanyarray(image.dataobj), scan.T)


def _integrity(dataset: Path) -> dict[str, Any]:
    """What nnU-Net's own check of a raw data set asks for (verify_dataset_integrity), in our words."""
    content = json.loads((dataset / "dataset.json").read_text())
    assert {"labels", "channel_names", "numTraining", "file_ending"} <= content.keys()
    ending, channels = content["file_ending"], len(content["channel_names"])
    images = sorted(path.name.removesuffix(f"_0000{ending}") for path in (dataset / "imagesTr").iterdir())
    masks = sorted(path.name.removesuffix(ending) for path in (dataset / "labelsTr").iterdir())
    assert images == masks
    assert len(images) == content["numTraining"]
    values = sorted(content["labels"].values())
    assert values == list(range(len(values)))
    assert content["labels"]["background"] == 0
    for case in images:
        pair = dataset / f"imagesTr/{case}_0000{ending}", dataset / f"labelsTr/{case}{ending}"
        if ending == ".png":
            image, mask = (np.asarray(Image.open(path)) for path in pair)
            assert image.shape[:2] == mask.shape
            assert (1 if image.ndim == 2 else image.shape[2]) == channels
        else:
            assert channels == 1
            image, mask = (SimpleITK.ReadImage(str(path)) for path in pair)
            for fact in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                assert np.allclose(getattr(image, fact)(), getattr(mask, fact)()), fact
            assert np.isfinite(SimpleITK.GetArrayViewFromImage(image)).all()
            mask = SimpleITK.GetArrayFromImage(mask)
        assert set(np.unique(mask).tolist()) <= set(values)
    return content


def test_data_set_of_nnunet_is_whole(results: Path, tmp_path: Path) -> None:
    answer = export_results(results, ["nnunet"], into=tmp_path / "raw", dataset_id=7)
    content = _integrity(tmp_path / "raw/Dataset007_medseg")
    assert content["numTraining"] == 3
    assert content["channel_names"] == {"0": "tof"}
    assert any("no reviewer has accepted" in line for line in answer["lines"])
    assert "not reviewed" in content["description"]


def _accepted(
    results: Path, *cases: str, folder: str = "accepted", change: Callable[[np.ndarray], None] | None = None
) -> Path:
    for case in cases:
        values = labels()
        if change:
            change(values)
        write_labels(
            results.parent / folder / f"{case}_label.nii.gz", values, source=results.parent / "scans" / SCANS[case][0]
        )
    return results.parent / folder


def test_accepted_masks_train_and_other_cases_are_for_testing(results: Path) -> None:
    def correct(values: np.ndarray) -> None:
        values[0, 0, 0] = 4

    given = _accepted(results, "P2_tof", change=correct)
    answer = export_results(results, ["nnunet", "monai", "slicer"], labels=given)
    assert answer["failed"] == {}
    dataset = results / "export/nnunet/Dataset501_medseg"
    content = _integrity(dataset)
    assert content["numTraining"] == 1
    assert "accepted by a reviewer" in content["description"]
    assert sorted(path.name for path in (dataset / "imagesTs").iterdir()) == [
        "P1_tof_0000.nii.gz",
        "P3_tof_0000.nii.gz",
    ]
    assert np.asanyarray(nibabel.load(dataset / "labelsTr/P2_tof.nii.gz").dataobj)[0, 0, 0] == 2
    datalist = json.loads((results / "export/monai/datalist.json").read_text())
    assert [len(datalist[section]) for section in ("training", "testing")] == [1, 2]
    assert slicerio.read_segmentation(str(results / "export/slicer/P2_tof.seg.nrrd"))["voxels"][0, 0, 0] == 4
    assert any("2 without an accepted mask" in line for line in answer["lines"])


def test_second_export_leaves_nothing_of_the_first(results: Path) -> None:
    export_results(results, ["nnunet"])
    export_results(results, ["nnunet"], labels=_accepted(results, "P1_tof"))
    assert _integrity(results / "export/nnunet/Dataset501_medseg")["numTraining"] == 1


def test_datalist_is_read_by_monai_and_by_medseg(results: Path) -> None:
    export_results(results, ["monai"])
    path = results / "export/monai/datalist.json"
    loaded = load_decathlon_datalist(path, True, "training")
    assert len(loaded) == 3
    assert all(Path(entry[key]).is_file() for entry in loaded for key in ("image", "label"))
    drafts, notes = read_datalist(path)
    assert (len(drafts), notes) == (3, [])
    listing = find_cases(path)
    assert [case.case_id for case in listing.cases] == list(SCANS)
    assert list(listing.labels) == list(SCANS)
    assert len({case.patient for case in listing.cases}) == 3
    assert find_cases(results.parent / "scans").labels == {}


def test_exports_are_no_scans_of_the_folder_around_them(results: Path) -> None:
    inside = results.parent / "scans/out"
    results.rename(inside)
    export_results(inside, ["nnunet", "nifti"], scans=results.parent / "scans")
    listing = find_cases(results.parent / "scans")
    assert [case.case_id for case in listing.cases] == list(SCANS)
    assert listing.labels == {}


def test_given_splits_stay_and_patients_have_numbers(results: Path) -> None:
    scans = results.parent / "scans"
    rows = "case,patient,image\nP1_tof,Doe,P1/tof.nii.gz\nP2_tof,Doe,P2/tof.mha\nP3_tof,Roe,P3/tof.nrrd\n"
    (scans / "cases.csv").write_text(rows)
    export_results(results, ["monai"], scans=scans / "cases.csv")
    text = (results / "export/monai/datalist.json").read_text()
    assert [entry["patient"] for entry in json.loads(text)["training"]] == ["patient 1", "patient 1", "patient 2"]
    assert "Doe" not in text


def test_no_export_carries_what_the_header_of_the_scan_says(results: Path) -> None:
    for name in export_results(results, OF_VOLUMES)["files"]:
        content = Path(name).read_bytes()
        assert b"Doe" not in (gzip.decompress(content) if name.endswith(".gz") else content), name


def test_bad_case_is_one_line_and_the_others_go_on(results: Path) -> None:
    (results / "P2_tof_seg.nii.gz").write_bytes(b"broken")
    (results.parent / "scans/P3/tof.nrrd").unlink()
    answer = export_results(results, [*OF_VOLUMES, "dicom-seg"])
    assert set(answer["failed"]) >= {f"P2_tof ({target})" for target in TARGETS}
    assert {name for name in answer["failed"] if name.startswith("P3")} == {
        f"P3_tof ({target})" for target in ("nnunet", "monai", "dicom-seg")
    }
    assert "name the scans with --scans" in answer["failed"]["P3_tof (nnunet)"]
    assert "P1_tof (dicom-seg)" in answer["failed"]
    assert {name for name in answer["failed"] if name.startswith("P1")} == {"P1_tof (dicom-seg)"}
    assert all("\n" not in line for line in answer["failed"].values())
    assert _integrity(results / "export/nnunet/Dataset501_medseg")["numTraining"] == 1
    assert (results / "export/slicer/P3_tof.seg.nrrd").is_file()


def test_scan_that_has_changed_trains_nobody(results: Path) -> None:
    write_scan(results.parent / "scans/P1/tof.nii.gz", GRIDS["LAS"])
    answer = export_results(results, ["nnunet"])
    assert "got none with that content" in answer["failed"]["P1_tof"]
    assert _integrity(results / "export/nnunet/Dataset501_medseg")["numTraining"] == 2


def test_scan_is_found_by_its_content_when_cases_have_pseudonyms(results: Path) -> None:
    for kind in ("seg.nii.gz", "manifest.json"):
        (results / f"P1_tof_{kind}").rename(results / f"k7q2_{kind}")
    manifest = json.loads((results / "k7q2_manifest.json").read_text())
    (results / "k7q2_manifest.json").write_text(json.dumps({**manifest, "case": "k7q2", "source": "k7q2.nii.gz"}))
    answer = export_results(results, ["nnunet", "bids"])
    assert answer["failed"] == {}
    assert (results / "export/nnunet/Dataset501_medseg/imagesTr/k7q2_0000.nii.gz").is_file()
    assert (results / "export/bids/sub-k7q2").is_dir()


def test_mask_of_a_reviewer_must_lie_on_the_grid_and_hold_classes(results: Path) -> None:
    given = _accepted(results, "P1_tof", "P3_tof", change=lambda values: values.__setitem__((0, 0, 0), 9))
    write_labels(given / "P2_tof_label.nii.gz", labels(), source=results.parent / "scans/P1/tof.nii.gz")
    failed = export_results(results, ["nifti"], labels=given)["failed"]
    assert "must lie on the grid" in failed["P2_tof"]
    assert "must hold classes only, got 9" in failed["P1_tof"]


def test_masks_of_two_reviewers_are_not_chosen_from(results: Path) -> None:
    _accepted(results, "P1_tof", folder="reviewers/ann")
    _accepted(results, "P1_tof", "P2_tof", folder="reviewers/ben")
    failed = export_results(results, ["nifti"], labels=results.parent / "reviewers")["failed"]
    assert list(failed) == ["P1_tof"]
    assert failed["P1_tof"].endswith("ben/P1_tof_label.nii.gz; give the folder of one reviewer")


def test_case_names_that_bids_cannot_tell_apart(results: Path) -> None:
    for kind in ("seg.nii.gz", "manifest.json"):
        (results / f"P2_tof_{kind}").rename(results / f"p1-TOF_{kind}")
    manifest = json.loads((results / "p1-TOF_manifest.json").read_text())
    (results / "p1-TOF_manifest.json").write_text(json.dumps({**manifest, "case": "p1-TOF"}))
    answer = export_results(results, ["bids"])
    assert answer["failed"] == {
        "p1-TOF": "p1-TOF must have a BIDS name of its own, got sub-p1TOF as P1_tof has; rename one"
    }


def test_sheared_scan_is_said_for_slicer_and_refused_for_nnunet(results: Path) -> None:
    scan = write_scan(results.parent / "scans/P1/tof.nii.gz", SHEARED)
    write_labels(results / "P1_tof_seg.nii.gz", labels(), source=scan)
    _manifest(results, "P1_tof", scan, results.parent / "scans")
    answer = export_results(results, ["slicer", "nnunet"])
    assert any("P1_tof lies on a sheared grid" in line for line in answer["lines"])
    assert "square axes" in answer["failed"]["P1_tof (nnunet)"]


def test_pictures_become_png_for_training(pictures: Path) -> None:
    answer = export_results(pictures, ["nnunet", "monai", "slicer", "nifti"])
    assert answer["failed"] == {}
    content = _integrity(pictures / "export/nnunet/Dataset501_medseg")
    assert content["file_ending"] == ".png"
    assert content["numTraining"] == 3
    assert list(content["channel_names"].values()) == ["red", "green", "blue"]
    images = pictures / "export/nnunet/Dataset501_medseg/imagesTr"
    assert np.asarray(Image.open(images / "meadow_0000.png"))[2, 1].tolist() == [255, 0, 51]
    assert np.asarray(Image.open(images / "cine_frame0002_0000.png"))[0, 0].tolist() == [102] * 3
    mask = np.asarray(Image.open(pictures / "export/nnunet/Dataset501_medseg/labelsTr/meadow.png"))
    assert (mask[2, 1], mask.sum()) == (2, 2)
    assert len(load_decathlon_datalist(pictures / "export/monai/datalist.json", True, "training")) == 3
    found = slicerio.read_segmentation(str(pictures / "export/slicer/meadow.seg.nrrd"))
    assert found["voxels"].shape == (6, 8, 1)
    assert found["voxels"][1, 5, 0] == 4  # third row from the top


def test_grey_pictures_have_one_channel(pictures: Path) -> None:
    (pictures / "meadow_manifest.json").unlink()
    export_results(pictures, ["nnunet"])
    assert list(_integrity(pictures / "export/nnunet/Dataset501_medseg")["channel_names"]) == ["0"]


def test_pictures_are_refused_where_they_have_no_place(pictures: Path) -> None:
    answer = export_results(pictures, ["mesh", "bids"])
    assert "got a picture" in answer["failed"]["meadow (mesh)"]
    assert "got none that can be exported" in answer["failed"]["bids"]
    assert not (pictures / "export/bids").exists()


def test_names_burnt_in_beside_an_ultrasound_do_not_leave(pictures: Path) -> None:
    path = pictures / "cine_manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "facts": {"sectors": [None, None]}}))
    export_results(pictures, ["monai"])
    shown = np.asarray(Image.open(pictures / "export/monai/images/cine_frame0001.png"))
    assert shown.max() == 0  # no sector was found, so nothing is known to be free of names


def test_picture_beside_volumes_is_refused(results: Path, pictures: Path) -> None:
    for path in pictures.glob("meadow*"):
        path.rename(results / path.name)
    scans = results.parent / "scans"
    answer = export_results(results, ["nnunet"], scans=scans)
    assert "must be a volume like other cases here" in answer["failed"]["meadow"]
    assert _integrity(results / "export/nnunet/Dataset501_medseg")["numTraining"] == 3


def _write_series(folder: Path, affine: np.ndarray, values: np.ndarray) -> list[Path]:
    """The slices of an MR series on a grid (RAS), in files without extension whose order says nothing."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, place = generate_uid(), generate_uid(), generate_uid()
    folder.mkdir(parents=True)
    for k in range(values.shape[2]):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, place
        image.Modality, image.SeriesNumber, image.InstanceNumber = "MR", 3, k + 1
        image.PatientName, image.PatientID, image.PatientBirthDate = "Doe^Jane", "4711", "19700101"
        image.PatientSex = image.StudyDate = image.StudyTime = image.StudyID = image.AccessionNumber = ""
        image.Rows, image.Columns = values.shape[1], values.shape[0]
        image.PixelSpacing = [f"{spacing[1]:.6g}", f"{spacing[0]:.6g}"]
        image.SliceThickness = f"{spacing[2]:.6g}"
        image.ImageOrientationPatient = [f"{part:.10f}" for axis in (0, 1) for part in lps[:3, axis] / spacing[axis]]
        image.ImagePositionPatient = [f"{part:.8f}" for part in (lps @ (0, 0, k, 1))[:3]]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        image.PixelData = values[:, :, k].astype("<u2").tobytes(order="F")
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(folder / f"{(3 * k) % 5}", enforce_file_format=True)
    return sorted(folder.iterdir())


def test_dicom_series_leaves_in_every_target_at_one_place(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    values = np.random.default_rng(1).integers(0, 900, labels().shape)
    slices = _write_series(scans / "series", GRIDS["oblique"], values)
    (case,) = find_cases(scans).cases
    grid = read_grid(case.image)
    index = np.round(np.linalg.solve(grid.affine, GRIDS["oblique"] @ (6, 5, 3, 1))).astype(int)[:3]
    moved = np.round(np.linalg.solve(GRIDS["oblique"], grid.affine), 4)  # the reader may turn the slices round
    found = np.zeros(grid.shape, np.uint8)
    for voxel in np.ndindex(*grid.shape):
        found[voxel] = labels()[tuple(np.round(moved @ (*voxel, 1)).astype(int)[:3])]
    assert found[tuple(index)] == 4
    write_labels(out / f"{case.case_id}_seg.nii.gz", found, source=case.image)
    _manifest(out, case.case_id, slices[0], scans, source_sha256=hash_scan(case.image))
    _shared(out, scans)
    answer = export_results(out, TARGETS)
    assert answer["failed"] == {}
    where = (GRIDS["oblique"] @ (6, 5, 3, 1))[:3]
    dataset = out / "export/nnunet/Dataset501_medseg"
    _integrity(dataset)
    place = tuple(map(float, index))
    for path in (
        out / f"export/slicer/{case.case_id}.seg.nrrd",
        out / f"export/nifti/{case.case_id}_seg.nii.gz",
        dataset / f"labelsTr/{case.case_id}.nii.gz",
    ):
        assert np.allclose(_place(path, place), where, atol=1e-3), path
    image = nibabel.load(dataset / f"imagesTr/{case.case_id}_0000.nii.gz")
    assert image.get_fdata()[tuple(index)] == values[6, 5, 3]
    segments = highdicom.seg.segread(out / f"export/dicom-seg/{case.case_id}_seg.dcm")
    volume = segments.get_volume(combine_segments=False)
    number = next(
        n for n in segments.segment_numbers if segments.get_segment_description(n).segment_label == CLASSES[1].name
    )
    ((i, j, k),) = np.argwhere(volume.array[..., number - 1])
    assert np.allclose((volume.affine @ (i, j, k, 1))[:3] * (-1, -1, 1), where, atol=1e-3)
    for name in answer["files"]:
        content = Path(name).read_bytes()
        assert b"Doe" not in (gzip.decompress(content) if name.endswith(".gz") else content), name


def test_where_files_go(results: Path, tmp_path: Path) -> None:
    export_results(results, ["slicer"], into=tmp_path / "one")
    assert (tmp_path / "one/P1_tof.seg.nrrd").is_file()
    answer = export_results(results, ["slicer", "nifti", "slicer"], into=tmp_path / "two")
    assert (tmp_path / "two/slicer/P1_tof.seg.nrrd").is_file()
    assert len(answer["files"]) == len(set(answer["files"])) == 3 + 3 + 2


def test_what_cannot_be_exported_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="--to must be one of nifti, slicer"):
        export_results(results, ["nifti", "pdf"])
    with pytest.raises(MedsegError, match="--to must name a target"):
        export_results(results, [])
    with pytest.raises(MedsegError, match="must be a result folder with manifests"):
        export_results(tmp_path / "scans", ["nifti"])
    with pytest.raises(MedsegError, match="--scans must be a folder"):
        export_results(results, ["nnunet"], scans=tmp_path / "none")
    (tmp_path / "others").mkdir()
    write_labels(tmp_path / "others/x_label.nii.gz", labels(), source=tmp_path / "scans/P1/tof.nii.gz")
    failed = export_results(results, ["nnunet"], labels=tmp_path / "others")["failed"]
    assert "--labels must hold an accepted mask" in failed["nnunet"]
    assert not (results / "export/nnunet").exists() or not list((results / "export/nnunet").iterdir())


def test_full_disk_ends_the_export_and_leaves_the_last_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_results(results, ["nnunet"])
    before = _integrity(results / "export/nnunet/Dataset501_medseg")

    def fail(*_: object, **__: object) -> None:
        raise CannotWriteError("x must be writable, got No space left on device; free space")

    monkeypatch.setattr("medseg.workflows.exporting.write_labels_of", fail)
    with pytest.raises(CannotWriteError):
        export_results(results, ["nnunet"])
    assert _integrity(results / "export/nnunet/Dataset501_medseg") == before
    assert [path.name for path in (results / "export/nnunet").iterdir()] == ["Dataset501_medseg"]
