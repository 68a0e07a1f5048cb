"""This file holds the segmentation head that turns frozen features into codes, and the decoder back.

The head works on each pixel alone (1 x 1 convolutions), so it may be run on a whole map or on loose points laid out as
one. *Keep masks* are channel dropout written down as numbers: 0 or 1 / (1 - p) for every row and channel, for the
linear branch, the nonlinear branch and the teaching signal.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Projection = Literal["nonlinear", "linear", "none"]


class Head(nn.Module):
    """`codes = conv(keep f) [+ conv(relu(conv(keep' f)))]`; with projection `none` the codes are the features.

    Args:
        feature_dim: channels of the features, d.
        code_dim: channels of the codes, e.
        projection: `nonlinear` (both branches), `linear` or `none`.
    """

    def __init__(self, feature_dim: int, code_dim: int, projection: Projection = "nonlinear") -> None:
        super().__init__()
        self.feature_dim, self.projection = feature_dim, projection
        self.code_dim = feature_dim if projection == "none" else code_dim
        if projection != "none":
            self.linear = nn.Conv2d(feature_dim, code_dim, 1)
        if projection == "nonlinear":
            self.nonlinear = nn.Sequential(
                nn.Conv2d(feature_dim, feature_dim, 1), nn.ReLU(), nn.Conv2d(feature_dim, code_dim, 1)
            )

    def forward(
        self, features: Float[Tensor, "b d hf wf"], keep: Float[Tensor, "3 b d"] | None = None
    ) -> tuple[Float[Tensor, "b e hf wf"], Float[Tensor, "b d hf wf"]]:
        """Codes, and the teaching signal (the features, with dropout applied where `keep` is given)."""
        if keep is None:
            first = second = signal = features
        else:
            first, second, signal = (features * mask[:, :, None, None] for mask in keep.to(features.dtype))
        if self.projection == "none":
            return signal, signal
        codes = self.linear(first)
        if self.projection == "nonlinear":
            codes = codes + self.nonlinear(second)
        return codes, signal


class Decoder(nn.Module):
    """Codes back to features for the reconstruction loss: one 1 x 1 convolution."""

    def __init__(self, code_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(code_dim, feature_dim, 1)

    def forward(self, codes: Float[Tensor, "b e hf wf"]) -> Float[Tensor, "b d hf wf"]:
        """Predicted features."""
        return self.linear(codes)


def keep_masks(shape: tuple[int, ...], dropout: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Channel dropout as numbers: 0 with probability `dropout`, else `1 / (1 - dropout)`."""
    return (torch.rand(shape, generator=generator) >= dropout) / (1.0 - dropout)
