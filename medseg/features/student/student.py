"""This file holds the trained student: the probability of a vessel and features for every voxel of a prepared scan.

Its words: a *tile* is a box that is predicted at once, with a *halo* around it whose results are thrown away; *lift* is
one more feature channel of constant value, so that the cosine of two voxels keeps the difference of their magnitudes.
A student is stored as `student.safetensors` and `student.json` in a folder; its *card* says how it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32
from safetensors.torch import load, save
from torch import Tensor

from medseg.errors import MedsegError
from medseg.features.checkpoints import hash_weights
from medseg.features.student.network import StudentNet, folded, half_precision, network_from, network_inputs
from medseg.files import read_record, replacing, write_json
from medseg.prepare.flux import scratch_array

Box = tuple[slice, slice, slice]

TILE_VOXELS = 160
"""Largest edge of a tile: with its halo 192 voxels, whose activations take about 1 GB in bfloat16."""
HALO_VOXELS = 16
"""Read around a tile. The field of view of three levels ends at 22 voxels; beyond 16 hardly anything counts."""
FEATURE_LIMIT = 5.0
"""sd at which standardised features are clipped, so that one extreme channel cannot fill a cosine."""
LEAST_SD = 1e-4
"""Channels that vary less are dead: they are divided by 1, not blown up."""

_FORMAT = "medseg-student/1"
_VERSION = 1  # to be raised with every change of what the network is shown or of the features
_SHIPPED = Path(__file__).parent / "shipped"
_WEIGHTS, _CARD = "student.safetensors", "student.json"
_ADVICE = "train the student anew"


class Student:
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
        features = torch.empty(self.dim, *stored.shape[1:])
        inside = features[:-1]
        torch.sub(stored.float(), self.mean[:, None, None, None], out=inside)
        inside.div_(self.std[:, None, None, None]).clamp_(-FEATURE_LIMIT, FEATURE_LIMIT)
        features[-1] = math.sqrt(self.dim - 1)  # the rms norm of standardised features
        return features

    def save(self, folder: Path, card: Mapping[str, Any] | None = None) -> None:
        """Write the student into a folder; `student.json`, written last, makes it complete.

        Args:
            folder: of the student alone, or one with other files.
            card: how it was trained; by default what the student already has.
        """
        with replacing(folder / _WEIGHTS) as beside:
            # save_file would make a file that nobody else may read.
            beside.write_bytes(save(self._tensors()))
        content = {"format": _FORMAT, "widths": list(self.net.widths), "fingerprint": self.fingerprint}
        write_json(folder / _CARD, content | {"card": dict(self.card if card is None else card)})

    @classmethod
    def load(cls, folder: Path) -> Student:
        """Read a student that `save` wrote.

        Raises:
            MedsegError: the folder holds no such student, or one whose files are damaged or do not belong together.
        """
        path = folder / _CARD
        content = read_record(path, "format", "widths", "fingerprint", "card", advice=_ADVICE)
        if content["format"] != _FORMAT:
            raise MedsegError(f"{path} must be a {_FORMAT} file, got {content['format']!r}; {_ADVICE}")
        try:
            tensors = load((folder / _WEIGHTS).read_bytes())
            weights = {name.removeprefix("net."): tensors[name] for name in tensors if name.startswith("net.")}
            net = network_from(weights, [int(width) for width in content["widths"]])
            student = cls(net, tensors["mean"], tensors["std"], content["card"])
            if not all(value.isfinite().all() for value in tensors.values()):
                raise ValueError("values that are no numbers")
        except Exception as error:  # safetensors raises its own kinds, torch many
            reason = " ".join(str(error).split())[:160]
            raise MedsegError(
                f"{folder / _WEIGHTS} must hold the student's weights, got {reason}; {_ADVICE}"
            ) from error
        if student.fingerprint != content["fingerprint"]:
            raise MedsegError(f"{folder / _WEIGHTS} must belong to {path}, got other weights; {_ADVICE}")
        return student

    def _tensors(self) -> dict[str, Tensor]:
        # Contiguous, because channels last is a matter of memory, which safetensors does not keep.
        net = {f"net.{name}": value.contiguous() for name, value in self.net.state_dict().items()}
        return {**net, "mean": self.mean, "std": self.std}


def load_student(source: Path | str) -> Student:
    """Read a student from a folder, or the one in the package by the name `shipped`.

    Raises:
        MedsegError: there is none, or it cannot be read.
    """
    return shipped_student() if source == "shipped" else Student.load(Path(source))


def shipped_student() -> Student:
    """The student that comes with the package.

    Raises:
        MedsegError: this copy of the package has none.
    """
    if not (_SHIPPED / _CARD).is_file():
        raise MedsegError(
            f"the shipped student must lie in {_SHIPPED}, got no {_CARD}; install medseg again, or train a student"
        )
    return Student.load(_SHIPPED)


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
