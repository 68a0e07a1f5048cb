"""The filter bank as a volume backbone: tiling, mm, lifting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch.nn.functional import cosine_similarity

from medseg.features.backbones import VolumeBackbone
from medseg.features.filterbank import CHANNELS, FilterBank

SHAPE = (36, 33, 30)
SPACING = (0.5, 0.7, 0.8)
WHOLE = (slice(None), slice(None), slice(None))


def make_sample(shape=SHAPE, spacing=SPACING, contrast_scale=2.0, seed=0):
    """Random maps; the affine is turned by 30 degrees, so that the voxel size is not its diagonal."""
    random = np.random.default_rng(seed)
    turn = np.array([[np.sqrt(0.75), -0.5, 0], [0.5, np.sqrt(0.75), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    keys = ("image", "salience", "tubularity")
    maps = {key: random.gamma(2, 0.6, (1, *shape)).astype(np.float32) for key in keys}
    tensors = {key: MetaTensor(torch.from_numpy(value), affine=torch.from_numpy(affine)) for key, value in maps.items()}
    return {**tensors, "facts": {"contrast_scale": contrast_scale}}


def sample_of(image, salience, tubularity):
    """A volume of one value each, 5 voxels a side."""
    shape = (1, 5, 5, 5)
    values = {"image": image, "salience": salience, "tubularity": tubularity}
    maps = {key: MetaTensor(torch.full(shape, float(value)), affine=torch.eye(4)) for key, value in values.items()}
    return {**maps, "facts": {"contrast_scale": 2.0}}


def feature_of(image, salience, tubularity):
    return FilterBank().features_of_box(sample_of(image, salience, tubularity), WHOLE)[:, 2, 2, 2]


@pytest.mark.parametrize("tile", [(7, 9, 30), (36, 33, 4), (1, 33, 30)])
def test_features_of_tiles_equal_features_of_the_whole(tile):
    sample = make_sample()
    bank = FilterBank()
    whole = bank.features_of_box(sample, WHOLE)
    tiled = torch.full_like(whole, torch.nan)
    for i in range(0, SHAPE[0], tile[0]):
        for j in range(0, SHAPE[1], tile[1]):
            for k in range(0, SHAPE[2], tile[2]):
                box = tuple(slice(start, start + size) for start, size in zip((i, j, k), tile, strict=True))
                part = bank.features_of_box(sample, box)
                tiled[(slice(None), *box)] = part
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_the_bank_is_a_volume_backbone_with_finite_features_of_norm_one():
    bank = FilterBank()
    features = bank.features_of_box(make_sample(), (slice(3, 9), slice(0, 33), slice(29, 30)))
    assert isinstance(bank, VolumeBackbone)
    assert features.shape == (bank.dim, 6, 33, 1) and features.dtype == torch.float32
    assert 32 <= bank.dim <= 96
    torch.testing.assert_close(features.square().sum(0), torch.ones(6, 33, 1))


def test_a_bright_object_far_away_changes_nothing():
    sample = make_sample(shape=(60, 20, 20))
    spoilt = make_sample(shape=(60, 20, 20))
    spoilt["image"][0, 58, 10, 10] += 1000
    box = (slice(0, 20), slice(None), slice(None))
    bank = FilterBank()
    torch.testing.assert_close(bank.features_of_box(spoilt, box), bank.features_of_box(sample, box))
    near = (slice(56, 60), slice(None), slice(None))
    assert not torch.allclose(bank.features_of_box(spoilt, near), bank.features_of_box(sample, near))


def test_scales_are_in_mm():
    """A ball sampled twice as finely gives the same features at the same places."""

    def ball(spacing):
        axes = [np.arange(-8, 8.01, h) for h in (spacing,) * 3]
        distance = np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0)
        bump = torch.from_numpy(np.exp(-((distance / 2.5) ** 2)).astype(np.float32))[None]
        affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0]))
        maps = {"image": 1 + 2 * bump, "salience": bump, "tubularity": 0.4 * bump}
        return {**{key: MetaTensor(v, affine=affine) for key, v in maps.items()}, "facts": {"contrast_scale": 2.0}}

    bank = FilterBank()
    coarse, fine = (bank.features_of_box(ball(h), WHOLE) for h in (0.5, 0.25))
    similarity = cosine_similarity(coarse, fine[:, ::2, ::2, ::2], dim=0)
    assert similarity.min() > 0.99
    assert cosine_similarity(coarse, fine[:, :33, :33, :33], dim=0).min() < 0.7


def test_cosine_reflects_magnitude():
    tissue, fat, thin, wide = (1.0, 0.0, 0.0), (1.8, 0.25, 0.15), (2.0, 0.45, 0.35), (3.5, 1.0, 0.25)
    features = [feature_of(*values) for values in (tissue, fat, thin, wide)]
    cosines = [float(features[0] @ other) for other in features]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] == pytest.approx(1) and cosines[3] < 0.35


def test_each_channel_takes_its_share_of_the_cosine_away():
    share = 1 / len(CHANNELS)
    other = feature_of(1.0, 0.0, 0.6) @ feature_of(1.0, 0.0, 0.0)
    assert float(other) == pytest.approx(1, abs=1e-6)  # tubularity is weighted by salience, and there is none
    same = feature_of(1.0, 0.8, 0.6) @ feature_of(1.0, 0.8, 0.0)
    assert float(same) == pytest.approx(1 - share, abs=0.02)


def test_values_beyond_the_bins_count_as_the_last_bin():
    brighter, brightest = feature_of(30.0, 5.0, 2.0), feature_of(300.0, 50.0, 20.0)
    torch.testing.assert_close(brighter, brightest, atol=2e-3, rtol=0)
    assert torch.isfinite(feature_of(-1.0, 0.0, 0.0)).all()


def test_a_volume_without_contrast_gives_finite_features():
    sample = make_sample(contrast_scale=0.0)
    assert torch.isfinite(FilterBank().features_of_box(sample, WHOLE)).all()


def test_fingerprint_changes_with_the_bins_only():
    other = {**CHANNELS, "salience": CHANNELS["brightness"]}
    assert FilterBank().fingerprint == FilterBank().fingerprint
    assert FilterBank(other).fingerprint != FilterBank().fingerprint
