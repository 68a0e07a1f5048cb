"""Each segment is cut out, its surroundings are blanked, and a network sees it."""

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from medseg.datus.crops import covered_mean, crop_features, masked_crops, segment_means
from medseg.features.backbones import to_rgb
from medseg.features.frozen import FrozenViT
from medseg.features.image_bank import ImageBank

SEGMENTS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [-1, 2, 2, 1]])


def test_a_crop_of_the_picture_s_own_pixels_is_the_picture_under_its_mask():
    picture = torch.rand(3, 12, 16)
    crops, cover = masked_crops(picture, SEGMENTS, 8)
    shown = to_rgb(picture[None], "rgb")[0]
    torch.testing.assert_close(crops[2], shown[:, 4:12, 4:12], atol=1e-5, rtol=1e-5)
    assert cover[2].min() == 1
    inside = torch.ones(8, 8)
    inside[4:, 4:] = 0  # the segment is an L of three cells
    torch.testing.assert_close(cover[0, 0], inside)
    torch.testing.assert_close(crops[0], shown[:, :8, :8] * inside, atol=1e-5, rtol=1e-5)


def test_the_feature_of_a_vit_is_its_cls_token_at_norm_1():
    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=0)
    backbone = FrozenViT(vit, "tiny")
    picture = torch.rand(3, 12, 16)
    crops, _ = masked_crops(picture, SEGMENTS, 16)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(vit.forward_features(crops)[:, 0], dim=1)
    torch.testing.assert_close(crop_features(picture, SEGMENTS, [backbone], side=15), wanted)


def test_features_of_several_networks_are_joined():
    picture = torch.rand(3, 12, 16)
    alone = crop_features(picture, SEGMENTS, [ImageBank()], side=16)
    torch.testing.assert_close(crop_features(picture, SEGMENTS, [ImageBank()] * 2, side=16), torch.cat([alone] * 2, 1))


def test_a_picture_without_segments_has_no_features():
    nothing = np.full((3, 4), -1)
    assert crop_features(torch.rand(3, 12, 16), nothing, [ImageBank()], side=16).shape == (0, ImageBank().dim)
    assert segment_means(torch.rand(5, 3, 4), nothing).shape == (0, 5)


def test_the_mean_counts_what_the_segment_covers():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 100.0]]]])
    cover = torch.zeros(1, 1, 4, 4)
    cover[..., :2, :] = 1
    cover[..., 2, :2] = 1  # half of the lower left cell
    torch.testing.assert_close(covered_mean(maps, cover), torch.tensor([[(1 + 3 + 0.5 * 5) / 2.5]]), atol=1e-4, rtol=0)


def test_segment_means_by_hand():
    features = torch.zeros(2, 3, 4)
    features[0] = torch.from_numpy((SEGMENTS == 1).astype(np.float32))
    features[1, 0, 0] = 2.0
    features[1, 1, 1] = 1.0
    assert segment_means(features, SEGMENTS).tolist() == [[0, 1], [1, 0], [0, 1]]
