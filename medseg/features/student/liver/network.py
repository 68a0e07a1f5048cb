"""This file defines the networks of the liver's student: one on frozen features, one on echoes.

Both give logits and, as features, the activations from which one 1x1 convolution makes them.

References: Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

CELL_WIDTH, CELL_FEATURES = 64, 32
"""Channels inside the network on frozen features, and of its features."""
FAR = 3
"""Dilation of its second convolution: it then looks 4 of 48 cells to each side, past the border of a vessel."""
ECHO_WIDTHS = (16, 32, 64, 96)
"""Channels of the levels of the U-Net on echoes; those of the finest are its features."""
PLACES = 2
"""Channels that tell depth and lateral position."""

_Net = TypeVar("_Net", bound=nn.Module)


class CellNet(nn.Module):
    """1x1, residual 3x3, residual dilated 3x3, 3x3 to the features: small, because all knowledge is in its inputs.

    Args:
        components: input channels beside the two of the place.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components
        self.mix = _convolution(components + PLACES, CELL_WIDTH, 1)
        self.near = _convolution(CELL_WIDTH, CELL_WIDTH, 3)
        self.far = _convolution(CELL_WIDTH, CELL_WIDTH, 3, dilation=FAR)
        self.last = _convolution(CELL_WIDTH, CELL_FEATURES, 3)
        self.answer = nn.Conv2d(CELL_FEATURES, 1, 1)

    def forward(self, inputs: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b w_ h w"]]:
        """Logits and features."""
        values = self.mix(inputs)
        values = values + self.near(values)
        values = values + self.far(values)
        features = self.last(values)
        return self.answer(features), features


class EchoNet(nn.Module):
    """A U-Net of two 3x3 convolutions with batch norm a level, on echoes and the two channels of the place.

    Args:
        widths: channels of the levels, the finest first.
    """

    def __init__(self, widths: Sequence[int] = ECHO_WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        befores = (1 + PLACES, *self.widths)
        self.down = nn.ModuleList([_twice(before, w) for before, w in zip(befores, self.widths, strict=False)])
        self.rise = nn.ModuleList(
            [nn.Conv2d(below, w, 1) for w, below in zip(self.widths, self.widths[1:], strict=False)]
        )
        self.up = nn.ModuleList([_twice(2 * w, w) for w in self.widths[:-1]])
        self.answer = nn.Conv2d(self.widths[0], 1, 1)

    def forward(self, inputs: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b w_ h w"]]:
        """Logits and features; the sides are multiples of 2 to the levels less one."""
        values, levels = inputs, list[Tensor]()
        for depth, block in enumerate(self.down):
            values = block(functional.max_pool2d(values, 2) if depth else values)
            levels.append(values)
        for depth in reversed(range(len(self.up))):
            risen = functional.interpolate(self.rise[depth](values), scale_factor=2.0, mode="nearest")
            values = self.up[depth](torch.cat([risen, levels[depth]], dim=1))
        return self.answer(values), values


def first_weights(make: type[_Net], size: object, seed: int) -> _Net:
    """A network whose first weights are a function of the seed; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(size)


def with_weights(make: type[_Net], size: object, weights: Mapping[str, Tensor]) -> _Net:
    """A network of these weights."""
    net = first_weights(make, size, 0)
    net.load_state_dict(dict(weights))
    return net


def _convolution(before: int, width: int, side: int, *, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (side // 2)
    convolution = nn.Conv2d(before, width, side, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _twice(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(before, width, 3), *_convolution(width, width, 3))
