"""This file looks at each segment by itself: it is cut out, its surroundings are blanked, and a network sees the crop.

Words: a *crop* is the box around a segment, resized to a square; *cover* is the share of each pixel of the crop that
belongs to the segment. What does not is *blank*: the mean colour of ImageNet, which is 0 to a network. A crop's feature
is the *CLS token* of a ViT, which sums up what it sees; other networks give the mean of their map over the segment.

References:
    Kumar, Sur and Baruah, DatUS, 2024, section III. Caron et al., DINO, ICCV 2021 (the CLS token).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from medseg.datus.segments import OUTSIDE
from medseg.features.backbones import to_rgb
from medseg.features.frozen import FrozenViT

CROP_SIDE = 128
"""Pixels of a crop's side: a fifth to a third of the work of the published 224, and 16 cells of a ViT of stride 8."""
BATCH = 16
"""Crops that a network sees at once."""
_LEAST_COVER = 1e-6


def masked_crops(
    picture: Float[Tensor, "3 h w"], segments: Integer[np.ndarray, "hc wc"], side: int
) -> tuple[Float[Tensor, "s 3 side side"], Float[Tensor, "s 1 side side"]]:
    """The crop of each segment, ready for a network, and its cover.

    Args:
        picture: display values 0 to 1.
        segments: numbers from 0, on a grid that covers the picture.
        side: pixels of a crop.

    Returns:
        The crops, normalised and blank outside their segment, and 1 where a pixel's middle lies in the segment, else 0.
    """
    boxes = torch.from_numpy(_boxes(segments) / np.tile(segments.shape, 2)).float()
    middles = (torch.arange(side) + 0.5) / side
    rows, columns = (
        boxes[:, first, None] + middles * (boxes[:, last, None] - boxes[:, first, None])
        for first, last in ((0, 2), (1, 3))
    )
    # grid_sample wants (x, y) from -1 to 1 for each pixel of each crop.
    places = torch.stack([columns[:, None].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], dim=-1)
    whole = to_rgb(picture[None], "rgb").expand(len(boxes), -1, -1, -1)
    crops = functional.grid_sample(whole, 2 * places - 1, mode="bilinear", padding_mode="border", align_corners=False)
    cells = torch.from_numpy(segments)
    there = cells[(places[..., 1] * cells.shape[0]).long(), (places[..., 0] * cells.shape[1]).long()]
    cover = (there == torch.arange(len(boxes))[:, None, None])[:, None].float()
    return crops * cover, cover


def crop_features(
    picture: Float[Tensor, "3 h w"],
    segments: Integer[np.ndarray, "hc wc"],
    backbones: Sequence[Any],
    *,
    side: int = CROP_SIDE,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "s d"]:
    """The feature of each segment's crop; those of several networks are joined, each scaled to norm 1."""
    return torch.cat([_features_by(picture, segments, backbone, side, device) for backbone in backbones], dim=1)


@torch.no_grad()
def _features_by(
    picture: Float[Tensor, "3 h w"],
    segments: Integer[np.ndarray, "hc wc"],
    backbone: Any,
    side: int,
    device: torch.device | str,
) -> Float[Tensor, "s d"]:
    side = max(1, round(side / backbone.stride)) * backbone.stride
    crops, cover = masked_crops(picture, segments, side)
    found = [torch.zeros(0, backbone.dim)]
    for first in range(0, len(crops), BATCH):
        part, its_cover = (values[first : first + BATCH].to(device) for values in (crops, cover))
        if isinstance(backbone, FrozenViT):
            found.append(backbone.tokens(backbone.as_trained(part))[:, 0].float().cpu())
        else:
            found.append(covered_mean(backbone(part).float(), its_cover).cpu())
    return functional.normalize(torch.cat(found), dim=1)


def covered_mean(maps: Float[Tensor, "b d hf wf"], cover: Float[Tensor, "b 1 _ _"]) -> Float[Tensor, "b d"]:
    """The mean of each map, in which cells count by their share of the segment."""
    weights = functional.adaptive_avg_pool2d(cover, (maps.shape[2], maps.shape[3])).clamp(min=_LEAST_COVER)
    return (maps * weights).sum((2, 3)) / weights.sum((2, 3))


def segment_means(features: Float[Tensor, "d hc wc"], segments: Integer[np.ndarray, "hc wc"]) -> Float[Tensor, "s d"]:
    """The mean feature of each segment's cells at norm 1, where a backbone measures voxels and sees no crops."""
    inside = torch.from_numpy(segments != OUTSIDE)
    numbers = torch.from_numpy(segments)[inside]
    values = features[:, inside].T.float()
    count = int(numbers.max()) + 1 if len(numbers) else 0
    sums = torch.zeros(count, values.shape[1]).index_add_(0, numbers, values)
    return functional.normalize(sums, dim=1)  # the same direction as the mean


def _boxes(segments: Integer[np.ndarray, "hc wc"]) -> Integer[np.ndarray, "s 4"]:
    """First row and column of each segment, and those behind its last."""
    rows, columns = np.nonzero(segments != OUTSIDE)
    numbers = segments[rows, columns]
    boxes = np.zeros((int(numbers.max()) + 1 if len(numbers) else 0, 4), dtype=np.int64)
    boxes[:, :2] = max(segments.shape)
    np.minimum.at(boxes[:, 0], numbers, rows)
    np.minimum.at(boxes[:, 1], numbers, columns)
    np.maximum.at(boxes[:, 2], numbers, rows + 1)
    np.maximum.at(boxes[:, 3], numbers, columns + 1)
    return boxes
