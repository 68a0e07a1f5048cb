"""Cutting patches out of a volume, and where they lie."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import MedsegError
from medseg.patches import slicing
from medseg.patches.slicing import PatchGeometry, cut, cut_all, grid_locations, plane_shape, window_starts

PLANES = ("axial", "coronal", "sagittal")


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(slicing).failed == 0
    assert doctest.testmod(slicing).attempted >= 3


@given(length=st.integers(1, 80), size=st.integers(1, 40), overlap=st.floats(0, 0.95))
def test_windows_cover_an_axis_once_each_and_end_with_it(length, size, overlap):
    starts = window_starts(length, size, overlap)
    assert len(set(starts)) == len(starts)
    assert starts == sorted(starts)
    covered = {voxel for start in starts for voxel in range(start, start + size)}
    assert covered >= set(range(length))
    assert starts[0] == 0
    assert max(covered) == max(length, size) - 1


def test_a_plane_keeps_the_order_of_the_other_axes():
    volume = numbered((3, 4, 5))
    for plane, window in {
        "sagittal": volume[:, 1, 1:3, 2:4],
        "coronal": volume[:, 1:3, 1, 2:4],
        "axial": volume[:, 1:3, 2:4, 1],
    }.items():
        assert np.array_equal(cut(volume, (1, 1, 2), PatchGeometry(plane, 2)), window)
    assert [plane_shape((3, 4, 5), plane) for plane in PLANES] == [(5, 3, 4), (4, 3, 5), (3, 4, 5)]


def test_tensors_and_arrays_are_cut_alike_and_copied():
    volume = numbered((5, 6, 7))
    geometry = PatchGeometry("coronal", 4, magnification=2, neighbours=1)
    array, tensor = cut(volume, (0, 1, 3), geometry), cut(torch.from_numpy(volume), (0, 1, 3), geometry)
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(array, tensor.numpy())
    cut(volume, (0, 0, 0), PatchGeometry("axial", 4))[:] = -1
    assert volume.min() == 0


def test_neighbours_become_channels_and_are_repeated_at_the_ends():
    volume = numbered((4, 4, 3))
    both = np.concatenate([volume, -volume])
    patch = cut(both, (0, 0, 0), PatchGeometry("axial", 4, neighbours=1))
    assert patch.shape == (6, 4, 4)
    for channel, expected in enumerate((0, 0, 1)):
        assert np.array_equal(patch[channel], volume[0, :, :, expected])
        assert np.array_equal(patch[3 + channel], -volume[0, :, :, expected])


def test_a_volume_smaller_than_a_window_is_padded_with_its_edge():
    volume = numbered((2, 5, 3))
    patch = cut(volume, (0, 0, 0), PatchGeometry("axial", 4))
    assert np.array_equal(patch[0], np.pad(volume[0, :, :4, 0], ((0, 2), (0, 0)), mode="edge"))
    tiny = cut(torch.from_numpy(volume), (0, 0, 0), PatchGeometry("sagittal", 7))
    assert np.array_equal(tiny[0], np.pad(volume[0, 0], ((0, 2), (0, 4)), mode="edge"))


def test_magnification_is_bilinear_for_values_and_repeats_labels():
    ramp = np.tile(np.arange(4.0, dtype=np.float32)[:, None, None], (1, 4, 1))[None]
    patch = cut(ramp, (0, 0, 0), PatchGeometry("axial", 4, magnification=2))
    assert np.allclose(patch[0, :, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    labels = cut(ramp.astype(np.int16), (0, 0, 0), PatchGeometry("axial", 4, magnification=2))
    assert labels.dtype == np.int16
    assert labels[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("plane", PLANES)
def test_the_grid_holds_the_windows_that_touch_the_region_and_no_others(plane):
    rng = np.random.default_rng(0)
    region = rng.random((17, 13, 11)) > 0.995
    geometry = PatchGeometry(plane, 5, 0.5)
    found = {tuple(location) for location in grid_locations(region.shape, geometry, region).tolist()}
    everywhere = grid_locations(region.shape, geometry)
    slow = {tuple(where) for where in everywhere.tolist() if cut(region[None], where, geometry).any()}
    assert found == slow
    assert 0 < len(found) < len(everywhere)
    assert everywhere.tolist() == sorted(everywhere.tolist())


def test_an_empty_region_has_no_windows():
    assert grid_locations((9, 9, 9), PatchGeometry(size=4), np.zeros((9, 9, 9), bool)).shape == (0, 3)


def test_several_patches_equal_single_ones():
    volume = numbered((9, 8, 7))
    geometry = PatchGeometry("sagittal", 4, magnification=3)
    locations = grid_locations((9, 8, 7), geometry)
    together = cut_all(volume, locations, geometry)
    assert together.shape == (len(locations), 1, 12, 12)
    assert all(
        np.array_equal(one, cut(volume, where, geometry)) for one, where in zip(together, locations, strict=True)
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"plane": "oblique"}, "patches.plane must be one of sagittal, coronal, axial, got 'oblique'"),
        ({"overlap": 1.0}, "patches.overlap must be in"),
        ({"size": 0}, "patches.size must be at least 1, got 0"),
        ({"magnification": 0}, "patches.magnification"),
        ({"neighbours": -1}, "patches.neighbours"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_by_name(wrong, words):
    with pytest.raises(MedsegError, match=words):
        PatchGeometry(**wrong)
