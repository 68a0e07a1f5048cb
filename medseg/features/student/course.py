"""This file says what a course is: everything about a student's training that is not the loop itself.

Its words: a *course* has *rounds*; each trains one network on one set of labels and is *closed* by leaving a
*snapshot*, a student of its own, and, unless it was the last, labels for the next round. A *batch* is what a step
learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The numbers that the loop reads, whatever is learnt.

    Attributes:
        batch: examples a step.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: share of the running mean that a step keeps.
        bce_weight: of the cross-entropy beside Dice.
        dice_smoothing: in voxels or cells, see `student_loss`.
        checkpoint_every, log_every, picture_every: in steps; they change nothing.
    """

    batch: int = 2
    weight_decay: float = 1e-4
    clip: float = 2.0
    ema: float = 0.99
    bce_weight: float = 3.0
    dice_smoothing: float = 20.0
    checkpoint_every: int = 50
    log_every: int = 10
    picture_every: int = 200


NOT_IN_KEY = frozenset({"checkpoint_every", "log_every", "picture_every"})
"""Settings of the loop that change no weight."""


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        inputs: what the network is shown.
        target: the probability that it should give.
        weight: of each place in the loss; 0 where nothing is known.
    """

    inputs: Float[Tensor, "b c *grid"]
    target: Float[Tensor, " b *grid"]
    weight: Float[Tensor, " b *grid"]


class Start(NamedTuple):
    """What a round begins with.

    Attributes:
        net: gives logits `b 1 *grid` and features; it is trained in place.
        learning_rate: of the first step; it falls to 0 along a cosine.
    """

    net: nn.Module
    learning_rate: float


@runtime_checkable
class Snapshot(Protocol):
    """A student as the loop sees it."""

    fingerprint: str

    def save(self, folder: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write it, and with it how it was trained."""
        ...


S = TypeVar("S", bound=Snapshot, covariant=True)


@runtime_checkable
class Course(Protocol[S]):
    """What one student learns, and from what."""

    @property
    def settings(self) -> LoopSettings:
        """The numbers of the loop."""
        ...

    @property
    def steps(self) -> Sequence[int]:
        """Steps of each round."""
        ...

    def key(self) -> Any:
        """Plain values that the weights depend on, beside seed and rounds that may be added later."""
        ...

    def card(self, number: int) -> dict[str, Any]:
        """How the snapshot of a round was trained, in plain values."""
        ...

    def begin(self, number: int, seed: int, *, before: Path | None, labels: Path | None) -> Start:
        """Open the labels of a round and make its network.

        Args:
            number: of the round, from 1.
            seed: of first weights.
            before: the snapshot of the round before; None in the first, or where the round's weights are there already.
            labels: what closing that round left; None likewise.
        """
        ...

    def draw(self, seeds: Sequence[Sequence[int]]) -> Batch:
        """One example for each seed, of which it is a function, with the labels that `begin` opened."""
        ...

    def picture(self, batch: Batch, probability: Float[Tensor, " b *grid"]) -> Float[Tensor, "3 h w"]:
        """Some examples and the answers to them."""
        ...

    def close(
        self, number: int, weights: Mapping[str, Tensor], fabric: Fabric, *, before: Path | None, settled: Path | None
    ) -> S:
        """Make the snapshot of a round, and labels for the next; each process does its share.

        Args:
            number: of the round.
            weights: the running mean of its network's.
            fabric: device and processes.
            before: the snapshot of the round before; None in the first.
            settled: where the labels of the next round go; None after the last.
        """
        ...

    def load(self, folder: Path) -> S:
        """Read a snapshot."""
        ...
