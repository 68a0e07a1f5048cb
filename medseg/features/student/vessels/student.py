"""This file holds the trained student: the probability of a vessel and features for every voxel of a prepared scan.

Its words: a *tile* is a box that is predicted at once, with a *halo* around it whose results are thrown away. Those of
`channels.py` and `storage.py` hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights
from medseg.features.student.channels import standardised
from medseg.features.student.precision import half_precision
from medseg.features.student.storage import CARD, as_part, part_of, read_student, write_student
from medseg.features.student.vessels.network import StudentNet, folded, network_from, network_inputs
from medseg.prepare.flux import scratch_array

Box = tuple[slice, slice, slice]

TILE_VOXELS = 160
"""Largest edge of a tile: with its halo 192 voxels, whose activations take about 1 GB in bfloat16."""
HALO_VOXELS = 16
"""Read around a tile. The field of view of three levels ends at 22 voxels; beyond 16 hardly anything counts."""
FORMAT = "medseg-student/1"
"""Of its files."""

_VERSION = 1  # to be raised with every change of what the network is shown or of the features
_SHIPPED = Path(__file__).parent.parent / "shipped"


class VesselStudent:
    """A trained network with what standardises its features; a volume backbone on its own maps.

    Args:
        net: the network; it is kept on the CPU.
        mean: of each feature channel over the training volumes.
        std: of each feature channel.
        card: how it was trained, plain values.

    Attributes:
        name: of the backbone.
        dim: channels of the standardised features with the lift.
        fingerprint: hash of weights, mean and std.
    """

    name = "student"

    def __init__(
        self,
        net: StudentNet,
        mean: Float[Tensor, " w"],
        std: Float[Tensor, " w"],
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net.cpu().eval().requires_grad_(False)
        self.mean, self.std = mean.detach().float().cpu(), std.detach().float().cpu()
        self.card = dict(card or {})
        self.dim = net.widths[0] + 1
        self.fingerprint = hash_weights(self._tensors(), self.name, _VERSION)

    def maps(
        self, sample: Mapping[str, Any], device: torch.device | str = "cpu"
    ) -> dict[str, Float16[Tensor, "w i j k"] | Float32[Tensor, "1 i j k"]]:
        """Predict a whole volume, tile by tile.

        Args:
            sample: `image` and `region` as `1 i j k`, and `facts["contrast_scale"]`.
            device: where the network runs.

        Returns:
            `student_features` (not standardised) and `student_probability`, in memory when small, else in temporary
            files; both 0 where a tile holds no voxel of the region.
        """
        image, region = (np.asarray(sample[name][0]) for name in ("image", "region"))
        contrast_scale = float(sample["facts"]["contrast_scale"])
        features = torch.from_numpy(scratch_array((self.net.widths[0], *image.shape), np.float16))
        probability = torch.from_numpy(scratch_array((1, *image.shape)))
        net = folded(self.net).to(device)
        for tile in region_tiles(region.view(bool), self.net.multiple):
            outer, inner = _with_halo(tile, image.shape)
            block = _padded(np.asarray(image[outer], dtype=np.float32), self.net.multiple)
            with torch.inference_mode(), half_precision(device):
                shown = network_inputs(torch.from_numpy(block).to(device), contrast_scale)
                logits, found = net(shown[None])
                probability[0][tile] = logits[0, 0][inner].float().sigmoid()
                features[(slice(None), *tile)] = found[(0, slice(None), *inner)]
        return {"student_features": features, "student_probability": probability}

    def features_of_box(self, sample: Mapping[str, Any], box: Box) -> Float[Tensor, "d i j k"]:
        """Standardised features and the lift in one box of a sample to which `maps` was added.

        Raises:
            ValueError: the sample has no `student_features`.
        """
        if "student_features" not in sample:
            raise ValueError("sample must hold student_features, got none; add the student's maps first")
        stored = torch.as_tensor(sample["student_features"][(slice(None), *box)])
        return standardised(stored, self.mean, self.std)

    def answer_at(self, features: Float[Tensor, "n d"]) -> Float32[Tensor, " n"]:
        """Probability of vessel at points by their standardised features alone: the network's last layer is linear."""
        values = features[:, :-1].float() * self.std + self.mean
        logits = values @ self.net.answer.weight.flatten()
        return (logits if self.net.answer.bias is None else logits + self.net.answer.bias).sigmoid()

    def save(self, folder: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write the student into a folder; `student.json`, written last, makes it complete.

        Args:
            folder: of the student alone, or one with other files.
            card: how it was trained; by default what the student already has.
        """
        content = {"format": FORMAT, "widths": list(self.net.widths), "fingerprint": self.fingerprint}
        write_student(folder, self._tensors(), content, self.card if card is None else card)

    @classmethod
    def load(cls, folder: Path) -> VesselStudent:
        """Read a student that `save` wrote.

        Raises:
            MedsegError: the folder holds no such student, or one whose files are damaged or do not belong together.
        """

        def make(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> tuple[VesselStudent, str]:
            net = network_from(part_of(tensors, "net"), [int(width) for width in content["widths"]])
            student = cls(net, tensors["mean"], tensors["std"], content["card"])
            return student, student.fingerprint

        return read_student(folder, FORMAT, ("widths",), make)

    def _tensors(self) -> dict[str, Tensor]:
        return {**as_part("net", self.net.state_dict()), "mean": self.mean, "std": self.std}


def load_student(source: Path | str) -> VesselStudent:
    """Read a student from a folder, or the one in the package by the name `shipped`.

    Raises:
        MedsegError: there is none, or it cannot be read.
    """
    return shipped_student() if source == "shipped" else VesselStudent.load(Path(source))


def shipped_student() -> VesselStudent:
    """The student that comes with the package.

    Raises:
        MedsegError: this copy of the package has none.
    """
    if not (_SHIPPED / CARD).is_file():
        raise MedsegError(
            f"the shipped student must lie in {_SHIPPED}, got no {CARD}; install medseg again, or train a student"
        )
    return VesselStudent.load(_SHIPPED)


def region_tiles(region: Bool[np.ndarray, "i j k"], multiple: int, *, tile_voxels: int = TILE_VOXELS) -> Iterator[Box]:
    """Cut the bounding box of the region into about equal tiles; those without a voxel of the region are left out.

    Args:
        region: where a prediction is wanted.
        multiple: tiles begin at multiples of it, so that pooling sees the same cells as in the whole volume.
        tile_voxels: largest edge of a tile.
    """
    axes = []
    for axis in range(3):
        inside = np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(inside):
            return
        first, stop = int(inside[0]) // multiple * multiple, int(inside[-1]) + 1
        count = -(-(stop - first) // tile_voxels)
        cuts = [first + (stop - first) * n // (count * multiple) * multiple for n in range(count)]
        axes.append([slice(a, b) for a, b in pairwise([*cuts, stop])])
    for i, j, k in product(*axes):
        if region[i, j, k].any():
            yield i, j, k


def _with_halo(tile: Box, shape: Sequence[int]) -> tuple[Box, Box]:
    """A tile with its halo inside the volume, and where the tile lies in that."""
    outer, inner = [], []
    for part, length in zip(tile, shape, strict=True):
        start = max(0, part.start - HALO_VOXELS)
        outer.append(slice(start, min(length, part.stop + HALO_VOXELS)))
        inner.append(slice(part.start - start, part.stop - start))
    return (outer[0], outer[1], outer[2]), (inner[0], inner[1], inner[2])


def _padded(block: Float[np.ndarray, "i j k"], multiple: int) -> Float[np.ndarray, "i2 j2 k2"]:
    """A block whose sides are multiples, its last faces repeated."""
    return np.pad(block, [(0, -side % multiple) for side in block.shape], mode="edge")
