"""Cells of a picture are tied where their keys point the same way."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from medseg.datus.affinity import affinity, as_keys, gives_keys, on_cells, tied
from medseg.features.frozen import FrozenViT
from medseg.features.image_bank import ImageBank


def test_the_sign_of_the_affinity_is_that_of_the_published_dot_product():
    keys = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    published = keys @ keys.T > 0
    ties = tied(affinity(keys, centred=False))
    assert torch.equal(ties, published.fill_diagonal_(False))


def test_affinities_by_hand():
    keys = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    half = 0.5**0.5
    wanted = torch.tensor([[1, half, 0], [half, 1, -half], [0, -half, 1]])
    torch.testing.assert_close(affinity(keys, centred=False), wanted)
    assert tied(wanted).tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_centred_features_are_compared_around_the_mean_of_the_picture():
    features = torch.tensor([[10.0, 1.0], [10.0, 1.0], [10.0, -1.0], [10.0, -1.0]])
    assert affinity(features, centred=False).min() > 0.9
    signs = torch.tensor([1.0, 1, -1, -1])
    torch.testing.assert_close(affinity(features, centred=True), signs[:, None] * signs)


def test_cells_of_an_even_picture_are_tied_to_none():
    features = torch.rand(1, 7).expand(6, 7).contiguous()
    assert affinity(features, centred=True).abs().max() == 0
    assert not tied(affinity(features, centred=True)).any()


@pytest.mark.parametrize("size", [(8, 8), (40, 30), (1, 3000), (3000, 1), (37, 91)])
def test_a_grid_has_no_more_cells_than_allowed_and_keeps_its_mean(size):
    features = torch.rand(3, *size)
    cells = on_cells(features, 100)
    assert cells.shape[1] * cells.shape[2] <= 100
    if size == (8, 8):
        assert cells is features
    if size == (40, 30):
        assert tuple(cells.shape[1:]) == (11, 8)
        torch.testing.assert_close(cells.mean((1, 2)), features.mean((1, 2)), atol=0.03, rtol=0)


def test_a_vit_gives_its_keys_and_other_networks_their_features():
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=0)
    frozen = FrozenViT(vit, "tiny")
    keys = as_keys(frozen)
    assert gives_keys(keys) and not gives_keys(frozen)
    assert keys.fingerprint != frozen.fingerprint
    picture = torch.rand(1, 3, 32, 40)
    seen = []
    vit.blocks[-1].attn.qkv.register_forward_hook(lambda *part: seen.append(part[2]))
    vit.blocks[-1](frozen._raw_tokens(frozen.as_trained(picture), 1))
    torch.testing.assert_close(keys(picture).flatten(2).mT, seen[0][:, 1:, 12:24])
    bank = ImageBank()
    assert as_keys(bank) is bank and not gives_keys(bank)
