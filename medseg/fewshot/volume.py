"""This file holds the head for volumes, two 3 x 3 x 3 convolutions, and teaches it on windows of a few labelled scans.

It sees the standardised features and the prior's log-odds, each voxel with two voxels around it (the *halo*), and says
the log-odds of each class that the prior lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Int, Int8
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.features.student.vessels.student import region_tiles
from medseg.fewshot.losses import soft_skeleton, window_loss
from medseg.fewshot.places import UNKNOWN
from medseg.fewshot.probe import PRIOR_LIMIT
from medseg.files import read_record, replacing, write_json
from medseg.prepare.vesselness import scratch_array
from medseg.progress import track

HIDDEN = 12
"""Channels between the convolutions: 13 features and a prior make 4,900 weights."""
MOST_CHANNELS = 24
"""Features of a voxel that such a head can take: with more it has over 10,000 weights, too many for a few labels."""
HALO = 2
"""Voxels around an answer that it depends on: one for each convolution."""
SIDE = 24
"""Voxels along a window's answers: a vessel's width many times, and 64 windows of 13 features take 40 MB."""
WINDOWS = 64
"""Drawn from all labelled cases."""
STEPS, BATCH = 160, 4
"""Of teaching: ten times through the windows, 20 s on one core."""
LEARNING_RATE = 4e-3
"""Of Adam at the beginning; it falls to 0 as a cosine."""
RESIDUAL_PENALTY = 0.003
"""Of the head's squared log-odds, everywhere in the windows: where nobody labelled anything the prior stays."""
TILE = 96
"""Largest edge of what is answered at once: 12 hidden channels of it take 45 MB."""
_FORMAT = "medseg-volume-head/1"
_ANEW = "teach the probe again"


class LabelledWindows(NamedTuple):
    """What the head is taught by; `s` is `SIDE`, `h` that and a halo on both sides.

    Attributes:
        inputs: features, then prior.
        target: class numbers, `UNKNOWN` where nobody said anything.
    """

    inputs: Float16[Tensor, "n e h h h"]
    target: Int8[Tensor, "n s s s"]


class VolumeHead(nn.Module):
    """Two convolutions without padding; the last begins at zero, and the prior is then the answer.

    Args:
        mean, sd: of each feature channel.
        classes: background left out.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: Float[Tensor, " d"], sd: Float[Tensor, " d"], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("sd", sd.float().clone())
        self.first = nn.Conv3d(len(mean) + classes, HIDDEN, 3)
        self.last = nn.Conv3d(HIDDEN, classes, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Float[Tensor, "b e i j k"]) -> Float[Tensor, "b c i2 j2 k2"]:
        """Log-odds of each class that the prior lacks, two voxels less on every side."""
        features, prior = inputs[:, : -self.classes], inputs[:, -self.classes :]
        shape = (-1, 1, 1, 1)
        standard = (features - self.mean.view(shape)) / self.sd.view(shape)
        hidden = functional.leaky_relu(self.first(torch.cat([standard, prior / PRIOR_LIMIT], dim=1)), 0.1)
        return self.last(hidden)

    def save(self, folder: Path) -> None:
        """Write the head into a folder of its own; `method.json`, written last, makes it complete."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "weights.safetensors") as beside:
            beside.write_bytes(save(dict(self.state_dict())))
        write_json(folder / "method.json", {"format": _FORMAT, "classes": self.classes, "features": len(self.mean)})

    @classmethod
    def load(cls, folder: Path) -> VolumeHead:
        """Read a head that `save` wrote.

        Raises:
            MedsegError: the folder holds none, or a damaged one.
        """
        content = read_record(folder / "method.json", "format", "classes", "features", advice=_ANEW)
        if content["format"] != _FORMAT:
            raise MedsegError(f"{folder / 'method.json'} must be a {_FORMAT} file, got another; {_ANEW}")
        path = folder / "weights.safetensors"
        try:
            empty = torch.zeros(content["features"])
            with torch.random.fork_rng(devices=[]):
                head = cls(empty, empty, content["classes"])
            head.load_state_dict(load(path.read_bytes()))
        except Exception as error:  # safetensors raises its own kinds, torch many
            reason = " ".join(str(error).split())[:160]
            raise MedsegError(f"{path} must hold the weights of a probe, got {reason}; {_ANEW}") from error
        return head.eval().requires_grad_(False)


def cut_inputs(
    sample: Mapping[str, Any],
    backbones: Sequence[Any],
    prior: Float[np.ndarray, "c i j k"],
    start: Sequence[int],
    stop: Sequence[int],
) -> Float[Tensor, "e i2 j2 k2"]:
    """Features and prior of a box with its halo; beyond the volume its last faces are repeated."""
    shape = prior.shape[1:]
    inner = [slice(max(a - HALO, 0), min(b + HALO, n)) for a, b, n in zip(start, stop, shape, strict=True)]
    box = (inner[0], inner[1], inner[2])
    with torch.no_grad():
        features = [backbone.features_of_box(sample, box).float() for backbone in backbones]
    inputs = torch.cat([*features, torch.from_numpy(np.ascontiguousarray(prior[(slice(None), *box)]))])
    missing = [(part.start - (a - HALO), b + HALO - part.stop) for part, a, b in zip(inner, start, stop, strict=True)]
    margins = [side for pair in reversed(missing) for side in pair]
    return functional.pad(inputs[None], margins, mode="replicate")[0] if any(margins) else inputs


def cut_windows(
    sample: Mapping[str, Any],
    backbones: Sequence[Any],
    prior: Float[np.ndarray, "c i j k"],
    labels: Int8[np.ndarray, "i j k"],
    starts: Int[np.ndarray, "n 3"],
) -> LabelledWindows:
    """The windows of a case that begin at these voxels."""
    inputs, targets = [], []
    for start in starts.tolist():
        inputs.append(cut_inputs(sample, backbones, prior, start, [first + SIDE for first in start]).half())
        target = torch.full((SIDE,) * 3, UNKNOWN, dtype=torch.int8)
        there = labels[tuple(slice(first, first + SIDE) for first in start)]
        target[tuple(slice(0, length) for length in there.shape)] = torch.from_numpy(np.ascontiguousarray(there))
        targets.append(target)
    return LabelledWindows(torch.stack(inputs), torch.stack(targets))


def fit_volume(
    windows: LabelledWindows, *, classes: int, seed: int, device: torch.device | str = "cpu"
) -> tuple[VolumeHead, float]:
    """Teach the head.

    Args:
        windows: of all labelled cases.
        classes: background left out.
        seed: of weights, order and mirroring.
        device: where it is taught.

    Returns:
        The head and the weight of the prior.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = windows.inputs[:, :-classes].float()
        mean, sd = features.mean((0, 2, 3, 4)), features.std((0, 2, 3, 4))
        del features
        head = VolumeHead(mean, torch.where(sd > 1e-4, sd, torch.ones_like(sd)), classes).to(device)
        head = head.to(memory_format=torch.channels_last_3d)  # twice as quick on a CPU
    skeletons = _skeletons(windows.target, classes)
    draw = torch.Generator().manual_seed(seed)
    root = torch.ones((), device=device, requires_grad=True)  # its square is never negative
    adam = torch.optim.Adam([*head.parameters(), root], lr=LEARNING_RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    inner = slice(HALO, -HALO)
    for _ in track(range(STEPS), "teaching"):
        chosen = torch.randint(len(windows.inputs), (BATCH,), generator=draw)
        mirrored = [axis for axis in (-3, -2, -1) if torch.rand((), generator=draw) < 0.5]
        inputs = windows.inputs[chosen].float().flip(mirrored).to(device)
        target = windows.target[chosen].long().flip(mirrored).to(device)
        skeleton = skeletons[chosen].float().flip(mirrored).to(device)
        residual = head(inputs.contiguous(memory_format=torch.channels_last_3d))
        odds = root.square() * inputs[:, -classes:, inner, inner, inner] + residual
        logits = torch.cat([torch.zeros_like(odds[:, :1]), odds], dim=1)
        loss = window_loss(logits, target.clamp(min=0), (target != UNKNOWN).float(), skeleton)
        loss = loss + RESIDUAL_PENALTY * residual.square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        cosine.step()
    head = head.cpu().to(memory_format=torch.contiguous_format)
    return head.eval().requires_grad_(False), float(root.detach().square())


def _skeletons(target: Int8[Tensor, "n s s s"], classes: int) -> Float16[Tensor, "n c s s s"]:
    """The skeleton of each class in each window, once for all steps."""
    found = [
        soft_skeleton(torch.stack([part == value for value in range(1, classes + 1)], dim=1).float()).half()
        for part in target.split(BATCH)
    ]
    return torch.cat(found)


def answer_volume(
    head: VolumeHead,
    sample: Mapping[str, Any],
    backbones: Sequence[Any],
    prior: Float[np.ndarray, "c i j k"],
    device: torch.device | str,
) -> Float[np.ndarray, "c i j k"]:
    """The head's log-odds of each class over a scan, tile by tile; 0 where a tile holds nothing of the region."""
    found = scratch_array(prior.shape)
    head = head.to(device)
    for tile in region_tiles(np.asarray(sample["region"][0]) > 0, 1, tile_voxels=TILE):
        inputs = cut_inputs(sample, backbones, prior, [part.start for part in tile], [part.stop for part in tile])
        with torch.inference_mode():
            found[(slice(None), *tile)] = head(inputs[None].to(device))[0].cpu().numpy()
    return found
