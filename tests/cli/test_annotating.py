"""The verb `annotate` writes its page, collects what was ticked, and says mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.cli import run
from medseg.files import hash_file


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A bright tube along the third axis through cell 1, 0 of 16 voxels, in noise."""
    image = np.random.default_rng(0).normal(100, 5, (40, 30, 12)).astype(np.float32)
    image[20:23, 4:7] += 100
    (tmp_path / "scans").mkdir()
    nibabel.Nifti1Image(image, np.diag([0.5, 0.5, 0.8, 1])).to_filename(tmp_path / "scans/007_img.nii.gz")
    return tmp_path / "scans"


def _annotation(scans: Path, **more: object) -> dict[str, object]:
    image = nibabel.load(scans / "007_img.nii.gz")
    entry = {
        "case": "007",
        "source_sha256": hash_file(scans / "007_img.nii.gz"),
        "shape": list(image.shape),
        "affine": image.affine.tolist(),
        "plane": "axial",
        "cell": 16,
        "slices": [{"index": 6, "ticked": [[1, 0]], "seen": True}],
        "seconds": 6,
        "annotator": "Ada",
        "time": "2026-11-30T12:00:00Z",
    }
    return entry | more


def _save(folder: Path, *entries: dict[str, object]) -> Path:
    folder.mkdir()
    content = {"schema": "medseg-annotation/1", "annotations": entries}
    (folder / "medseg_annotation.json").write_text(json.dumps(content))
    return folder


def test_the_page_is_written(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ticks"
    arguments = ["annotate", str(scans), "-o", str(out), "--cell", "8", "--slices", "2", "--modality", "tof"]
    assert run([*arguments, "-q"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "2 slices of 1 case" in said[0]
    assert '"cell": 8' in (out / "medseg_annotation.html").read_text(encoding="utf-8").replace('"cell":8', '"cell": 8')


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_downloads_become_rough_masks_and_patches(
    scans: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads, out = _save(tmp_path / "downloads", _annotation(scans)), tmp_path / "ticks"
    arguments = ["annotate", str(scans), "-o", str(out), "--collect", str(downloads), "--method", method, "--patches"]
    assert run([*arguments, "-q"]) == 0
    assert "from 1 ticked cell, 0.1 min; slices judged: 1" in capsys.readouterr().out
    values = np.asarray(nibabel.load(out / "007_rough.nii.gz").dataobj)
    assert (values[20:23, 4:7, 6] == 1).all() and (values == 1).sum() == 9
    assert (values[..., 6] != 0).all() and (np.delete(values, 6, 2) == 0).all()
    assert np.load(out / "patches/npy/007_16_label.npy").sum() == 9


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"slices": [{"index": 6, "ticked": [], "seen": True}]}, "one ticked cell, got none (judged slices: 1)"),
        ({"source_sha256": "00"}, "got another scan of that name; annotate it again"),
        ({"shape": [40, 30, 13]}, "must have the 40 x 30 x 12 voxels of"),
        ({"case": "008"}, "the annotation of 008 must be about a case of the scans, got none of that name"),
    ],
    ids=["zero ticked cells", "another scan", "another grid", "no such case"],
)
def test_an_annotation_that_does_not_fit_is_one_line(
    scans: Path, tmp_path: Path, more: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads = _save(tmp_path / "downloads", _annotation(scans, **more))
    assert run(["annotate", str(scans), "-o", str(tmp_path / "ticks"), "--collect", str(downloads), "-q"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("medseg: ") and said in lines[0]
    assert not list((tmp_path / "ticks").glob("*_rough.nii.gz"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "mixture"], "--method and --patches must go with --collect DOWNLOADS"),
        (["--patches"], "--method and --patches must go with --collect DOWNLOADS"),
        (["--collect", ".", "--cell", "8"], "--cell must be given when the page is written"),
        (["--collect", ".", "--max-mb", "8"], "--max-mb must be given when the page is written"),
        (["--collect", ".", "--method", "otsu"], "--method must be one of kmeans, mixture, got otsu"),
        (["--collect", "."], "must hold medseg_annotation.json, got none"),
        (["--collect", "missing"], "must hold medseg_annotation.json, got none"),
        (["--cell", "2"], "--cell must be 4 to 128 voxels, got 2"),
        (["--modality", "liver_ultrasound"], "--modality must be tof, ce_mra or cta, got liver_ultrasound"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line(
    scans: Path,
    tmp_path: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["annotate", str(scans), "-o", "ticks", *options, "-q"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("medseg: ") and said in lines[0]
