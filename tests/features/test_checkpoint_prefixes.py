"""Tests that one full-size network is the same from every kind of file and under every prefix."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stego.fakes import FakeStore, one_process, small_settings

from medseg.features.backbones import load_slice_backbone
from medseg.patches.datasets import PatchDataset
from medseg.patches.pairs import find_pairs
from medseg.stego.training import train

FULL = np.load(Path(__file__).parents[1] / "golden" / "vit_full_recipe.npz")
PREFIXES = ("net.model.", "teacher.backbone.", "module.", "student.", "base_encoder.", "")


@pytest.fixture(scope="module")
def vit_small(recipe_tensor) -> dict[str, torch.Tensor]:
    shapes = json.loads(str(FULL["vit_small_8/keys_json"]))
    return {name: recipe_tensor(name, shape, int(FULL["recipe_seed"])) for name, shape in shapes.items()}


class LightningState:
    """Stands for the objects that Lightning keeps beside the weights."""

    epoch = 3


def write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": weights, "epoch": 3, "callbacks": LightningState()}, path)
    else:
        torch.save(weights, path)


@pytest.mark.parametrize(
    ("suffix", "prefixes"), [(".ckpt", PREFIXES), (".pth", PREFIXES[1:2]), (".safetensors", PREFIXES[:1])]
)
def test_a_network_made_by_the_recipe_loads_from_every_file_and_prefix(suffix, prefixes, vit_small, tmp_path):
    images = torch.from_numpy(FULL["vit_small_8/in_img"])
    wanted = FULL["vit_small_8/out_feat"]
    path = tmp_path / f"dino{suffix}"
    for number, prefix in enumerate(prefixes):
        write(path, {prefix + name: value for name, value in vit_small.items()})
        backbone = load_slice_backbone("vit_small_patch8_224.dino", checkpoint=path)
        loaded = backbone.model.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in vit_small.items()), prefix
        if number == 0:
            assert np.abs(backbone(images).numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_network_from_a_lightning_checkpoint_feeds_two_steps_of_training(vit_small, tmp_path):
    write(tmp_path / "dino.ckpt", {f"net.model.{name}": value for name, value in vit_small.items()})
    backbone = load_slice_backbone("vit_small_patch8_224.dino", checkpoint=tmp_path / "dino.ckpt")
    store = FakeStore("case", 6)
    store._features = backbone(torch.randn(6, 3, 64, 64)).half().numpy()
    dataset, settings = PatchDataset([store]), small_settings(steps=2, sampling="maps")
    found = train(dataset, find_pairs(dataset, neighbours=3), settings, run_dir=tmp_path, fabric=one_process(), seed=0)
    assert found.methods["stego"].feature_dim == 384
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
