"""Labels are read where the prepared image lies, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.config import Prepare, load_config
from medseg.errors import MedsegError
from medseg.prepare.chain import prepare_case
from medseg.prepare.picture import picture_transforms
from medseg.scans.cases import Case
from medseg.scans.picks import Pick
from medseg.workflows.labels import labels_of


def prepare(resize: int | None) -> Prepare:
    return load_config("pictures_bank", [f"prepare.resize={'null' if resize is None else resize}"]).prepare


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("resize", [None, 16, 24, 96])
def test_labels_lie_where_the_prepared_picture_lies(tmp_path: Path, resize: int | None) -> None:
    labels = np.zeros((48, 72), np.uint8)
    labels[10:30, 40:61] = 1
    picture = save(tmp_path / "a.png", np.repeat(labels[..., None] * 255, 3, axis=2))
    case = Case("a", picture, "a")
    sample = prepare_case(case, picture_transforms(resize=resize))
    found = labels_of(save(tmp_path / "l.png", labels), case, prepare(resize), None)
    assert found.shape == tuple(sample["image"].shape[1:])
    shown = np.asarray(torch.as_tensor(sample["image"]))[0]
    inside, outside = found == 1, found == 0
    assert inside.any()
    # The edge of the picture is smooth after resizing; a label half a pixel off would reach beyond its middle.
    assert shown[inside].min() > 0.4
    assert shown[outside].max() < 0.6


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    case = Case("a", save(tmp_path / "a.png", np.zeros((9, 8, 3), np.uint8)), "a")
    label = save(tmp_path / "l.png", np.eye(8, dtype=np.uint8))
    with pytest.raises(MedsegError, match=r"rows, columns and frames of its picture, 9 x 8 x 1, got 8 x 8 x 1"):
        labels_of(label, case, prepare(None), None)


def test_the_frame_that_was_asked_for_has_its_own_label(tmp_path: Path) -> None:
    def pages(name: str, values: list[np.ndarray]) -> Path:
        images = [Image.fromarray(value) for value in values]
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:])
        return tmp_path / name

    picture = pages("a.tif", [np.full((6, 5), 10 * n, np.uint8) for n in range(3)])
    label = pages("l.tif", [np.full((6, 5), n, np.uint8) for n in range(3)])
    found = labels_of(label, Case("a", picture, "a", pick=Pick(frame=2)), prepare(None), None)

    assert (found.shape, set(found.flatten().tolist())) == ((6, 5, 1), {2})
