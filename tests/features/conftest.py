"""Fixtures shared by the tests of features."""

import math
from zlib import crc32

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def recipe_tensor():
    """The golden README's recipe: the generated weight of a name and shape."""

    def draw(name: str, shape: list[int], seed: int) -> torch.Tensor:
        drawn = np.random.RandomState((seed + crc32(name.encode())) % 2**32).standard_normal(shape)
        if not shape:
            drawn = np.zeros(())
        elif name in ("cls_token", "pos_embed"):
            drawn = 0.5 * drawn
        elif name.endswith("running_var"):
            drawn = 1 + 0.2 * np.abs(drawn)
        elif len(shape) == 1:
            drawn = 1 + 0.1 * drawn if name.endswith("weight") else 0.05 * drawn
        else:
            drawn = drawn / math.sqrt(math.prod(shape[1:]))
        return torch.from_numpy(np.asarray(drawn, dtype=np.float32))

    return draw
