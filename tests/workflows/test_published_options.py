"""This file tests the table of the published program's options, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg.config import Config, load_config
from medseg.errors import MedsegError
from medseg.workflows.published_options import COMMANDS, OPTIONS, Option, as_markdown, translate
from medseg.workflows.published_values import Translation

ROOT = Path(__file__).parent.parent.parent
WORKING = [option for option in OPTIONS if option.read is not None]
REFUSED = [option for option in OPTIONS if option.read is None]
NAMED = re.findall(
    r"\w+",
    """
output_root pytorch_data_dir experiment_name log_dir azureml_logging submitting_to_aml num_workers max_steps batch_size
num_neighbors dataset_name dir_dataset_name dir_dataset_n_classes has_labels crop_type crop_ratio res loader_crop_type
extra_clusters use_true_labels use_recalibrator model_type arch use_fit_model dino_feat_type projection_type
dino_patch_size granularity continuous dim dropout zero_clamp lr pretrained_weights use_salience stabalize stop_at_zero
pointwise feature_samples neg_samples aug_alignment_weight correspondence_weight neg_inter_weight pos_inter_weight
pos_intra_weight neg_inter_shift pos_inter_shift pos_intra_shift rec_weight repulsion_weight crf_weight alpha beta gamma
w1 w2 shift crf_samples color_space reset_probe_steps n_images scalar_log_freq checkpoint_freq val_freq hist_freq
full_name model_paths run_prediction run_crf run_picie dark_mode use_ddp image_dir model_path plot_correspondence
plot_movie
""",
)

# option -> (a value that no config has, what must be given with it, what the config holds then)
KEYS: dict[str, tuple[str, dict[str, str], dict[str, object]]] = {
    "dataset_name": ("cityscapes", {}, {"stego.clusters": 27}),
    "dir_dataset_n_classes": ("11", {}, {"stego.clusters": 11}),
    "crop_type": ("five", {}, {"prepare.resize": 448, "patches.size": 224, "patches.scheme": "five"}),
    "crop_ratio": ("0.25", {"crop_type": "random"}, {"prepare.resize": 896, "patches.scheme": "R"}),
    "res": ("96", {}, {"prepare.resize": 96, "patches.size": 96}),
    "loader_crop_type": ("random", {}, {"patches.scheme": "R", "patches.per_case": 5, "patches.salient_fraction": 0}),
    "num_workers": ("3", {}, {"run.workers": 3}),
    "batch_size": ("13", {}, {"stego.batch": 13}),
    "max_steps": ("1234", {}, {"stego.steps": 1234}),
    "num_neighbors": ("9", {}, {"stego.neighbours": 9}),
    "extra_clusters": ("4", {}, {"stego.extra_clusters": 4}),
    "model_type": ("vit_base", {}, {"features.backbone": ("vit_base_patch8_224.dino",)}),
    "arch": (
        "feature-pyramid",
        {},
        {"features.backbone": ("resnet50@2+3+4",), "stego.projection": "pyramid", "stego.sampling": "maps"},
    ),
    "dino_patch_size": ("16", {}, {"features.backbone": ("vit_small_patch16_224.dino",)}),
    "granularity": ("2", {}, {"stego.granularity": 2}),
    "dino_feat_type": ("KK", {}, {"features.feature": "KK"}),
    "projection_type": ("linear", {}, {"stego.projection": "linear"}),
    "continuous": ("false", {"dir_dataset_n_classes": "6"}, {"stego.code_dim": 6}),
    "dim": ("33", {}, {"stego.code_dim": 33}),
    "dropout": ("false", {}, {"stego.dropout": 0}),
    "pretrained_weights": ("it's.pth", {}, {"features.checkpoint": Path("it's.pth")}),
    "zero_clamp": ("false", {}, {"stego.zero_clamp": False}),
    "stabalize": ("True", {}, {"stego.stabilise": True}),
    "pointwise": ("False", {}, {"stego.pointwise": False}),
    "use_salience": ("True", {}, {"stego.salient_share": 0.9}),
    "lr": ("3e-4", {}, {"stego.learning_rate": 3e-4}),
    "feature_samples": ("7", {}, {"stego.feature_samples": 7}),
    "neg_samples": ("3", {}, {"stego.negatives": 3}),
    "correspondence_weight": ("2", {}, {"stego.correspondence_weight": 2}),
    "neg_inter_weight": (".11", {}, {"stego.random_weight": 0.11}),
    "pos_inter_weight": (".93", {}, {"stego.knn_weight": 0.93}),
    "pos_intra_weight": (".12", {}, {"stego.self_weight": 0.12}),
    "neg_inter_shift": (".91", {}, {"stego.random_shift": 0.91, "stego.shifts": "preset"}),
    "pos_inter_shift": (".21", {}, {"stego.knn_shift": 0.21, "stego.shifts": "preset"}),
    "pos_intra_shift": (".22", {}, {"stego.self_shift": 0.22, "stego.shifts": "preset"}),
    "rec_weight": (".3", {}, {"stego.rec_weight": 0.3, "stego.sampling": "maps"}),
    "aug_alignment_weight": (".4", {}, {"stego.aug_alignment_weight": 0.4, "stego.sampling": "maps"}),
    "crf_weight": (".5", {}, {"stego.crf_weight": 0.5, "stego.sampling": "maps"}),
    "alpha": ("1.5", {}, {"stego.crf_alpha": 1.5}),
    "beta": ("1.6", {}, {"stego.crf_beta": 1.6}),
    "gamma": ("1.7", {}, {"stego.crf_gamma": 1.7}),
    "w1": ("9", {}, {"stego.crf_w1": 9}),
    "w2": ("8", {}, {"stego.crf_w2": 8}),
    "shift": (".1", {}, {"stego.crf_shift": 0.1}),
    "crf_samples": ("500", {}, {"stego.crf_samples": 500}),
    "reset_probe_steps": ("70", {}, {"stego.reset_probe_steps": 70}),
    "scalar_log_freq": ("17", {}, {"stego.log_every": 17}),
    "checkpoint_freq": ("epoch", {}, {"stego.keep_every": "epoch"}),
    "val_freq": ("60", {}, {"stego.picture_every": 60}),
    "hist_freq": ("40", {"val_freq": "60"}, {"stego.picture_every": 40}),
}
# option -> (command, value, what must be given with it, the action it changes, to what)
ACTIONS: dict[str, tuple[str, str, dict[str, str], str, object]] = {
    "output_root": ("train", "o", {}, "run", Path("o/checkpoints/directory_exp1")),
    "pytorch_data_dir": ("train", "d", {"dir_dataset_name": "suim"}, "scans", Path("d/suim")),
    "dir_dataset_name": ("crop", "liver", {"pytorch_data_dir": "d"}, "scans", Path("d/liver")),
    "experiment_name": ("demo", "mine", {}, "out", Path("results/predictions/mine")),
    "log_dir": ("train", "log", {}, "run", Path("checkpoints/log/directory_exp1")),
    "full_name": ("train", "a/b", {}, "run", Path("checkpoints/a/b")),
    "has_labels": ("train", "False", {}, "labels", False),
    "n_images": ("eval", "4", {}, "panels", 4),
    "model_paths": ("eval", "[a.ckpt, 'b.ckpt']", {}, "models", [Path("a.ckpt"), Path("b.ckpt")]),
    "run_crf": ("eval", "False", {}, "crf", False),
    "dark_mode": ("eval", "True", {}, "dark", True),
    "image_dir": ("demo", "photos", {}, "scans", Path("photos")),
    "model_path": ("demo", "potsdam_test.ckpt", {}, "models", [Path("potsdam_test.ckpt")]),
    "plot_correspondence": ("plot", "false", {}, "correspondence", False),
    "plot_movie": ("plot", "true", {}, "movie", True),
}


def config_of(translation: Translation) -> Config:
    return load_config("pictures_bank", translation.overrides)


def value_of(config: Config, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def test_no_option_of_the_published_program_is_missing():
    assert {option.name for option in OPTIONS} == {*NAMED, "precompute_batch_size"}
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_every_row_works_or_is_refused_and_every_row_is_tested():
    assert {option.name for option in WORKING} == {*KEYS, *ACTIONS, "use_ddp"}
    assert all(option.off and option.published is not None and option.says for option in REFUSED)
    assert {command for option in OPTIONS for command in option.commands} == set(COMMANDS)


@pytest.mark.parametrize("name", KEYS)
def test_a_working_option_changes_the_config(name: str) -> None:
    value, others, expected = KEYS[name]
    (row,) = [option for option in OPTIONS if option.name == name]
    without, given = (config_of(translate(options, "train")) for options in (others, {**others, name: value}))
    for key, wanted in expected.items():
        assert key in row.keys
        assert value_of(given, key) == wanted
    assert any(value_of(without, key) != wanted for key, wanted in expected.items())


@pytest.mark.parametrize("name", ACTIONS)
def test_a_working_option_changes_what_the_script_does(name: str) -> None:
    command, value, others, action, wanted = ACTIONS[name]
    without, given = (translate(options, command) for options in (others, {**others, name: value}))
    assert given.actions[action] == wanted
    assert without.actions.get(action) != wanted


@pytest.mark.parametrize("option", WORKING, ids=lambda option: option.name)
def test_every_key_that_a_row_names_exists_and_it_sets_no_other(option: Option) -> None:
    config = load_config("default")
    for key in option.keys:
        value_of(config, key)
    if option.name in KEYS:
        value, others, _ = KEYS[option.name]
        before, after = translate(others, "train"), translate({**others, option.name: value}, "train")
        new = set(after.overrides) - set(before.overrides)
        assert {entry.partition("=")[0] for entry in new} <= set(option.keys)


@pytest.mark.parametrize("option", REFUSED, ids=lambda option: option.name)
def test_a_refused_option_says_why_unless_it_asks_for_nothing(option: Option) -> None:
    command = option.commands[0]
    asking = {"true": "false", "false": "true"}.get(option.off[0], "7.5")
    with pytest.raises(MedsegError, match=re.escape(f"{option.name} must be left out, got {asking}; {option.says}")):
        translate({option.name: asking}, command)
    for nothing in option.off:
        assert translate({option.name: nothing}, command) == translate({}, command)
    assert option.published is not None
    translate({option.name: option.published}, command, from_file={option.name})


def test_the_value_of_a_published_file_passes_in_a_file_only():
    with pytest.raises(MedsegError, match="run_picie must be left out"):
        translate({"run_picie": "True"}, "eval")
    assert "pickled" in translate({"run_picie": "True"}, "eval", from_file={"run_picie"}).notes[0]
    with pytest.raises(MedsegError, match="use_true_labels"):  # published as false
        translate({"use_true_labels": "True"}, "train", from_file={"use_true_labels"})


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(MedsegError, match=r"got max_step; did you mean max_steps\?"):
        translate({"max_step": "3"}, "train")


def test_an_option_of_another_command_is_an_error_on_the_line_and_passed_over_in_a_file():
    with pytest.raises(MedsegError, match="dark_mode must be left out here, got True; it belongs to eval"):
        translate({"dark_mode": "True"}, "train")
    assert translate({"dark_mode": "True"}, "train", from_file={"dark_mode"}) == translate({}, "train")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_steps": "many"}, "max_steps must be a whole number, got many"),
        ({"lr": "fast"}, "lr must be a number, got fast"),
        ({"zero_clamp": "maybe"}, "zero_clamp must be true or false, got maybe"),
        ({"has_labels": "2"}, "has_labels must be true or false, got 2"),
        ({"crop_ratio": "1.5"}, r"crop_ratio must be in \(0, 1\], got 1.5"),
        ({"crop_type": "six"}, "crop_type must be five, random or null, got six"),
        (
            {"loader_crop_type": "null"},
            "loader_crop_type must be center or random, got null; pictures are not squashed",
        ),
        ({"model_type": "vgg11"}, "model_type must be vit_small or vit_base, of dino_patch_size 8 or 16, got vgg11"),
        ({"model_type": "vgg11", "arch": "feature-pyramid"}, "model_type must be one of resnet50, .* got vgg11"),
        ({"model_type": "mocov2", "arch": "feature-pyramid"}, "pretrained_weights must be the weights of mocov2"),
        ({"arch": "swin"}, "arch must be dino or feature-pyramid, got swin"),
        ({"dino_patch_size": "14"}, "got vit_small of 14"),
        ({"dino_feat_type": "kk"}, "dino_feat_type must be one of feat, KK, got kk"),
        ({"projection_type": "deep"}, "projection_type must be linear, nonlinear or null, got deep"),
        ({"continuous": "false"}, "continuous=false must know the number of classes"),
        ({"continuous": "false", "arch": "feature-pyramid"}, "continuous must be true with arch=feature-pyramid"),
        ({"dataset_name": "suim"}, "dataset_name must be one of directory, .* dir_dataset_name=suim"),
    ],
)
def test_a_value_that_cannot_be_meant_is_one_line(options: dict[str, str], reason: str) -> None:
    with pytest.raises(MedsegError, match=reason):
        translate(options, "train")


def test_the_pyramid_takes_weights_of_its_own_and_no_other_projection():
    found = translate(
        {
            "arch": "feature-pyramid",
            "model_type": "mocov2",
            "pretrained_weights": "moco.pth.tar",
            "projection_type": "linear",
        },
        "train",
    )
    config = config_of(found)
    assert config.features.checkpoint == Path("moco.pth.tar") and config.stego.projection == "pyramid"


def test_evaluation_and_demo_take_the_size_the_batch_and_the_processes():
    for command in ("eval", "demo"):
        found = translate({"res": "320", "batch_size": "8", "use_ddp": "True", "num_workers": "24"}, command)
        config = config_of(found)
        assert (config.prepare.resize, config.reconstruct.batch, config.run.strategy) == (320, 8, "ddp")
        assert found.actions.get("processes") == (24 if command == "eval" else None)
    assert config_of(translate({"use_ddp": "False"}, "eval")).run.strategy == "auto"


def test_null_is_written_in_several_ways():
    for nothing in ("~", "null", "None", ""):
        config = config_of(translate({"pretrained_weights": nothing, "crop_type": nothing, "projection_type": nothing,
                                      "reset_probe_steps": nothing}, "train"))  # fmt: skip
        assert config.features.checkpoint is None and config.prepare.resize == 224
        assert config.stego.projection == "none" and config.stego.reset_probe_steps is None


def test_a_cropped_set_is_read_where_it_was_made(tmp_path: Path) -> None:
    options = {
        "pytorch_data_dir": str(tmp_path),
        "dir_dataset_name": "suim",
        "crop_type": "random",
        "crop_ratio": ".50",
    }
    before = translate(options, "train")
    assert before.actions["scans"] == tmp_path / "suim" and config_of(before).prepare.resize == 448
    cropped = tmp_path / "cropped" / "suim_random_crop_0.5"
    cropped.mkdir(parents=True)
    after = translate(options, "train")
    assert after.actions["scans"] == cropped and config_of(after).prepare.resize == 224
    assert (
        translate({"pytorch_data_dir": str(tmp_path), "dir_dataset_name": "suim"}, "eval").actions["scans"].name
        == "suim"
    )


def test_the_document_holds_the_table_row_by_row():
    text = (ROOT / "docs" / "from_stego.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- options -->\n")[2].partition("<!-- end of options -->")[0]
    documented = re.findall(r"^\| `(\w+)` \|", shown, re.MULTILINE)
    assert documented == [option.name for option in OPTIONS]
    assert shown == as_markdown(), "write the answer of published_options.as_markdown() between the two marks"


def test_every_script_that_the_document_names_is_there():
    text = (ROOT / "docs" / "from_stego.md").read_text(encoding="utf-8")
    named = set(re.findall(r"scripts/(\w+\.py)", text)) | {"download_models.py", "download_datasets.py"}
    assert len(named) == 10
    assert all((ROOT / "scripts" / name).is_file() for name in named)
