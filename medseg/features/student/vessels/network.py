"""This file defines the student's network: a small 3-D U-Net, and what it is shown.

Its words: a *level* is a resolution, each half of the one above; *widths* are the channels of the levels; *features*
are the channels of the finest level after the last norm and activation, from which one 1x1x1 convolution makes the
answer.

References: Çiçek et al., "3D U-Net: learning dense volumetric segmentation from sparse annotation", MICCAI 2016.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

LOG_OFFSET = 0.2
"""Tissue medians added before the logarithm: the noise of air, below which differences mean nothing."""
LARGEST_ENHANCEMENT = 2.0
"""Multiples of C at which the second input is cut: what is brighter than all vessels need not be told apart."""
ENHANCEMENT_GAIN = 2.0
"""Brings the second input of vessels to the size of the first."""
FIRST_LOGIT = -3.0
"""Answer of a network that knows nothing: vessels are rare, and the first steps need not be spent on learning that."""
LEAST_CONTRAST = 1e-3
"""Tissue medians below which C is not divided by; it is 0 in a constant volume."""


class StudentNet(nn.Module):
    """A U-Net of two 3x3x3 convolutions with batch norm a level.

    Batch norm, because a norm over one window would blow up the noise of a window without vessels. Upwards a 1x1x1
    convolution comes before the nearest-neighbour doubling: the same as after it, at an eighth of the cost.

    Args:
        widths: channels of the levels, the finest first.
    """

    def __init__(self, widths: Sequence[int] = (12, 24, 48)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.down = nn.ModuleList(
            [_block(before, width) for before, width in zip((2, *self.widths), self.widths, strict=False)]
        )
        self.rise = nn.ModuleList(
            [nn.Conv3d(below, width, 1) for width, below in zip(self.widths, self.widths[1:], strict=False)]
        )
        self.up = nn.ModuleList([_block(2 * width, width) for width in self.widths[:-1]])
        self.answer = nn.Conv3d(self.widths[0], 1, 1)
        nn.init.constant_(cast(Tensor, self.answer.bias), FIRST_LOGIT)
        self.to(memory_format=torch.channels_last_3d)

    @property
    def multiple(self) -> int:
        """What the sides of its inputs must be multiples of."""
        return 2 ** (len(self.widths) - 1)

    def forward(
        self, inputs: Float[Tensor, "b 2 i j k"]
    ) -> tuple[Float[Tensor, "b 1 i j k"], Float[Tensor, "b w i j k"]]:
        """Logits and features; the sides are multiples of `multiple`."""
        values = inputs.contiguous(memory_format=torch.channels_last_3d)
        levels: list[Tensor] = []
        for depth, block in enumerate(self.down):
            values = block(_pooled(values) if depth else values)
            levels.append(values)
        for depth in reversed(range(len(self.up))):
            risen = functional.interpolate(self.rise[depth](values), scale_factor=2.0, mode="nearest")
            values = self.up[depth](torch.cat([risen, levels[depth]], dim=1))
        return self.answer(values), values


def network_from(weights: Mapping[str, Tensor], widths: Sequence[int]) -> StudentNet:
    """A network of these weights; no random number is drawn from the caller's state."""
    with torch.random.fork_rng(devices=[]):
        net = StudentNet(widths)
    net.load_state_dict(dict(weights))
    return net


def first_network(widths: Sequence[int], seed: int) -> StudentNet:
    """The network of step 0, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StudentNet(widths)


def network_inputs(image: Float[Tensor, "*grid"], contrast_scale: float) -> Float[Tensor, " 2 *grid"]:
    """What the network is shown: brightness `log(j + .2)` and enhancement `2 min((j - 1) / C, 2)`.

    Args:
        image: j in tissue medians.
        contrast_scale: C, the contrast of the volume's large vessels, in tissue medians.
    """
    brightness = torch.log(image.clamp(min=0) + LOG_OFFSET)
    enhancement = ((image - 1) / max(contrast_scale, LEAST_CONTRAST)).clamp(max=LARGEST_ENHANCEMENT)
    return torch.stack([brightness, ENHANCEMENT_GAIN * enhancement])


def folded(net: StudentNet) -> StudentNet:
    """A copy for prediction with every norm folded into the convolution before it."""
    quick = copy.deepcopy(net).eval().requires_grad_(False)
    blocks: list[Any] = [*quick.down, *quick.up]
    for block, place in product(blocks, (0, 3)):
        block[place] = fuse_conv_bn_eval(block[place], block[place + 1])
        block[place + 1] = nn.Identity()
    return quick.to(memory_format=torch.channels_last_3d)


def _pooled(values: Float[Tensor, "b w i j k"]) -> Float[Tensor, "b w i2 j2 k2"]:
    """Maximum over 2 x 2 x 2 voxels; axis by axis it is quicker on a CPU, but for its gradient."""
    if values.requires_grad:
        return functional.max_pool3d(values, 2)
    values = torch.maximum(values[:, :, ::2], values[:, :, 1::2])
    values = torch.maximum(values[..., ::2, :], values[..., 1::2, :])
    return torch.maximum(values[..., ::2], values[..., 1::2])


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv3d(channels, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
