from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from features.student.vessels.fakes import SPACING, fake_sample, fake_volume, tube

from medseg.errors import MedsegError
from medseg.features.student.vessels import volumes
from medseg.features.student.vessels.volumes import StudentVolume, open_volume, relabel, store_volume
from medseg.features.teachers.vessels import UNKNOWN
from medseg.files import CannotWriteError

SHAPE = (24, 26, 22)


def test_what_is_stored_is_read_back_mapped(tmp_path: Path) -> None:
    sample = fake_sample(SHAPE)
    volume = store_volume(tmp_path / "a", sample, tube(SHAPE).astype(np.uint8), key="key")
    assert (volume.case_id, volume.shape, volume.contrast_scale) == ("case0", SHAPE, 1.0)
    assert volume.spacing == pytest.approx(SPACING)
    assert 0.05 < volume.noise_sd < 0.12
    for array in (volume.image, volume.region, volume.labels):
        assert isinstance(array, np.memmap)
    assert volume.image.dtype == np.float16
    np.testing.assert_allclose(volume.image, sample["image"][0], rtol=1e-3)
    np.testing.assert_array_equal(volume.labels, tube(SHAPE))
    np.testing.assert_array_equal(volume.positives, np.flatnonzero(tube(SHAPE)))


def test_points_lie_in_the_region_and_the_second_half_is_salient(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a", (24, 60, 60))
    assert volume.region.reshape(-1)[volume.points].all()
    vessel = tube((24, 60, 60)).reshape(-1)
    assert vessel[volume.points[len(volume.points) // 2 :]].all()
    assert vessel[volume.uniform_points].mean() == pytest.approx(vessel.mean(), abs=0.01)


def test_a_volume_without_anything_salient_has_points_too(tmp_path: Path) -> None:
    sample = fake_sample(SHAPE)
    sample["salience"] = torch.zeros_like(sample["salience"])
    volume = store_volume(tmp_path / "a", sample, np.zeros(SHAPE, np.uint8), key="key")
    assert len(volume.points) == 2 * volumes.SAMPLE_POINTS
    assert len(volume.positives) == 0


def test_unknown_voxels_count_inside_the_region_only(tmp_path: Path) -> None:
    labels = tube(SHAPE).astype(np.uint8)
    labels[:2] = UNKNOWN  # outside of the region
    assert not store_volume(tmp_path / "a", fake_sample(SHAPE), labels, key="a").has_unknown
    labels[5, 5, 5] = UNKNOWN
    assert store_volume(tmp_path / "b", fake_sample(SHAPE), labels, key="b").has_unknown


def test_a_whole_volume_is_taken_from_the_store_and_another_key_is_not(tmp_path: Path) -> None:
    fake_volume(tmp_path / "a")
    before = (tmp_path / "a" / "image.npy").stat().st_mtime_ns
    fake_volume(tmp_path / "a")
    assert (tmp_path / "a" / "image.npy").stat().st_mtime_ns == before
    assert open_volume(tmp_path / "a", "key0False") is not None
    assert open_volume(tmp_path / "a", "other") is None
    assert open_volume(tmp_path / "none", "key0False") is None
    fake_volume(tmp_path / "a", seed=1)
    assert (tmp_path / "a" / "image.npy").stat().st_mtime_ns != before


@pytest.mark.parametrize("name", ["image", "region", "labels", "positives", "points"])
@pytest.mark.parametrize("damage", ["removed", "cut", "empty"])
def test_a_damaged_volume_is_stored_anew(tmp_path: Path, name: str, damage: str) -> None:
    volume = fake_volume(tmp_path / "a")
    wanted = np.array(getattr(volume, name))
    path = tmp_path / "a" / f"{name}.npy"
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"")
    assert open_volume(tmp_path / "a", volume.key) is None
    with pytest.raises(MedsegError, match=rf"{name}\.npy must be a complete"):
        getattr(StudentVolume(tmp_path / "a"), name)
    np.testing.assert_array_equal(getattr(fake_volume(tmp_path / "a"), name), wanted)


def test_a_volume_of_another_shape_is_refused(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a")
    np.save(tmp_path / "a" / "labels.npy", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(MedsegError, match="must have the shape"):
        StudentVolume(volume.folder).labels  # noqa: B018


def test_a_killed_storing_leaves_no_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volumes.np, "save", full)
    with pytest.raises(CannotWriteError, match="No space left"):
        fake_volume(tmp_path / "a")
    assert open_volume(tmp_path / "a", "key0False") is None
    assert list((tmp_path / "a").iterdir()) == []


def test_new_labels_leave_the_old_ones_alone_and_survive_pickling(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a")
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 4, 5] = 1
    other = pickle.loads(pickle.dumps(relabel(volume, labels, tmp_path / "new")))
    np.testing.assert_array_equal(other.labels, labels)
    assert other.positives.tolist() == [np.ravel_multi_index((3, 4, 5), SHAPE)]
    np.testing.assert_array_equal(other.image, volume.image)
    np.testing.assert_array_equal(StudentVolume(tmp_path / "a").labels, tube(SHAPE))


def test_of_many_positives_some_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "_MOST_POSITIVES", 10)
    volume = fake_volume(tmp_path / "a")
    assert len(volume.positives) == 10
    assert volume.labels.reshape(-1)[volume.positives].all()
