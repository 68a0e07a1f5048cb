"""The stages together give what a slow program gives that was written step by step from the paper."""

from itertools import combinations

import numpy as np
import torch

from medseg.datus.affinity import affinity, tied
from medseg.datus.crops import crop_features
from medseg.datus.labelling import NOISE, label_segments, pseudo_mask
from medseg.datus.segments import communities, connected_segments
from medseg.features.backbones import to_rgb
from medseg.features.image_bank import ImageBank

SIDE, CLASSES = 16, 3


def _painted(seed):
    """Sky over meadow with a red ball: 48 x 40 pixels, 12 x 10 cells."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :40]
    picture = np.where((rows < 20 + 4 * seed)[..., None], (0.4, 0.6, 0.9), (0.2, 0.5, 0.2))
    picture[np.hypot(rows - 36, columns - 12 - 6 * seed) < 8] = (0.8, 0.1, 0.1)
    return torch.from_numpy((picture + random.normal(size=picture.shape) * 0.01).clip(0, 1)).permute(2, 0, 1).float()


def _slow_louvain(ties):
    """Blondel et al., 2008: move each node to the neighbour's community that gains most, then make nodes of them."""
    weights, community_of = ties.copy(), np.arange(len(ties))
    while True:
        degrees, total, of = weights.sum(1), weights.sum(), list(range(len(weights)))
        moved = True
        while moved:
            moved = False
            for node in range(len(weights)):
                gains = {}
                for number in {of[other] for other in range(len(weights)) if weights[node, other]} | {of[node]}:
                    members = [other for other in range(len(weights)) if of[other] == number and other != node]
                    gains[number] = weights[node, members].sum() - degrees[node] * degrees[members].sum() / total
                best = max(gains, key=lambda number: gains[number])
                if gains[best] > gains[of[node]] + 1e-9:
                    of[node], moved = best, True
        kept = sorted(set(of))
        if len(kept) == len(weights):
            return community_of.tolist()
        joined = np.array([[float(number == own) for number in kept] for own in of])
        community_of = np.array([kept.index(number) for number in of])[community_of]
        weights = joined.T @ weights @ joined


def _slow_segments(features):
    """Nodes, edges, communities and their 8-connected pieces, one by one."""
    dim, height, width = features.shape
    cells = [(row, column) for row in range(height) for column in range(width)]
    vectors = [[float(features[d, row, column]) for d in range(dim)] for row, column in cells]
    mean = [sum(vector[d] for vector in vectors) / len(vectors) for d in range(dim)]
    vectors = [np.array([value - middle for value, middle in zip(vector, mean, strict=True)]) for vector in vectors]
    ties = np.zeros((len(cells), len(cells)))
    for first, second in combinations(range(len(cells)), 2):
        a, b = vectors[first], vectors[second]
        if float(a @ b) / (np.sqrt(float(a @ a)) * np.sqrt(float(b @ b))) > 0:
            ties[first, second] = ties[second, first] = 1
    community = dict(zip(cells, _slow_louvain(ties), strict=True))
    segments, count = {}, 0
    for start in cells:
        if start in segments:
            continue
        waiting = [start]
        while waiting:
            row, column = waiting.pop()
            if (row, column) in segments or community.get((row, column)) != community.get(start):
                continue
            segments[row, column] = count
            near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            waiting += [place for place in near if 0 <= place[0] < height and 0 <= place[1] < width]
        count += 1
    return np.array([segments[cell] for cell in cells]).reshape(height, width)


def _slow_feature(picture, segments, number, bank):
    """The crop of one segment pixel by pixel, and the mean of what the bank says of its part of the crop."""
    cells = np.argwhere(segments == number)
    (top, left), (bottom, right) = cells.min(0), cells.max(0) + 1
    shown = to_rgb(picture[None], "rgb")[0]
    height, width = shown.shape[1:]
    crop, cover = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(SIDE, SIDE)
    for row in range(SIDE):
        for column in range(SIDE):
            y = (top + (row + 0.5) / SIDE * (bottom - top)) / segments.shape[0]
            x = (left + (column + 0.5) / SIDE * (right - left)) / segments.shape[1]
            if segments[int(y * segments.shape[0]), int(x * segments.shape[1])] != number:
                continue
            cover[row, column] = 1
            y, x = min(max(y * height - 0.5, 0), height - 1), min(max(x * width - 0.5, 0), width - 1)
            for i, share_of_row in ((int(y), 1 - y % 1), (min(int(y) + 1, height - 1), y % 1)):
                for j, share_of_column in ((int(x), 1 - x % 1), (min(int(x) + 1, width - 1), x % 1)):
                    crop[0, :, row, column] += share_of_row * share_of_column * shown[:, i, j]
    said = bank(crop)[0]
    total, weights, stride = torch.zeros(bank.dim), 0.0, SIDE // said.shape[1]
    for row in range(said.shape[1]):
        for column in range(said.shape[2]):
            block = cover[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
            total += said[:, row, column] * float(block.mean())
            weights += float(block.mean())
    mean = total / weights
    return (mean / mean.norm()).double().numpy()


def _slow_labels(features):
    """Principal components by the covariance, then Lloyd's steps from every choice of starts."""
    centred = features - features.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    places = centred @ vectors[:, np.argsort(-values)[:32]]
    best, found = np.inf, None
    for start in combinations(range(len(places)), CLASSES):
        centres = places[list(start)]
        for _ in range(20):
            nearest = np.array([min(range(CLASSES), key=lambda k: np.sum((p - centres[k]) ** 2)) for p in places])
            if len(set(nearest)) < CLASSES:
                break
            centres = np.array([places[nearest == k].mean(0) for k in range(CLASSES)])
        spread = sum(np.sum((p - centres[k]) ** 2) for p, k in zip(places, nearest, strict=True))
        if len(set(nearest)) == CLASSES and spread < best - 1e-12:
            best, found = spread, nearest
    return found


def test_three_pictures_are_labelled_as_by_the_slow_loop():
    bank, pictures = ImageBank(), [_painted(seed) for seed in range(3)]
    fast, slow, segments, sizes = [], [], [], []
    for picture in pictures:
        features = bank(to_rgb(picture[None], "rgb"))[0]
        ties = tied(affinity(features.flatten(1).T, centred=True)).numpy()
        found = connected_segments(communities(ties).reshape(features.shape[1:]))
        assert np.array_equal(found, _slow_segments(features.double()))
        segments.append(found)
        sizes.append(np.bincount(found.ravel()))
        fast.append(crop_features(picture, found, [bank], side=SIDE))
        slow.append([_slow_feature(picture, found, number, bank) for number in range(found.max() + 1)])
        np.testing.assert_allclose(fast[-1].numpy(), slow[-1], atol=1e-4)
    cells = np.concatenate(sizes)
    labels = label_segments(torch.cat(fast), cells, clusters=CLASSES, classes=CLASSES)
    assert ((labels == NOISE) == (cells < 6)).all()
    true = _slow_labels(np.concatenate(slow)[cells >= 6])
    pairs = set(zip(labels[cells >= 6].tolist(), true.tolist(), strict=True))
    assert len(pairs) == CLASSES
    masks = [
        pseudo_mask(one, own)
        for one, own in zip(segments, np.split(labels, np.cumsum([len(s) for s in sizes])[:-1]), strict=True)
    ]
    for mask, one in zip(masks, segments, strict=True):
        assert mask.shape == one.shape
    # The same things of all three pictures carry the same label.
    assert len({int(mask[0, 0]) for mask in masks}) == 1
