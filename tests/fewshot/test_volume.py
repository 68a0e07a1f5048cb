"""The head for volumes begins as the prior, answers the same in tiles, and learns where a wall lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.errors import MedsegError
from medseg.fewshot import volume
from medseg.fewshot.places import UNKNOWN
from medseg.fewshot.volume import HALO, SIDE, VolumeHead, answer_volume, cut_inputs, cut_windows, fit_volume


class Grey:
    """A backbone whose feature is the image."""

    name, dim = "grey", 1

    def features_of_box(self, sample: Mapping[str, Any], box: tuple[slice, slice, slice]) -> Tensor:
        return torch.as_tensor(sample["image"])[(slice(None), *box)]


def tube(shape: tuple[int, int, int] = (40, 40, 30)) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A bright tube of radius 5, its label, and a prior that believes in radius 3."""
    i, j, _ = np.mgrid[tuple(slice(0, n) for n in shape)]
    distance = np.hypot(i - 20, j - 20)
    sample = {"image": (distance < 5)[None].astype(np.float32), "region": np.ones((1, *shape), np.uint8)}
    prior = np.where(distance < 3, 1.5, -1.5).astype(np.float32)[None]
    return sample, (distance < 5).astype(np.int8), prior


def test_it_learns_the_wall_from_windows_of_which_a_part_is_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "STEPS", 40)
    monkeypatch.setattr(volume, "SIDE", 12)
    sample, labels, prior = tube()
    given = labels.copy()
    given[..., 20:] = UNKNOWN
    starts = np.array([[8, 14, 0], [20, 14, 2], [14, 8, 4], [14, 20, 14]])
    windows = cut_windows(sample, [Grey()], prior, given, starts)
    head, weight = fit_volume(windows, classes=1, seed=0)
    found = weight * prior[0] + answer_volume(head, sample, [Grey()], prior, "cpu")[0] > 0
    truth = labels > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95  # the prior: 0.53
    again, _ = fit_volume(windows, classes=1, seed=0)
    assert all(torch.equal(one, two) for one, two in zip(head.parameters(), again.parameters(), strict=True))


def test_an_untaught_head_says_nothing_and_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, _, prior = tube()
    head = VolumeHead(torch.zeros(1), torch.ones(1), 1)
    assert not answer_volume(head, sample, [Grey()], prior, "cpu").any()
    torch.nn.init.normal_(head.last.weight)
    whole = answer_volume(head, sample, [Grey()], prior, "cpu")
    monkeypatch.setattr(volume, "TILE", 16)
    assert np.allclose(answer_volume(head, sample, [Grey()], prior, "cpu"), whole, atol=1e-5)


def test_beyond_the_volume_its_faces_are_repeated_and_labels_unknown() -> None:
    sample, labels, prior = tube((40, 40, 10))
    windows = cut_windows(sample, [Grey()], prior, labels, np.array([[16, 16, 0]]))
    assert windows.inputs.shape == (1, 2, *(SIDE + 2 * HALO,) * 3)
    assert (windows.target[0, ..., 10:] == UNKNOWN).all() and (windows.target[0, ..., :10] != UNKNOWN).all()
    inputs = cut_inputs(sample, [Grey()], prior, (0, 0, 0), (4, 4, 4))
    padded = np.pad(sample["image"][0], HALO, mode="edge")[:8, :8, :8]
    assert np.array_equal(inputs[0].numpy(), padded)


def test_it_has_few_weights_and_comes_back_from_disk(tmp_path: Path) -> None:
    head = VolumeHead(torch.randn(24), torch.rand(24) + 1, 1)
    assert sum(value.numel() for value in head.parameters()) <= 10_000
    head.save(tmp_path)
    again = VolumeHead.load(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in head.state_dict().items())
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(MedsegError, match="must hold the weights of a probe"):
        VolumeHead.load(tmp_path)
