"""This file tells whether the codes have collapsed, without any label.

*Effective rank*: the exponential of the entropy of the singular values, i.e. how many directions the codes really use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medseg.stego.model import unit

MOST_COSINE = 0.9
LEAST_RANK = 3.0
LEAST_CLUSTERS = 2
_USED_SHARE = 1e-3


@dataclass(frozen=True)
class CodeHealth:
    """Signs of collapse in a set of codes.

    Attributes:
        mean_cosine: mean cosine of different points' codes.
        effective_rank: see the module.
        clusters_used: clusters that hold at least a thousandth of the points.
    """

    mean_cosine: float
    effective_rank: float
    clusters_used: int

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong, in words; empty when nothing is."""
        found = (
            (self.mean_cosine > MOST_COSINE, f"mean code cosine {self.mean_cosine:.2f} > {MOST_COSINE}"),
            (self.effective_rank < LEAST_RANK, f"effective rank {self.effective_rank:.1f} < {LEAST_RANK:.0f}"),
            (self.clusters_used < LEAST_CLUSTERS, f"{self.clusters_used} cluster used"),
        )
        return tuple(words for wrong, words in found if wrong)

    def describe(self) -> str:
        """One line that says what is wrong and what to try."""
        return (
            f"the codes have collapsed ({', '.join(self.alarms)}); try stego.shifts: auto, "
            "a larger stego.salient_share, fewer steps or another preset, and compare with the kmeans row"
        )


@torch.no_grad()
def measure_codes(codes: Float[Tensor, "n e"], cosine: Float[Tensor, "n k"]) -> CodeHealth:
    """Measure the codes of a set of points.

    Args:
        codes: of at least two points.
        cosine: nearness of each point to each cluster.

    References:
        Roy and Vetterli, The effective rank, EUSIPCO 2007, definition 1.
    """
    vectors = unit(codes.double())
    count = len(vectors)
    mean_cosine = (vectors.sum(0).square().sum() - vectors.square().sum()) / (count * (count - 1))
    # Singular values from the small Gram matrix: e x e instead of n x e.
    values = torch.linalg.eigvalsh(vectors.T @ vectors).clamp_min(0).sqrt()
    shares = (values / values.sum().clamp_min(1e-300)).clamp_min(1e-300)
    rank = torch.exp(-(shares * shares.log()).sum())
    used = torch.bincount(cosine.argmax(1), minlength=cosine.shape[1]) >= max(1.0, _USED_SHARE * count)
    return CodeHealth(float(mean_cosine), float(rank), int(used.sum()))
