"""This file tests clicks where there are no volumes: on photographs, and in the sector of an ultrasound frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workflows.scenes import scene

from medseg.cli import run as medseg
from medseg.features.packaged import is_installed
from medseg.files import read_json
from medseg.naming.classes import read_classes
from medseg.naming.clicks import Click
from medseg.phantoms.liver_files import write_liver_phantoms
from medseg.workflows.clicking import name_by_clicks
from medseg.workflows.reconstruction import reconstruct_run
from medseg.workflows.training import train_run

pytestmark = pytest.mark.skipif(not is_installed(), reason="the extra offline is not installed")

SHORT = ("stego.steps=2", "stego.batch=2", "stego.fit_points=800", "run.checkpoint_every=2", "run.device=cpu")


def test_clicks_name_what_a_photograph_shows(tmp_path: Path) -> None:
    pictures, labels = tmp_path / "pictures", {}
    pictures.mkdir()
    for n in range(2):
        picture, labels[n] = scene(n, (96, 120))
        Image.fromarray(picture).save(pictures / f"scene_{n}.png")
    asked = [*SHORT, "prepare.resize=64", "patches.size=64", "stego.clusters=6", "naming.source=clusters"]
    train_run("pictures_bank", pictures, tmp_path / "run", overrides=asked)
    sky, meadow = ([*np.argwhere(labels[0] == value)[500], 0] for value in (1, 2))
    words = [("scene_0", *map(str, sky), "sky"), ("scene_0", *map(str, meadow), "meadow")]
    clicks = [word for click in words for word in ("--click", *click)]
    new = ["--new-class", "sky=1", "--new-class", "meadow=2"]
    command = ["name", str(tmp_path / "run"), *clicks, "--space", "voxel", "--method", "kmeans", *new, "-q"]
    assert medseg(command) == 0
    named = read_classes(tmp_path / "run" / "methods" / "clicks" / "classes.yaml")
    assert {entry.name: bool(entry.clusters) for entry in named.classes} == {"sky": True, "meadow": True}
    out = tmp_path / "out"
    answer = reconstruct_run(tmp_path / "run", pictures, out, overrides=["reconstruct.method=clicks", "run.device=cpu"])
    assert not answer["failed"]
    with Image.open(out / "scene_0_seg.png") as opened:
        mask = np.asarray(opened)
    assert mask.shape == (96, 120)
    assert mask[sky[0], sky[1]] == 1 and mask[meadow[0], meadow[1]] == 2
    # The same places as the review page keeps them: its stack runs to the left and upwards.
    entries = [{"xyz_mm": [-float(column), 95.0 - float(row), 0.0], "class": name} for _, row, column, _, name in words]
    decisions = {"schema": "medseg-decisions/1", "decisions": [{"case": "scene_0", "seconds": 6, "clicks": entries}]}
    (tmp_path / "d.json").write_text(json.dumps(decisions))
    name_by_clicks(tmp_path / "run", decisions=tmp_path / "d.json", method="kmeans", new_classes=["sky=1", "meadow=2"])
    again = read_classes(tmp_path / "run" / "methods" / "clicks" / "classes.yaml")
    assert again.classes == named.classes
    assert read_json(tmp_path / "run" / "methods" / "clicks" / "effort.json")["minutes"] == 0.1


def test_clicks_in_a_sector_name_what_lies_in_its_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_liver_phantoms(tmp_path / "phantoms", cases=2, seed=3, size="small")
    frames = tmp_path / "frames"
    frames.mkdir()
    for path in sorted((tmp_path / "phantoms").glob("imgs/*/*.png"))[:2]:
        shutil.copy(path, frames)
    asked = [*SHORT, "features.backbone=image_bank", "reconstruct.method=kmeans", "naming.rules=liver_ultrasound_cues"]
    train_run("liver_ultrasound_bare", frames, tmp_path / "run", overrides=[*asked, "stego.clusters=6"])
    case = sorted(frames.glob("*.png"))[0].stem
    (label_path,) = (tmp_path / "phantoms").glob(f"labels/*/{case}.png")
    label = np.asarray(Image.open(label_path))
    liver, tissue = (np.argwhere(label == value)[1000] for value in (2, 1))
    clicks = [
        Click(case, (float(row), float(column), 0.0), "voxel", name)
        for (row, column), name in ((liver, "liver"), (tissue, "background"))
    ]
    before = read_classes(tmp_path / "run" / "methods" / "kmeans" / "classes.yaml")
    name_by_clicks(tmp_path / "run", clicks, method="kmeans")
    after = read_classes(tmp_path / "run" / "methods" / "clicks" / "classes.yaml")
    of_name = {entry.name: entry for entry in after.classes}
    assert of_name["liver"].clusters and of_name["sector tissue"].clusters  # what is no class is tissue here
    assert sum(len(entry.clusters) for entry in after.classes) >= 6
    assert [entry.name for entry in after.classes] == [entry.name for entry in before.classes]
    out = tmp_path / "out"
    reconstruct_run(
        tmp_path / "run",
        frames,
        out,
        overrides=["reconstruct.method=clicks", "reconstruct.refine=[]", "run.device=cpu"],
    )
    with Image.open(out / f"{case}_seg.png") as opened:
        mask = np.asarray(opened)
    assert mask[tuple(liver)] == 2 and mask[tuple(tissue)] == 1
    run = ["name", str(tmp_path / "run"), "--space", "voxel", "-q", "--click", case]
    assert medseg([*run, "0", "0", "0", "liver"]) == 1
    assert "must lie where one looks, got 0 0 0; choose one in the sector" in capsys.readouterr().err
    assert medseg([*run, str(liver[0]), str(liver[1]), "0", "mass"]) == 1
    assert "finds inside liver" in capsys.readouterr().err
