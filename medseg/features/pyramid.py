"""This file is STEGO's feature-pyramid network: codes from several depths of a CNN, coarse to fine.

Words: *trunk maps* are the last maps of a frozen ResNet-50's stages, finest first (512, 1024 and 2048
channels at strides 8, 16 and 32); the *granularity* is how many levels are used: 1 the coarsest map
alone, 2 and 3 one finer trunk map each, 4 the image itself as well.

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022
    (`arch: feature-pyramid` of its program).
"""

from __future__ import annotations

from collections.abc import Mapping

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
            trunk_maps: Maps of TRUNK_STAGES, finest first, each half the size of the one before.
            images: The images they were made of.
        """
        finest_first = [F.interpolate(images, [2 * n for n in trunk_maps[0].shape[-2:]], mode="bilinear"), *trunk_maps]
        size = finest_first[0].shape[-2:]
        level = finest_first[-1]
        codes = [F.interpolate(self.code[0](level), size, mode="bilinear")]
        for merge, code, beside in zip(self.merge, self.code[1:], finest_first[-2::-1], strict=False):
            level = merge(torch.cat([F.interpolate(level, scale_factor=2, mode="bilinear"), beside], dim=1))
            codes.append(F.interpolate(code(level), size, mode="bilinear"))
        mean = torch.stack(codes).mean(0)
        return mean if self.continuous else mean.log_softmax(1)


def trunk_maps(backbone: FrozenMaps, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
    """The frozen maps that a pyramid stands on.

    Raises:
        MedsegError: the backbone has not the stages and channels of a ResNet-50, or the images are no multiple of 32.
    """
    channels = [info["num_chs"] for info in backbone.model.feature_info]
    if [channels[stage] for stage in TRUNK_STAGES if stage < len(channels)] != list(_TRUNK_CHANNELS[::-1]):
        raise MedsegError(
            f"backbone of a feature pyramid must be a ResNet-50, got {backbone.name}; set features.backbone to resnet50"
        )
    if any(length % 32 for length in images.shape[-2:]):
        raise MedsegError(
            f"images for a feature pyramid must be multiples of 32 pixels, got {tuple(images.shape[-2:])}; "
            "change patches.size or patches.magnification"
        )
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


def _double_convolution(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
