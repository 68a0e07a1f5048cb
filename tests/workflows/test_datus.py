"""DatUS from a folder to masks: stored stage by stage, blind to labels, on pictures and on slices of volumes."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from workflows.scenes import write_scenes

from medseg.errors import MedsegError
from medseg.files import CannotWriteError
from medseg.workflows import datus_stages
from medseg.workflows.datus import run_datus

SMALL = {
    "config": "pictures_bank",
    "overrides": ["prepare.resize=40", "run.device=cpu"],
    "processes": 0,
}


def _run(images, out, **settings):
    return run_datus(images, out, **{**SMALL, "clusters": 3, **settings})


def _masks(out):
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*_seg.*"))}


def _computed(out):
    return json.loads((out / "datus.json").read_text())["computed"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1)
    return folder


@pytest.fixture(scope="module")
def first(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("first")
    return out, _run(scenes, out)


def test_a_folder_gets_masks_classes_and_scores(first, scenes):
    out, answer = first
    assert not answer["failed"]
    assert len(answer["done"]) == 4 and all(count >= 2 for [count] in answer["segments"].values())
    masks = sorted(out.glob("*_seg.png"))
    assert len(masks) == 4
    for path in masks:
        labels = np.asarray(Image.open(path))
        assert labels.shape in {(60, 72), (64, 80), (72, 80), (80, 80)}
        assert set(np.unique(labels)) <= {1, 2, 3}
        assert path.with_name(path.name.replace("_seg", "_overlay")).is_file()
    methods = {row["method"]: row for row in answer["rows"]}
    assert methods["datus"]["accuracy"] > methods["most frequent class"]["accuracy"] > 0.4
    assert {"datus", "k-means"} <= set(methods)
    assert {row["naming"] for row in answer["rows"]} == {"oracle"}
    assert list((out / "evaluation" / "confusion").glob("datus_*.png"))
    assert (out / "classes.yaml").is_file()
    assert set(answer["seconds"]) == {"prepare", "keys", "segments", "crops", "labels", "k-means", "masks"}
    assert _computed(out) == {"keys": 4, "segments": 4, "crops": 4, "labels": 1}


def test_what_is_stored_is_not_computed_again(first, scenes):
    out, _ = first
    before = _masks(out)
    again = _run(scenes, out)
    assert _computed(out) == {"keys": 0, "segments": 0, "crops": 0, "labels": 0}
    assert _masks(out) == before
    assert not again["failed"]
    for settings, wanted in (
        ({"clusters": 4, "merge_to": 2}, {"keys": 0, "segments": 0, "crops": 0, "labels": 1}),
        ({"resolution": 1.3}, {"keys": 0, "segments": 4, "crops": 4, "labels": 1}),
    ):
        _run(scenes, out, labels=False, **settings)
        assert _computed(out) == wanted, settings
    damaged = next((out / "stages" / "segments").iterdir())
    damaged.write_bytes(b"cut off")
    _run(scenes, out, labels=False)
    _run(scenes, out, labels=False, resolution=1.3)
    assert len(list((out / "stages" / "segments").iterdir())) == 8
    assert damaged.read_bytes() != b"cut off"
    _run(scenes, out)
    assert _masks(out) == before


def test_masks_do_not_depend_on_labels(first, scenes, tmp_path):
    noisy, bare = tmp_path / "noisy", tmp_path / "bare"
    write_scenes(noisy, train=3, val=1)
    write_scenes(bare, train=3, val=1)
    random = np.random.default_rng(0)
    for path in (noisy / "labels").rglob("*.png"):
        shape = np.asarray(Image.open(path)).shape
        Image.fromarray(random.integers(1, 4, shape, dtype=np.uint8)).save(path)
    _run(noisy, tmp_path / "from_noisy")
    _run(bare, tmp_path / "from_bare", labels=False)
    wanted = _masks(tmp_path / "from_bare")
    assert wanted and _masks(tmp_path / "from_noisy") == wanted
    assert not (tmp_path / "from_bare" / "evaluation").exists()


def test_without_a_crf_noise_stays_without_a_class(scenes, tmp_path):
    answer = _run(scenes, tmp_path, crf=False, resolution=1.8)
    values = np.concatenate([np.asarray(Image.open(path)).ravel() for path in tmp_path.glob("*_seg.png")])
    assert 0 in values and {1, 2, 3} <= set(values.tolist())
    assert any("noise" in line for line in answer["lines"])


@pytest.mark.parametrize("config", ["pictures_bank", "tof_mra_bank"])
def test_slices_of_a_volume_are_segmented_on_its_own_grid(config, tmp_path):
    random = np.random.default_rng(0)
    values = np.where(np.indices((40, 36, 10)).sum(0) % 40 < 20, 100.0, 300.0) + random.normal(size=(40, 36, 10)) * 5
    affine = np.diag([-0.5, 0.5, 0.8, 1])
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "scans" / "a_img.nii.gz")
    overrides = ["run.device=cpu"] + (
        ["prepare.brain_mask=none"] if config == "tof_mra_bank" else ["prepare.resize=32"]
    )
    out = tmp_path / "out"
    answer = _run(tmp_path / "scans", out, config=config, overrides=overrides, slices=3, clusters=2)
    assert not answer["failed"]
    mask = nibabel.load(out / "a_seg.nii.gz")
    labels = np.asarray(mask.dataobj)
    assert labels.shape == values.shape
    np.testing.assert_allclose(mask.affine, affine)
    assert np.flatnonzero(labels.any((0, 1))).tolist() == [1, 5, 8]


def test_an_unreadable_picture_is_named_and_the_others_go_on(scenes, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in (scenes / "imgs" / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    answer = _run(folder, tmp_path / "out")
    assert list(answer["failed"]) == ["broken"] and len(answer["done"]) == 3


def test_a_full_disk_is_no_fault_of_the_pictures(scenes, tmp_path, monkeypatch):
    def full(*_):
        raise CannotWriteError("the disk must have room, got none; free some")

    monkeypatch.setattr(datus_stages, "replacing", full)
    with pytest.raises(CannotWriteError, match="the disk must have room"):
        _run(scenes, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge_to": 4}, r"--merge-to must be 2 to the number of clusters \(3\), got 4"),
        ({"merge_to": 1}, r"got 1"),
        ({"clusters": 300}, r"--clusters must be 2 to 254, got 300"),
        ({"clusters": 200}, r"at least 200 segments of 6 cells or more for 200 clusters, got \d+; ask for fewer"),
        ({"resolution": 0.0}, r"--resolution must be above 0, got 0"),
        ({"resolution": float("nan")}, r"--resolution must be above 0, got nan"),
        ({"slices": 0}, r"--slices must be at least 1, got 0"),
        ({"until": "masques"}, r"--until must be one of segments, crops, labels, masks, got masques"),
        ({"crop_backbone": "resnet51"}, r"resnet51"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings, message, first, scenes):
    out, _ = first
    with pytest.raises(MedsegError, match=message) as raised:
        _run(scenes, out, labels=False, **settings)
    assert "\n" not in str(raised.value)


def test_a_second_network_may_see_the_crops(scenes, first, tmp_path):
    import torch

    from medseg.features.backbones import load_slice_backbone

    network = load_slice_backbone("resnet18", pretrained=False)
    path: Path = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in network.model.state_dict().items()}}, path)
    out = tmp_path / "out"
    _run(scenes, out, labels=False, crop_checkpoint=path)
    assert json.loads((out / "datus.json").read_text())["crop_backbones"] == ["checkpoint"]
    stored = next((out / "stages" / "crops").iterdir())
    assert np.load(stored)["crops"].shape[1] == network.dim


def test_a_label_of_another_size_is_named_and_the_masks_are_there(tmp_path):
    write_scenes(tmp_path / "photos", train=2, val=1)
    label = next((tmp_path / "photos" / "labels" / "val").iterdir())
    Image.fromarray(np.ones((30, 30), np.uint8)).save(label)
    answer = _run(tmp_path / "photos", tmp_path / "out")
    [reason] = answer["failed"].values()
    assert "30" in reason and "\n" not in reason and label.name in reason
    assert len(answer["done"]) == 3 and len(list((tmp_path / "out").glob("*_seg.png"))) == 3


def test_a_run_may_end_after_each_stage(scenes, tmp_path):
    stages = ["keys", "segments", "crops", "labels"]
    for number, until in enumerate(("segments", "crops", "labels"), start=2):
        answer = _run(scenes, tmp_path, until=until)
        assert len(answer["done"]) == 4 and "rows" not in answer
        assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == sorted(stages[:number])
    assert not _masks(tmp_path)


def test_keys_of_a_vit_and_its_cls_tokens_are_taken(scenes, tmp_path):
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    overrides = [*SMALL["overrides"], "features.backbone=mine", f"features.checkpoint={tmp_path / 'vit.pth'}"]
    answer = _run(scenes, tmp_path / "out", overrides=overrides, labels=False, clusters=2)
    facts = json.loads((tmp_path / "out" / "datus.json").read_text())
    assert facts["keys"] and not answer["failed"]
    stored = next((tmp_path / "out" / "stages" / "keys").iterdir())
    assert np.load(stored)["keys"].shape[0] == 128


def test_the_verb_hands_its_options_on(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from medseg.cli.verbs import app
    from medseg.workflows import datus

    given = {}
    monkeypatch.setattr(
        datus, "run_datus", lambda images, out, **rest: given.update(rest, images=images) or {"lines": []}
    )
    line = ["datus", "photos", "-o", str(tmp_path), "--clusters", "20", "--merge-to", "8", "--no-crf", "--slices", "3"]
    assert CliRunner().invoke(app, [*line, "--classes", "suim_coarse", "--until", "labels"]).exit_code == 0
    assert given["images"] == Path("photos") and given["scheme"].name == "suim_coarse"
    assert (given["clusters"], given["merge_to"], given["crf"], given["slices"]) == (20, 8, False, 3)
    assert given["until"] == "labels" and given["config"] == "pictures"
