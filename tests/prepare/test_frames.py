"""One frame of a cine comes back as it does with all the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.prepare.chain import invert, prepare_case
from medseg.prepare.frames import one_frame
from medseg.prepare.picture import picture_transforms
from medseg.scans.cases import Case


@pytest.mark.parametrize("nearest", [True, False])
def test_bringing_back_frame_by_frame_is_bringing_back_all(tmp_path: Path, nearest: bool) -> None:
    rng = np.random.default_rng(0)
    pages = [Image.fromarray(rng.integers(0, 255, (40, 52), np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "cine.tif", save_all=True, append_images=pages[1:])
    sample = prepare_case(Case("cine", tmp_path / "cine.tif", "p"), picture_transforms(resize=24))
    values = torch.rand(2, *sample["image"].shape[1:])
    whole = invert(values, sample, nearest=nearest)
    assert whole.shape == (2, 40, 52, 3)
    for index in range(3):
        frame = one_frame(sample, index)
        assert frame["image"].shape[3] == frame["region"].shape[3] == 1
        back = invert(values[..., index : index + 1], frame, nearest=nearest)
        assert back.shape == (2, 40, 52, 1)
        assert np.allclose(back[..., 0], whole[..., index], atol=1e-6)


def test_a_frame_has_its_own_sector(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 9).save(tmp_path / "a.png")
    sample = prepare_case(Case("a", tmp_path / "a.png", "p"), picture_transforms(resize=None))
    sample["image"] = sample["image"].repeat(1, 1, 1, 2)
    sample["facts"]["sectors"] = [{"near": 1.0}, None]
    assert one_frame(sample, 1)["facts"]["sectors"] == [None]
    assert sample["facts"]["sectors"] == [{"near": 1.0}, None]
