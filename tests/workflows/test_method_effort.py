"""This file tests what runs and manifests say of the effort behind a method."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.config import load_config
from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, Naming
from medseg.naming.effort import NO_EFFORT, Effort, write_effort
from medseg.workflows.naming import effort_of_method, name_method, write_cards
from medseg.workflows.predictors import predictor_without_run
from medseg.workflows.scoring import _source_of_compared

VESSEL = ClassEntry(1, "vessel", "#ff0000", (0,))
BY_RULES, BY_LABELS = Naming((VESSEL,), "rules"), Naming((VESSEL,), "training_labels")


def test_cards_count_the_labelled_cases_and_rules_do_not_owe_them_anything(tmp_path: Path) -> None:
    cases = np.repeat([0, 1, 2, 3], 5)
    labels = np.where(np.isin(cases, (1, 3)), np.arange(20) % 2, -1)
    values = {"brightness": np.linspace(0, 1, 20), "salience": np.zeros(20)}
    write_cards(tmp_path, np.arange(20) % 3, values, cases, clusters=3, labels=labels)
    assert effort_of_method(tmp_path, BY_LABELS) == Effort({"cases": 2})
    assert effort_of_method(tmp_path, BY_RULES) == NO_EFFORT
    named = name_method(tmp_path, load_config("tof_mra", ["naming.source=training_labels"]).naming, clusters=3)
    assert effort_of_method(tmp_path, named) == Effort({"cases": 2})
    write_cards(tmp_path, np.arange(20) % 3, values, cases, clusters=3, labels=None)
    assert effort_of_method(tmp_path, BY_LABELS) == NO_EFFORT


def test_what_stands_beside_a_method_counts_first(tmp_path: Path) -> None:
    assert effort_of_method(tmp_path, BY_LABELS) == NO_EFFORT
    write_effort(tmp_path, Effort({"clicks": 5}, 0.5))
    assert effort_of_method(tmp_path, BY_LABELS) == Effort({"clicks": 5}, 0.5)
    (tmp_path / "effort.json").write_text("{}")
    with pytest.raises(MedsegError, match=r"effort\.json must be a JSON object with counts"):
        effort_of_method(tmp_path, BY_LABELS)


def test_a_rule_without_a_run_is_label_free() -> None:
    predictor = predictor_without_run("flux", None, load_config("tof_mra"), torch.device("cpu"))
    assert predictor.source_of("flux") == {"named_by": "rules", "effort": {"counts": {}, "minutes": None}}


def test_compared_methods_have_sources_of_their_own() -> None:
    effort = {"counts": {"cases": 3}, "minutes": None}
    manifest = {"named_by": "rules", "compared_sources": {"probe": {"named_by": "training_labels", "effort": effort}}}
    assert _source_of_compared(manifest, "probe") == {"named_by": "training_labels", "effort": effort}
    # Older results say it of the main method only.
    assert _source_of_compared({"named_by": "rules"}, "linear") == {"named_by": "training_labels"}
    assert _source_of_compared({"named_by": "rules"}, "kmeans") == {"named_by": "rules"}
