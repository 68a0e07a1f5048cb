"""Tests of medseg.features.backbones and frozen against the reference program's numbers."""

import json
import socket
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

import medseg.features.backbones as backbones
from medseg.errors import MedsegError
from medseg.features.backbones import SliceBackbone, VolumeBackbone, load_slice_backbone, to_rgb, vit_from_weights
from medseg.features.frozen import FrozenMaps, FrozenViT, position_table

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = np.load(GOLDEN / "vit_tiny.npz")
FULL = np.load(GOLDEN / "vit_full_recipe.npz")
TINY_CASES = sorted({key.rpartition("/")[0] for key in TINY.files if key.startswith("heads")})
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-6)]


def tiny_weights() -> dict[str, torch.Tensor]:
    return {key.removeprefix("sd/"): torch.from_numpy(TINY[key]) for key in TINY.files if key.startswith("sd/")}


def tiny_vit(heads: int, feature: str = "feat") -> FrozenViT:
    return FrozenViT(vit_from_weights(tiny_weights(), heads), "tiny", feature)


def require_close(got: torch.Tensor, wanted: np.ndarray, tolerance: float) -> None:
    assert tuple(got.shape) == wanted.shape
    assert np.abs(got.numpy() - wanted).max() <= tolerance * np.abs(wanted).max()


def attention_of_cls(backbone: FrozenViT, images: torch.Tensor) -> torch.Tensor:
    """The CLS row of the last attention, from its definition."""
    last = backbone.model.blocks[-1]
    seen = []
    handle = last.attn.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    backbone.tokens(images)
    handle.remove()
    b, n, _ = seen[0].shape
    queries, keys, _ = seen[0].reshape(b, n, 3, last.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return (queries @ keys.transpose(-1, -2) * last.attn.scale).softmax(-1)[:, :, 0]


# The golden numbers


@pytest.mark.parametrize("case", TINY_CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_a_tiny_vit_equals_the_reference_program(case, dtype, tolerance):
    heads = int(case.removeprefix("heads")[0])
    images = torch.from_numpy(TINY[f"{case}/in_img"]).to(dtype)
    feat, keys = tiny_vit(heads).to(dtype), tiny_vit(heads, "KK").to(dtype)
    with torch.no_grad():
        cls, previous, attention = feat.tokens(images)[:, 0], feat.tokens(images, 1), attention_of_cls(feat, images)
    got = {
        "out_feat": feat(images),
        "out_KK": keys(images),
        "out_cls": cls,
        "out_class_feat": cls[..., None, None],
        "out_tokens_prev_block": previous,
        "out_attn_cls": attention,
        "out_pos_embed": position_table(feat.model.pos_embed, images.shape[-2] // 8, images.shape[-1] // 8),
    }
    checked = [name for name in got if f"{case}/{name}" in TINY.files]
    assert {"out_feat", "out_KK", "out_cls"} <= set(checked)
    for name in checked:
        require_close(got[name].detach(), TINY[f"{case}/{name}"], tolerance)


def test_keys_are_not_scrambled_as_if_every_network_had_six_heads():
    got = tiny_vit(3, "KK")(torch.from_numpy(TINY["heads3/32x32/in_img"])).numpy()
    assert np.abs(got - TINY["heads3/32x32/bug_KK_assuming_6_heads"]).max() > 0.1


@pytest.mark.parametrize("network", ["vit_small_8", "vit_small_16", "vit_base_16"])
def test_a_checkpoint_of_full_size_equals_the_reference_program(network, recipe_tensor, tmp_path):
    seed = int(FULL["recipe_seed"])
    shapes = json.loads(str(FULL[f"{network}/keys_json"]))
    weights = {name: recipe_tensor(name, shape, seed) for name, shape in shapes.items()}
    assert np.allclose(weights["pos_embed"].flatten()[:5], FULL[f"{network}/check_first5_pos_embed"])
    save_file({f"teacher.backbone.{name}": value for name, value in weights.items()}, tmp_path / "dino.safetensors")
    del weights
    images = torch.from_numpy(FULL[f"{network}/in_img"])
    backbone = load_slice_backbone("dino", checkpoint=tmp_path / "dino.safetensors")
    require_close(backbone(images), FULL[f"{network}/out_feat"], 1e-5)
    require_close(backbone.tokens(images)[:, 0].detach(), FULL[f"{network}/out_cls"], 1e-5)
    backbone.feature = "KK"
    require_close(backbone(images), FULL[f"{network}/out_KK"], 1e-5)


def test_a_plain_vit_of_its_own_table_size_equals_timms():
    ours = load_slice_backbone("deit_tiny_patch16_224", pretrained=False)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    timms = ours.model.forward_features(images)[:, ours.model.num_prefix_tokens :]
    assert torch.allclose(ours(images).flatten(2).transpose(1, 2), timms, atol=1e-5)


# Loading by name and by file


def test_a_timm_name_with_a_checkpoint_takes_heads_from_the_name(tmp_path):
    random = load_slice_backbone("vit_tiny_patch16_224", pretrained=False)
    weights = {f"module.{k}": 2 * v for k, v in random.model.state_dict().items()}
    torch.save({"teacher": weights, "epoch": 3}, tmp_path / "full.pth")
    loaded = load_slice_backbone("vit_tiny_patch16_224", checkpoint=tmp_path / "full.pth")
    assert loaded.model.blocks[0].attn.num_heads == 3
    assert loaded.fingerprint != random.fingerprint
    assert torch.equal(loaded.model.norm.weight, 2 * random.model.norm.weight)


def test_a_table_for_another_image_size_is_taken_as_it_is(tmp_path):
    weights = dict(load_slice_backbone("vit_tiny_patch16_224", pretrained=False).model.state_dict())
    weights["pos_embed"] = torch.randn(1, 1 + 9 * 9, 192)
    torch.save(weights, tmp_path / "small.pth")
    loaded = load_slice_backbone("vit_tiny_patch16_224", checkpoint=tmp_path / "small.pth")
    assert torch.equal(loaded.model.pos_embed, weights["pos_embed"])
    assert loaded(torch.zeros(1, 3, 32, 64)).shape == (1, 192, 2, 4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("blocks.1.norm1.bias"), "blocks.1.norm1.bias none where"),
        (lambda w: w.update({"blocks.0.ls1.gamma": torch.ones(48)}), r"odd\.pth must fit .*ls2\.gamma none where"),
        (lambda w: w.update({"norm.weight": torch.ones(47)}), r"norm.weight \[47\] where \[48\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_named(change, complaint, tmp_path):
    weights = tiny_weights()
    change(weights)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(MedsegError, match=complaint):
        load_slice_backbone("tiny_heads6", checkpoint=tmp_path / "odd.pth")


def test_a_checkpoint_of_another_backbone_is_refused_with_the_first_misfit(tmp_path):
    torch.save(tiny_weights(), tmp_path / "tiny.pth")
    with pytest.raises(MedsegError, match=r"tiny.pth must fit the backbone, got cls_token \[1, 1, 48\] where"):
        load_slice_backbone("vit_tiny_patch16_224", checkpoint=tmp_path / "tiny.pth")


def test_heads_that_nothing_tells_are_asked_for(tmp_path):
    torch.save(tiny_weights(), tmp_path / "tiny.pth")
    with pytest.raises(MedsegError, match="head count of a ViT of width 48 must be told by its name"):
        load_slice_backbone("tiny", checkpoint=tmp_path / "tiny.pth")
    assert load_slice_backbone("tiny_heads3", checkpoint=tmp_path / "tiny.pth").model.blocks[1].attn.num_heads == 3


def test_moco_v3_small_has_its_twelve_heads():
    assert backbones._heads("x", "module.base_encoder.", 384) == 12
    assert backbones._heads("x", "module.", 384) == 6


def test_layer_scale_and_registers_of_dinov2_are_read():
    torch.manual_seed(0)
    timms = timm.create_model(
        "vit_small_patch14_reg4_dinov2", depth=2, embed_dim=64, num_heads=2, num_classes=0, img_size=56
    ).eval()
    nn.init.normal_(timms.cls_token)
    published = dict(timms.state_dict())
    published["register_tokens"] = published.pop("reg_token")
    table = published.pop("pos_embed")
    first = torch.randn(1, 1, 64)
    published["cls_token"] = published["cls_token"] - first
    published["pos_embed"] = torch.cat([first, table], dim=1)
    rebuilt = vit_from_weights(published, 2).eval()
    images = torch.randn(1, 3, 56, 56)
    assert torch.allclose(rebuilt.forward_features(images), timms.forward_features(images), atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.encoder_q.", ""])
def test_a_moco_resnet_is_recognised_and_equals_timms_map(prefix, tmp_path):
    torch.manual_seed(3)
    timms = timm.create_model("resnet18", num_classes=0).eval()
    weights = {prefix + name: value for name, value in timms.state_dict().items()}
    weights |= {f"{prefix}fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(2, 2)}
    if prefix:
        weights |= {name.replace("_q", "_k"): torch.zeros_like(v) for name, v in weights.items()}
    else:
        del weights["module.queue"]
    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "moco.pth.tar")
    images = torch.randn(1, 3, 64, 96)
    for name, stage, dim in (("moco", 3, 256), ("resnet18@4", 4, 512)):
        backbone = load_slice_backbone(name, checkpoint=tmp_path / "moco.pth.tar")
        with torch.no_grad():
            wanted = timms.forward_intermediates(images, indices=[stage], intermediates_only=True)[0]
        assert backbone.dim == dim
        assert torch.allclose(backbone(images), wanted, atol=1e-6)


def test_a_checkpoint_that_is_no_vit_and_no_resnet_says_what_is_in_it(tmp_path):
    torch.save({"lstm.weight": torch.ones(2)}, tmp_path / "lstm.pth")
    with pytest.raises(MedsegError, match=r"must hold a ViT or a ResNet .*, got lstm\.weight"):
        load_slice_backbone("what", checkpoint=tmp_path / "lstm.pth")


@pytest.mark.parametrize("name", ["resnet18@9", "resnet18@x"])
def test_a_stage_that_is_not_there_is_refused(name):
    with pytest.raises(MedsegError, match="stage of resnet18 must be 0 to 4"):
        load_slice_backbone(name, pretrained=False)


def test_keys_of_a_network_without_them_are_refused():
    with pytest.raises(MedsegError, match="must be feat for resnet18, got KK"):
        load_slice_backbone("resnet18", feature="KK", pretrained=False)


@pytest.mark.parametrize("name", ["vit_small_patch8_224.dinoo", "vit_smal_patch8_224"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_name_is_answered_with_the_nearest(name, pretrained):
    with pytest.raises(MedsegError, match=rf"got {name}; try .*vit_small_patch8_224\.dino"):
        load_slice_backbone(name, pretrained=pretrained)


# Weights out of reach


@pytest.fixture
def empty_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_: None)


ERRORS = [OSError("Name or service not known"), RuntimeError("no weights"), ValueError("x"), socket.gaierror(-2, "dns")]


@pytest.mark.parametrize("error", [*ERRORS, huggingface_hub.errors.LocalEntryNotFoundError("not\nlocal")])
def test_weights_out_of_reach_end_in_one_line_with_three_ways_out(error, empty_hub_cache, monkeypatch, tmp_path):
    limits = []

    class NoNetwork:
        def head(self, url, timeout):
            limits.append(timeout)
            raise error

    monkeypatch.setattr(backbones, "get_session", NoNetwork)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("the hub must not be asked"))
    with pytest.raises(MedsegError) as caught:
        load_slice_backbone("vit_small_patch8_224.dino")
    message = str(caught.value)
    assert "\n" not in message
    assert limits == [5]
    for words in ("vit_small_patch8_224.dino", "features.checkpoint", str(tmp_path / "hub"), "tof_mra"):
        assert words in message


def test_a_download_that_breaks_off_ends_in_the_same_line(empty_hub_cache, monkeypatch):
    class Network:
        def head(self, url, timeout):
            return "200"

    def broken_download(*_, **__):
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(backbones, "get_session", Network)
    monkeypatch.setattr(timm, "create_model", broken_download)
    with pytest.raises(MedsegError, match=r"resnet18.* must be in reach.*peer went away.*features\.checkpoint"):
        load_slice_backbone("resnet18.a1_in1k")


def test_weights_in_the_hub_cache_need_no_network(monkeypatch, tmp_path):
    random = load_slice_backbone("vit_tiny_patch16_224", pretrained=False)
    weights = {k: v + 1 for k, v in random.model.state_dict().items()}
    file = tmp_path / "model.safetensors"
    save_file(weights | {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}, file)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda repository, name: str(file))
    monkeypatch.setattr(backbones, "get_session", lambda: pytest.fail("no network is needed"))
    loaded = load_slice_backbone("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert torch.equal(loaded.model.norm.weight, weights["norm.weight"])


# The face of a backbone


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "vit_small_patch16_dinov3"])
def test_every_backbone_keeps_its_promises(name):
    backbone = load_slice_backbone(name, pretrained=False)
    assert isinstance(backbone, SliceBackbone)
    assert not isinstance(backbone, VolumeBackbone)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    again = load_slice_backbone(name, pretrained=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert again.fingerprint == backbone.fingerprint
    images = torch.randn(2, 3, 3 * backbone.stride, 4 * backbone.stride)
    features = backbone(images)
    assert features.shape == (2, backbone.dim, 3, 4)
    assert not features.requires_grad
    assert torch.equal(backbone(images[:1]), backbone(images[:1]))
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_batch_mates_do_not_change_features():
    backbone = load_slice_backbone("resnet18", pretrained=False).train()
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(backbone(images)[:1], backbone(images[:1]), atol=1e-5)


def test_the_fingerprint_tells_name_feature_heads_and_weights_apart():
    prints = [tiny_vit(6).fingerprint, tiny_vit(3).fingerprint, tiny_vit(6, "KK").fingerprint]
    changed = tiny_weights()
    changed["norm.bias"] = changed["norm.bias"] + 1e-6
    prints.append(FrozenViT(vit_from_weights(changed, 6), "tiny").fingerprint)
    prints.append(FrozenViT(vit_from_weights(tiny_weights(), 6), "other").fingerprint)
    assert len(set(prints)) == 5
    assert tiny_vit(6).fingerprint == prints[0]


@pytest.mark.parametrize(("size", "cells"), [((30, 35), (4, 4)), ((33, 36), (4, 5)), ((3, 60), (1, 8))])
def test_other_sizes_are_resized_to_the_nearest_multiple(size, cells):
    backbone = tiny_vit(6)
    images = torch.randn(1, 3, *size)
    features = backbone(images)
    assert features.shape == (1, 48, *cells)
    resized = nn.functional.interpolate(images, size=[8 * c for c in cells], mode="bilinear", align_corners=False)
    assert torch.equal(features, backbone(resized))


def test_a_table_that_is_not_square_is_refused():
    with pytest.raises(MedsegError, match="square grid, got 12 positions"):
        position_table(torch.zeros(1, 13, 4), 2, 2)


def test_a_network_with_its_own_normalisation_gets_it():
    model = timm.create_model("test_efficientnet", num_classes=0)
    model.pretrained_cfg["mean"], model.pretrained_cfg["std"] = (0.5, 0.5, 0.5), (0.5, 0.25, 0.5)
    own = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    half = torch.tensor([0.5, 0.25, 0.5]).view(1, 3, 1, 1)
    got = FrozenMaps(model, "x").as_trained((own - mean) / std)
    assert torch.allclose(got, (own - 0.5) / half, atol=1e-6)


# Patches as photographs


def test_tissue_is_mid_grey_air_black_and_nothing_is_clipped_above():
    j = torch.tensor([-1.0, 0.0, 1.0, 2.0, 8.0]).view(1, 1, 1, 5)
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    grey = to_rgb(j) * std + mean
    wanted = torch.tensor([0.0, 0.0, 0.5, 0.75, 1 - 2**-8]).expand(1, 3, 1, 5)
    assert torch.allclose(grey, wanted, atol=1e-6)


def test_the_window_depends_on_no_other_pixel():
    patch = torch.rand(1, 1, 4, 4) * 3
    alone = to_rgb(patch[..., :1, :1])
    assert torch.equal(to_rgb(patch)[..., :1, :1], alone)
    assert to_rgb(torch.ones(1, 1, 4, 4)).isfinite().all()


def test_neighbouring_slices_stay_channels_in_order():
    three = torch.rand(2, 3, 4, 4)
    assert torch.equal(to_rgb(three)[:, 1], to_rgb(three[:, 1:2])[:, 1])


@pytest.mark.parametrize("channels", [2, 5])
def test_another_number_of_channels_is_refused(channels):
    with pytest.raises(MedsegError, match=f"1 or 3 channels, got {channels}"):
        to_rgb(torch.zeros(1, channels, 4, 4))


def test_the_stages_of_a_vit_end_with_its_own_map():
    vit = tiny_vit(heads=2)
    patches = torch.rand(1, 3, 4 * vit.stride, 6 * vit.stride)
    early, _, last = vit.stage_maps(patches, (2, 3, 4))
    assert early.shape == last.shape == (1, vit.dim, 4, 6)
    torch.testing.assert_close(last, vit(patches), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(early, last, atol=1e-2)
