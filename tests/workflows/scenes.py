"""This file paints small photographs of sky, meadow and poppies, with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

COLOURS = {1: (110, 160, 230), 2: (60, 140, 50), 3: (200, 30, 30)}
"""Mean colour of sky, meadow and poppy."""


def scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 `h w 3` and its labels uint8 `h w`: 1 sky, 2 meadow, 3 poppies."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    horizon = size[0] * rng.uniform(0.3, 0.5)
    labels = np.where(rows < horizon, 1, 2).astype(np.uint8)
    for _ in range(4):
        row, column = rng.uniform(horizon, size[0]), rng.uniform(0, size[1])
        labels[(rows > horizon) & (np.hypot(rows - row, columns - column) < min(size) / 9)] = 3
    picture = np.array([COLOURS[value] for value in (1, 2, 3)])[labels - 1].astype(float)
    grain = ndimage.gaussian_filter(rng.normal(size=(*size, 1)), (0.7, 0.7, 0)) * 40
    picture += np.where(labels[..., None] == 2, grain, grain / 8)
    return picture.clip(0, 255).astype(np.uint8), labels


def write_scenes(folder: Path, *, train: int = 5, val: int = 2, labelled: int | None = None) -> None:
    """Write `imgs/{train,val}` and `labels/{train,val}`; of the training scenes label so many, by default all."""
    for part, count in (("train", train), ("val", val)):
        for n in range(count):
            size = (64 + 8 * n, 80) if n % 2 else (60, 72)
            picture, labels = scene(n + 100 * (part == "val"), size)
            name = f"{part} ü #{n}"
            for kind, array in (("imgs", picture), ("labels", labels)):
                if kind == "labels" and part == "train" and labelled is not None and n >= labelled:
                    continue
                path = folder / kind / part / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
