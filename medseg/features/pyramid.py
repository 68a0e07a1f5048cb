"""This file is STEGO's feature-pyramid network: codes from several depths of a CNN, coarse to fine.

Words: *trunk maps* are the last maps of a frozen ResNet-50's stages, finest first (512, 1024 and 2048
channels at strides 8, 16 and 32, rounded up); the *granularity* is how many levels are used: 1 the coarsest map
alone, 2 and 3 one finer trunk map each, 4 the image itself as well; *joined* maps are all of these on
the grid of the finest trunk map, one stack of channels that is stored and batched like any features.

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022
    (`arch: feature-pyramid` of its program).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.features.frozen import FrozenMaps

TRUNK_STAGES = (2, 3, 4)  # of timm's ResNet-50: layer2, layer3 and layer4
_TRUNK_CHANNELS = (2048, 1024, 512)
_LEVEL_CHANNELS = (64, 32, 32)
_IMAGE_CHANNELS = 3
PYRAMID_BACKBONE = "resnet50@2+3+4"
"""Name of the backbone whose features are joined trunk maps."""
JOINED_CHANNELS = sum(_TRUNK_CHANNELS) + 4 * _IMAGE_CHANNELS
"""Channels of joined maps: every trunk map, and the image at twice their grid, four pixels a cell."""
COARSEST_CHANNELS = _TRUNK_CHANNELS[0]
"""Channels of the coarsest trunk map, the teaching signal of a pyramid."""


class FeaturePyramid(nn.Module):
    """Trainable codes on trunk maps: the mean over levels of 1 x 1 codes, all at twice the finest trunk map's size.

    Level 1 codes the coarsest map. Each further level brings the one before to twice its size, puts
    the next finer trunk map (at last the image) beside it, convolves twice and codes the result.
    The published program also creates `cluster1_nl`, which its output never uses; it is left out here.

    Args:
        granularity: 1 to 4 levels.
        code_dim: Code channels, e.
        continuous: False gives log-probabilities of e clusters instead of codes.

    Raises:
        MedsegError: granularity out of range.
    """

    def __init__(self, granularity: int, code_dim: int, *, continuous: bool = True) -> None:
        super().__init__()
        if granularity not in (1, 2, 3, 4):
            raise MedsegError(f"granularity must be 1 to 4, got {granularity}; change stego.granularity")
        self.granularity, self.continuous = granularity, continuous
        beside = (*_TRUNK_CHANNELS[1:], _IMAGE_CHANNELS)
        below = (_TRUNK_CHANNELS[0], *_LEVEL_CHANNELS)
        levels = range(granularity - 1)
        self.merge = nn.ModuleList(
            _double_convolution(below[level] + beside[level], _LEVEL_CHANNELS[level]) for level in levels
        )
        self.code = nn.ModuleList(nn.Conv2d(below[level], code_dim, 1) for level in range(granularity))

    def forward(
        self, trunk_maps: list[Float[Tensor, "b _ _ _"]], images: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b e hf wf"]:
        """Codes of a batch.

        Args:
            trunk_maps: Maps of TRUNK_STAGES, finest first, each half the size of the one before, rounded up.
            images: The images they were made of.
        """
        finest_first = [F.interpolate(images, [2 * n for n in trunk_maps[0].shape[-2:]], mode="bilinear"), *trunk_maps]
        size = finest_first[0].shape[-2:]
        level = finest_first[-1]
        codes = [F.interpolate(self.code[0](level), size, mode="bilinear")]
        for merge, code, beside in zip(self.merge, self.code[1:], finest_first[-2::-1], strict=False):
            level = merge(torch.cat([F.interpolate(level, beside.shape[-2:], mode="bilinear"), beside], dim=1))
            codes.append(F.interpolate(code(level), size, mode="bilinear"))
        mean = torch.stack(codes).mean(0)
        return mean if self.continuous else mean.log_softmax(1)


class TrunkMaps(FrozenMaps):
    """The joined trunk maps of a ResNet-50 as one feature map of stride 8, for a pyramid or for k-means.

    Patches are best multiples of 32 pixels: at others the coarser maps stick out over the patch, and their content is
    up to one of the finest cells off at its far border.

    Raises:
        MedsegError: the model is no ResNet-50.
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(model, name, TRUNK_STAGES[0])
        _require_resnet_50(self)
        self.dim = JOINED_CHANNELS

    def _features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hf wf"]:
        return join_trunk(trunk_maps(self, images), images)


def join_trunk(
    trunk_maps: list[Float[Tensor, "b _ _ _"]], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b d hf wf"]:
    """Trunk maps (finest first) and the image on the grid of the finest map; nothing that a pyramid sees is lost.

    Coarser maps are repeated; the image is brought to twice the grid, as the pyramid wants it, and its 2 x 2 pixels
    a cell become channels.
    """
    size = trunk_maps[0].shape[-2:]
    shown = F.interpolate(images, [2 * length for length in size], mode="bilinear")
    return torch.cat([*(F.interpolate(m, size) for m in trunk_maps), F.pixel_unshuffle(shown, 2)], dim=1)


def split_trunk(
    joined: Float[Tensor, "b d hf wf"],
) -> tuple[list[Float[Tensor, "b _ _ _"]], Float[Tensor, "b 3 _ _"]]:
    """The trunk maps, finest first, and the image at twice the grid: undoes `join_trunk` exactly.

    Raises:
        MedsegError: these are no joined maps.
    """
    if joined.shape[1] != JOINED_CHANNELS:
        raise MedsegError(
            f"features of a pyramid must have {JOINED_CHANNELS} channels, got {joined.shape[1]}; "
            f"set features.backbone to {PYRAMID_BACKBONE}"
        )
    *maps, image = joined.split((*_TRUNK_CHANNELS[::-1], 4 * _IMAGE_CHANNELS), dim=1)
    return [m[:, :, :: 2**level, :: 2**level] for level, m in enumerate(maps)], F.pixel_shuffle(image, 2)


def trunk_maps(backbone: FrozenMaps, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
    """The frozen maps that a pyramid stands on.

    Raises:
        MedsegError: the backbone has not the stages and channels of a ResNet-50.
    """
    _require_resnet_50(backbone)
    return backbone.maps(images, TRUNK_STAGES)


def pyramid_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the published program's pyramid under the names of `FeaturePyramid`."""
    weights = {}
    for name, value in published.items():
        part, _, rest = name.partition(".")
        if part.startswith("conv"):
            weights[f"merge.{int(part[-1]) - 2}.{rest.removeprefix('double_conv.')}"] = value
        elif part.startswith("cluster") and part[-1].isdigit():  # not the unused cluster1_nl
            weights[f"code.{int(part[-1]) - 1}.{rest.removeprefix('0.')}"] = value
    return weights


def _require_resnet_50(backbone: FrozenMaps) -> None:
    channels = [info["num_chs"] for info in backbone.model.feature_info]
    if [channels[stage] for stage in TRUNK_STAGES if stage < len(channels)] != list(_TRUNK_CHANNELS[::-1]):
        raise MedsegError(
            f"backbone of a feature pyramid must be a ResNet-50, got {backbone.name}; "
            f"set features.backbone to {PYRAMID_BACKBONE}"
        )


def _double_convolution(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
