"""Segments become classes, or noise."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import softmax

from medseg.datus.labelling import (
    NOISE,
    PROBABILITY,
    label_segments,
    log_probabilities,
    merged,
    principal_components,
    pseudo_mask,
)
from medseg.errors import MedsegError


def _groups(sizes, seed=0):
    random = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(sizes)), sizes)
    centres = 10 * np.eye(len(sizes), 6)
    return torch.from_numpy((centres[true] + random.normal(size=(len(true), 6))).astype(np.float32)), true


def _same_partition(first, second):
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


def test_principal_components_keep_distances_and_are_sorted_and_uncorrelated():
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 7)
    places = principal_components(features, 6)
    near, wanted_near = (torch.cdist(points.double(), points.double()) for points in (places, features))
    torch.testing.assert_close(near, wanted_near, atol=1e-3, rtol=0)
    covariance = np.cov(places.numpy().T)
    wanted = np.linalg.eigvalsh(np.cov(features.numpy().T))[::-1]
    np.testing.assert_allclose(covariance, np.diag(wanted), atol=1e-4)
    assert principal_components(features, 2).shape == (40, 2)


def test_groups_are_found_also_when_clustered_over_and_merged():
    features, true = _groups([20, 30, 25])
    cells = np.full(75, 9)
    for clusters in (3, 9):
        labels = label_segments(features, cells, clusters=clusters, classes=3)
        assert _same_partition(labels.tolist(), true.tolist())
        assert set(labels) == {0, 1, 2}


def test_small_segments_are_noise_and_make_no_cluster():
    features, true = _groups([20, 20, 20])
    cells = np.where(true == 2, 5, 6)
    labels = label_segments(features, cells, clusters=2, classes=2)
    assert (labels[true == 2] == NOISE).all()
    assert _same_partition(labels[true < 2].tolist(), true[true < 2].tolist())


def test_merging_is_ward_s():
    random = np.random.default_rng(3)
    prototypes = random.normal(size=(12, 4))
    tree = linkage(prototypes, "ward")  # of single points: clusters of equal size
    for classes in (2, 3, 7, 12):
        found = merged(prototypes, np.ones(12, int), classes)
        assert _same_partition(found.tolist(), fcluster(tree, classes, "maxclust").tolist())


def test_large_clusters_are_merged_last():
    prototypes = np.array([[0.0], [1.0], [2.2]])
    assert merged(prototypes, np.array([1, 1, 1]), 2).tolist() == [0, 0, 1]
    assert merged(prototypes, np.array([100, 100, 1]), 2).tolist() == [0, 1, 1]


def test_too_few_segments_are_said():
    features, _ = _groups([5, 5])
    with pytest.raises(MedsegError, match=r"at least 11 segments .* got 10; ask for fewer clusters"):
        label_segments(features, np.full(10, 9), clusters=11, classes=2)


def test_a_pseudo_mask_has_the_labels_of_its_segments():
    segments = np.array([[0, 0, 1], [-1, 2, 1]])
    assert pseudo_mask(segments, np.array([4, NOISE, 6])).tolist() == [[4, 4, NOISE], [NOISE, 6, NOISE]]


def test_probabilities_before_the_crf_by_hand():
    mask = np.array([[2, 5], [5, NOISE]])
    shares = softmax(log_probabilities(mask, (2, 2), np.array([2, 5])), axis=0)
    np.testing.assert_allclose(shares[:, 0, 0], [PROBABILITY, 1 - PROBABILITY], atol=1e-5)
    np.testing.assert_allclose(shares[:, 0, 1], [1 - PROBABILITY, PROBABILITY], atol=1e-5)
    np.testing.assert_allclose(shares[:, 1, 1], [0.5, 0.5], atol=1e-5)
    wide = log_probabilities(mask, (8, 8), np.array([2, 5]))
    assert wide.shape == (2, 8, 8) and wide.argmax(0)[0].tolist() == [0] * 4 + [1] * 4
