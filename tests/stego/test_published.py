"""Tests of medseg.stego.published against the numbers of the reference program."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stego.published_files import GOLDEN, golden_weights, tiny_stego, write_lightning

from medseg.errors import MedsegError
from medseg.features.backbones import vit_from_weights
from medseg.features.checkpoints import hash_weights
from medseg.features.frozen import FrozenViT
from medseg.features.pyramid import JOINED_CHANNELS, PYRAMID_BACKBONE, join_trunk
from medseg.stego.losses import resize
from medseg.stego.model import ClusterModel, LinearModel
from medseg.stego.published import SHARPNESS, initial_weights, read_published

EVALUATION = np.load(GOLDEN / "eval_path.npz")


def close(found: torch.Tensor, name: str) -> None:
    wanted = EVALUATION[name]
    assert np.abs(found.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_published_checkpoint_gives_the_published_answers(tmp_path: Path) -> None:
    published = read_published(write_lightning(tmp_path / "stego.ckpt", tiny_stego()))
    assert published.backbone is not None and published.linear is not None
    backbone = FrozenViT(vit_from_weights(published.backbone.weights, 6), "tiny")
    images = torch.from_numpy(EVALUATION["in_img"])
    stego = ClusterModel("stego", published.head, published.prototypes, "cosine", SHARPNESS)
    linear = LinearModel("linear", published.head, *published.linear)
    codes = (stego.codes(backbone(images)) + stego.codes(backbone(images.flip(-1))).flip(-1)) / 2
    close(codes, "out_code")
    close(stego.log_probabilities_of(resize(codes, (40, 40))), "out_cluster_log_probs")
    close(linear.log_probabilities_of(resize(codes, (40, 40))), "out_linear_log_probs")


def test_what_a_checkpoint_says_of_itself(tmp_path: Path) -> None:
    state = tiny_stego() | {"cluster_probe.clusters": torch.randn(6, 8)}
    state |= {"decoder.weight": torch.randn(48, 8, 1, 1), "decoder.bias": torch.randn(48)}
    settings = {"n_classes": 4, "cfg": {"dino_feat_type": "KK", "lr": 5e-4, "steps": [1, 2]}}
    published = read_published(write_lightning(tmp_path / "stego.ckpt", state, hyper_parameters=settings))
    assert (published.classes, published.extra_clusters) == (4, 2)
    assert (published.head.code_dim, published.head.projection, published.head.feature_dim) == (8, "nonlinear", 48)
    assert published.backbone is not None and published.backbone.patch_size == 8
    assert published.feature == "KK"
    assert published.hyper_parameters == {"n_classes": 4, "dino_feat_type": "KK", "lr": 5e-4}
    initial = published.initial()
    assert torch.equal(initial["decoder"]["linear.bias"], state["decoder.bias"])
    assert torch.equal(initial["probes"]["linear.weight"], state["linear_probe.weight"])
    assert read_published(write_lightning(tmp_path / "plain.ckpt", tiny_stego())).feature == "feat"


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_every_prefix_gives_the_same_head_and_backbone(tmp_path: Path, prefix: str, suffix: str) -> None:
    wanted = read_published(write_lightning(tmp_path / "wanted.ckpt", tiny_stego()))
    state = {prefix + name: value for name, value in tiny_stego().items()}
    path = tmp_path / f"stego{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        write_lightning(path, state)
    found = read_published(path)
    assert hash_weights(found.head.state_dict()) == hash_weights(wanted.head.state_dict())
    assert found.backbone is not None and wanted.backbone is not None
    assert hash_weights(found.backbone.weights) == hash_weights(wanted.backbone.weights)
    assert torch.equal(found.prototypes, wanted.prototypes)


def test_names_without_any_net_are_read_too(tmp_path: Path) -> None:
    state = {name.removeprefix("net.model.").removeprefix("net."): value for name, value in tiny_stego().items()}
    torch.save(state, tmp_path / "bare.pth")
    found = read_published(tmp_path / "bare.pth")
    assert found.backbone is not None
    assert found.backbone.weights.keys() == golden_weights("vit_tiny", "sd/").keys()


def test_a_head_that_is_not_used_is_told_by_the_settings_only(tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_stego().items() if "cluster2" not in name}
    assert read_published(write_lightning(tmp_path / "linear.ckpt", state)).head.projection == "linear"
    state |= {"cluster_probe.clusters": torch.randn(4, 48), "linear_probe.weight": torch.randn(4, 48, 1, 1)}
    settings: dict[str, Any] = {"hyper_parameters": {"projection_type": None}}
    found = read_published(write_lightning(tmp_path / "none.ckpt", state, **settings))
    assert (found.head.projection, found.head.code_dim) == ("none", 48)


@pytest.mark.parametrize("granularity", [1, 3, 4])
def test_a_published_pyramid_is_read_with_its_trunk(tmp_path: Path, granularity: int, recipe: Any) -> None:
    names = np.load(GOLDEN / "feature_pyramid.npz")
    keys = json.loads(str(names[f"granularity{granularity}_continuous/keys_json"]))
    state = {f"net.{name}": recipe(name, shape) for name, shape in keys.items()}
    state |= {"net.encoder.layers.0.weight": torch.randn(64, 3, 7, 7), "net.encoder.layers.1.bias": torch.randn(64)}
    state |= {
        "net.encoder.layers.4.0.conv1.weight": torch.randn(64, 64, 1, 1),
        "cluster_probe.clusters": torch.randn(3, 3),
    }
    found = read_published(write_lightning(tmp_path / "pyramid.ckpt", state))
    assert found.head.feature_dim == JOINED_CHANNELS
    assert found.backbone is not None and found.backbone.name == PYRAMID_BACKBONE
    assert set(found.backbone.weights) == {"conv1.weight", "bn1.bias", "layer1.0.conv1.weight"}
    maps = [torch.randn(1, channels, 4 >> n, 4 >> n) for n, channels in enumerate((512, 1024, 2048))]
    codes, signal = found.head(join_trunk(maps, torch.randn(1, 3, 32, 32)))
    assert codes.shape == (1, 3, 8, 8)
    assert torch.equal(signal, maps[-1])


@pytest.fixture
def recipe() -> Any:
    return lambda name, shape: torch.randn(shape).abs() * 0.1 if shape else torch.tensor(0)


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("net.cluster1.0.weight", r"must hold the head of a STEGO \(cluster1\.0\.weight\)"),
        ("cluster_probe.clusters", r"must hold the cluster probe of a STEGO \(cluster_probe\.clusters\)"),
        ("net.cluster2.2.bias", r"must hold a whole head, got none for nonlinear\.2\.bias"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, complaint: str) -> None:
    state = {name: value for name, value in tiny_stego().items() if name != missing}
    with pytest.raises(MedsegError, match=complaint) as caught:
        read_published(write_lightning(tmp_path / "part.ckpt", state))
    assert "part.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [("cluster_probe.clusters", (4, 7)), ("linear_probe.weight", (4, 7, 1, 1))])
def test_probes_of_other_codes_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(MedsegError, match="on the codes' 8 channels, got 7"):
        read_published(write_lightning(tmp_path / "other.ckpt", tiny_stego() | {name: torch.randn(shape)}))


def test_a_checkpoint_without_a_backbone_has_none(tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_stego().items() if not name.startswith("net.model.")}
    assert read_published(write_lightning(tmp_path / "head.ckpt", state)).backbone is None


class Payload:
    """Unpickling this with an ordinary reader would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    bait = tmp_path / "RAN"
    beside = write_lightning(
        tmp_path / "beside.ckpt", tiny_stego(), callbacks=Payload(bait), hyper_parameters=Payload(bait)
    )
    assert read_published(beside).hyper_parameters == {}
    torch.save({"state_dict": tiny_stego() | {"net.cluster1.0.weight": Payload(bait)}}, tmp_path / "within.ckpt")
    torch.save({"state_dict": Payload(bait)}, tmp_path / "instead.ckpt")
    for name in ("within.ckpt", "instead.ckpt"):
        with pytest.raises(MedsegError, match=name):
            initial_weights(tmp_path / name)
    assert not bait.exists()


@pytest.mark.skipif("MEDSEG_TEST_DATA" not in os.environ, reason="needs the shared data")
@pytest.mark.parametrize("name", ["unsafe_pickle.ckpt", "unsafe_zip.ckpt", "truncated.ckpt"])
def test_shared_unsafe_checkpoints_are_refused_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedsegError, match=name):
        initial_weights(Path(os.environ["MEDSEG_TEST_DATA"]) / "broken" / name)
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"stego\.start must be a STEGO checkpoint or a run folder.*last\.pt"):
        initial_weights(tmp_path)
