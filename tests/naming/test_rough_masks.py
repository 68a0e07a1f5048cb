from datetime import UTC, datetime

import nibabel
import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.annotations import AnnotatedSlice, Annotation, cells_along, slice_axis
from medseg.naming.rough_masks import (
    METHODS,
    NO_VESSEL,
    UNKNOWN,
    VESSEL,
    brightest_part,
    by_kmeans,
    by_mixture,
    rough_labels,
)
from medseg.scans.grids import Grid

CELL = 8


def _annotation(grid: Grid, *slices: AnnotatedSlice) -> Annotation:
    return Annotation("a", "00", grid, CELL, slices, 1.0, "Ada", datetime(2026, 1, 1, tzinfo=UTC))


def _tubes(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Three slanting tubes of 1.5 mm radius, 2 tissue medians bright in noise, and their truth."""
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    truth = np.zeros(shape, bool)
    middle = places.reshape(-1, 3).mean(0)
    for shift, slant in ((-7, 0.3), (1, -0.2), (8, 0.1)):
        distance = places[..., :2] - middle[:2] - shift - slant * (places[..., 2:] - middle[2])
        truth |= np.hypot(*np.moveaxis(distance, -1, 0)) < 1.5
    noise = np.random.default_rng(4).normal(0, 12, shape)
    return 100 + 100 * truth + noise, truth


def _ticks(truth: np.ndarray, grid: Grid, indices: list[int]) -> list[AnnotatedSlice]:
    """Exactly the cells that hold a vessel, by a slow loop over stored voxels."""
    axis = slice_axis(grid.affine)
    found: dict[int, set[tuple[int, int]]] = {index: set() for index in indices}
    for voxel in np.argwhere(truth):
        if voxel[axis] in found:
            row, column = np.delete(voxel, axis) // CELL
            found[voxel[axis]].add((int(row), int(column)))
    return [AnnotatedSlice(index, tuple(sorted(places)), True) for index, places in found.items()]


GRIDS = {
    "RAS": np.diag([0.6, 0.6, 0.8, 1]),
    "LAS": np.diag([-0.6, 0.6, 0.8, 1]),
    "PSR": np.array([[0, 0, 0.6, 3], [-0.6, 0, 0, 4], [0, 0.8, 0, 5], [0, 0, 0, 1.0]]),
    "oblique": nibabel.affines.from_matvec(
        np.array([[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]]) * [-0.6, 0.6, 1.3], [1, 2, 3]
    ),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_tubes_are_found_where_they_are(name, method):
    shape = (45, 25, 45) if name == "PSR" else (45, 45, 25)
    grid = Grid(name, shape, GRIDS[name])
    image, truth = _tubes(GRIDS[name], shape)
    indices = [4, 12, 20]
    labels = rough_labels(image, _annotation(grid, *_ticks(truth, grid, indices)), method)
    axis = slice_axis(grid.affine)
    seen = np.isin(np.arange(25), indices)
    by_slice, expected = np.moveaxis(labels, axis, 0), np.moveaxis(truth, axis, 0)
    assert (by_slice[~seen] == UNKNOWN).all()
    found, true = by_slice[seen] == VESSEL, expected[seen]
    assert true.any()
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.97
    assert (by_slice[seen] != UNKNOWN).all()
    mirrored = np.flip(true, axis=1)
    assert 2 * (found & mirrored).sum() / (found.sum() + mirrored.sum()) < 0.5


def test_labels_are_what_the_words_say():
    grid = Grid("a", (20, 12, 4), np.eye(4))
    image = np.full(grid.shape, 10.0)
    image[9, 9, 1] = image[2, 2, 1] = image[17, 11, 2] = 90
    image[10, 10, 3] = 90
    slices = (
        AnnotatedSlice(1, ((1, 1),), True),  # the bright voxel of cell 0, 0 was not ticked: no vessel
        AnnotatedSlice(2, ((2, 1),), False),
        AnnotatedSlice(3, (), True),
    )
    labels = rough_labels(image, _annotation(grid, *slices))
    expected = np.full(grid.shape, UNKNOWN, np.int8)
    expected[:, :, [1, 3]] = NO_VESSEL
    expected[9, 9, 1] = expected[17, 11, 2] = VESSEL
    cell = np.zeros((20, 12), bool)
    cell[16:, 8:] = True  # cut off at both borders
    cell[17, 11] = False
    expected[cell, 2] = NO_VESSEL
    assert labels.dtype == np.int8 and (labels == expected).all()


def test_a_ticked_cell_without_anything_bright_stays_unknown():
    grid = Grid("a", (16, 16, 1), np.diag([1, 1, 2, 1.0]))
    image = np.random.default_rng(0).normal(10, 0.5, grid.shape)
    image[3, 4] = 90
    labels = rough_labels(image, _annotation(grid, AnnotatedSlice(0, ((0, 0), (1, 1)), True)))
    assert (labels[8:, 8:] == UNKNOWN).all() and (labels[:8, 8:] == NO_VESSEL).all()
    assert labels[3, 4, 0] == VESSEL and (labels == VESSEL).sum() == 1
    flat = rough_labels(np.zeros(grid.shape), _annotation(grid, AnnotatedSlice(0, ((0, 0),), True)))
    assert (flat[:8, :8] == UNKNOWN).all() and not (flat == VESSEL).any()


@pytest.mark.parametrize("method", METHODS)
def test_tissue_beside_much_fluid_is_no_vessel(method):
    grid = Grid("a", (64, 64, 1), np.diag([0.5, 0.5, 0.8, 1]))
    rng = np.random.default_rng(6)
    truth = np.zeros(grid.shape, bool)
    truth[:, 20:22] = True
    image = rng.normal(0, 8, grid.shape) + np.where(truth, 180, 100)
    image[:, 32:] -= 80
    ticked = tuple((row, column) for row in range(8) for column in (2, 4))
    labels = rough_labels(image, _annotation(grid, AnnotatedSlice(0, ticked, True)), method)
    found = labels == VESSEL
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97


def test_equal_bright_values_are_not_divided_again():
    values = np.array([1.0, 1, 2, 2, 2, 2])
    assert (brightest_part(values, 0.1, "kmeans") == (values == 2)).all()


def test_slices_may_differ_in_brightness():
    grid = Grid("a", (16, 16, 2), np.eye(4))
    image = np.random.default_rng(0).normal(100, 5, grid.shape)
    image[3:5, 3:5] = 200
    image[:, :, 1] *= 3
    labels = rough_labels(image, _annotation(grid, *(AnnotatedSlice(k, ((0, 0),), True) for k in (0, 1))))
    assert (labels == VESSEL).sum() == 8
    assert (labels[3:5, 3:5] == VESSEL).all()


def test_kmeans_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(2)
    for values in (rng.gamma(2, 30, 60), rng.integers(0, 4, 40).astype(float), np.array([3.0, 1])):
        costs = {
            threshold: sum(
                ((part - part.mean()) ** 2).sum() for part in (values[values <= threshold], values[values > threshold])
            )
            for threshold in np.unique(values)[:-1]
        }
        best = min(costs, key=costs.get)
        assert (by_kmeans(values) == (values > best)).all()


def test_the_mixture_finds_two_normal_distributions_of_one_width():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(100, 12, 5000), rng.normal(160, 12, 400)])
    found = by_mixture(values)
    # Equal widths: the densities are equal where (v - 130) (160 - 100) / 12^2 = log(5000 / 400).
    threshold = 130 + np.log(5000 / 400) * 12**2 / 60
    assert values[found].min() == pytest.approx(threshold, abs=2)
    assert (found == (values >= values[found].min())).all()


def test_equal_values_have_no_brighter_part():
    for divide in (by_kmeans, by_mixture):
        assert not divide(np.full(5, 3.0)).any()
        assert not divide(np.array([3.0])).any()
        assert divide(np.array([1.0, 1, 1, 2])).tolist() == [False, False, False, True]


def test_another_shape_and_another_method_are_one_line():
    annotation = _annotation(Grid("a", (8, 8, 2), np.eye(4)), AnnotatedSlice(0, ((0, 0),), True))
    with pytest.raises(MedsegError, match=r"the shape \(8, 8, 2\) that was annotated, got \(8, 8, 3\)"):
        rough_labels(np.zeros((8, 8, 3)), annotation)
    with pytest.raises(MedsegError, match="one of kmeans, mixture, got otsu"):
        rough_labels(np.zeros((8, 8, 2)), annotation, "otsu")


def test_cells_at_the_end_are_counted():
    assert cells_along((20, 12, 4), 2, CELL) == (3, 2)
