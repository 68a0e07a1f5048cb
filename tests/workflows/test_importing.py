"""Tests of medseg.workflows.importing: a published checkpoint becomes a run that gives the published answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stego.published_files import GOLDEN, tiny_stego, write_lightning
from workflows.scenes import write_scenes

from medseg.errors import MedsegError
from medseg.naming.classes import read_classes
from medseg.reconstruction.slices import full_log_probabilities, slice_features
from medseg.runs import open_run
from medseg.stego.model import load_method
from medseg.workflows import parts
from medseg.workflows.evaluation import evaluate_run
from medseg.workflows.importing import import_stego
from medseg.workflows.predictors import predictor_of_run

TINY = ("features.backbone=tiny_heads6", "patches.size=32")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    folder = tmp_path / "müller # 1" / "run"
    found = import_stego(write_lightning(tmp_path / "stego.ckpt", tiny_stego()), folder, overrides=TINY)
    assert (found["clusters"], found["methods"]) == (4, ["stego", "linear"])
    return folder


def test_an_imported_run_gives_the_published_answers(imported: Path) -> None:
    record = open_run(imported)
    backbones = parts.load_backbones(record.config.features, torch.device("cpu"))
    golden = np.load(GOLDEN / "eval_path.npz")
    images = torch.from_numpy(golden["in_img"])
    for name, wanted in (("stego", golden["out_cluster_log_probs"]), ("linear", golden["out_linear_log_probs"])):
        method = load_method(imported / "methods" / name)
        codes = method.codes(slice_features(images, backbones))
        codes = (codes + method.codes(slice_features(images.flip(-1), backbones)).flip(-1)) / 2
        found = full_log_probabilities(method, codes, (40, 40)).numpy()
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_an_imported_run_holds_what_prediction_asks_for(imported: Path) -> None:
    record = open_run(imported)
    stego = record.config.stego
    assert (stego.code_dim, stego.clusters, stego.projection, stego.cluster_alpha) == (8, 4, "nonlinear", 2.0)
    assert record.inputs == {} and not record.trained_on("0" * 64)
    predictor = predictor_of_run(record, record.config, torch.device("cpu"), compare=True)
    assert set(predictor.fitted) == {"stego", "linear"}
    assert predictor.values == [1, 2, 3, 4]
    assert read_classes(imported / "classes.yaml").named_by == "clusters"


def test_an_imported_run_is_evaluated_by_the_oracle_and_its_own_linear_probe(imported: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", train=1, val=1)
    answer = evaluate_run(
        imported, tmp_path / "scenes", tmp_path / "out", crf=False, panels=0, overrides=["prepare.resize=32"]
    )
    assert answer["failed"] == {}
    rows = {(row["method"], row["naming"]) for row in answer["rows"]}
    assert {("stego", "oracle"), ("linear", "training_labels")} <= rows
    # The published class c has the value c + 1 here, and a pixel of class 0 is no background.
    probe = read_classes(imported / "methods" / "linear" / "classes.yaml")
    assert probe.class_of_cluster == {cluster: cluster + 1 for cluster in range(len(probe.classes))}


def test_other_weights_than_the_imported_are_refused(imported: Path) -> None:
    other = {name: -value for name, value in torch_weights(imported).items()}
    from safetensors.torch import save_file

    save_file(other, imported / "backbone.safetensors")
    record = open_run(imported)
    with pytest.raises(MedsegError, match="must be fitted on what its config names"):
        predictor_of_run(record, record.config, torch.device("cpu"), compare=False)


def torch_weights(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "backbone.safetensors")


def test_a_folder_with_a_run_is_refused(imported: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="--run must be a new folder"):
        import_stego(tmp_path / "stego.ckpt", imported, overrides=TINY)


def test_a_checkpoint_of_the_head_alone_is_refused(tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_stego().items() if not name.startswith("net.model.")}
    with pytest.raises(MedsegError, match="must hold the backbone of its head, got none"):
        import_stego(write_lightning(tmp_path / "head.ckpt", state), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_windows_that_do_not_fit_the_patches_are_refused_before_a_run_is_written(tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "stego.ckpt", tiny_stego())
    with pytest.raises(MedsegError, match="must be a multiple of 8"):
        import_stego(path, tmp_path / "run", overrides=(TINY[0], "patches.size=30"))
    assert not (tmp_path / "run" / "run.yaml").exists()


@pytest.mark.parametrize(("width", "name"), [(384, "vit_small_patch8_224.dino"), (768, "vit_base_patch8_224.dino")])
def test_the_published_backbones_are_known_by_their_timm_names(width: int, name: str, tmp_path: Path) -> None:
    from medseg.stego.published import read_published

    state = {f"net.model.blocks.{n}.norm1.weight": torch.ones(width) for n in range(12)}
    state |= {"net.model.patch_embed.proj.weight": torch.zeros(width, 3, 8, 8)}
    state |= {"net.cluster1.0.weight": torch.zeros(7, width, 1, 1), "net.cluster1.0.bias": torch.zeros(7)}
    state |= {"cluster_probe.clusters": torch.ones(3, 7)}
    backbone = read_published(write_lightning(tmp_path / "stego.ckpt", state)).backbone
    assert backbone is not None and backbone.name == name
