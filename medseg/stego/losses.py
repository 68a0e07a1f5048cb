"""This file holds STEGO's losses, each a function of tensors and numbers.

Shapes: features `b d hf wf`, codes `b e hf wf`, both sampled at s x s points. Coordinates are (x, y) in [-1, 1], where
-1 and +1 are the *centres* of the first and last pixel.

References:
    Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022, eq. 2-5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

STABILISE_MAX = 0.8
CRF_SIZE = 56


class Terms(NamedTuple):
    """One number for each of the three terms: weights, shifts or losses."""

    random: float
    knn: float
    self_: float


def normalise(values: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
    """Divide by the Euclidean norm over channels; a zero vector stays zero."""
    return functional.normalize(values, dim=1, eps=1e-10)


def sample(values: Float[Tensor, "b c h w"], coords: Float[Tensor, "b s t 2"]) -> Float[Tensor, "b c t s"]:
    """Read values at coordinates, bilinear, clamped to the border.

    The points come out transposed, as in the published program: `[:, :, p, q]` is the value at `coords[:, q, p]`. The
    losses do not see it, because features and codes share it.
    """
    grid = coords.permute(0, 2, 1, 3).to(values.dtype)
    return functional.grid_sample(values, grid, padding_mode="border", align_corners=True)


def resize(values: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Resize bilinearly in the half-pixel convention."""
    return functional.interpolate(values, size, mode="bilinear", align_corners=False)


def correlation(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c i j"]) -> Float[Tensor, "b h w i j"]:
    """Dot products between all points of two maps of the same batch row."""
    return torch.einsum("bchw,bcij->bhwij", first, second)


def feature_correspondence(
    first: Float[Tensor, "b d s t"],
    second: Float[Tensor, "b d s t"],
    *,
    pointwise: bool,
    batch_mean: Callable[[Tensor], Tensor] = torch.mean,
) -> Float[Tensor, "b s t s t"]:
    """The teaching signal: cosines between all point pairs, without gradient.

    With `pointwise`, each point of the first image loses its mean over the second image's points (eq. 4), and the mean
    over the whole batch is put back.

    Args:
        first, second: features at the sampled points.
        pointwise: whether to centre.
        batch_mean: the mean over the batch; with several processes, over the batches of all of them.
    """
    with torch.no_grad():
        correspondence = correlation(normalise(first), normalise(second))
        if pointwise:
            mean = batch_mean(correspondence)
            correspondence = correspondence - correspondence.mean((3, 4), keepdim=True)
            correspondence = correspondence - batch_mean(correspondence) + mean
        return correspondence


def pair_loss(
    feature_correspondence: Float[Tensor, "*pairs"],
    code_correspondence: Float[Tensor, "*pairs"],
    shift: float,
    *,
    zero_clamp: bool,
    stabilise: bool,
) -> Float[Tensor, "*pairs"]:
    """Loss of every point pair: `-clamp(code correspondence) * (feature correspondence - shift)` (eq. 3)."""
    if zero_clamp or stabilise:
        clamped = code_correspondence.clamp(0.0 if zero_clamp else None, STABILISE_MAX if stabilise else None)
    else:
        clamped = code_correspondence
    return -clamped * (feature_correspondence - shift)


class SampledPairs(NamedTuple):
    """Features and codes of a batch at the sampled points; `negative` holds one entry a draw, none at batch 1."""

    anchor: tuple[Tensor, Tensor]
    positive: tuple[Tensor, Tensor]
    negative: tuple[tuple[Tensor, Tensor], ...]


class CorrelationLoss(NamedTuple):
    """The weighted sum, the mean loss of each term and its code correspondences (None: the term was left out)."""

    total: Tensor
    losses: dict[str, Tensor]
    code_correspondences: dict[str, Tensor]


def correlation_loss(
    pairs: SampledPairs,
    weights: Terms,
    shifts: Terms,
    *,
    pointwise: bool = True,
    zero_clamp: bool = True,
    stabilise: bool = False,
    batch_mean: Callable[[Tensor], Tensor] = torch.mean,
) -> CorrelationLoss:
    """The correlation loss of a batch: `w_knn L_knn + w_self L_self + w_random mean(L_random)`.

    Args:
        pairs: sampled features and codes; the self term pairs the anchor's points with themselves.
        weights: weight of each term.
        shifts: the feature correspondence above which a pair attracts.
        pointwise, batch_mean: see `feature_correspondence`.
        zero_clamp, stabilise: see `pair_loss`.

    Returns:
        Total, means and code correspondences under the keys `self`, `knn`, `random`. Without negatives (a batch of one
        patch has none) `random` is absent and adds nothing.
    """
    seconds = {"self": (pairs.anchor,), "knn": (pairs.positive,), "random": pairs.negative}
    weight = {"self": weights.self_, "knn": weights.knn, "random": weights.random}
    shift = {"self": shifts.self_, "knn": shifts.knn, "random": shifts.random}
    features, codes = pairs.anchor
    normed_codes = normalise(codes)
    losses, correspondences = {}, {}
    for term, others in seconds.items():
        if not others:
            continue
        wanted = [feature_correspondence(features, f, pointwise=pointwise, batch_mean=batch_mean) for f, _ in others]
        found = torch.cat([correlation(normed_codes, normalise(c)) for _, c in others])
        loss = pair_loss(torch.cat(wanted), found, shift[term], zero_clamp=zero_clamp, stabilise=stabilise)
        losses[term], correspondences[term] = loss.mean(), found
    total = sum((weight[term] * loss for term, loss in losses.items()), start=codes.new_zeros(()))
    return CorrelationLoss(total, losses, correspondences)


def cosine_loss(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Minus the mean cosine between two maps: the reconstruction loss of decoded codes and features."""
    return -(normalise(first) * normalise(second)).sum(1).mean()


def augmentation_loss(
    codes: Float[Tensor, "b e hf wf"], augmented_codes: Float[Tensor, "b e hf wf"], coords: Float[Tensor, "b hf wf 2"]
) -> Float[Tensor, ""]:
    """Minus the mean cosine between codes of an augmented view and the codes where each of its pixels came from.

    Args:
        codes: codes of the original.
        augmented_codes: codes of the augmented view.
        coords: for each pixel of the view, its (x, y) place in the original.
    """
    return cosine_loss(sample_at(codes, coords), augmented_codes)


def sample_at(values: Float[Tensor, "b c h w"], coords: Float[Tensor, "b s t 2"]) -> Float[Tensor, "b c s t"]:
    """Read values at coordinates, bilinear, each where it belongs (not transposed)."""
    return functional.grid_sample(values, coords.to(values.dtype), padding_mode="border", align_corners=True)


def contrastive_crf_loss(
    guidance: Float[Tensor, "b g h w"],
    codes: Float[Tensor, "b e h w"],
    pixels: Int[Tensor, "2 n"],
    *,
    alpha: float = 0.5,
    beta: float = 0.15,
    gamma: float = 0.05,
    w1: float = 10.0,
    w2: float = 3.0,
    shift: float = 0.0,
) -> Float[Tensor, "b n n"]:
    """Loss of every pair of random pixels: minus the cosine of their codes times a CRF kernel.

    `k = w1 exp(-|p|^2 / 2 alpha - |I|^2 / 2 beta) + w2 exp(-|p|^2 / 2 gamma) - shift`, where p is the distance in
    pixels and I the difference in the guidance image. `codes` are already of unit length.

    References:
        Hamilton et al. 2022, appendix; Kraehenbuehl and Koltun, NeurIPS 2011, eq. 3.
    """
    rows, columns = pixels
    place = (pixels[:, :, None] - pixels[:, None, :]).square().sum(0).to(guidance.dtype)
    colours = guidance[:, :, rows, columns]
    contrast = (colours[:, :, :, None] - colours[:, :, None, :]).square().sum(1)
    appearance = w1 * torch.exp(-place / (2 * alpha) - contrast / (2 * beta))
    smoothness = w2 * torch.exp(-place / (2 * gamma))
    chosen = codes[:, :, rows, columns]
    return -torch.einsum("bea,bec->bac", chosen, chosen) * (appearance + smoothness - shift)
