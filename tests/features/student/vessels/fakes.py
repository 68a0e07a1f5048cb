"""This file makes small volumes with one bright tube, as preparation and teacher would give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.data import MetaTensor

from medseg.features.student.vessels.course import VesselCourse, VesselSettings
from medseg.features.student.vessels.network import StudentNet
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.student.vessels.volumes import StudentVolume, store_volume
from medseg.features.teachers.vessels import UNKNOWN

SPACING = (0.5, 0.5, 0.7)


def tube(shape: tuple[int, int, int], *, radius: float = 2.0) -> np.ndarray:
    """A tube along the first axis through the middle of the others."""
    j, k = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    inside = (j - shape[1] // 2) ** 2 + (k - shape[2] // 2) ** 2 <= radius**2
    return np.broadcast_to(inside, shape).copy()


def fake_sample(shape: tuple[int, int, int] = (24, 26, 22), seed: int = 0) -> dict[str, Any]:
    """Noisy tissue with a bright tube; the region leaves out the first two slices."""
    inside = tube(shape)
    image = 1 + 0.1 * np.random.default_rng(seed).standard_normal(shape) + inside
    region = np.ones(shape, np.uint8)
    region[:2] = 0
    return {
        "image": MetaTensor(torch.from_numpy(image.astype(np.float32))[None], affine=np.diag([*SPACING, 1.0])),
        "region": torch.from_numpy(region)[None],
        "salience": torch.from_numpy((inside * region).astype(np.float32))[None],
        "facts": {"contrast_scale": 1.0},
        "case_id": f"case{seed}",
    }


def fake_volume(
    folder: Path, shape: tuple[int, int, int] = (24, 26, 22), *, unknown: bool = False, seed: int = 0
) -> StudentVolume:
    """A stored volume; with `unknown` the teacher says nothing of the second half of the first axis."""
    labels = tube(shape).astype(np.uint8)
    if unknown:
        labels[shape[0] // 2 :] = UNKNOWN
    return store_volume(folder, fake_sample(shape, seed), labels, key=f"key{seed}{unknown}")


def fake_student(widths: tuple[int, ...] = (4, 8, 8), seed: int = 0) -> VesselStudent:
    """A student whose weights and norms are random."""
    generator = torch.Generator().manual_seed(seed)
    net = StudentNet(widths)
    for name, value in net.state_dict().items():
        if value.ndim == 1:
            drawn = 0.1 * torch.randn(value.shape, generator=generator)
            value.copy_(1 + drawn.abs() if name.endswith(("running_var", "1.weight", "4.weight")) else drawn)
        elif value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
    return VesselStudent(net, torch.full((widths[0],), 0.3), torch.full((widths[0],), 0.5), {"by": "hand"})


def small_settings(**changes: Any) -> VesselSettings:
    values: dict[str, Any] = {"widths": (4, 8, 8), "rounds": 2, "steps": 4, "window": 16}
    values |= {"checkpoint_every": 2, "log_every": 1, "picture_every": 3}
    return VesselSettings(**(values | changes))


def one_process() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def train_in_processes(fabric: Fabric, store: Path, run_dir: Path) -> None:
    """Train in every process; takes plain values, which is all that a launcher passes on."""
    from medseg.features.student.training import train_student

    volumes = [StudentVolume(store / name) for name in ("a", "b", "c")]
    course = VesselCourse(volumes, small_settings(steps=2))
    train_student(course, run_dir=run_dir, fabric=fabric, seed=3)
