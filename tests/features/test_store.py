"""Features of windows, and keeping them on disk."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.features import windows
from medseg.features.store import StoredPatches, extract_case, store_key, stored_bytes, take_patches
from medseg.features.windows import batch_count, feature_shape, window_features
from medseg.patches.slicing import PatchGeometry, cut, cut_all, grid_locations

PLANES = ("axial", "coronal", "sagittal")
ARRAYS = ("features.npy", "image.npy", "salience.npy", "locations.npy")


class Bank:
    """A volume backbone: the image, its square, and the mean of a voxel and its neighbour along i."""

    name, dim, fingerprint = "bank", 3, "b1"

    def __init__(self):
        self.boxes = []

    def features_of_box(self, sample, box):
        self.boxes.append(box)
        image = sample["image"][0]
        neighbour = torch.cat([image[1:], image[-1:]])
        return torch.stack([image, image**2, (image + neighbour) / 2])[(slice(None), *box)]


class Strided:
    """A slice backbone: means of 4 x 4 pixels and twice them, in two of five channels."""

    name, dim, stride, fingerprint = "strided", 5, 4, "s1"

    def __init__(self):
        self.batches = []

    def __call__(self, patches):
        self.batches.append(len(patches))
        means = torch.nn.functional.avg_pool2d(patches.mean(dim=1, keepdim=True), 4)
        return torch.cat([means, 2 * means, torch.zeros_like(means).expand(-1, 3, -1, -1)], dim=1)


class Dying(Bank):
    """A volume backbone that fails at its n-th box."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def features_of_box(self, sample, box):
        if len(self.boxes) == self.last:
            raise RuntimeError("killed")
        return super().features_of_box(sample, box)


@pytest.fixture(autouse=True)
def thin_slabs(monkeypatch):
    """Slabs of four slices, and a plain to_rgb where the real one would load timm."""
    monkeypatch.setattr(windows, "_SLAB_SLICES", 4)
    rgb = ModuleType("medseg.features.backbones")
    rgb.to_rgb = lambda patches, display: patches[:, :1].expand(-1, 3, -1, -1)
    monkeypatch.setitem(sys.modules, "medseg.features.backbones", rgb)


def make_sample(shape=(21, 18, 19), seed=0):
    image, salience = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(seed))
    return {"image": image, "salience": salience, "case_id": "A_1", "patient": "A"}


def extract(folder, backbones, *, sample=None, geometry=None, key="k" * 64, every=3, **settings):
    sample = sample or make_sample()
    geometry = geometry or PatchGeometry("axial", 8, 0.5)
    locations = grid_locations(sample["image"].shape[1:], geometry)[::every]
    return extract_case(sample, locations, geometry, backbones, folder=folder, key=key, **{"batch_size": 5} | settings)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("shape", [(21, 18, 19), (5, 30, 6)])
def test_volume_features_of_windows_are_those_of_the_whole_volume(plane, shape):
    sample, bank = make_sample(shape), Bank()
    geometry = PatchGeometry(plane, 8, 0.5)
    locations = grid_locations(shape, geometry)
    whole = Bank().features_of_box(sample, (slice(None),) * 3)
    batches = list(window_features(sample, locations, geometry, [bank], batch_size=5))
    assert np.array_equal(np.concatenate([where for where, _ in batches]), locations)
    assert torch.equal(torch.cat([features for _, features in batches]), cut_all(whole, locations, geometry))
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    assert len(bank.boxes) == -(-shape[axis] // 4)
    assert max(box[axis].stop - box[axis].start for box in bank.boxes) <= 4
    assert len(batches) == batch_count(locations, shape, geometry, [bank], 5)


def test_a_slab_is_no_larger_than_its_windows_and_the_memory_for_it(monkeypatch):
    sample, bank = make_sample((40, 40, 40)), Bank()
    geometry = PatchGeometry("coronal", 8)
    locations = np.array([[9, 3, 10], [10, 5, 12], [30, 0, 0]])
    list(window_features(sample, locations, geometry, [bank]))
    assert bank.boxes == [
        (slice(3, 11), slice(9, 10), slice(10, 18)),
        (slice(5, 13), slice(10, 11), slice(12, 20)),
        (slice(0, 8), slice(30, 31), slice(0, 8)),
    ] or bank.boxes == [(slice(3, 13), slice(9, 11), slice(10, 20)), (slice(0, 8), slice(30, 31), slice(0, 8))]
    monkeypatch.setattr(windows, "_SLAB_BYTES", 3 * 4 * 40 * 40)
    list(window_features(sample, locations, geometry, [bank]))
    assert len(bank.boxes) == 2 + 3


def test_slice_features_are_computed_on_magnified_patches_in_full_batches():
    sample, strided = make_sample(), Strided()
    geometry = PatchGeometry("sagittal", 8, 0.5, magnification=2)
    locations = grid_locations((21, 18, 19), geometry)[::7]
    batches = list(window_features(sample, locations, geometry, [strided], batch_size=5))
    assert set(strided.batches[:-1]) == {5}
    features = torch.cat([features for _, features in batches])
    assert features.shape == (len(locations), 5, 4, 4)
    assert torch.equal(features, Strided()(cut_all(sample["image"], locations, geometry).expand(-1, 3, -1, -1)))


def test_several_backbones_are_joined_on_the_finest_grid_with_norm_one_each():
    sample, geometry = make_sample(), PatchGeometry("axial", 8, 0.5, magnification=2)
    locations = grid_locations((21, 18, 19), geometry)
    backbones = [Strided(), Bank()]
    assert feature_shape(geometry, backbones) == (8, 8, 8)
    where, joined = next(window_features(sample, locations, geometry, backbones, batch_size=5))
    assert joined.shape == (5, 8, 8, 8)
    assert torch.allclose(joined[:, :5].norm(dim=1), torch.ones(5, 8, 8), atol=1e-5)
    assert torch.allclose(joined[:, 5:].norm(dim=1), torch.ones(5, 8, 8), atol=1e-5)
    _, single = next(window_features(sample, locations, geometry, [Bank()], batch_size=5))
    assert torch.allclose(joined[:, 5:], torch.nn.functional.normalize(single, dim=1))
    assert np.array_equal(where, locations[:5])


def test_a_gradient_mode_of_the_caller_is_left_alone():
    sample, geometry = make_sample(), PatchGeometry("axial", 8)
    for _ in window_features(sample, grid_locations((21, 18, 19), geometry), geometry, [Bank()]):
        assert torch.is_grad_enabled()


def test_locations_out_of_order_are_refused():
    with pytest.raises(ValueError, match="ordered by slice"):
        list(window_features(make_sample(), np.array([[5, 0, 0], [4, 0, 0]]), PatchGeometry("axial", 8), [Bank()]))


def test_a_patch_that_is_no_multiple_of_the_stride_is_refused_by_name():
    with pytest.raises(MedsegError, match="must be a multiple of 4, the stride of strided, got 10 x 1"):
        feature_shape(PatchGeometry(size=10), [Strided()])
    with pytest.raises(MedsegError, match=r"features\.backbone must name at least one"):
        feature_shape(PatchGeometry(), [])


def test_what_is_stored_is_what_was_computed(tmp_path):
    sample, geometry = make_sample(), PatchGeometry("coronal", 8, 0.5, magnification=2, neighbours=1)
    stored = extract(tmp_path, [Strided(), Bank()], sample=sample, geometry=geometry)
    locations = grid_locations((21, 18, 19), geometry)[::3]
    assert (len(stored), stored.case_id, stored.patient, stored.plane) == (len(locations), "A_1", "A", "coronal")
    assert (stored.geometry, stored.dim, stored.grid) == (geometry, 8, 8)
    assert np.array_equal(stored.locations, locations)
    expected = torch.cat(
        [f for _, f in window_features(sample, locations, geometry, [Strided(), Bank()], batch_size=5)]
    )
    assert np.array_equal(stored.features(slice(None)), expected.half().numpy())
    assert stored.features(3).dtype == np.float16
    voxels = PatchGeometry("coronal", 8)
    for index, where in enumerate(locations):
        assert np.array_equal(stored.image(index), cut(sample["image"], where, voxels)[0].half().numpy())
        assert np.array_equal(stored.salience(index), cut(sample["salience"], where, voxels)[0].half().numpy())
    assert stored.bytes_on_disk == stored_bytes(len(locations), geometry, [Strided(), Bank()])
    sizes = sum((stored.folder / name).stat().st_size for name in ARRAYS[:3])
    assert stored.bytes_on_disk <= sizes < stored.bytes_on_disk + 1000


def test_a_stored_case_is_reused_and_travels_as_a_path(tmp_path):
    stored = extract(tmp_path, [Bank()])
    stored.features(0)
    bank = Bank()
    again = extract(tmp_path, [bank])
    assert not bank.boxes
    assert len(pickle.dumps(again)) < 500
    assert np.array_equal(pickle.loads(pickle.dumps(again)).features(1), stored.features(1))


def test_other_locations_or_a_damaged_file_are_computed_again(tmp_path):
    stored = extract(tmp_path, [Bank()])
    before = bytes_of(stored)
    bank = Bank()
    assert len(extract(tmp_path, [bank], every=4)) < len(stored)
    assert bank.boxes
    again = extract(tmp_path, [Bank()])
    os.truncate(again.folder / "features.npy", 1000)
    assert bytes_of(extract(tmp_path, [Bank()])) == before


def bytes_of(stored):
    return [(stored.folder / name).read_bytes() for name in ARRAYS]


@pytest.mark.parametrize("last", [0, 1, 3])
def test_an_extraction_that_failed_goes_on_and_ends_with_the_same_bytes(tmp_path, last):
    whole = bytes_of(extract(tmp_path / "whole", [Bank()]))
    with pytest.raises(RuntimeError, match="killed"):
        extract(tmp_path / "cut", [Dying(last)])
    with pytest.raises(MedsegError):
        StoredPatches(tmp_path / "cut" / ("k" * 16))
    bank = Bank()
    stored = extract(tmp_path / "cut", [bank])
    assert bytes_of(stored) == whole
    assert len(bank.boxes) == 5 - last
    assert not (stored.folder / "progress.json").exists()


def test_patches_taken_from_all_of_a_case_are_those_that_are_computed_alone(tmp_path):
    everything = extract(tmp_path / "pool", [Bank()], every=1, key="p" * 64)
    bank = Bank()
    alone = extract(tmp_path / "alone", [bank])
    taken = take_patches(everything, alone.locations, folder=tmp_path / "taken", key="k" * 64)
    assert bytes_of(taken) == bytes_of(alone)
    assert (taken.key, len(taken), taken.bytes_on_disk) == (alone.key, len(alone), alone.bytes_on_disk)
    assert len(everything) > len(alone)


def test_a_patch_that_is_not_there_cannot_be_taken(tmp_path):
    few = extract(tmp_path / "few", [Bank()], every=3)
    with pytest.raises(MedsegError, match=r"must hold all patches of A_1, got none at \(\d+, \d+, \d+\)"):
        take_patches(few, few.locations + 1, folder=tmp_path / "taken", key="t" * 64)
    assert not (tmp_path / "taken").exists()


def test_a_row_that_was_half_written_is_written_again(tmp_path):
    whole = bytes_of(extract(tmp_path / "whole", [Bank()]))
    with pytest.raises(RuntimeError, match="killed"):
        extract(tmp_path / "cut", [Dying(2)])
    with (tmp_path / "cut" / ("k" * 16) / "features.npy").open("ab") as file:
        file.write(b"torn")
    assert bytes_of(extract(tmp_path / "cut", [Bank()])) == whole


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 300), Path.unlink])
def test_rows_that_were_lost_after_they_were_recorded_are_computed_again(tmp_path, damage):
    whole = bytes_of(extract(tmp_path / "whole", [Bank()]))
    with pytest.raises(RuntimeError, match="killed"):
        extract(tmp_path / "cut", [Dying(2)])
    damage(tmp_path / "cut" / ("k" * 16) / "features.npy")
    assert bytes_of(extract(tmp_path / "cut", [Bank()])) == whole


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"key": "k" * 16 + "z" * 48}, {"every": 5}])
def test_what_another_extraction_left_behind_is_not_continued(tmp_path, change):
    with pytest.raises(RuntimeError, match="killed"):
        extract(tmp_path, [Dying(2)])
    bank = Bank()
    stored = extract(tmp_path, [bank], **change)
    assert len(bank.boxes) == 5
    assert bytes_of(stored) == bytes_of(extract(tmp_path / "fresh", [Bank()], **change))


_STUCK = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_store
test_store.windows._SLAB_SLICES = 4

class Stuck(test_store.Bank):
    def features_of_box(self, sample, box):
        if len(self.boxes) == 2:
            test_store.Path(sys.argv[2], "stuck").touch()
            time.sleep(60)
        return super().features_of_box(sample, box)

test_store.extract(test_store.Path(sys.argv[2]), [Stuck()])
"""


def test_an_extraction_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    whole = bytes_of(extract(tmp_path / "whole", [Bank()]))
    process = subprocess.Popen([sys.executable, "-c", _STUCK, str(Path(__file__).parent), str(tmp_path / "cut")])
    place = tmp_path / "cut" / ("k" * 16)
    until = time.monotonic() + 60
    while not (tmp_path / "cut" / "stuck").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0
    assert not (place / "index.json").exists()
    bank = Bank()
    assert bytes_of(extract(tmp_path / "cut", [bank])) == whole
    assert len(bank.boxes) == 3


def test_a_disk_that_is_too_small_is_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=65 * 2**20))
    geometry = PatchGeometry("axial", 32, 0.5)
    sample = make_sample((70, 70, 40))
    with pytest.raises(MedsegError, match="MB free for the features of A_1, got 65 MB; free space") as error:
        extract(tmp_path, [Bank()], sample=sample, geometry=geometry, every=1)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_disk_that_becomes_full_is_one_line(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(MedsegError, match="must be writable, got File too large"):
            extract(tmp_path, [Bank()], every=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    extract(tmp_path, [Bank()], every=1)


def test_a_case_without_patches_is_an_error_that_names_it(tmp_path):
    with pytest.raises(MedsegError, match="A_1 must have at least one patch"):
        extract_case(
            make_sample(), np.zeros((0, 3), int), PatchGeometry(size=8), [Bank()], folder=tmp_path, key="k" * 64
        )


def test_everything_the_patches_depend_on_changes_the_key():
    base = {
        "backbones": [Bank()],
        "preparation": {"n4": False},
        "geometry": PatchGeometry(size=8),
        "source": "abc",
        "sampling": {"seed": 0, "scheme": "R"},
    }
    changes = [
        {"backbones": [Bank(), Strided()]},
        {"backbones": [SimpleNamespace(name="bank", fingerprint="b2")]},
        {"preparation": {"n4": True}},
        {"geometry": PatchGeometry(size=9)},
        {"source": "abd"},
        {"sampling": {"seed": 1, "scheme": "R"}},
    ]
    keys = [store_key(**base | change) for change in changes]
    assert len({store_key(**base), *keys}) == len(changes) + 1
    assert store_key(**base) == store_key(**base | {"sampling": {"scheme": "R", "seed": 0}})
