"""This file computes one training step: batch and draws in, losses out; no config file, no device, no random number.

A *batch* holds `features`, `positive_features`, `image`, `salience`, `positive_salience` and, where there are labels,
`labels`. With several processes each holds its rows of the batch and a `Reduction` joins what the loss takes over all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from medseg.stego import losses
from medseg.stego.augment import View, view_coordinates
from medseg.stego.head import Decoder, build_head
from medseg.stego.losses import SampledPairs, Terms
from medseg.stego.probes import Probes, cluster_loss, linear_loss
from medseg.stego.sampling import Draws, corners, gather_pixels, salient_coordinates
from medseg.stego.settings import StegoSettings

PUBLISHED_NAMES = {"self": "pos_intra", "knn": "pos_inter", "random": "neg_inter"}


class Reduction(NamedTuple):
    """How values of one process become values of all.

    Attributes:
        gather: rows of this process -> rows of all processes in order; passes gradients.
        mean: mean over the processes, without gradient.
    """

    gather: Callable[[Tensor], Tensor] = lambda values: values
    mean: Callable[[Tensor], Tensor] = lambda value: value

    def batch_mean(self, values: Tensor) -> Tensor:
        """Mean over all values of all processes, which hold equally many."""
        return self.mean(values.mean())


def join_processes(fabric: Fabric) -> Reduction:
    """How the processes of this Fabric join; one process needs nothing."""
    if fabric.world_size == 1:
        return Reduction()

    def gather(values: Tensor) -> Tensor:
        rows: Any = fabric.all_gather(values, sync_grads=values.requires_grad)
        return rows.flatten(0, 1)

    def mean(value: Tensor) -> Tensor:
        reduced: Any = fabric.all_reduce(value.detach().clone(), reduce_op="mean")
        return reduced

    return Reduction(gather, mean)


@dataclass
class Parts:
    """The trained modules. `probes` and `head` always exist, the decoder only with a reconstruction loss."""

    head: nn.Module
    probes: nn.Module
    decoder: nn.Module | None


@dataclass
class StepLosses:
    """What a step gives.

    Attributes:
        total: what is minimised.
        scalars: every part under its published TensorBoard name, detached.
        code_correspondences: of each term, for histograms.
        codes: detached codes the cluster probe saw, and their cosines with the prototypes.
        logits: the linear probe's answer, where labels exist.
        whole_maps: whether the codes are whole maps rather than points.
    """

    total: Tensor
    scalars: dict[str, Tensor]
    code_correspondences: dict[str, Tensor]
    codes: Tensor
    cosines: Tensor
    logits: Tensor | None
    whole_maps: bool


def build_parts(feature_dim: int, settings: StegoSettings, *, classes: int, seed: int) -> Parts:
    """Head, probes and decoder with the weights of step 0, a function of the seed; labels do not change them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = build_head(feature_dim, settings.code_dim, settings.projection, settings.granularity)
        decoder = Decoder(head.code_dim, feature_dim) if settings.rec_weight > 0 else None
        return Parts(head, Probes(head.code_dim, settings.prototypes, classes), decoder)


def build_optimiser(parts: Parts, settings: StegoSettings) -> torch.optim.Adam:
    """One Adam with a rate for the head (and decoder) and one for the probes; Adam treats each weight alone."""
    taught = [*parts.head.parameters(), *(parts.decoder.parameters() if parts.decoder is not None else ())]
    groups = [
        {"params": taught, "lr": settings.learning_rate},
        {"params": list(parts.probes.parameters()), "lr": settings.probe_learning_rate},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]])


def place_points(batch: Mapping[str, Tensor], draws: Draws, threshold: float) -> tuple[Tensor, Tensor]:
    """Coordinates of the anchors' and of the positives' points: salient ones included, and all inside the region."""
    places = []
    for coords, picks, name in zip(draws.coords, draws.picks, ("salience", "positive_salience"), strict=True):
        if draws.salient.any():
            coords = salient_coordinates(coords, picks, draws.salient, batch[name] > threshold)
        salience = batch.get(name)  # a set of patches may know none
        if salience is not None and (salience < 0).any():
            nearest, _ = corners(coords, (salience.shape[1], salience.shape[2]), snap=True)
            strays = salience.flatten(1).gather(1, nearest[..., 0]).reshape(picks.shape) < 0
            coords = salient_coordinates(coords, picks, strays, salience >= 0)
        places.append(coords)
    return places[0], places[1]


class Sampled(NamedTuple):
    """Features and codes at the points; whole code maps and teaching signal of the anchors where they were computed."""

    pairs: SampledPairs
    codes: Tensor | None = None
    signal: Tensor | None = None
    augmented: Tensor | None = None


def sample_maps(
    head: nn.Module,
    batch: Mapping[str, Tensor],
    keep: Tensor | None,
    negatives: Tensor,
    coords: tuple[Tensor, Tensor],
    reduction: Reduction,
) -> Sampled:
    """Run the head on whole maps and read codes and features at the points."""
    stacked = [batch["features"], batch["positive_features"]]
    if "augmented_features" in batch:
        stacked.append(batch["augmented_features"])
    masks = None if keep is None else torch.cat([keep[0], keep[1], keep[0]][: len(stacked)], dim=1)
    # channels_last: the 1x1 convolutions then read each pixel's features in one piece
    codes, signal = head(torch.cat(stacked).contiguous(memory_format=torch.channels_last), masks)
    count = len(batch["features"])
    anchor, positive = (signal[:count], codes[:count]), (signal[count : 2 * count], codes[count : 2 * count])
    everyone = tuple(reduction.gather(values) for values in anchor) if len(negatives) else anchor

    def at(values: tuple[Tensor, ...], place: Tensor) -> tuple[Tensor, Tensor]:
        return losses.sample(values[0], place), losses.sample(values[1], place)

    others = tuple(at((everyone[0][rows], everyone[1][rows]), coords[1]) for rows in negatives)
    pairs = SampledPairs(at(anchor, coords[0]), at(positive, coords[1]), others)
    return Sampled(pairs, anchor[1], anchor[0], codes[2 * count :] if len(stacked) > 2 else None)


def sample_corners(
    head: nn.Module,
    batch: Mapping[str, Tensor],
    keep: Tensor | None,
    all_keep: Tensor | None,
    negatives: Tensor,
    coords: tuple[Tensor, Tensor],
    reduction: Reduction,
    *,
    snap: bool,
) -> Sampled:
    """Run the head only on the pixels that the points touch: the same codes at the points, for less."""
    features, size = batch["features"], (batch["features"].shape[2], batch["features"].shape[3])
    count, samples = len(features), coords[0].shape[1]
    (index1, weight1), (index2, weight2) = (corners(place, size, snap=snap) for place in coords)
    everyone = reduction.gather(features) if len(negatives) else features
    pixels = [gather_pixels(features, index1), gather_pixels(batch["positive_features"], index2)]
    pixels += [gather_pixels(everyone, index2, rows) for rows in negatives]
    masks = None
    if keep is not None and all_keep is not None:
        masks = torch.cat([keep[0], keep[1], *(all_keep[0][:, rows] for rows in negatives)], dim=1)
    codes, signal = head(torch.cat(pixels), masks)
    weights = torch.cat([weight1, *[weight2] * (1 + len(negatives))]).to(codes.dtype)[:, None]

    def at_points(values: Tensor) -> tuple[Tensor, ...]:
        summed = values[..., 0] if snap else (values * weights).sum(-1)
        return summed.unflatten(2, (samples, samples)).split(count)

    anchor, positive, *others = zip(at_points(signal), at_points(codes), strict=True)
    return Sampled(SampledPairs(anchor, positive, tuple(others)))


def sample_batch(
    head: nn.Module,
    batch: Mapping[str, Tensor],
    draws: Draws,
    rows: slice,
    settings: StegoSettings,
    threshold: float,
    reduction: Reduction,
) -> Sampled:
    """Features and codes of this process's rows at the points of a step."""
    coords = place_points(batch, draws, threshold)
    keep = None if draws.keep is None else draws.keep[:, :, rows]
    if settings.sampling == "maps":
        return sample_maps(head, batch, keep, draws.negatives, coords, reduction)
    snap = settings.sampling == "pixels"
    return sample_corners(head, batch, keep, draws.keep, draws.negatives, coords, reduction, snap=snap)


def compute_losses(
    parts: Parts,
    batch: Mapping[str, Tensor],
    draws: Draws,
    settings: StegoSettings,
    shifts: Terms,
    *,
    threshold: float = 0.0,
    view: View | None = None,
    rows: slice = slice(None),
    reduction: Reduction = Reduction(),  # noqa: B008 (a constant)
) -> StepLosses:
    """Every part of the loss of one step.

    Args:
        parts: the modules.
        batch: this process's rows of the batch; with `augmented_features` where `view` is given.
        draws: this step's random numbers for these rows.
        settings: weights and flags.
        shifts: of the three terms.
        threshold: salience above which a pixel is salient.
        view: how the augmented features were made.
        rows: which rows of the whole batch these are.
        reduction: joins the processes.
    """
    sampled = sample_batch(parts.head, batch, draws, rows, settings, threshold, reduction)
    correlated = losses.correlation_loss(
        sampled.pairs,
        settings.term_weights,
        shifts,
        pointwise=settings.pointwise,
        zero_clamp=settings.zero_clamp,
        stabilise=settings.stabilise,
        batch_mean=reduction.batch_mean,
    )
    found = {f"loss/{PUBLISHED_NAMES[term]}": loss for term, loss in correlated.losses.items()}
    found["loss/contrastive"] = settings.correspondence_weight * correlated.total
    total = found["loss/contrastive"]
    if sampled.codes is not None and sampled.signal is not None:
        total = total + _map_losses(parts, batch, sampled, draws, settings, view, found)
    seen = sampled.codes if sampled.codes is not None else sampled.pairs.anchor[1]
    labels, labelled_codes = batch.get("labels"), sampled.codes
    if labels is not None and labelled_codes is None:
        with torch.no_grad():
            labelled_codes = parts.head(batch["features"], None if draws.keep is None else draws.keep[0, :, rows])[0]
    cosine, logits = parts.probes(seen.detach(), labelled_codes if labels is not None else None)
    found["loss/cluster"] = cluster_loss(cosine)
    total = total + found["loss/cluster"]
    if labels is not None and logits is not None:
        found["loss/linear"] = linear_loss(logits, labels, reduction.mean)
        total = total + found["loss/linear"]
    found["loss/total"] = total
    for term, values in correlated.code_correspondences.items():
        found[f"cd/{PUBLISHED_NAMES[term]}"] = values.mean()
    scalars = {name: value.detach() for name, value in found.items()}
    whole = sampled.codes is not None
    return StepLosses(total, scalars, correlated.code_correspondences, seen.detach(), cosine.detach(), logits, whole)


def _map_losses(
    parts: Parts,
    batch: Mapping[str, Tensor],
    sampled: Sampled,
    draws: Draws,
    settings: StegoSettings,
    view: View | None,
    found: dict[str, Tensor],
) -> Tensor:
    """The parts that need whole maps, weighted; their bare values are added to `found`."""
    assert sampled.codes is not None and sampled.signal is not None
    codes, total = sampled.codes, sampled.codes.new_zeros(())
    if settings.rec_weight > 0 and parts.decoder is not None:
        found["loss/rec"] = losses.cosine_loss(parts.decoder(codes), sampled.signal)
        total = total + settings.rec_weight * found["loss/rec"]
    if settings.aug_alignment_weight > 0 and view is not None and sampled.augmented is not None:
        coords = view_coordinates(view, (codes.shape[2], codes.shape[3])).to(codes)
        found["loss/aug_alignment"] = losses.augmentation_loss(codes, sampled.augmented, coords)
        total = total + settings.aug_alignment_weight * found["loss/aug_alignment"]
    if settings.crf_weight > 0:
        size = (losses.CRF_SIZE, losses.CRF_SIZE)
        found["loss/crf"] = losses.contrastive_crf_loss(
            losses.resize(_guidance(batch["image"]), size),
            losses.normalise(losses.resize(codes, size)),
            draws.crf_pixels,
            alpha=settings.crf_alpha,
            beta=settings.crf_beta,
            gamma=settings.crf_gamma,
            w1=settings.crf_w1,
            w2=settings.crf_w2,
            shift=settings.crf_shift,
        ).mean()
        total = total + settings.crf_weight * found["loss/crf"]
    return total


def _guidance(image: Tensor) -> Float[Tensor, "b 3 h w"]:
    """A grey image stands in all three channels, as a grey photograph would."""
    return image if image.ndim == 4 else image[:, None].expand(-1, 3, -1, -1)
