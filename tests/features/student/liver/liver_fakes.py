"""This file paints toy frames of an ultrasound, a grey ellipse with a bright rim, and has a trunk that is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from medseg.features.student.liver.course import LiverCourse, LiverSettings
from medseg.features.student.liver.frames import StudentFrames, store_frames

SIDE = 160


class FakeTrunk:
    """Maps of strides 8, 16 and 32: local means and contrasts of the picture, mixed at random, with noise."""

    name = "fake"

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.mixes = [torch.randn(channels, 2, generator=generator) for channels in (5, 6, 7)]
        self.fingerprint = f"fake{seed}"

    def stage_maps(self, patches: Float[Tensor, "b 3 h w"], stages: tuple[int, ...]) -> list[Float[Tensor, "b _ _ _"]]:
        grey, found = patches[:, :1], []
        for stage, mix in zip(stages, self.mixes, strict=True):
            stride = 2 ** (stage + 1)
            mean = functional.avg_pool2d(grey, stride)
            contrast = functional.avg_pool2d(grey.square(), stride) - mean.square()
            mixed = torch.einsum("kc,bchw->bkhw", mix, torch.cat([mean, contrast], dim=1))
            generator = torch.Generator().manual_seed(int(1e3 * float(grey.double().sum().abs())))
            noise = torch.randn(mixed.shape, generator=generator)
            found.append(mixed / mixed.std((2, 3), keepdim=True) + 2 * noise)
        return found


def inside(shift: float = 0.0) -> np.ndarray:
    """An ellipse where the liver is expected."""
    v = (np.arange(SIDE) + 0.5)[:, None] / SIDE
    u = 2 * (np.arange(SIDE) + 0.5)[None] / SIDE - 1
    return ((u - shift) / 0.8) ** 2 + ((v - 0.46) / 0.3) ** 2 < 1


def frame(seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Speckled tissue, darker than the rest of the sector, over a bright interface."""
    rng = np.random.default_rng(seed)
    liver = inside(shift)
    below = ~liver & np.roll(liver, 5, axis=0)
    level = np.where(liver, 0.35, 0.22) + 0.6 * below
    return np.clip(level * rng.gamma(9, 1 / 9, level.shape), 0, 1).astype(np.float32)


def fake_case(frames: int = 1, seed: int = 0, *, empty: tuple[int, ...] = ()) -> dict[str, Any]:
    """A prepared case of some frames; the last rows lie outside the picture, `empty` ones have no sector."""
    image = np.stack([frame(seed + n, shift=0.1 * (n % 3 - 1)) for n in range(frames)], axis=-1)
    region = np.ones(image.shape, np.uint8)
    region[-12:] = 0
    region[..., list(empty)] = 0
    return {
        "image": torch.from_numpy(image * region)[None],
        "region": torch.from_numpy(region)[None],
        "facts": {"modality": "liver_ultrasound", "display": "rgb"},
        "case_id": f"case{seed}",
    }


def stored(folder: Path, trunk: FakeTrunk | None, cases: int = 2, frames: int = 2) -> list[StudentFrames]:
    return [
        store_frames(folder / str(n), fake_case(frames, seed=10 * n), trunk, key=f"key{n}{trunk and trunk.name}")
        for n in range(cases)
    ]


def small_settings(**changes: Any) -> LiverSettings:
    values: dict[str, Any] = {"batch": 2, "rounds": 2, "steps": 3, "product_steps": 4}
    values |= {"checkpoint_every": 2, "log_every": 1, "picture_every": 3}
    return LiverSettings(**(values | changes))


def one_process() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def train_in_processes(fabric: Fabric, store: Path, run_dir: Path) -> None:
    """Train in every process; takes plain values, which is all that a launcher passes on."""
    from medseg.features.student.training import train_student

    frames = [StudentFrames(store / name) for name in ("0", "1")]
    course = LiverCourse(frames, small_settings(rounds=1, steps=2, product_steps=2), trunk=FakeTrunk())
    train_student(course, run_dir=run_dir, fabric=fabric, seed=3)
