"""Pasting windows back into a volume."""

import doctest

import numpy as np
import pytest
import torch

from medseg.errors import MedsegError
from medseg.patches.slicing import PatchGeometry, cut_all, grid_locations
from medseg.reconstruction import blend
from medseg.reconstruction.blend import Blender, gaussian_weights

PLANES = ("axial", "coronal", "sagittal")


def paste(volume, geometry, *, region=None, answer=lambda patches: patches, batch=7, out=None, share=1.0):
    """Cut all windows of a volume, answer each, and paste them back."""
    shape = volume.shape[1:]
    locations = grid_locations(shape, geometry, region)
    blender = Blender(shape, geometry, len(volume), out=out, share=share)
    for start in range(0, len(locations), batch):
        where = locations[start : start + batch]
        blender.add(answer(torch.from_numpy(cut_all(volume, where, geometry))), where)
    return blender.result()


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(blend).failed == 0


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(37, 19, 23), (5, 40, 33), (3, 5, 7), (1, 16, 17)])
def test_what_is_cut_and_pasted_is_the_volume(plane, overlap, shape):
    volume = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    pasted = paste(volume, PatchGeometry(plane, 16, overlap))
    assert pasted.shape == volume.shape
    assert np.abs(pasted - volume).max() < 1e-5


def test_a_volume_moved_by_one_voxel_is_not_the_same():
    volume = np.random.default_rng(0).normal(size=(1, 21, 21, 5)).astype(np.float32)
    moved = paste(volume, PatchGeometry("axial", 8), answer=lambda patches: patches.roll(1, dims=-1))
    assert np.abs(moved - volume).max() > 0.5


@pytest.mark.parametrize("plane", PLANES)
def test_a_constant_stays_constant_up_to_the_edges(plane):
    pasted = paste(np.full((1, 30, 31, 17), 0.7, np.float32), PatchGeometry(plane, 12, 0.6))
    assert np.abs(pasted - 0.7).max() < 1e-6


def test_weights_are_exactly_those_of_the_windows():
    geometry = PatchGeometry("axial", 4, 0.5)
    locations = grid_locations((6, 4, 1), geometry)
    assert locations.tolist() == [[0, 0, 0], [0, 2, 0]]
    blender = Blender((6, 4, 1), geometry, 1)
    blender.add(torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4), locations)
    weights = gaussian_weights(4)[:, 0].astype(float)
    # Rows 2 and 3 lie in both windows, as rows 2, 3 of the first and 0, 1 of the second.
    shared = weights[:2] / (weights[:2] + weights[2:])
    assert np.allclose(blender.result()[0, :, 0, 0], [0, 0, *shared, 1, 1], atol=1e-7)


def test_gaussian_weights_fall_from_the_centre_and_never_vanish():
    weights = gaussian_weights(9)
    assert weights[4, 4] == 1
    assert np.allclose(weights[4, 5], np.exp(-0.5 * (8 / 9) ** 2))
    assert np.array_equal(weights, weights.T)
    assert np.array_equal(weights, weights[::-1])
    assert weights.min() == np.float32(1e-3)


@pytest.mark.parametrize("plane", PLANES)
def test_coarser_answers_give_a_smooth_volume_back(plane):
    i, j, k = np.meshgrid(*(np.linspace(0, 1, n) for n in (40, 36, 44)), indexing="ij")
    smooth = np.sin(2 * i + j - 1.5 * k).astype(np.float32)[None]
    geometry = PatchGeometry(plane, 16, 0.5)
    pasted = paste(smooth, geometry, answer=lambda patches: torch.nn.functional.avg_pool2d(patches, 2))
    inner = (slice(None), *[slice(4, -4)] * 3)
    assert np.abs(pasted - smooth)[inner].max() < 2e-3
    assert np.abs(pasted - smooth).max() < 0.05


def test_magnified_patches_come_back_at_voxel_size():
    ramp = np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32)[:, None, None], (24, 20, 3))[None]
    pasted = paste(np.ascontiguousarray(ramp), PatchGeometry("axial", 8, 0.5, magnification=4))
    assert np.abs(pasted - ramp)[:, 1:-1].max() < 2e-3


def test_only_windows_of_the_region_are_pasted():
    region = np.zeros((20, 20, 40), bool)
    region[3, 4, 30] = True
    pasted = paste(np.ones((1, 20, 20, 40), np.float32), PatchGeometry("axial", 8, 0.5), region=region)
    assert pasted[0, 3, 4, 30] == 1
    assert pasted[..., :30].max() == pasted[..., 31:].max() == pasted[0, 12:, :, 30].max() == 0


def test_planes_are_averaged_in_one_array():
    volume = np.random.default_rng(2).random((1, 11, 13, 12)).astype(np.float32)
    fused = np.zeros_like(volume)
    for factor, plane in enumerate(PLANES):
        paste(
            volume, PatchGeometry(plane, 6, 0.5), answer=lambda patches, f=factor: f * patches, out=fused, share=1 / 3
        )
    assert np.abs(fused - volume).max() < 1e-5
    assert volume.max() > 0.9


@pytest.mark.parametrize("plane", PLANES)
def test_finished_slabs_go_to_a_memory_map(tmp_path, plane):
    volume = np.random.default_rng(0).random((2, 40, 38, 50)).astype(np.float32)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=volume.shape)
    geometry = PatchGeometry(plane, 16, 0.5)
    assert paste(volume, geometry, out=out) is out
    assert np.array_equal(np.array(out), paste(volume, geometry))


def test_windows_out_of_order_are_refused():
    blender = Blender((8, 8, 40), PatchGeometry("axial", 8), 1)
    values = torch.ones(1, 1, 8, 8)
    blender.add(values, np.array([[20, 0, 0]]))
    with pytest.raises(ValueError, match="ordered by slice"):
        blender.add(values, np.array([[3, 0, 0]]))
    blender.result()
    with pytest.raises(ValueError, match="ordered by slice"):
        blender.add(values, np.array([[20, 0, 0]]))


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(MedsegError, match=r"out must have the shape \(1, 8, 8, 4\), got \(1, 8, 8, 5\)"):
        Blender((8, 8, 4), PatchGeometry("axial", 8), 1, out=np.zeros((1, 8, 8, 5)))
