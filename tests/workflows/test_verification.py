"""`medseg verify` finds what was changed in a result folder, and is content with what was not."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from workflows.test_frames import frames, save_tiff, write

from medseg.cli import run
from medseg.errors import MedsegError
from medseg.files import hash_file
from medseg.phantoms.vessels import write_phantoms
from medseg.workflows.manifests import sealed
from medseg.workflows.verification import verify_results

ONE, TWO = "phantom_001", "phantom_002"


class Results:
    """A result folder and the scans it was made of.

    Args:
        folder: holds `scans` and `out`.
    """

    def __init__(self, folder: Path) -> None:
        self.scans, self.out = folder / "scans", folder / "out"

    def verify(self) -> dict[str, Any]:
        return verify_results(self.out, self.scans)

    def require_untouched(self) -> None:
        assert self.verify()["failed"] == {}

    def problem(self, case: str = ONE) -> str:
        """The one line about a case that is not as it was, the others being so."""
        failed = self.verify()["failed"]
        assert failed.keys() == {case}
        assert "\n" not in failed[case] and " must " in failed[case] and "; " in failed[case]
        return failed[case]

    def say_scans_are_at(self, scans: Path) -> None:
        summary = json.loads((self.out / "summary.json").read_text(encoding="utf-8"))
        (self.out / "summary.json").write_text(json.dumps(summary | {"scans": str(scans)}), encoding="utf-8")

    def mask(self, case: str = ONE) -> Path:
        return self.out / f"{case}_seg.nii.gz"

    def manifest(self, case: str = ONE) -> Path:
        return self.out / f"{case}_manifest.json"

    def edit_manifest(self, change: Callable[[dict[str, Any]], Any], *, seal: bool = False) -> None:
        manifest = json.loads(self.manifest().read_text(encoding="utf-8"))
        change(manifest)
        self.manifest().write_text(json.dumps(sealed(manifest) if seal else manifest), encoding="utf-8")

    def edit_header(self, **fields: Any) -> None:
        """Change fields of the mask's header and nothing else."""
        content = gzip.decompress(self.mask().read_bytes())
        header = nibabel.Nifti1Header(content[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        self.mask().write_bytes(gzip.compress(header.binaryblock + content[348:]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    write_phantoms(folder / "scans", cases=2, seed=5, shape=(30, 28, 24), spacing=(0.7, 0.7, 0.8))
    asked = ["--method", "flux", "--modality", "tof", "--set", "prepare.brain_mask=none", "-q"]
    assert run(["segment", str(folder / "scans"), "-o", str(folder / "out"), *asked]) == 0
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Results:
    """A copy that passes."""
    shutil.copytree(made, tmp_path / "copy")
    results = Results(tmp_path / "copy")
    results.say_scans_are_at(results.scans)
    results.require_untouched()
    return results


def test_what_was_not_touched_is_verified_in_one_line_a_case(results: Results, tmp_path: Path) -> None:
    answer = results.verify()
    assert answer["lines"] == [
        f"{ONE}: verified (mask, 5 other files, scan)",
        f"{TWO}: verified (mask, 5 other files, scan)",
        "2 of 2 cases verified",
    ]
    assert [case["case"] for case in answer["cases"]] == [ONE, TWO]
    assert verify_results(results.out)["lines"][0].endswith("scan)")  # where summary.json says that they are
    results.scans.rename(tmp_path / "gone")
    shutil.move(results.out, tmp_path / "elsewhere")
    alone = verify_results(tmp_path / "elsewhere")
    assert not alone["failed"] and "its scan is not there" in alone["lines"][0]


def test_the_receipt_says_by_hand_where_the_mask_lies(results: Results) -> None:
    manifest = json.loads(results.manifest().read_text(encoding="utf-8"))
    receipt, mask = manifest["geometry"], nibabel.load(results.mask())
    voxels = np.asarray(mask.dataobj)
    inside = np.argwhere(voxels == 1)
    assert receipt["mask"]["voxels"] == {"1": len(inside)}
    centre = nibabel.affines.apply_affine(mask.affine, inside.mean(0))
    assert receipt["mask"]["centroid_ras"]["1"] == pytest.approx(centre)
    assert receipt["mask"]["sha256"] == hash_file(results.mask()) == manifest["files"][f"{ONE}_seg.nii.gz"]
    assert receipt["mask"]["file"] == f"{ONE}_seg.nii.gz"
    last = np.array(voxels.shape) - 1
    assert receipt["corners_ras"][-1] == pytest.approx(nibabel.affines.apply_affine(mask.affine, last))
    assert np.array(receipt["corners_lps"]) == pytest.approx(np.array(receipt["corners_ras"]) * [-1, -1, 1])
    assert receipt["software"].startswith("medseg ")


def change_voxels(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Change voxels and nothing else."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(np.frombuffer(content, np.uint8, offset=352))
    path.write_bytes(gzip.compress(bytes(content)))


def test_a_changed_voxel_is_found(results: Results) -> None:
    def clear_one(voxels: np.ndarray) -> None:
        voxels[np.flatnonzero(voxels)[0]] = 0

    change_voxels(results.mask(), clear_one)
    assert "voxels of class 1" in results.problem()


def test_a_moved_voxel_is_found(results: Results) -> None:
    def move_one(voxels: np.ndarray) -> None:
        voxels[np.flatnonzero(voxels)[0]], voxels[np.flatnonzero(voxels == 0)[-1]] = 0, 1

    change_voxels(results.mask(), move_one)
    assert "must have class 1 around" in results.problem()


def test_a_mirrored_pair_of_voxels_that_keeps_the_centroid_is_found(results: Results) -> None:
    shape = nibabel.load(results.mask()).shape

    def mirror(voxels: np.ndarray) -> None:
        """Move one voxel a step up and another a step down."""
        labels = voxels.reshape(shape, order="F")
        up = next(p for p in np.argwhere(labels) if p[0] < shape[0] - 1 and not labels[p[0] + 1, p[1], p[2]])
        down = next(p for p in np.argwhere(labels)[::-1] if p[0] > 0 and not labels[p[0] - 1, p[1], p[2]])
        assert not np.array_equal(up, down)
        for place, step in ((up, 1), (down, -1)):
            labels[tuple(place)] = 0
            labels[place[0] + step, place[1], place[2]] = 1

    change_voxels(results.mask(), mirror)
    assert "SHA-256" in results.problem()


def test_a_changed_affine_is_found(results: Results) -> None:
    row = nibabel.load(results.mask()).header["srow_y"].copy()
    row[3] += 0.5
    results.edit_header(srow_y=row)
    assert "shifted by (0, 0.5, 0) mm" in results.problem()


def test_a_changed_qform_beside_the_same_sform_is_found(results: Results) -> None:
    results.edit_header(qoffset_x=77)
    assert "SHA-256" in results.problem()


@pytest.mark.parametrize("code", ["sform_code", "qform_code"])
def test_changed_codes_are_found(code: str, results: Results) -> None:
    results.edit_header(**{code: 4})
    assert f"must have the {code}" in results.problem()
    assert "got 4" in results.problem()


def test_a_changed_shape_is_found(results: Results) -> None:
    mask = nibabel.load(results.mask())
    cut = nibabel.Nifti1Image(np.asarray(mask.dataobj)[:-1], mask.affine, mask.header)
    nibabel.save(cut, results.mask())
    assert "must have the 30 x 28 x 24 voxels" in results.problem()


def test_two_masks_swapped_are_found(results: Results) -> None:
    aside = results.out / "aside"
    results.mask(ONE).rename(aside)
    results.mask(TWO).rename(results.mask(ONE))
    aside.rename(results.mask(TWO))
    failed = results.verify()["failed"]
    assert f"must be the mask of {ONE}, got that of {TWO}" in failed[ONE]
    assert f"must be the mask of {TWO}, got that of {ONE}" in failed[TWO]


def test_the_mask_of_another_scan_is_found(results: Results) -> None:
    shutil.copy(results.mask(TWO), results.mask(ONE))
    assert f"got that of {TWO}" in results.problem()
    other = nibabel.load(results.mask(TWO))
    nibabel.save(nibabel.Nifti1Image(np.asarray(other.dataobj) * 0, other.affine, other.header), results.mask(ONE))
    assert "must lie on the grid of" in results.problem()


def test_the_whole_result_of_another_scan_is_found(results: Results) -> None:
    """Mask and manifest agree, and are of another scan: only the scan can tell."""
    shutil.copy(results.scans / f"{TWO}_img.nii.gz", results.scans / f"{ONE}_img.nii.gz")
    assert f"must be the scan that {ONE} was made of" in results.problem()


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["geometry"]["corners_ras"][3].__setitem__(0, 1.0),
        lambda manifest: manifest["geometry"]["affine"][0].__setitem__(3, 0.25),
        lambda manifest: manifest["ml"].update(vessel=99.0),
        lambda manifest: manifest.update(source_sha256="0" * 64),
        lambda manifest: manifest.pop("receipt_sha256"),
    ],
)
def test_an_edited_receipt_is_found(change: Callable[[dict[str, Any]], Any], results: Results) -> None:
    results.edit_manifest(change)
    assert str(results.manifest()) in results.problem()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda receipt: receipt["corners_ras"][3].__setitem__(0, 1.0), "corners_ras that follow"),
        (lambda receipt: receipt["corners_lps"][3].__setitem__(0, 1.0), "corners_lps that follow"),
        (lambda receipt: receipt.update(orientation="LPS"), "must have the orientation RAS"),
        (lambda receipt: receipt.update(affine=np.diag([1.0, 1, 1, 1]).tolist()), "that follow"),
        (lambda receipt: receipt.update(affine=[[1, 2], [3]]), "whole geometry receipt"),
        (lambda receipt: receipt.pop("mask"), "whole geometry receipt"),
        (lambda receipt: receipt["mask"]["voxels"].update({"1": 1}), "must hold the 1 voxels of class 1"),
        (lambda receipt: receipt["mask"]["voxels"].update({"7": 0}), "a centroid for each class"),
        (lambda receipt: receipt["mask"]["centroid_ras"].update({"1": [0, 0, 0]}), "around (0, 0, 0) mm"),
        (lambda receipt: receipt["mask"].update(sha256="0" * 64), "one hash"),
    ],
)
def test_a_sealed_receipt_that_contradicts_itself_or_the_mask_is_found(
    change: Callable[[dict[str, Any]], Any], words: str, results: Results
) -> None:
    results.edit_manifest(lambda manifest: change(manifest["geometry"]), seal=True)
    assert words in results.problem()


def test_a_file_outside_the_folder_is_not_read(results: Results) -> None:
    results.edit_manifest(lambda manifest: manifest["files"].update({"../secret": "0"}), seal=True)
    assert "must name files of its folder, got ../secret" in results.problem()


@pytest.mark.parametrize("kind", ["seg", "prob", "region"])
def test_a_missing_file_is_found(kind: str, results: Results) -> None:
    (results.out / f"{ONE}_{kind}.nii.gz").unlink()
    assert f"{ONE}_{kind}.nii.gz must be there" in results.problem()


def test_a_changed_map_and_a_changed_picture_are_found(results: Results) -> None:
    for name in (f"{ONE}_prob.nii.gz", f"plots/{ONE}_mip.png"):
        kept = (results.out / name).read_bytes()
        (results.out / name).write_bytes(kept + b"\0")
        assert f"{name} must have the content" in results.problem()
        (results.out / name).write_bytes(kept)


@pytest.mark.parametrize("name", ["other_seg.nii.gz", f"comparison/{ONE}_kmeans.nii.gz", "other_seg.png"])
def test_an_extra_mask_is_found(name: str, results: Results) -> None:
    (results.out / name).parent.mkdir(exist_ok=True)
    shutil.copy(results.mask(), results.out / name)
    assert "must belong to a case with a manifest" in results.problem(name)


def test_a_mask_without_its_manifest_and_a_damaged_manifest_are_found(results: Results) -> None:
    kept = results.manifest().read_text(encoding="utf-8")
    results.manifest().unlink()
    failed = results.verify()["failed"]
    assert set(failed) == {f"{ONE}_{kind}.nii.gz" for kind in ("seg", "prob", "uncertainty", "region")}
    results.manifest().write_text(kept[:100], encoding="utf-8")
    assert "readable JSON" in results.problem()


def test_a_class_that_nobody_named_is_found(results: Results) -> None:
    text = (results.out / "classes.yaml").read_text(encoding="utf-8")
    (results.out / "classes.yaml").write_text(text.replace("value: 1", "value: 2"), encoding="utf-8")
    failed = results.verify()["failed"]
    assert "must hold classes that" in failed[ONE] and "got 1" in failed[ONE]
    (results.out / "classes.yaml").unlink()
    assert "classes.yaml" in results.problem("classes.yaml")


def test_a_missing_scan_is_a_problem_only_where_it_was_asked_for(results: Results) -> None:
    (results.scans / f"{ONE}_img.nii.gz").unlink()
    assert f"must hold the scan of {ONE}" in results.problem()
    answer = verify_results(results.out)
    assert not answer["failed"] and "its scan is not there" in answer["lines"][0]
    assert answer["lines"][1].endswith("scan)")


def test_another_header_of_the_same_scan_is_found(results: Results) -> None:
    """The manifest names the scan with the other header, so that hashes agree; its bits do not."""
    scan = results.scans / f"{ONE}_img.nii.gz"
    content = bytearray(gzip.decompress(scan.read_bytes()))
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header["qform_code"] = 3
    scan.write_bytes(gzip.compress(header.binaryblock + bytes(content[348:])))
    results.edit_manifest(lambda manifest: manifest.update(source_sha256=hash_file(scan)), seal=True)
    assert "must have the qform_code of" in results.problem()


def test_labels_of_the_user_beside_the_results_are_no_masks(results: Results) -> None:
    shutil.copytree(results.out, results.scans, dirs_exist_ok=True)
    for label in results.scans.glob("*_label.nii.gz"):
        label.rename(label.with_name(label.name.replace("_label", "_img_gt")))
    assert verify_results(results.scans, results.scans)["failed"] == {}


def test_the_command_prints_lines_and_ends_with_1_when_there_is_a_problem(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(results.out), "-q"]) == 0
    assert f"{ONE}: verified" in capsys.readouterr().out
    results.mask().unlink()
    assert run(["verify", str(results.out), "-q"]) == 1
    assert f"{ONE}_seg.nii.gz must be there" in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must be a result folder"):
        verify_results(tmp_path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, count in (("cine", 3), ("one", 1)):
        (folder / name / "scans").mkdir(parents=True)
        write(save_tiff(folder / name / "scans" / "a.tif", frames(count)), folder / name / "out")
    return folder


@pytest.mark.parametrize("kind", ["cine", "one"])
def test_results_of_pictures_are_verified_in_pixels(kind: str, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / kind, tmp_path / "copy")
    results = Results(tmp_path / "copy")
    assert results.verify()["failed"] == {}
    assert results.verify()["lines"][0].startswith("a: verified (mask, ")
    receipt = json.loads(results.manifest("a").read_text(encoding="utf-8"))["geometry"]
    assert receipt["unit"] == "px" and "affine" not in receipt
    mask = results.out / receipt["mask"]["file"]
    assert mask.name == ("a_seg.nii.gz" if kind == "cine" else "a_seg.png")
    pages = [f"a_frames/{n:04d}_seg.png" for n in (1, 2, 3)] if kind == "cine" else ["a_seg.png"]
    labels = np.stack([np.asarray(Image.open(results.out / page)) for page in pages], -1)
    assert receipt["shape"] == list(labels.shape)
    assert receipt["mask"]["centroid_px"]["2"] == pytest.approx(np.argwhere(labels == 2).mean(0))
    assert receipt["mask"]["voxels"]["2"] == (labels == 2).sum()
    if kind == "cine":
        change_voxels(mask, lambda voxels: voxels.__setitem__(np.flatnonzero(voxels == 2)[0], 0))
    else:
        picture = Image.open(mask)
        row, column = np.argwhere(labels[..., 0] == 2)[0].tolist()
        picture.putpixel((column, row), 0)
        picture.save(mask)
    assert "voxels of class 2" in results.problem("a")


def test_a_stack_that_was_turned_is_found(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures / "cine", tmp_path / "copy")
    results = Results(tmp_path / "copy")
    results.require_untouched()
    mask = results.mask("a")
    stack = nibabel.load(mask)
    nibabel.save(nibabel.Nifti1Image(np.asarray(stack.dataobj), np.eye(4)), mask)
    assert "x axis mirrored" in results.problem("a") or "i axis mirrored" in results.problem("a")
    shutil.copytree(pictures / "cine" / "out", results.out, dirs_exist_ok=True)
    results.require_untouched()
    (results.out / "a_frames" / "0002_seg.png").unlink()
    assert "0002_seg.png must be there" in results.problem("a")
