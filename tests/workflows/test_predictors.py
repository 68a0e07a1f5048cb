"""Slices of ultrasound that seem to show no liver raise an alarm and stay empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from features.student.liver.liver_fakes import fake_case

from medseg.config import load_config
from medseg.naming.classes import ClassEntry, Naming
from medseg.workflows.predictors import direct_naming, predictor_without_run

CONFIG = load_config("liver_ultrasound_bare")


@pytest.fixture
def cine() -> dict[str, Any]:
    """Three frames: a liver, a black one, and one that shows no sector."""
    sample = fake_case(3, empty=(2,))
    sample["image"][..., 1] = 0
    salience = torch.where(sample["region"] > 0, 0.8, -1.0)
    return {**sample, "salience": salience.float()}


def test_the_rule_answers_with_its_probability_and_what_remains(cine: dict[str, Any]) -> None:
    predictor = predictor_without_run("teacher", None, CONFIG, torch.device("cpu"))
    assert predictor.values == [1, 2, 3, 4]
    probabilities = predictor.predict(cine, CONFIG, torch.device("cpu")).probabilities["teacher"]
    inside = cine["region"][0, ..., 0].numpy() > 0
    assert np.allclose(probabilities[1, ..., 0][inside], 0.8) and np.allclose(probabilities[0, ..., 0][inside], 0.2)
    assert not probabilities[1, ..., 0][~inside].any()
    assert not probabilities[2:].any()


def test_a_frame_with_an_alarm_has_no_class_and_a_reason(cine: dict[str, Any]) -> None:
    predictor = predictor_without_run("teacher", None, CONFIG, torch.device("cpu"))
    probabilities, _, alarms = predictor.predict(cine, CONFIG, torch.device("cpu"))
    assert list(alarms) == [1]  # where there is no sector there is nothing to warn of
    assert "looks like liver" in alarms[1]
    assert not probabilities["teacher"][..., 1].any()


def test_the_students_alarms_win(cine: dict[str, Any]) -> None:
    predictor = predictor_without_run("teacher", None, CONFIG, torch.device("cpu"))
    said = {**cine, "student_alarms": ["seems to be a knee", None, None]}
    probabilities, _, alarms = predictor.predict(said, CONFIG, torch.device("cpu"))
    assert alarms == {0: "seems to be a knee"}
    assert not probabilities["teacher"][..., 0].any() and probabilities["teacher"][..., 1].any()


def test_who_is_asked_is_asked_about_liver_and_tissue(cine: dict[str, Any]) -> None:
    predictor = predictor_without_run("teacher", None, CONFIG, torch.device("cpu"))
    agreement = predictor.predict(cine, CONFIG, torch.device("cpu")).agreement
    inside = cine["region"][0, ..., 0].numpy() > 0
    for value, doubt in ((2, 0.2), (1, 0.8), (0, 1.0)):
        labels = np.full((160, 160, 3), value, np.uint8)
        assert np.allclose(agreement.uncertainty(labels, predictor.values)[..., 0][inside], doubt, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "value"),
    [
        ((ClassEntry(1, "gut", "#000000"), ClassEntry(7, "liver", "#ffffff")), 7),  # by its name
        ((ClassEntry(5, "foie", "#ffffff"), ClassEntry(6, "reste", "#000000", background=True)), 5),  # the only one
        ((ClassEntry(1, "gut", "#000000"), ClassEntry(2, "bone", "#ffffff")), None),
    ],
)
def test_what_direct_methods_find_is_looked_up_in_the_names_of_others(
    classes: tuple[ClassEntry, ...], value: int | None, cine: dict[str, Any]
) -> None:
    naming = {"stego": Naming(classes, "hand"), "teacher": direct_naming(CONFIG, "teacher")}
    alone = predictor_without_run("teacher", None, CONFIG, torch.device("cpu"))
    predictor = replace(alone, main="stego", naming=naming)
    sought = predictor._sought(CONFIG)
    assert [entry.value for entry in sought if not entry.background] == ([value] if value else [])
    assert len(sought) == (value is not None) + any(entry.background for entry in classes)


def test_a_direct_method_has_the_first_class_what_lies_in_it_and_the_rest() -> None:
    naming = direct_naming(CONFIG, "student")
    found = {entry.value: (entry.name, entry.background, entry.inside) for entry in naming.classes}
    assert found == {
        2: ("liver", False, None),
        3: ("mass", False, "liver"),
        4: ("vessel", False, "liver"),
        1: ("sector tissue", True, None),
    }
    vessels = direct_naming(load_config("tof_mra"), "flux").classes
    assert len(vessels) == 1 and not vessels[0].background
