"""Grids: spacing, orientation, corners, and whether two files share one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.scans import grids
from medseg.scans.grids import Grid, require_plausible_size, require_same_grid

_AFFINE = np.array([[0, -0.5, 0, 10], [0.6, 0, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])


def _grid(shape: tuple[int, int, int] = (4, 5, 6), **change: object) -> Grid:
    return Grid("scan", shape, change.get("affine", _AFFINE))  # type: ignore[arg-type]


def test_spacing_and_orientation_by_hand() -> None:
    assert np.allclose(_grid().spacing, (0.6, 0.5, 2))
    assert _grid().orientation == "ALS"


def test_corners_by_hand() -> None:
    corners = _grid((2, 3, 4)).corners()
    assert np.allclose(corners[0], (10, -20, 5))
    assert np.allclose(corners[1], (10, -20, 5 + 3 * 2))
    assert np.allclose(corners[-1], (10 - 2 * 0.5, -20 + 0.6, 11))


@pytest.mark.parametrize("column", [(0, 0, 0), (0.6, 0, 0), (np.nan, 0, 1), (np.inf, 0, 0)])
def test_affine_that_cannot_be_turned_round_is_refused(column: tuple[float, float, float]) -> None:
    affine = _AFFINE.copy()
    affine[:3, 0] = (0.6, 0, 0)
    affine[:3, 2] = column
    with pytest.raises(MedsegError, match="scan must have"):
        _grid(affine=affine)


def test_same_grid_passes_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    require_same_grid(_grid(), _grid())
    assert not caplog.text


def test_small_difference_is_tolerated_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    moved = _AFFINE.copy()
    moved[2, 3] += 2 * 0.0009
    require_same_grid(_grid(), _grid(affine=moved))
    assert "0.0009 voxels off" in caplog.text


def test_larger_difference_is_refused() -> None:
    moved = _AFFINE.copy()
    moved[2, 3] += 2 * 0.0011
    with pytest.raises(MedsegError, match=r"0\.0011 voxels off"):
        require_same_grid(_grid(), _grid(affine=moved))


def test_mirrored_turned_rescaled_and_cropped_grids_are_refused() -> None:
    mirrored = _AFFINE * np.array([-1, 1, 1, 1])
    turned = _AFFINE[:, [1, 0, 2, 3]]
    for other in (mirrored, turned, _AFFINE * 1.01):
        with pytest.raises(MedsegError, match="must lie on the grid"):
            require_same_grid(_grid(), _grid(affine=other))
    with pytest.raises(MedsegError, match="4 x 5 x 6 voxels of scan, got 4 x 5 x 7"):
        require_same_grid(_grid(), _grid((4, 5, 7)))


def test_mirrored_grid_over_the_same_box_is_refused() -> None:
    mirrored = _AFFINE.copy()
    mirrored[:3, 3] += _AFFINE[:3, 0] * 3
    mirrored[:3, 0] *= -1
    with pytest.raises(MedsegError, match="3 voxels off"):
        require_same_grid(_grid(), _grid(affine=mirrored))


def _changed(change: np.ndarray) -> Grid:
    """The grid with other axes: the change is one of the columns of its affine."""
    affine = _AFFINE.copy()
    affine[:3, :3] = _AFFINE[:3, :3] @ change
    return _grid(affine=affine)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_changed(np.diag([1.0, -1, 1])), r"the x axis mirrored .ARS against ALS"),
        (_changed(np.diag([-1.0, -1, 1])), r"the x and y axes mirrored .PRS against ALS"),
        (_changed(np.diag([1.2, 1.2, 1.2])), r"another spacing, 0.72 x 0.6 x 2.4 mm against 0.6 x 0.5 x 2 mm"),
        (_changed(np.array([[0, 5 / 6, 0], [1.2, 0, 0], [0, 0, 1]])), r"axes that point another way .LAS against ALS"),
    ],
)
def test_the_difference_of_two_grids_is_named(other: Grid, words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        require_same_grid(_grid(), other)


def test_a_shift_is_told_in_mm_and_a_mirrored_voxel_axis_of_an_oblique_grid_by_its_index() -> None:
    moved = _AFFINE.copy()
    moved[:3, 3] += (3, 0, -2)
    with pytest.raises(MedsegError, match=r"shifted by \(3, 0, -2\) mm"):
        require_same_grid(_grid(), _grid(affine=moved))
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(MedsegError, match="the i axis mirrored"):
        require_same_grid(_grid(affine=turn @ _AFFINE), _grid(affine=turn @ _AFFINE * [-1, 1, 1, 1]))
    with pytest.raises(MedsegError, match="the x axis mirrored"):
        require_same_grid(_grid(affine=turn @ _AFFINE), _grid(affine=np.diag([-1, 1, 1, 1]) @ turn @ _AFFINE))


def test_a_larger_grid_that_covers_the_image_is_said_to() -> None:
    with pytest.raises(MedsegError, match="got 4 x 5 x 9, which cover the image and more; resample"):
        require_same_grid(_grid(), _grid((4, 5, 9)))
    with pytest.raises(MedsegError, match="got 4 x 5 x 3; resample"):
        require_same_grid(_grid(), _grid((4, 5, 3)))


def test_claims_are_checked_against_file_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("scan.nii")
    require_plausible_size(path, (10, 10, 10), 2, 2000, compressed=False)
    require_plausible_size(path, (10, 10, 10), 2, 20, compressed=True)
    with pytest.raises(MedsegError, match="got a file with 2 kB for them"):
        require_plausible_size(path, (10, 10, 10), 2, 1999, compressed=False)
    with pytest.raises(MedsegError, match=r"10 x 10 x 10 voxels .2 kB. its header claims"):
        require_plausible_size(path, (10, 10, 10), 2, 1, compressed=True)
    with pytest.raises(MedsegError, match="at least one voxel along each axis"):
        require_plausible_size(path, (10, 0, 10), 2, 2000, compressed=False)
    monkeypatch.setattr(grids, "memory_bytes", lambda: 5999)
    with pytest.raises(MedsegError, match="must fit in the memory"):
        require_plausible_size(path, (10, 10, 10), 2, 2000, compressed=False)
