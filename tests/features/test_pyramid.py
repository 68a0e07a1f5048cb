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
from medseg.features.pyramid import FeaturePyramid, pyramid_weights, trunk_maps

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


def test_a_resnet_50_feeds_the_pyramid_at_any_multiple_of_32():
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
    with pytest.raises(MedsegError, match="multiples of 32"):
        trunk_maps(trunk, images[..., :40])


def test_another_trunk_than_a_resnet_50_is_refused():
    trunk = FrozenMaps(timm.create_model("resnet18", num_classes=0), "resnet18")
    with pytest.raises(MedsegError, match="must be a ResNet-50, got resnet18"):
        trunk_maps(trunk, torch.zeros(1, 3, 64, 64))
