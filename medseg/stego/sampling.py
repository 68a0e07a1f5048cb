"""This file draws the random numbers of a training step and reads features and codes at the points they name.

Everything random is a function of (seed, step): no state has to be stored, so a resumed run repeats the draws of an
undisturbed one. Draws are made for the whole batch; with several processes each takes its rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medseg.stego.head import keep_masks
from medseg.stego.losses import CRF_SIZE

Sampling = Literal["maps", "corners", "pixels"]
STREAMS = ("weights", "step", "shifts", "augmentation", "points", "clustering")


def generator_for(seed: int, stream: str, step: int = 0) -> torch.Generator:
    """A generator of its own for one stream of one step."""
    state = np.random.SeedSequence([seed, STREAMS.index(stream), step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class Draws(NamedTuple):
    """The random numbers of one step for a batch of b patches.

    Attributes:
        coords: uniform (x, y) of the anchors' and the positives' points, in [-1, 1].
        picks: in [0, 1), which salient pixel takes a point's place.
        salient: whether it does.
        negatives: for each draw and anchor the batch row it is set against, never its own; no draw at b = 1.
        keep: dropout of anchors and positives, see `medseg.stego.head`; None without dropout.
        crf_pixels: row and column of the pixels of the CRF loss.
    """

    coords: Float[Tensor, "2 b s s 2"]
    picks: Float[Tensor, "2 b s s"]
    salient: Bool[Tensor, "b s s"]
    negatives: Int[Tensor, "m b"]
    keep: Float[Tensor, "2 3 b d"] | None
    crf_pixels: Int[Tensor, "2 n"]

    def rows(self, rows: slice, device: torch.device) -> Draws:
        """What the patches `rows` of the batch need, on their device (`negatives` still counts in the whole batch)."""
        return Draws(
            self.coords[:, rows].to(device),
            self.picks[:, rows].to(device),
            self.salient[rows].to(device),
            self.negatives[:, rows].to(device),
            None if self.keep is None else self.keep.to(device),  # of all: negatives may lie in other rows
            self.crf_pixels.to(device),
        )


def draw(
    generator: torch.Generator,
    *,
    batch: int,
    feature_dim: int,
    samples: int,
    negatives: int,
    salient_share: float,
    dropout: float,
    crf_samples: int,
) -> Draws:
    """Draw one step's random numbers.

    Args:
        generator: where they come from.
        batch: patches in the whole batch, b.
        feature_dim: channels of the features, d.
        samples: points along each side of the point grid, s.
        negatives: draws of other patches, m.
        salient_share: share of the points that is moved to salient pixels.
        dropout: probability that a channel is dropped.
        crf_samples: pixels of the CRF loss, n; 0 draws none.
    """
    side = (batch, samples, samples)
    return Draws(
        coords=torch.rand((2, *side, 2), generator=generator) * 2 - 1,
        picks=torch.rand((2, *side), generator=generator),
        salient=torch.rand(side, generator=generator) < salient_share,
        negatives=derangements(batch, negatives, generator),
        keep=keep_masks((2, 3, batch, feature_dim), dropout, generator) if dropout > 0 else None,
        crf_pixels=torch.randint(CRF_SIZE, (2, crf_samples), generator=generator),
    )


def derangements(count: int, draws: int, generator: torch.Generator) -> Int[Tensor, "m b"]:
    """Random permutations in which nothing keeps its place, each equally likely; none for a single item."""
    found: list[Tensor] = []
    while count > 1 and len(found) < draws:  # e = 2.7 tries each on average
        permutation = torch.randperm(count, generator=generator)
        if not (permutation == torch.arange(count)).any():
            found.append(permutation)
    return torch.stack(found) if found else torch.empty((0, count), dtype=torch.int64)


def salient_pixels(mask: Bool[Tensor, "b h w"], picks: Float[Tensor, "  b *p"]) -> tuple[Tensor, Tensor]:
    """Rows and columns of mask pixels, counted in row-major order and chosen by `picks` in [0, 1).

    An image without any mask pixel is treated as if all were in the mask.
    """
    batch, _, width = mask.shape
    flat = torch.where(mask.flatten(1).any(1, keepdim=True), mask.flatten(1), True)
    counted = flat.cumsum(1)
    wanted = (picks.flatten(1) * counted[:, -1:]).floor().long() + 1
    chosen = torch.searchsorted(counted, torch.minimum(wanted, counted[:, -1:])).reshape(batch, *picks.shape[1:])
    return chosen // width, chosen % width


def pixel_coordinates(rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Float[Tensor, "*p 2"]:
    """(x, y) of pixel centres: `2 index / (n - 1) - 1` along each axis."""
    y = rows * (2 / max(size[0] - 1, 1)) - 1
    x = columns * (2 / max(size[1] - 1, 1)) - 1
    return torch.stack((x, y), dim=-1)


def salient_coordinates(
    coords: Float[Tensor, "b s t 2"], picks: Float[Tensor, "b s t"], salient: Bool[Tensor, "b s t"], mask: Tensor
) -> Float[Tensor, "b s t 2"]:
    """Uniform coordinates, of which the `salient` ones are moved onto pixels of the mask."""
    found = pixel_coordinates(*salient_pixels(mask, picks), (mask.shape[1], mask.shape[2]))
    return torch.where(salient[..., None], found.to(coords.dtype), coords)


def corners(
    coords: Float[Tensor, "b s t 2"], size: tuple[int, int], *, snap: bool
) -> tuple[Int[Tensor, "b p q"], Float[Tensor, "b p q"]]:
    """The pixels whose weighted sum is the bilinear value at each coordinate.

    Args:
        coords: the points, p = s t of them.
        size: rows and columns of the map.
        snap: take the nearest pixel (q = 1) instead of the four corners (q = 4).

    Returns:
        Row-major pixel index and weight of each corner.
    """
    height, width = size
    scale = coords.new_tensor((width - 1, height - 1))
    place = ((coords.flatten(1, 2).clamp(-1, 1) + 1) / 2 * scale).clamp_min(0)
    if snap:
        column, row = place.round().long().unbind(-1)
        return (row * width + column)[..., None], torch.ones_like(place[..., :1])
    low = torch.minimum(place.floor(), (scale - 1).clamp_min(0))
    share = place - low
    (left, top), (x, y) = low.long().unbind(-1), share.unbind(-1)
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    index = torch.stack(
        (top * width + left, top * width + right, bottom * width + left, bottom * width + right), dim=-1
    )
    weight = torch.stack(((1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x), dim=-1)
    return index, weight


def gather_pixels(
    values: Float[Tensor, "a c h w"], index: Int[Tensor, "b p q"], rows: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b c p q"]:
    """The values of chosen pixels, laid out like a map; `rows` says which map each row of `index` reads."""
    channels, (_, points, near) = values.shape[1], index.shape
    if rows is None:
        rows = torch.arange(len(index), device=values.device)
    # One flat index: a copy of the chosen maps would cost more than the head that runs on their pixels.
    base = (rows[:, None] * channels + torch.arange(channels, device=values.device)) * values[0, 0].numel()
    return values.flatten().take(base[:, :, None] + index.reshape(len(index), 1, -1)).unflatten(2, (points, near))
