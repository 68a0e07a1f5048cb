"""This file is the course on vessels: windows of labelled volumes, with vessels painted into most, for a 3-D U-Net."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.student.course import NOT_IN_KEY, Batch, LoopSettings, Start
from medseg.features.student.vessels.network import first_network, network_from
from medseg.features.student.vessels.rounds import close_round, settled_volumes
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.student.vessels.volumes import StudentVolume
from medseg.features.student.vessels.windows import draw_windows
from medseg.features.teachers.vessels import YES


@dataclass(frozen=True, kw_only=True)
class VesselSettings(LoopSettings):
    """The numbers of a training on vessels; those of the loop are in voxels and windows.

    Attributes:
        widths: channels of the network's levels.
        rounds: students, each on the labels that the one before settled.
        steps: of a round.
        window: side of a window in voxels.
        learning_rate: at the start of the first round; it falls to 0 along a cosine in every round.
        later_learning_rate: the same for later rounds, and for the first from trained weights.
        painted: share of windows into which vessels are painted.
        centred: share of windows around a positive.
    """

    widths: tuple[int, ...] = (12, 24, 48)
    rounds: int = 2
    steps: int = 600
    window: int = 64
    learning_rate: float = 3e-3
    later_learning_rate: float = 1.5e-3
    painted: float = 0.75
    centred: float = 0.5

    def __post_init__(self) -> None:
        multiple = 2 ** (len(self.widths) - 1)
        if self.window % multiple:
            raise MedsegError(
                f"student.window must be a multiple of {multiple}, as {len(self.widths)} levels need, "
                f"got {self.window}; choose {max(self.window // multiple, 1) * multiple}"
            )


class VesselCourse:
    """A course on vessels; later rounds go on from the weights of the one before, at half the rate.

    Args:
        volumes: the training scans with the teacher's or exact labels.
        settings: the numbers of the run.
        start: a trained student to begin with.

    Raises:
        MedsegError: there is no volume, or `start` has other widths.
    """

    def __init__(
        self, volumes: Sequence[StudentVolume], settings: VesselSettings, *, start: VesselStudent | None = None
    ) -> None:
        if not volumes:
            raise MedsegError("the student must have a scan to learn from, got none; add scans")
        if start is not None and start.net.widths != tuple(settings.widths):
            raise MedsegError(
                f"student.widths must be those of the student it starts from, {list(start.net.widths)}, "
                f"got {list(settings.widths)}; change them, or start from nothing"
            )
        self.volumes, self.settings, self.start = volumes, settings, start
        self.steps = (settings.steps,) * settings.rounds
        self._labelled = volumes
        self._origin = None if start is None else start.fingerprint

    def key(self) -> Any:
        """More rounds, or other reports, may go on from a checkpoint."""
        numbers = dataclasses.asdict(self.settings)
        settings = {name: value for name, value in numbers.items() if name not in {"rounds", *NOT_IN_KEY}}
        return [settings, [volume.key for volume in self.volumes], self._origin]

    def card(self, number: int) -> dict[str, Any]:
        numbers = {**dataclasses.asdict(self.settings), "rounds": number}
        return {"volumes": len(self.volumes), "start": self._origin, "settings": numbers}

    def begin(self, number: int, seed: int, *, before: Path | None, labels: Path | None) -> Start:
        start = self.start if before is None else VesselStudent.load(before)
        self._labelled = self.volumes if labels is None else settled_volumes(self.volumes, labels)
        if start is None:
            return Start(first_network(self.settings.widths, seed), self.settings.learning_rate)
        net = network_from(start.net.state_dict(), self.settings.widths)
        return Start(net, self.settings.later_learning_rate)

    def draw(self, seeds: Sequence[Sequence[int]]) -> Batch:
        settings = self.settings
        inputs, labels, weight = draw_windows(
            self._labelled, seeds, window=settings.window, centred=settings.centred, painted=settings.painted
        )
        return Batch(inputs, (labels == YES).to(weight.dtype), weight)

    def picture(self, batch: Batch, probability: Float[Tensor, "b i j k"], most: int = 4) -> Float[Tensor, "3 h w"]:
        """Up to four windows, one row each: the slice with most vessel, its labels (unknown in blue), the answer."""
        rows = []
        for inputs, target, weight, answer in list(zip(*batch, probability, strict=True))[:most]:
            slice_ = int((target > 0).sum((0, 1)).argmax())
            image = inputs[0, :, :, slice_]
            grey = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
            said = torch.stack([target, target, target.maximum((weight == 0).float())])[..., slice_]
            rows.append(torch.cat([grey.expand(3, -1, -1), said, answer[:, :, slice_].expand(3, -1, -1)], dim=2))
        return torch.cat(rows, dim=1)

    def close(
        self, number: int, weights: Mapping[str, Tensor], fabric: Fabric, *, before: Path | None, settled: Path | None
    ) -> VesselStudent:
        return close_round(weights, self.settings.widths, self.volumes, fabric, settled=settled)

    def load(self, folder: Path) -> VesselStudent:
        return VesselStudent.load(folder)
