from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from features.student.vessels.fakes import fake_volume

from medseg.features.student.vessels.volumes import StudentVolume
from medseg.features.student.vessels.windows import cut_window, draw_corner, draw_windows
from medseg.features.teachers.vessels import UNKNOWN

SMALL = (24, 10, 40)


def test_a_window_inside_is_a_plain_cut(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a")
    image, labels = cut_window(volume, (3, 4, 5), 8)
    np.testing.assert_array_equal(image, volume.image[3:11, 4:12, 5:13].astype(np.float32))
    np.testing.assert_array_equal(labels, volume.labels[3:11, 4:12, 5:13])


def test_a_window_that_sticks_out_is_continued_and_unknown_there(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a", SMALL)
    image, labels = cut_window(volume, (2, -3, 5), 16)
    inside = np.zeros((16, 16, 16), bool)
    inside[:, 3:13] = True
    assert (labels[~inside] == UNKNOWN).all()
    assert not (labels[inside] == UNKNOWN).any()
    np.testing.assert_array_equal(image[:, 0], image[:, 3])
    np.testing.assert_array_equal(image[:, 15], image[:, 12])


@pytest.mark.parametrize("shape", [SMALL, (40, 30, 50), (5, 6, 7)])
def test_corners_keep_windows_inside_where_they_fit(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    volume = fake_volume(tmp_path / "a", shape)
    rng = np.random.default_rng(0)
    corners = np.array([draw_corner(rng, volume, 16, 0.5) for _ in range(100)])
    for axis, length in enumerate(shape):
        if length >= 16:
            assert corners[:, axis].min() >= 0
            assert corners[:, axis].max() <= length - 16
        else:
            assert (corners[:, axis] == (length - 16) // 2).all()


def test_centred_windows_hold_a_positive_and_others_lie_anywhere(tmp_path: Path) -> None:
    volume, rng = fake_volume(tmp_path / "a", (20, 90, 90)), np.random.default_rng(0)

    def share(centred: float) -> float:
        return float(
            np.mean([(cut_window(volume, draw_corner(rng, volume, 8, centred), 8)[1] == 1).any() for _ in range(200)])
        )

    assert share(1.0) == 1.0
    assert share(0.0) < 0.2


def test_a_volume_without_positives_gives_windows_too(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a")
    np.save(tmp_path / "a" / "positives.npy", np.zeros(0, np.int64))
    found = draw_windows([StudentVolume(volume.folder)], [(0,)], window=16, centred=1.0, painted=0.0)
    assert found.inputs.isfinite().all()


def test_an_item_is_a_function_of_its_seed(tmp_path: Path) -> None:
    volumes = [fake_volume(tmp_path / "a"), fake_volume(tmp_path / "b", seed=1)]
    seeds = [(7, 1, 0, item) for item in range(4)]
    both = draw_windows(volumes, seeds, window=16, centred=0.5, painted=0.75)
    alone = draw_windows(volumes, seeds[2:3], window=16, centred=0.5, painted=0.75)
    for all_items, one in zip(both, alone, strict=True):
        assert torch.equal(all_items[2], one[0])
        assert not torch.equal(all_items[1], one[0])


def test_weights_are_zero_where_unknown_and_two_on_painted_positives(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a", (40, 40, 40), unknown=True)
    seeds = [(0, item) for item in range(8)]
    plain = draw_windows([volume], seeds, window=32, centred=0.5, painted=0.0)
    assert set(plain.weight.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(plain.weight == 0, plain.labels == UNKNOWN)
    painted = draw_windows([volume], seeds, window=32, centred=0.5, painted=1.0)
    assert set(painted.weight.unique().tolist()) == {0.0, 1.0, 2.0}
    assert (painted.labels[painted.weight == 2] == 1).all()
    assert torch.equal(painted.weight == 0, painted.labels == UNKNOWN)


def test_image_and_labels_are_turned_alike(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a")
    found = draw_windows([volume], [(1, item) for item in range(6)], window=16, centred=1.0, painted=0.0)
    for inputs, labels in zip(found.inputs, found.labels, strict=True):
        assert inputs[0][labels == 1].mean() > inputs[0][labels == 0].mean() + 0.2
