"""Training patches for other programs: what is in them, where they lie, and that labels move none of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commands import main_of
from PIL import Image

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.phantoms.vessels import write_phantoms
from medseg.scans.folders import find_cases
from medseg.workflows.patch_sets import export_patches, standardised, stretched

SIZE = 24
CONFIG = load_config("tof_mra", [f"patches.size={SIZE}", "patches.per_case=20", "patches.empty=keep"])


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(folder, cases=2, seed=5, shape=(48, 44, 32), spacing=(0.8, 0.8, 0.8))
    return folder


def _stored(path: Path) -> np.ndarray:
    """The values of a volume in RAS."""
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def _cut(volume: np.ndarray, name: str) -> np.ndarray:
    number, row, column = (int(part.strip("slicerowumn")) for part in name.split("_")[-3:])
    return volume[row : row + SIZE, column : column + SIZE, number]


def test_patches_are_the_standardised_values_where_their_names_say(scans: Path, tmp_path: Path) -> None:
    answer = export_patches(CONFIG, scans, tmp_path / "patches")
    assert answer["counts"] == {"all": 40, "labelled_train": 40, "labelled_test": 0, "unlabelled_train": 0}
    image, brain, label = (_stored(scans / f"phantom_001_{kind}.nii.gz") for kind in ("img", "mask", "label"))
    inside = image[brain > 0].astype(float)
    expected = np.where(
        brain > 0, (image - inside.mean()) / inside.std(), (inside.min() - inside.mean()) / inside.std()
    )
    names = [name for name in (tmp_path / "patches/all.txt").read_text().split() if name.startswith("phantom_001")]
    with_vessel = [name for name in names if _cut(label, name).any()]
    assert 8 <= len(with_vessel) < len(names) == 20
    stacks = {path.stem: np.load(path) for path in (tmp_path / "patches/npy").glob("phantom_001*")}
    assert stacks["phantom_001_24_img"] == pytest.approx(
        np.stack([_cut(expected, name) for name in with_vessel]), abs=1e-4
    )
    assert (stacks["phantom_001_24_label"] == np.stack([_cut(label, name) for name in with_vessel])).all()
    assert len(stacks["phantom_001_24_empty"]) == len(names) - len(with_vessel)
    for name in names:
        assert _cut(brain, name).any()
        shown = np.asarray(Image.open(tmp_path / f"patches/imgs/{name}.png"))
        assert shown.min() == 0 and shown.max() == 255
        assert np.corrcoef(shown.ravel(), _cut(expected, name).ravel())[0, 1] > 0.999
    assert len(find_cases(tmp_path / "patches").labels) == 40


def test_slices_beside_it_are_no_part_of_a_patch(scans: Path, tmp_path: Path) -> None:
    for name, more in (("plain", []), ("shown", ["patches.neighbours=1", "patches.magnification=2"])):
        config = load_config("tof_mra", [f"patches.size={SIZE}", "patches.per_case=20", "patches.empty=keep", *more])
        export_patches(config, scans, tmp_path / name)
    for path in (tmp_path / "plain/npy").iterdir():
        assert np.array_equal(np.load(path), np.load(tmp_path / "shown/npy" / path.name))


def test_labels_move_no_patch(scans: Path, tmp_path: Path) -> None:
    given = tmp_path / "scans"
    given.mkdir()
    for path in scans.glob("phantom_*"):
        if "label" not in path.name:
            (given / path.name).write_bytes(path.read_bytes())
    counts = export_patches(CONFIG, given, tmp_path / "without")["counts"]
    export_patches(CONFIG, scans, tmp_path / "with")
    assert counts == {"all": 40, "labelled_train": 0, "labelled_test": 0, "unlabelled_train": 40}
    assert (tmp_path / "with/all.txt").read_bytes() == (tmp_path / "without/all.txt").read_bytes()
    for path in (tmp_path / "with/imgs").iterdir():
        assert path.read_bytes() == (tmp_path / "without/imgs" / path.name).read_bytes()


def test_rough_masks_label_what_they_know(scans: Path, tmp_path: Path) -> None:
    rough = tmp_path / "ticks"
    rough.mkdir()
    image = nibabel.load(scans / "phantom_001_label.nii.gz")
    values = 2 - np.asarray(image.dataobj).astype(np.uint8)  # 1 vessel, 2 no vessel
    values[:, :, 16:] = 0
    nibabel.Nifti1Image(values, image.affine).to_filename(rough / "phantom_001_rough.nii.gz")
    effort = {"counts": {"cells": 3}, "minutes": 1}
    cases = {"phantom_001": {"mask": "phantom_001_rough.nii.gz", "effort": effort}}
    (rough / "annotations.json").write_text(json.dumps({"cases": cases}))
    arguments = ["--scans", str(scans), "--out", str(tmp_path / "patches"), "--patch_size", str(SIZE)]
    assert main_of("load_patches")([*arguments, "--n_patches", "20", "--rough_masks", str(rough)]) == 0
    labelled = set((tmp_path / "patches/labelled_train.txt").read_text().split())
    names = (tmp_path / "patches/all.txt").read_text().split()
    stored = nibabel.Nifti1Image(values, image.affine)
    known = np.asarray(nibabel.as_closest_canonical(stored).dataobj)
    assert labelled == {name for name in names if name.startswith("phantom_001") and _cut(known, name).all()}
    assert 0 < len(labelled) < 20
    nibabel.Nifti1Image(values // 2, image.affine).to_filename(rough / "phantom_001_rough.nii.gz")
    answer = export_patches(CONFIG, scans, tmp_path / "patches", rough=rough)
    assert (
        list(answer["failed"]) == ["phantom_001"] and "must be a rough mask with 2" in answer["failed"]["phantom_001"]
    )


def test_standardised_and_stretched_by_hand() -> None:
    image = np.array([1.0, 3, 5, 100]).reshape(4, 1, 1)
    values = standardised(image, image < 50)
    assert values.ravel() == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5), -np.sqrt(1.5)])
    assert stretched(values[:, :, 0]).ravel().tolist() == [0, 128, 255, 0]
    assert stretched(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]


def test_pictures_alone_are_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    (tmp_path / "scans").mkdir()
    Image.fromarray(noise).save(tmp_path / "scans/liver.png")
    with pytest.raises(MedsegError, match="must hold a volume to cut patches from, got none"):
        export_patches(CONFIG, tmp_path / "scans", tmp_path / "patches")
    assert not (tmp_path / "patches").exists()
