"""This file tests that a config is read strictly and that its errors help."""

from pathlib import Path

import pytest

from medseg.config import (
    CHANGEABLE_AFTER_TRAINING,
    as_plain,
    change_config,
    config_from_plain,
    load_config,
    parse_overrides,
    shipped_configs,
)
from medseg.errors import MedsegError

OF_THE_LIVER = ["liver_ultrasound", *(f"liver_ultrasound_{kind}" for kind in ("bare", "volume", "dino"))]


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_loads(name: str) -> None:
    assert load_config(name).reconstruct.method == ("student" if name in OF_THE_LIVER else "stego")


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_says_how_to_run_it_and_change_a_key(name: str) -> None:
    first_lines = shipped_configs()[name].read_text(encoding="utf-8").splitlines()[:3]
    assert all(line.startswith("#") for line in first_lines[:2])
    assert any("medseg" in line for line in first_lines)


def test_a_config_survives_the_run_folder() -> None:
    config = load_config("tof_mra", ["reconstruct.refine=[region, {hysteresis: {low: 0.2}}]"])
    assert config_from_plain(as_plain(config), "run.yaml") == config


def test_a_run_of_another_version_is_said_in_one_line() -> None:
    plain = as_plain(load_config("tof_mra"))
    del plain["stego"]["neighbours"]
    with pytest.raises(MedsegError, match=r"run\.yaml: stego\.neighbours must be given, got nothing; another version"):
        config_from_plain(plain, "run.yaml")


def test_an_override_changes_one_key_and_leaves_its_neighbours() -> None:
    plain, changed = as_plain(load_config("tof_mra")), as_plain(load_config("tof_mra", ["stego.steps=7"]))
    assert changed["stego"].pop("steps") == 7
    plain["stego"].pop("steps")
    assert changed == plain


def test_one_backbone_name_is_a_list_of_one() -> None:
    assert load_config("tof_mra", ["features.backbone=filter_bank"]).features.backbone == ("filter_bank",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stego.stepz=3", "did you mean stego.steps?"),
        ("stgo.steps=3", "did you mean stego?"),
        ("stego.steps=many", "stego.steps must be valid, got 'many'"),
        ("run.seed=-1", "run.seed must be valid, got -1"),
        ("naming.source=hand", "classes.yaml"),
        ("steps", "--set must be section.key=value"),
        ("stego.steps={", "must be a YAML value"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_right_key(override: str, words: str) -> None:
    with pytest.raises(MedsegError) as caught:
        load_config("tof_mra", [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named_without_all_the_others() -> None:
    plain = as_plain(load_config("tof_mra"))
    del plain["stego"]["steps"]
    with pytest.raises(MedsegError, match=r"^run\.yaml: stego\.steps must be given, got nothing; ") as caught:
        config_from_plain(plain, "run.yaml")
    assert "code_dim" not in str(caught.value)


def test_an_unknown_config_lists_the_shipped_ones() -> None:
    with pytest.raises(MedsegError, match="tof_mra"):
        load_config("tof_mar")


def test_a_file_extends_its_neighbour_and_the_neighbour_extends_default(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("stego: {steps: 11, code_dim: 5}\n", encoding="utf-8")
    (tmp_path / "child.yaml").write_text("extends: parent\nstego: {steps: 12}\n", encoding="utf-8")
    config = load_config(tmp_path / "child.yaml")
    assert (config.stego.steps, config.stego.code_dim) == (12, 5)
    assert config.patches == load_config("default").patches


def test_a_circle_of_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("extends: a\n", encoding="utf-8")
    with pytest.raises(MedsegError, match="circle"):
        load_config(tmp_path / "a.yaml")


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "bad.yaml").write_text(f"run: !!python/object/apply:pathlib.Path.touch [{marker}]\n", encoding="utf-8")
    with pytest.raises(MedsegError, match="readable YAML"):
        load_config(tmp_path / "bad.yaml")
    assert not marker.exists()


def test_after_training_only_later_sections_may_change() -> None:
    config = load_config("tof_mra")
    changed = change_config(config, ["reconstruct.method=kmeans"], sections=CHANGEABLE_AFTER_TRAINING)
    assert changed.reconstruct.method == "kmeans"
    with pytest.raises(MedsegError, match="train a new run"):
        change_config(config, ["stego.steps=3"], sections=CHANGEABLE_AFTER_TRAINING)


def test_overrides_of_one_section_are_gathered() -> None:
    assert parse_overrides(["a.b=1", "a.c=[x, y]"]) == {"a": {"b": 1, "c": ["x", "y"]}}


@pytest.mark.parametrize(
    ("config", "override", "words"),
    [
        ("pictures", "features.backbone=filter_bank", "filter_bank is for angiograms; pictures take image_bank"),
        ("pictures", "reconstruct.method=flux", "method flux is for angiograms; pictures take stego or kmeans"),
        ("tof_mra", "reconstruct.method=teacher", "method teacher is for ultrasound; angiograms take"),
        (
            "tof_mra",
            "reconstruct.refine=[crf]",
            "refine step crf is for pictures and ultrasound; angiograms take crf_2d",
        ),
        (
            "liver_ultrasound",
            "reconstruct.refine=[tubes]",
            "refine step tubes is for angiograms; ultrasound take frames",
        ),
        ("liver_ultrasound", "features.backbone=filter_bank", "filter_bank is for angiograms; ultrasound take student"),
        ("liver_ultrasound", "student.start=shipped", "the shipped student knows vessels"),
        ("tof_mra", "student.backbone=efficientnet_lite0", "is what the student of liver_ultrasound looks through"),
        ("tof_mra", "prepare.pixel_mm=0.3", "pixel_mm is for pictures; volumes state their spacing"),
        ("pictures", "prepare.despeckle=true", "despeckle and even_gain are for ultrasound"),
        ("liver_ultrasound", "prepare.n4=true", "spacing and n4 are for volumes in mm"),
    ],
)
def test_parts_that_do_not_fit_the_modality_are_refused(config: str, override: str, words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        load_config(config, [override])
