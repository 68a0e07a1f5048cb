"""Every shipped config for pictures loads its backbone, trains two steps and writes a mask."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from workflows.scenes import write_scenes

from medseg.config import load_config, shipped_configs
from medseg.stego.presets import PRESETS
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.training import train_run

PICTURES = [name for name in shipped_configs() if load_config(name).prepare.modality == "picture"]
SMALL = [
    "prepare.resize=64", "patches.size=64", "patches.per_case=2", "stego.epochs=2",
    "stego.batch=4", "stego.clusters=4", "stego.fit_points=200", "reconstruct.refine=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of a tiny ViT with six heads, and of a ResNet-50."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tiny = VisionTransformer(img_size=32, patch_size=8, num_classes=0, embed_dim=48, depth=2, num_heads=6)
    for name, model in (("vit", tiny), ("resnet", timm.create_model("resnet50", num_classes=0))):
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in ("vit", "resnet")}


@pytest.mark.parametrize("name", PICTURES)
def test_it_trains_two_steps_and_masks_a_picture(
    name: str, scenes: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    overrides = list(SMALL)
    backbone = load_config(name).features.backbone[0]
    if backbone.startswith("vit"):
        overrides += ["features.backbone=tiny_heads6", f"features.checkpoint={weights['vit']}"]
    elif backbone.startswith("resnet"):
        overrides += [f"features.checkpoint={weights['resnet']}"]
    answer = train_run(name, scenes, tmp_path / "run", overrides=overrides)
    assert (answer["failed"], answer["steps"]) == ({}, 2)
    answer = reconstruct_run(tmp_path / "run", scenes / "imgs" / "val", tmp_path / "out")
    assert len(answer["done"]) == 1


def test_the_configs_cover_the_published_presets() -> None:
    used = {load_config(name).stego.preset for name in PICTURES}
    older = {"cocostuff27_earlier", "cocostuff27_older", "cityscapes_older"}
    assert used | older == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_named(preset: str) -> None:
    assert load_config("pictures_dino", [f"stego.preset={preset}"]).stego.preset == preset
