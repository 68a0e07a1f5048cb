"""Scans without a config get the one of what they show."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare.fans import painted

from medseg.errors import MedsegError
from medseg.scans.cases import Case
from medseg.workflows.recognition import CONFIG_OF, LOOKED_AT, config_for


def picture(path: Path, values: np.ndarray) -> Case:
    Image.fromarray((values * 255).round().astype(np.uint8)).save(path)
    return Case(path.stem, path, path.stem)


def volume(path: Path) -> Case:
    return Case(path.stem, path, path.stem)  # it is not opened


@pytest.fixture
def fan(tmp_path: Path) -> Case:
    return picture(tmp_path / "fan.png", painted())


@pytest.fixture
def photo(tmp_path: Path) -> Case:
    return picture(tmp_path / "photo.png", np.random.default_rng(0).random((120, 160, 3)))


@pytest.fixture
def broken(tmp_path: Path) -> Case:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return Case("broken", tmp_path / "broken.png", "broken")


def test_volumes_are_angiograms_and_fans_are_ultrasound(
    tmp_path: Path, fan: Case, caplog: pytest.LogCaptureFixture
) -> None:
    assert config_for([volume(tmp_path / "a.nii.gz")], None) == "tof_mra"
    assert not caplog.messages
    with caplog.at_level(logging.INFO):
        assert config_for([fan], None).startswith("liver_ultrasound")
    assert "these are ultrasound frames, by their sectors" in caplog.text


@pytest.mark.parametrize("modality", [name for name in CONFIG_OF if name != "liver_ultrasound"])
def test_what_the_user_says_is_not_looked_at(modality: str, broken: Case) -> None:
    assert config_for([broken], modality) == CONFIG_OF[modality]
    assert config_for([broken], "liver_ultrasound").startswith("liver_ultrasound")


def test_without_the_package_the_student_sees_grey_values(
    fan: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("medseg.workflows.recognition.is_installed", lambda: True)
    assert config_for([fan], None) == "liver_ultrasound"
    monkeypatch.setattr("medseg.workflows.recognition.is_installed", lambda: False)
    assert config_for([fan], None) == "liver_ultrasound_bare"
    assert "without the extra `offline`" in caplog.text


def test_most_pictures_must_show_a_sector(fan: Case, photo: Case) -> None:
    assert config_for([fan, fan, photo], None).startswith("liver_ultrasound")
    for cases, words in (([photo], "got 1 of 1 without a sector"), ([fan, photo], "got 1 of 2 without a sector")):
        with pytest.raises(MedsegError, match=words):
            config_for(cases, None)


def test_what_cannot_be_read_has_no_vote(fan: Case, photo: Case, broken: Case) -> None:
    assert config_for([broken, fan, broken], None).startswith("liver_ultrasound")
    with pytest.raises(MedsegError, match="got 1 of 1 without a sector"):
        config_for([broken, photo], None)
    with pytest.raises(MedsegError, match=r"broken\.png"):
        config_for([broken], None)


def test_of_many_pictures_a_few_are_looked_at(fan: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def frames(path: Path, frame: int | None) -> object:
        looked.append(path)
        return iter([np.repeat(painted()[..., None], 3, axis=2)])

    monkeypatch.setattr("medseg.workflows.recognition.iterate_frames", frames)
    config_for([fan] * 40, None)
    assert len(looked) == LOOKED_AT


def test_an_unknown_modality_lists_the_known_ones(fan: Case) -> None:
    with pytest.raises(MedsegError, match="--modality must be one of tof, ce_mra, cta, liver_ultrasound, got xray"):
        config_for([fan], "xray")
