"""This file tests what is measured of sampled points: on patches, in the scan, and how much each stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from medseg.features.student.channels import FEATURE_LIMIT
from medseg.features.student.vessels.student import shipped_student
from medseg.naming.cards import MEASUREMENTS, VOLUME
from medseg.phantoms.vessels import write_phantoms
from medseg.prepare.chain import prepare_case
from medseg.runs import RunRecord, open_run
from medseg.stego.clustering import PointSample, sample_points
from medseg.workflows import parts
from medseg.workflows.intake import AS_IT_IS
from medseg.workflows.point_measures import DEPTH_STEP, measure_points
from medseg.workflows.run_patches import kept_patches
from medseg.workflows.training import train_run

SMALL = (
    "stego.steps=2", "stego.batch=4", "patches.per_case=12", "patches.size=24", "stego.fit_points=600",
    "stego.clusters=4", "prepare.brain_mask=none", "run.checkpoint_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    write_phantoms(folder / "scans", cases=2, seed=5, shape=(44, 40, 32), spacing=(0.7, 0.7, 0.8))
    for image in (folder / "scans").rglob("*.nii.gz"):  # the label is for this test, the training sees none
        if "label" in image.name:
            image.rename(folder / image.name)
    train_run("tof_mra_bank", folder / "scans", folder / "run", overrides=SMALL)
    return folder / "run"


@pytest.fixture(scope="module")
def measured(run: Path) -> tuple[RunRecord, PointSample, dict[str, np.ndarray]]:
    record = open_run(run)
    dataset = kept_patches(record)
    points = sample_points(dataset, 3000, 0.5, seed=7)
    return record, points, measure_points(points, dataset, record.config, [])


def voxels_of(record: RunRecord, points: PointSample, case: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The prepared scan of a case, which of the points are its own, and their voxels (patches are axial)."""
    dataset = kept_patches(record)
    store = dataset.stores[case]
    mine = points.case == case
    corner = store.locations[points.patch[mine]]
    voxels = np.column_stack([corner[:, 1:] + points.cell[mine], corner[:, 0]])
    (found,) = [one for one in AS_IT_IS.cases(record.scans, skip=()).cases if one.case_id == store.case_id]
    return prepare_case(found, parts.preparation(record.config.prepare)), mine, voxels


def test_maps_of_the_scan_are_read_at_the_points(measured: tuple) -> None:
    record, points, values = measured
    for case in (0, 1):
        sample, mine, voxels = voxels_of(record, points, case)
        at = tuple(voxels.T)
        image = np.asarray(sample["image"][0])
        assert np.abs(values["brightness"][mine] - image[at]).max() < 2e-3 * image.max()  # stored as float16
        tubularity = np.asarray(sample["tubularity"][0])[at]
        assert np.abs(values["tubularity"][mine] - tubularity).max() < 2e-3 * max(1, np.abs(tubularity).max())
        shares = (voxels + 0.5) / np.array(image.shape)  # without a brain mask the region is the whole volume
        assert np.allclose(values["left_right"][mine], shares[:, 0])
        assert np.allclose(values["back_front"][mine], shares[:, 1])
        assert np.allclose(values["height"][mine], shares[:, 2])
        rim = distance_transform_edt(np.pad(np.ones(image.shape), 1), sampling=(0.7, 0.7, 0.8))[1:-1, 1:-1, 1:-1]
        assert np.abs(values["depth"][mine] - rim[at]).max() < DEPTH_STEP * np.hypot(np.hypot(0.7, 0.7), 0.8)
        assert np.corrcoef(values["depth"][mine], rim[at])[0, 1] > 0.8


def test_contrast_and_texture_are_of_the_patch_around(measured: tuple) -> None:
    record, points, values = measured
    store = kept_patches(record).stores[0]
    for n in np.flatnonzero(points.case == 0)[:40]:
        patch = store.image(int(points.patch[n])).astype(float)
        row, column = points.cell[n]
        if min(row, column) < 7 or max(row, column) > 16:
            continue  # beyond the patch the square is mirrored
        square = patch[row - 7 : row + 8, column - 7 : column + 8]
        near = patch[row - 2 : row + 3, column - 2 : column + 3]
        assert values["contrast"][n] == pytest.approx(patch[row, column] - square.mean(), abs=2e-3)
        assert values["texture"][n] == pytest.approx(near.std(), abs=5e-3)


def test_what_points_stand_for_adds_up_to_the_region_and_to_the_vessels(measured: tuple) -> None:
    record, points, values = measured
    for case in (0, 1):
        mine = points.case == case
        whole = 44 * 40 * 32 * 0.7 * 0.7 * 0.8
        assert values[VOLUME][mine].sum() == pytest.approx(whole, rel=0.01)
        sample, _, _ = voxels_of(record, points, case)
        salience = np.asarray(sample["salience"][0])
        truth = (salience > 0.5).mean() * whole
        drawn = (values["salience"][mine] > 0.5).mean() * whole  # points are drawn where salience is high
        assert values[VOLUME][mine][values["salience"][mine] > 0.5].sum() == pytest.approx(truth, rel=0.25)
        assert drawn > 2 * truth


def test_a_run_without_surroundings_has_what_its_patches_show(measured: tuple) -> None:
    record, points, values = measured
    dataset = kept_patches(record)
    kept = [store.folder / "surroundings.npz" for store in dataset.stores]
    contents = [path.read_bytes() for path in kept]
    try:
        kept[0].unlink()
        kept[1].write_bytes(b"damaged")
        fewer = measure_points(points, dataset, record.config, [])
        assert set(fewer) == {"brightness", "salience", "contrast", "texture"}
        assert np.array_equal(fewer["contrast"], values["contrast"])
    finally:
        for path, content in zip(kept, contents, strict=True):
            path.write_bytes(content)


def test_every_measurement_is_described_and_cards_hold_them(run: Path, measured: tuple) -> None:
    _, _, values = measured
    assert set(values) <= {*MEASUREMENTS, VOLUME}
    text = (run / "methods" / "stego" / "cards.json").read_text()
    assert all(f'"median_{name}"' in text for name in values if name != VOLUME)
    assert '"mm3"' in text and '"symmetry"' in text


def test_left_is_the_patients_left(measured: tuple) -> None:
    """RAS: the first axis grows to the right, so a voxel near its start lies at the left."""
    record, points, values = measured
    sample, mine, voxels = voxels_of(record, points, 0)
    x_mm = nibabel.affines.apply_affine(np.asarray(sample["image"].affine), voxels)[:, 0]
    order = np.argsort(x_mm)
    assert values["left_right"][mine][order[0]] < 0.1 and values["left_right"][mine][order[-1]] > 0.9


def test_the_students_answer_is_read_from_its_features(measured: tuple) -> None:
    record, points, _ = measured
    sample, _, voxels = voxels_of(record, points, 0)
    student = shipped_student()
    sample |= student.maps(sample)
    features = student.features_of_box(sample, tuple(slice(0, length) for length in sample["image"].shape[1:]))
    at = tuple(voxels.T)
    unclipped = np.flatnonzero((features[:-1, *at].abs() < FEATURE_LIMIT).all(0).numpy())
    found = student.answer_at(features[:, *at].T)[unclipped].numpy()
    expected = np.asarray(sample["student_probability"][0])[at][unclipped]
    assert len(unclipped) > 500 and np.abs(found - expected).max() < 0.02  # features are kept as float16
    assert found.min() < 0.1 and found.max() > 0.9
