"""Tests of medseg.features.pyramid against the reference program's numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from medseg.errors import MedsegError
from medseg.features.backbones import load_slice_backbone
from medseg.features.frozen import FrozenMaps
from medseg.features.pyramid import (
    JOINED_CHANNELS,
    PYRAMID_BACKBONE,
    FeaturePyramid,
    join_trunk,
    pyramid_weights,
    split_trunk,
    trunk_maps,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "feature_pyramid.npz")
CASES = sorted({key.partition("/")[0] for key in GOLDEN.files if "/" in key})
SEED = int(GOLDEN["recipe_seed"])


@pytest.fixture(scope="module")
def activations(recipe_tensor) -> list[torch.Tensor]:
    shapes = {"activation5": [1, 512, 28, 28], "activation6": [1, 1024, 14, 14], "activation7": [1, 2048, 7, 7]}
    return [recipe_tensor(name, shape, SEED) * math.sqrt(math.prod(shape[1:])) for name, shape in shapes.items()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_codes_equal_the_reference_programs(case, dtype, tolerance, activations, recipe_tensor):
    keys = json.loads(str(GOLDEN[f"{case}/keys_json"]))
    used = {name: shape for name, shape in keys.items() if not name.startswith("cluster1_nl")}
    weights = pyramid_weights({name: recipe_tensor(name, shape, SEED) for name, shape in used.items()})
    pyramid = FeaturePyramid(int(case.removeprefix("granularity")[0]), 3, continuous=case.endswith("continuous"))
    pyramid.load_state_dict(weights)
    pyramid.to(dtype).eval()
    with torch.no_grad():
        got = pyramid([a.to(dtype) for a in activations], torch.from_numpy(GOLDEN["in_img"]).to(dtype)).numpy()
    wanted = GOLDEN[f"{case}/out_code"]
    assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


def test_a_granularity_beyond_four_is_refused():
    with pytest.raises(MedsegError, match="granularity must be 1 to 4, got 5"):
        FeaturePyramid(5, 3)


def test_the_unused_branch_of_published_weights_is_dropped():
    assert pyramid_weights({"cluster1_nl.0.weight": torch.zeros(1), "cluster1.0.bias": torch.ones(1)}) == {
        "code.0.bias": torch.ones(1)
    }


def test_a_resnet_50_feeds_the_pyramid_at_any_multiple_of_its_stride():
    trunk = load_slice_backbone("resnet50", pretrained=False)
    images = torch.randn(1, 3, 64, 96)
    maps = trunk_maps(trunk, images)
    assert [tuple(m.shape[1:]) for m in maps] == [(512, 8, 12), (1024, 4, 6), (2048, 2, 3)]
    pyramid = FeaturePyramid(4, 5).eval()
    codes = pyramid(maps, images)
    assert codes.shape == (1, 5, 16, 24)
    codes.sum().backward()
    assert all(p.grad is not None for p in pyramid.parameters())
    assert not any(p.requires_grad for p in trunk.parameters())
    assert pyramid(trunk_maps(trunk, images[..., :40]), images[..., :40]).shape == (1, 5, 16, 10)


def test_another_trunk_than_a_resnet_50_is_refused():
    trunk = FrozenMaps(timm.create_model("resnet18", num_classes=0), "resnet18")
    with pytest.raises(MedsegError, match="must be a ResNet-50, got resnet18"):
        trunk_maps(trunk, torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("case", CASES)
def test_codes_of_joined_maps_equal_the_reference_programs(case, activations, recipe_tensor):
    keys = json.loads(str(GOLDEN[f"{case}/keys_json"]))
    weights = pyramid_weights({name: recipe_tensor(name, shape, SEED) for name, shape in keys.items()})
    pyramid = FeaturePyramid(int(case.removeprefix("granularity")[0]), 3, continuous=case.endswith("continuous"))
    pyramid.load_state_dict(weights)
    with torch.no_grad():
        joined = join_trunk(activations, torch.from_numpy(GOLDEN["in_img"]))
        got = pyramid.eval()(*split_trunk(joined)).numpy()
    wanted = GOLDEN[f"{case}/out_code"]
    assert joined.shape[1:] == (JOINED_CHANNELS, 28, 28)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("size", [(8, 12), (1, 5), (7, 10), (9, 13)])
def test_joined_maps_are_split_into_what_they_were_joined_of(size):
    sizes = [tuple(-(-length // 2**n) for length in size) for n in range(3)]
    maps = [torch.randn(2, channels, *sizes[n]) for n, channels in enumerate((512, 1024, 2048))]
    image = torch.randn(2, 3, *(2 * length for length in size))
    again, image_again = split_trunk(join_trunk(maps, image))
    assert all(torch.equal(one, other) for one, other in zip(maps, again, strict=True))
    assert torch.equal(image, image_again)


def test_the_pyramids_backbone_is_named_by_its_three_stages():
    backbone = load_slice_backbone(PYRAMID_BACKBONE, pretrained=False)
    images = torch.randn(1, 3, 64, 96)
    features = backbone(images)
    assert features.shape == (1, backbone.dim, 64 // backbone.stride, 96 // backbone.stride)
    maps, image = split_trunk(features)
    for one, other in zip(
        maps, load_slice_backbone("resnet50@4", pretrained=False).maps(images, (2, 3, 4)), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.allclose(image.mean((2, 3)), images.mean((2, 3)), atol=0.1)
    assert backbone(images[..., :41]).shape[2:] == (8, 5)


def test_other_features_are_no_joined_maps():
    with pytest.raises(MedsegError, match=r"set features\.backbone to resnet50@2\+3\+4"):
        split_trunk(torch.zeros(1, 6, 8, 8))
