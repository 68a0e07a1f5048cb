"""This file holds the two probes that read the codes without changing them.

The *cluster probe* learns K prototypes online; the *linear probe* is trained on reference labels where there are any,
and is only reported. Both see detached codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from medseg.stego.losses import resize

IGNORED = -1


def cosines(codes: Float[Tensor, "b e *grid"], prototypes: Float[Tensor, "k e"]) -> Float[Tensor, "b k *grid"]:
    """Cosine of every pixel with every prototype."""
    return torch.einsum("be...,ke->bk...", functional.normalize(codes, dim=1), functional.normalize(prototypes, dim=1))


def assign(cosine: Float[Tensor, "b k *grid"], alpha: float | None) -> Float[Tensor, "b k *grid"]:
    """Share of each cluster in each pixel: one-hot of the nearest without `alpha`, else `softmax(alpha cos)`."""
    if alpha is None:
        nearest = functional.one_hot(cosine.argmax(1), cosine.shape[1])
        return nearest.movedim(-1, 1).to(cosine.dtype)
    return (alpha * cosine).softmax(1)


def cluster_loss(cosine: Float[Tensor, "b k *grid"], alpha: float | None = None) -> Float[Tensor, ""]:
    """Minus the mean cosine of the pixels with the prototypes they are assigned to.

    Without `alpha` this is the objective of spherical k-means.
    """
    return -(assign(cosine, alpha) * cosine).sum(1).mean()


def linear_loss(
    logits: Float[Tensor, "b c hf wf"],
    reference: Int[Tensor, "b h w"],
    total: Callable[[Tensor], Tensor] = torch.clone,
) -> Float[Tensor, ""]:
    """Cross-entropy over the pixels that have a label; 0 with zero gradient where none has.

    Args:
        logits: the linear probe's answer; resized to the labels.
        reference: class of each pixel; anything outside 0..c-1 is ignored.
        total: turns this process's count of labelled pixels into the mean count over all processes.
    """
    classes = logits.shape[1]
    valid = (reference >= 0) & (reference < classes)
    target = torch.where(valid, reference, IGNORED)
    summed = functional.cross_entropy(
        resize(logits, (reference.shape[1], reference.shape[2])), target, ignore_index=IGNORED, reduction="sum"
    )
    return summed / total(valid.sum().to(summed.dtype)).clamp_min(torch.finfo(summed.dtype).tiny)


class Probes(nn.Module):
    """The cluster probe and, where labels exist, the linear probe.

    Args:
        code_dim: channels of the codes, e.
        clusters: number of prototypes, K.
        classes: classes of the reference labels; 0 leaves the linear probe out.
    """

    def __init__(self, code_dim: int, clusters: int, classes: int = 0) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(clusters, code_dim))
        # Last, so that labels do not change the draws of anything that a mask depends on.
        self.linear = nn.Conv2d(code_dim, classes, 1) if classes else None

    def forward(
        self, codes: Float[Tensor, "b e h w"], labelled_codes: Float[Tensor, "b e hf wf"] | None = None
    ) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b c hf wf"] | None]:
        """Cosines with the prototypes, and the linear probe's logits where `labelled_codes` are given."""
        logits = None
        if self.linear is not None and labelled_codes is not None:
            logits = self.linear(labelled_codes.detach())
        return cosines(codes.detach(), self.prototypes), logits
