"""This file tests that whole slices are seen as by STEGO: codes of both mirror images averaged, then enlarged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.reconstruction import slices
from medseg.reconstruction.slices import full_log_probabilities, slice_features, slice_log_probabilities
from medseg.stego.model import ClusterModel

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "eval_path.npz")
CPU = torch.device("cpu")


class Cells(nn.Module):
    """Mean colour of each cell, and the column beside it, so that a mirror image is not the same."""

    dim = 6

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        self.name, self.stride, self.fingerprint = f"cells {stride}", stride, str(stride)

    def forward(self, patches: Tensor) -> Tensor:
        size = [max(1, length // self.stride) for length in patches.shape[-2:]]
        means = functional.adaptive_avg_pool2d(patches, size)
        return torch.cat([means, means.roll(1, -1)], dim=1)


class Boxes:
    name = "boxes"

    def features_of_box(self, sample: Any, box: Any) -> None: ...


def sample(height: int = 20, width: int = 28, frames: int = 2) -> dict[str, Any]:
    image = torch.rand(3, height, width, frames, generator=torch.Generator().manual_seed(0))
    return {"image": image, "case_id": "case", "facts": {"display": "rgb"}}


def model(dim: int = 6, clusters: int = 3, metric: str = "cosine") -> ClusterModel:
    prototypes = torch.randn(clusters, dim, generator=torch.Generator().manual_seed(1))
    return ClusterModel("stego", None, prototypes, metric, 2.0)  # type: ignore[arg-type]


def test_log_probabilities_equal_the_reference_program() -> None:
    prototypes = torch.from_numpy(GOLDEN["sd/cluster_probe.clusters"]).float()
    reader = ClusterModel("stego", None, prototypes, "cosine", 2.0)
    wanted = torch.from_numpy(GOLDEN["out_cluster_log_probs"])
    codes = torch.from_numpy(GOLDEN["out_code"]).float()
    found = full_log_probabilities(reader, codes, (wanted.shape[2], wanted.shape[3]))
    assert float((found - wanted).abs().max()) <= 1e-5


@pytest.mark.parametrize("band", [1, 10**9])
@pytest.mark.parametrize("size", [(17, 23), (3, 2), (5, 7), (1, 1)])
def test_bands_of_rows_equal_the_whole(monkeypatch: pytest.MonkeyPatch, band: int, size: tuple[int, int]) -> None:
    monkeypatch.setattr(slices, "_BAND_BYTES", band)
    codes = torch.randn(1, 6, 5, 7, generator=torch.Generator().manual_seed(2))
    whole = functional.interpolate(codes, size, mode="bilinear", align_corners=False)
    found = full_log_probabilities(model(), codes, size)
    assert torch.allclose(found, model().log_probabilities_of(whole), atol=1e-5)


def test_each_frame_comes_in_its_own_size_and_adds_up_to_one() -> None:
    found = dict(
        slice_log_probabilities(sample(), {"a": model(), "b": model(clusters=5)}, [Cells()], flip=True, device=CPU)
    )
    assert sorted(found) == [0, 1]
    for maps in found.values():
        assert maps["a"].shape == (3, 20, 28)
        assert maps["b"].shape == (5, 20, 28)
        assert torch.allclose(maps["b"].exp().sum(0), torch.ones(20, 28), atol=1e-5)
    assert not torch.equal(found[0]["a"], found[1]["a"])


def test_with_flip_a_mirrored_picture_has_the_mirrored_answer_and_without_it_has_not() -> None:
    straight = sample(frames=1)
    mirrored = {**straight, "image": straight["image"].flip(2)}

    def answer(of: dict[str, Any], flip: bool) -> Tensor:
        ((_, maps),) = slice_log_probabilities(of, {"a": model()}, [Cells()], flip=flip, device=CPU)
        return maps["a"]

    assert torch.allclose(answer(mirrored, True).flip(-1), answer(straight, True), atol=1e-5)
    assert not torch.allclose(answer(mirrored, False).flip(-1), answer(straight, False), atol=1e-2)


def test_flip_averages_codes_and_not_probabilities() -> None:
    straight = sample(frames=1)
    ((_, maps),) = slice_log_probabilities(straight, {"a": model()}, [Cells(1)], flip=True, device=CPU)
    shown = slices.to_rgb(straight["image"][None, ..., 0], "rgb")
    codes = (Cells(1)(shown) + Cells(1)(shown.flip(-1)).flip(-1)) / 2
    assert torch.allclose(maps["a"], model().log_probabilities_of(codes)[0], atol=1e-5)


def test_backbones_of_different_strides_are_joined_on_the_finer_grid() -> None:
    joined = slice_features(torch.rand(1, 3, 24, 32), [Cells(8), Cells(4)])
    assert joined.shape == (1, 12, 6, 8)
    assert torch.allclose(joined[:, :6].norm(dim=1), torch.ones(1, 6, 8))


def test_a_magnified_slice_is_answered_at_its_own_size() -> None:
    ((_, maps),) = slice_log_probabilities(
        sample(frames=1), {"a": model()}, [Cells()], flip=False, device=CPU, magnification=2
    )
    assert maps["a"].shape == (3, 20, 28)


def test_a_slice_of_one_pixel_is_answered() -> None:
    ((_, maps),) = slice_log_probabilities(sample(1, 1, 1), {"a": model()}, [Cells()], flip=True, device=CPU)
    assert maps["a"].shape == (3, 1, 1)


def test_a_volume_backbone_is_refused() -> None:
    with pytest.raises(MedsegError, match="must see single slices to be shown whole ones, got boxes"):
        next(slice_log_probabilities(sample(), {"a": model()}, [Boxes()], flip=False, device=CPU))
