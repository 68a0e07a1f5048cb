"""The published commands of DatUS, one after the other in one folder."""

import json

import numpy as np
import pytest
from commands import main_of
from PIL import Image
from workflows.scenes import scene

from medseg.errors import MedsegError
from medseg.scans.folders import find_cases

WATER, DIVER, REEF, FISH, FLOOR = (0, 0, 0), (0, 0, 255), (255, 0, 255), (255, 255, 0), (255, 255, 255)


def _photos(folder, count=3):
    """Scenes whose sky is water, whose meadow is reef and whose poppies are fish."""
    for seed in range(count):
        picture, labels = scene(seed, (60, 72))
        for kind, array, suffix in (
            ("images", picture, "png"),
            ("masks", np.array([WATER, REEF, FISH], np.uint8)[labels - 1], "bmp"),
        ):
            path = folder / "train" / kind / f"d_{seed}_.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def test_each_step_goes_on_with_what_the_one_before_it_has_left(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    _photos(data)
    assert main_of("true_annotations")(["--data_dir", str(data), "--split", "train", "--mask_category", "coarse"]) == 0
    settings = ["--config", "pictures_bank", "--set", "prepare.resize=40", "--device", "cpu", "--data_dir", str(data)]
    steps = {
        "segment_discovery": (["--head", "0", "--head_plus", "0", *settings], "segments"),
        "CLS_extractor": (["--crop_path", "outputs/crop_dir", "--split", "train"], "crops"),
        "feat_extractor": (["--model", "resnet50_mocov2"], "crops"),
        "seg_pseudoLabeling": (["--csv", "True", "--n_clusters", "3", "--resolution", "1.5"], "labels"),
        "generate_PseudoMapV2": (["--split", "train", "--f_type", "Plus"], "labels"),
        "evalV2": (["n_clusters=4", "t_clusters=3", "--classes", "suim_coarse", "--crf", "True"], "labels"),
        "color_Mask": (["--map_path", "Map.csv"], "labels"),
    }
    for number, (name, (arguments, stage)) in enumerate(steps.items()):
        assert main_of(name)([*arguments, "--out", str(out)]) == 0, name
        assert (out / "stages" / stage).is_dir(), name
        assert (out / "classes.yaml").exists() == (number >= 4), name
    assert "oracle" in capsys.readouterr().out
    kept = json.loads((out / "stages" / "options.json").read_text())
    assert (kept["config"], kept["n_clusters"], kept["t_clusters"]) == ("pictures_bank", 4, 3)
    assert json.loads((out / "datus.json").read_text())["settings"]["crf"] is True  # as the masks that were scored
    assert len(list((out / "stages" / "keys").iterdir())) == 3  # all steps looked with one network, once
    table = (out / "evaluation" / "evaluation.csv").read_text()
    assert all(f",{name}," in table for name in ("reef", "fish", "all else", "diver"))
    assert set(np.unique(np.asarray(Image.open(out / "d_0__seg.png")))) <= {0, 1, 2, 3}
    assert (out / "d_0__colour.png").is_file() and (out / "d_0__overlay.png").is_file()


@pytest.mark.parametrize(
    ("category", "wanted"), [("coarse", [5, 0, 3, 2, 5]), ("fine", [7, 0, 3, 2, 6]), ("all", [7, 0, 3, 2, 6])]
)
def test_colours_of_suim_become_values_in_the_published_order(category, wanted, tmp_path):
    (tmp_path / "val" / "masks").mkdir(parents=True)
    colours = np.array([[WATER, DIVER, REEF, FISH, FLOOR]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "val" / "masks" / "a.bmp")
    main = main_of("true_annotations")
    assert main([f"data_dir={tmp_path}", "--split", "val", "--mask_category", category]) == 0
    found = Image.open(tmp_path / "val" / "true_masks" / "a.png")
    assert found.mode == "L" and np.asarray(found).tolist() == [wanted]


def test_a_colour_that_suim_does_not_have_is_one_line(tmp_path, capsys):
    (tmp_path / "train" / "masks").mkdir(parents=True)
    Image.fromarray(np.array([[WATER, (9, 99, 199)]], np.uint8)).save(tmp_path / "train" / "masks" / "a.bmp")
    assert main_of("true_annotations")([f"data_dir={tmp_path}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "a.bmp must use the colours of suim_coarse, got #0963c7 in 1 pixels" in said[0]
    with pytest.raises(MedsegError, match="val/masks must be a folder of pictures, got none"):
        main_of("true_annotations")([f"data_dir={tmp_path}", "--split", "val"])


def test_values_stand_for_the_colours_that_they_were_made_of(tmp_path):
    _photos(tmp_path, count=1)
    assert main_of("true_annotations")([f"data_dir={tmp_path}"]) == 0
    [label] = find_cases(tmp_path / "train").labels.values()
    assert label.parent.name == "true_masks"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_clusters", "3", "--t_clusters", "5"], "--merge-to must be 2 to the number of clusters \\(3\\), got 5"),
        (["--vit_size", "vitg"], "--vit_size must be vits or vitb .* got vitg and 8"),
        (["--vit_size", "vitb", "--patch_size", "14"], "got vitb and 14"),
        (["--classes", "swim"], "label scheme must be one of"),
        (["--split", "vaal"], "--split must be a folder of .*data, got vaal; there is train"),
        (["--device", "cuda:1"], "--device must be cpu, cuda or cuda:0, got cuda:1"),
    ],
)
def test_what_cannot_be_is_said(arguments, message, tmp_path):
    _photos(tmp_path / "data", count=1)
    with pytest.raises(MedsegError, match=message):
        main_of("evalV2")(["--data_dir", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *arguments])


def test_the_published_vit_is_named_as_here():
    from medseg.cli.datus_scripts import _DEFAULTS, _network

    options = {**_DEFAULTS, "vit_size": "vit_base", "pretrained_weights": "dino.pth", "device": "cuda:0"}
    config, overrides = _network(options)
    assert config == "pictures_dino"
    assert overrides == [
        "run.device=cuda", "features.checkpoint=dino.pth", "features.backbone=vit_base_patch8_224.dino"
    ]  # fmt: skip
    assert _network(_DEFAULTS) == ("pictures", [])
