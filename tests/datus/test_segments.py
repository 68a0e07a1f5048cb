"""Tied cells fall into communities, and these into connected segments."""

import networkx
import numpy as np

from medseg.datus.segments import communities, connected_segments, in_order


def _cliques(*sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ties = groups[:, None] == groups
    np.fill_diagonal(ties, False)
    return ties, groups


def test_cliques_joined_by_one_tie_are_communities():
    ties, groups = _cliques(5, 7, 6)
    ties[4, 5] = ties[5, 4] = ties[11, 12] = ties[12, 11] = True
    assert communities(ties).tolist() == groups.tolist()


def test_cells_that_are_tied_to_none_are_one_community():
    ties, _ = _cliques(4, 1, 4, 1)
    assert communities(ties).tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 1]
    assert communities(np.zeros((3, 3), bool)).tolist() == [0, 0, 0]


def _scattered(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 2))
    ties = np.linalg.norm(points[:, None] - points, axis=-1) < 0.8
    np.fill_diagonal(ties, False)
    return ties


def _modularity(ties, numbers, resolution=1.0):
    """Share of ties within communities, less what chance would give."""
    total, within = ties.sum(), 0.0
    for number in np.unique(numbers):
        members = numbers == number
        within += ties[members][:, members].sum() / total - resolution * (ties[members].sum() / total) ** 2
    return within


def test_communities_are_as_good_as_those_of_another_library():
    for seed, resolution in ((0, 1.0), (1, 1.0), (2, 1.6)):
        ties = _scattered(150, seed)
        found = communities(ties, resolution=resolution)
        groups = networkx.community.louvain_communities(networkx.from_numpy_array(ties), resolution=resolution, seed=0)
        other = np.zeros(len(ties), int)
        for number, members in enumerate(groups):
            other[list(members)] = number
        assert _modularity(ties, found, resolution) > 0.98 * _modularity(ties, other, resolution) > 0.2
        assert _modularity(ties, np.random.default_rng(0).permutation(found), resolution) < 0.1


def test_a_higher_resolution_gives_more_communities_and_there_is_no_chance():
    ties = _scattered(60)
    coarse, fine = communities(ties), communities(ties, resolution=3.0)
    assert fine.max() > coarse.max() > 0
    assert np.array_equal(coarse, communities(ties))


def test_pieces_hang_together_by_corners_and_what_is_outside_stays_there():
    groups = np.array([[5, 2, 2, -1], [2, 5, 2, -1], [5, 2, 7, 7], [7, 2, 2, 7]])
    wanted = np.array([[0, 1, 1, -1], [1, 0, 1, -1], [0, 1, 2, 2], [3, 1, 1, 2]])
    assert connected_segments(groups).tolist() == wanted.tolist()


def test_numbers_come_in_the_order_of_their_first_cells():
    assert in_order(np.array([7, 3, 7, 9, 3])).tolist() == [0, 1, 0, 2, 1]
