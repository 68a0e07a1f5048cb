"""This file holds the segmentation heads that turn frozen features into codes, and the decoder back.

`Head` works on each pixel alone (1 x 1 convolutions), so it may be run on a whole map or on loose points laid out as
one; `PyramidHead` needs whole maps. *Keep masks* are channel dropout written down as numbers: 0 or 1 / (1 - p) for
every row and channel, for the linear branch, the nonlinear branch and the teaching signal.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medseg.errors import MedsegError
from medseg.features.pyramid import JOINED_CHANNELS, PYRAMID_BACKBONE, FeaturePyramid, split_trunk

Projection = Literal["nonlinear", "linear", "none", "pyramid"]


class Head(nn.Module):
    """`codes = conv(keep f) [+ conv(relu(conv(keep' f)))]`; with projection `none` the codes are the features.

    Args:
        feature_dim: channels of the features, d.
        code_dim: channels of the codes, e.
        projection: `nonlinear` (both branches), `linear` or `none`.
    """

    def __init__(
        self, feature_dim: int, code_dim: int, projection: Literal["nonlinear", "linear", "none"] = "nonlinear"
    ) -> None:
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


class PyramidHead(nn.Module):
    """STEGO's feature pyramid on joined trunk maps: codes at twice the grid of the features, not of each pixel alone.

    The teaching signal is the coarsest trunk map; as published there is no dropout. Batch normalisation in training is
    over the patches that one process sends through at once (anchors and positives; the published program sends them one
    after the other).

    Args:
        feature_dim: channels of the features, which must be those of joined trunk maps.
        code_dim: channels of the codes, e.
        granularity: levels of the pyramid, see `medseg.features.pyramid`.

    Raises:
        MedsegError: other features, or no such granularity.
    """

    projection: Projection = "pyramid"

    def __init__(self, feature_dim: int, code_dim: int, granularity: int) -> None:
        super().__init__()
        if feature_dim != JOINED_CHANNELS:
            raise MedsegError(
                f"features of stego.projection pyramid must have {JOINED_CHANNELS} channels, got {feature_dim}; "
                f"set features.backbone to {PYRAMID_BACKBONE}"
            )
        self.feature_dim, self.code_dim, self.granularity = feature_dim, code_dim, granularity
        self.pyramid = FeaturePyramid(granularity, code_dim)

    def forward(
        self, features: Float[Tensor, "b d hf wf"], keep: Float[Tensor, "3 b d"] | None = None
    ) -> tuple[Float[Tensor, "b e hc wc"], Float[Tensor, "b t ht wt"]]:
        """Codes at twice the grid, and the coarsest trunk map; `keep` changes nothing."""
        maps, images = split_trunk(features)
        return self.pyramid(maps, images), maps[-1]


AnyHead = Head | PyramidHead


def build_head(feature_dim: int, code_dim: int, projection: Projection, granularity: int = 4) -> AnyHead:
    """The head of a projection; `granularity` counts for a pyramid only."""
    if projection == "pyramid":
        return PyramidHead(feature_dim, code_dim, granularity)
    return Head(feature_dim, code_dim, projection)


def describe_head(head: AnyHead) -> dict[str, Any]:
    """The arguments of `build_head` that make such a head again."""
    described = {"feature_dim": head.feature_dim, "code_dim": head.code_dim, "projection": head.projection}
    return described | ({"granularity": head.granularity} if isinstance(head, PyramidHead) else {})


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
