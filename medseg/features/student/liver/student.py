"""This file holds the trained student of the liver: the probability of liver and features for every cell of a sample.

It has one or both of two networks: one on the trunk's components, one on echoes. The mean of their probabilities goes
through the teacher's walker once more. The trunk is frozen and not stored with it. The words of `looks.py` hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights
from medseg.features.student.channels import standardised
from medseg.features.student.liver.basis import Basis, basis_from
from medseg.features.student.liver.looks import Look, Trunk, look_at, resized
from medseg.features.student.liver.network import CELL_FEATURES, CellNet, EchoNet, with_weights
from medseg.features.student.liver.views import plain_components, plain_echoes
from medseg.features.student.storage import CARD, as_part, part_of, read_student, write_student
from medseg.features.teachers.liver import CELLS, final_answer, teach_from_cues, why_no_liver
from medseg.prepare.flux import scratch_array

Box = tuple[slice, slice, slice]

FORMAT = "medseg-liver-student/1"
"""Of its files."""

_VERSION = 1  # to be raised with every change of what the networks are shown or of the features


class LiverStudent:
    """Trained networks with what standardises their features; a volume backbone on its own maps.

    Args:
        basis: of the components; None without a network on them.
        cells: the network on components, or None.
        echo: the network on echoes, or None.
        mean: of each feature channel over the training frames, those of `cells` first.
        std: of each feature channel.
        trunk: the frozen network that `basis` was fitted to; None without `cells`.
        card: how it was trained, plain values.

    Attributes:
        name: of the backbone.
        dim: channels of the standardised features with the lift.
        fingerprint: hash of weights, basis, mean, std and trunk.
    """

    name = "student"

    def __init__(
        self,
        basis: Basis | None,
        cells: CellNet | None,
        echo: EchoNet | None,
        mean: Float[Tensor, " w"],
        std: Float[Tensor, " w"],
        *,
        trunk: Trunk | None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.basis, self.trunk, self.card = basis, trunk, dict(card or {})
        self.cells = None if cells is None else cells.cpu().eval().requires_grad_(False)
        self.echo = None if echo is None else echo.cpu().eval().requires_grad_(False)
        self.mean, self.std = mean.detach().float().cpu(), std.detach().float().cpu()
        self.dim = len(self.mean) + 1
        self.fingerprint = hash_weights(self._tensors(), self.name, FORMAT, _VERSION, self._trunk_fingerprint())

    def answers(
        self, look: Look, device: torch.device | str = "cpu"
    ) -> list[tuple[Float32[Tensor, "s s"], Float32[Tensor, "w s s"]]]:
        """Probability and features by each network on its own grid, before any walker."""
        found = []
        with torch.inference_mode():
            if self.cells is not None and self.basis is not None:
                components = self.basis([torch.from_numpy(m)[None].to(device) for m in look.maps])
                found.append(self.cells.to(device)(plain_components(components)))
            if self.echo is not None:
                echoes = torch.from_numpy(look.echoes)[None].to(device)
                found.append(self.echo.to(device)(plain_echoes(echoes)))
        return [(logits[0, 0].sigmoid().float().cpu(), features[0].float().cpu()) for logits, features in found]

    def probability(self, look: Look, device: torch.device | str = "cpu") -> Float32[np.ndarray, "48 48"]:
        """Mean of the networks' probabilities on the cells, before the last walker."""
        found = [resized(probability[None, None], CELLS)[0, 0] for probability, _ in self.answers(look, device)]
        return torch.stack(found).mean(0).numpy()

    def maps(
        self, sample: Mapping[str, Any], device: torch.device | str = "cpu", *, with_features: bool = True
    ) -> dict[str, Any]:
        """Predict a whole sample, frame by frame.

        Args:
            sample: `image` and `region` as `1 i j k`.
            device: where the networks run.
            with_features: False leaves them out, which are by far the most of it.

        Returns:
            `student_features` (float16 `w i j k`, not standardised) and `student_probability` (float32 `1 i j k`), in
            memory when small, else in temporary files; both 0 in frames without a sector, the probability also outside
            the region. `student_alarms`: for each frame why it seems to show no liver, or None.
        """
        image, region = np.asarray(sample["image"][0]), np.asarray(sample["region"][0]) > 0
        side = image.shape[0]
        shape = (len(self.mean) if with_features else 0, *image.shape)
        features = torch.from_numpy(scratch_array(shape, np.float16))
        probability = torch.from_numpy(scratch_array((1, *image.shape)))
        alarms: list[str | None] = [None] * image.shape[2]
        for k in np.flatnonzero(region.any((0, 1))):
            look = look_at(image[..., k], region[..., k], self.trunk if self.cells is not None else None, device)
            answers = self.answers(look, device)
            mean = torch.stack([resized(answer[None, None], CELLS)[0, 0] for answer, _ in answers]).mean(0)
            final = torch.from_numpy(np.asarray(final_answer(mean.numpy(), look.cues, look.edges), np.float32))
            probability[0, ..., k] = resized(final[None, None], side)[0, 0] * torch.from_numpy(region[..., k])
            if with_features:
                features[..., k] = torch.cat([resized(values[None], side)[0] for _, values in answers])
            alarms[k] = why_no_liver(
                teach_from_cues(look.cues, look.edges, look.context), look.cues.region, look.context
            )
        maps = {"student_probability": probability, "student_alarms": alarms}
        return {**maps, "student_features": features} if with_features else maps

    def features_of_box(self, sample: Mapping[str, Any], box: Box) -> Float[Tensor, "d i j k"]:
        """Standardised features and the lift in one box of a sample to which `maps` was added.

        Raises:
            ValueError: the sample has no `student_features`.
        """
        if "student_features" not in sample:
            raise ValueError("sample must hold student_features, got none; add the student's maps first")
        return standardised(torch.as_tensor(sample["student_features"][(slice(None), *box)]), self.mean, self.std)

    def answer_at(self, features: Float[Tensor, "n d"]) -> Float32[Tensor, " n"]:
        """Probability of liver at points by their standardised features alone: the networks' last layers are linear."""
        values = features[:, :-1].float() * self.std + self.mean
        found, first = [], 0
        for net in (self.cells, self.echo):
            if net is not None:
                weight = net.answer.weight.flatten()
                logits = values[:, first : first + len(weight)] @ weight
                found.append((logits if net.answer.bias is None else logits + net.answer.bias).sigmoid())
                first += len(weight)
        return torch.stack(found).mean(0)

    def save(self, folder: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write the student into a folder; `student.json`, written last, makes it complete.

        Args:
            folder: of the student alone, or one with other files.
            card: how it was trained; by default what the student already has.
        """
        content = {
            "format": FORMAT,
            "trunk": None if self.cells is None or self.trunk is None else self.trunk.name,
            "trunk_fingerprint": self._trunk_fingerprint(),
            "components": None if self.basis is None else self.basis.components,
            "echo_widths": None if self.echo is None else list(self.echo.widths),
            "fingerprint": self.fingerprint,
        }
        write_student(folder, self._tensors(), content, self.card if card is None else card)

    @classmethod
    def load(cls, folder: Path, trunk: Trunk | None) -> LiverStudent:
        """Read a student that `save` wrote.

        Args:
            folder: where it lies.
            trunk: the frozen network; None for a student that has no network on components.

        Raises:
            MedsegError: the folder holds no such student, one whose files are damaged or do not belong together, or
                one of another trunk.
        """

        def make(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> tuple[LiverStudent, str]:
            wanted, given = content["trunk_fingerprint"], None if trunk is None else trunk.fingerprint
            if wanted is not None and wanted != given:
                raise MedsegError(
                    f"{folder / CARD} must be loaded with the frozen network {content['trunk']}, "
                    f"got {'none' if trunk is None else trunk.name}; choose that one, or train the student anew"
                )
            components, widths = content["components"], content["echo_widths"]
            basis = None if components is None else basis_from(part_of(tensors, "basis"))
            cells = None if components is None else with_weights(CellNet, components, part_of(tensors, "cells"))
            echo = None if widths is None else with_weights(EchoNet, widths, part_of(tensors, "echo"))
            mean, std = tensors["mean"], tensors["std"]
            if len(mean) != (0 if cells is None else CELL_FEATURES) + (0 if echo is None else echo.widths[0]):
                raise ValueError(f"means of {len(mean)} channels")
            student = cls(basis, cells, echo, mean, std, trunk=trunk, card=content["card"])
            return student, student.fingerprint

        return read_student(folder, FORMAT, ("trunk", "trunk_fingerprint", "components", "echo_widths"), make)

    def _trunk_fingerprint(self) -> str | None:
        return None if self.cells is None or self.trunk is None else self.trunk.fingerprint

    def _tensors(self) -> dict[str, Tensor]:
        basis = {} if self.basis is None else as_part("basis", self.basis.tensors())
        cells = {} if self.cells is None else as_part("cells", self.cells.state_dict())
        echo = {} if self.echo is None else as_part("echo", self.echo.state_dict())
        return {**basis, **cells, **echo, "mean": self.mean, "std": self.std}
