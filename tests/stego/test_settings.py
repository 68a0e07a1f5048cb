from __future__ import annotations

import pytest

from medseg.errors import MedsegError
from medseg.stego.presets import PRESETS, REMOVED_OPTIONS
from medseg.stego.settings import settings_from_preset


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_settings(preset: str) -> None:
    settings = settings_from_preset(preset)
    assert all(0 < value <= 1 for value in (*settings.term_weights, *settings.term_shifts))


def test_the_published_rows_by_hand() -> None:
    assert tuple(settings_from_preset("default").term_weights) == (0.63, 0.25, 0.67)
    assert tuple(settings_from_preset("default").term_shifts) == (0.46, 0.12, 0.18)
    liver = settings_from_preset("liver_vit_base")
    assert (liver.code_dim, liver.learning_rate, liver.batch, liver.neighbours) == (90, 5e-5, 32, 5)
    assert (liver.crf_weight, liver.epochs, liver.clusters) == (1.0, 100, 6)
    assert settings_from_preset("default", extra_clusters=2, clusters=3).prototypes == 5


def test_a_mistyped_name_names_the_right_one() -> None:
    with pytest.raises(MedsegError, match="did you mean cityscapes"):
        settings_from_preset("cityscape")
    with pytest.raises(MedsegError, match="did you mean code_dim"):
        settings_from_preset("default", codedim=3)


@pytest.mark.parametrize("name", REMOVED_OPTIONS)
def test_a_dead_option_of_the_reference_is_said_to_be_dead(name: str) -> None:
    with pytest.raises(MedsegError, match=f"stego.{name} must be left out"):
        settings_from_preset("default", **{name: True})


@pytest.mark.parametrize("weight", ["rec_weight", "crf_weight", "aug_alignment_weight"])
def test_losses_on_whole_maps_need_whole_maps(weight: str) -> None:
    with pytest.raises(MedsegError, match=r"set stego\.sampling to maps"):
        settings_from_preset("default", sampling="corners", **{weight: 0.1})


def test_one_cluster_is_refused() -> None:
    with pytest.raises(MedsegError, match=r"stego\.clusters must be at least 2, got 1"):
        settings_from_preset("default", clusters=1)
