"""This file tests that rules name the right clusters, say why, and would rather name none than guess."""

from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.cards import FACTS, ClusterCard
from medseg.naming.rulebook import load_rules, name_clusters, verdicts

RULES = Path(__file__).parents[2] / "medseg" / "naming" / "rules"

ONE_VESSEL = """
classes:
  - name: vessel
    value: 1
    prefer: mean_salience
    conditions:
      median_salience: {min: 0.3}
      share: {max: 0.5}
"""


def card(
    cluster: int, *, voxels: int = 100, salience: float = 0.0, brightness: float = 1.0, share: float = 0.2
) -> ClusterCard:
    facts = {"share": share, "cases": 1.0}
    for statistic in ("mean", "median", "p10", "p90"):
        facts |= {f"{statistic}_salience": salience, f"{statistic}_brightness": brightness}
    return ClusterCard(cluster, voxels, facts if voxels else {"share": 0.0, "cases": 0.0})


def rules_of(tmp_path: Path, text: str) -> tuple:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return load_rules(path)


@pytest.mark.parametrize("path", sorted(RULES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_rule_file_loads_by_name(path: Path) -> None:
    assert load_rules(path.stem) == load_rules(path)
    assert all(rule.entry.code for rule in load_rules(path.stem))


def test_the_tof_rules_name_bright_tubes_and_leave_tissue() -> None:
    cards = [card(0), card(1, salience=0.9, brightness=3.0), card(2, voxels=0), card(3, salience=0.05, brightness=1.4)]
    naming = name_clusters(cards, load_rules("tof_mra"))
    assert naming.class_of_cluster == {1: 1}
    assert naming.named_by == "rules"
    assert naming.classes[0].name == "vessel"
    assert naming.reasons[0].startswith("cluster 1 is vessel: median salience 0.9 (at least 0.3)")


def test_a_volume_without_vessels_gets_an_empty_class_and_a_line() -> None:
    naming = name_clusters([card(0), card(1, salience=0.2, brightness=2.0)], load_rules("tof_mra"))
    assert naming.class_of_cluster == {}
    assert naming.empty_classes == ("vessel",)
    assert "its mask stays empty: nearest is cluster 1, but median salience 0.2 is below 0.3" in naming.reasons[0]


def test_no_used_cluster_at_all_is_said_too() -> None:
    naming = name_clusters([card(0, voxels=0)], load_rules("tof_mra"))
    assert naming.reasons == ("no cluster is vessel: none is left",)


def test_where_one_is_wanted_the_preferred_fact_decides(tmp_path: Path) -> None:
    cards = [card(0, salience=0.5), card(1, salience=0.8), card(2, salience=0.9, share=0.7)]
    naming = name_clusters(cards, rules_of(tmp_path, ONE_VESSEL))
    assert naming.class_of_cluster == {1: 1}
    assert "of those that fit it has the highest mean salience" in naming.reasons[0]


def test_where_several_are_allowed_all_that_fit_carry_the_class(tmp_path: Path) -> None:
    text = ONE_VESSEL.replace("prefer: mean_salience", "several: true")
    cards = [card(0, salience=0.5), card(1, salience=0.8), card(2, salience=0.1)]
    naming = name_clusters(cards, rules_of(tmp_path, text))
    assert naming.class_of_cluster == {0: 1, 1: 1}
    assert naming.values(3).tolist() == [1, 1, 0]


def test_a_bound_is_part_of_what_fits_and_nan_is_not(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, ONE_VESSEL)
    assert name_clusters([card(0, salience=0.3, share=0.5)], rules).class_of_cluster == {0: 1}
    assert name_clusters([card(0, salience=0.3, share=0.51)], rules).class_of_cluster == {}
    assert name_clusters([card(0, salience=float("nan"))], rules).class_of_cluster == {}


def test_the_first_class_takes_a_cluster_from_the_next(tmp_path: Path) -> None:
    second = ONE_VESSEL.split("classes:")[1].replace("vessel", "vein").replace("value: 1", "value: 2")
    naming = name_clusters([card(0, salience=0.5), card(1, salience=0.8)], rules_of(tmp_path, ONE_VESSEL + second))
    assert naming.class_of_cluster == {1: 1, 0: 2}


def test_a_fact_that_was_not_measured_is_an_error(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, ONE_VESSEL.replace("median_salience", "median_depth"))
    with pytest.raises(MedsegError, match=r"measured facts .*, got median_depth"):
        name_clusters([card(0)], rules)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("prefer:", "prefers:", "did you mean 'prefer'"),
        ("median_salience", "median_saliense", "did you mean 'median_salience'"),
        ("prefer: mean_salience", "prefer: mean_salienc", "did you mean 'mean_salience'"),
        ("{min: 0.3}", "{minimum: 0.3}", "did you mean 'min'"),
        ("{min: 0.3}", "{min: high}", "must have numbers"),
        ("{min: 0.3}", "{}", "must have numbers"),
        ("{min: 0.3}", "{min: 0.3, max: 0.1}", "min <= max"),
        ("    prefer: mean_salience\n", "", "either `several: true` or `prefer`, got neither"),
        ("prefer: mean_salience", "{prefer: a}", "readable YAML"),
        ("name: vessel", "title: vessel", "got 'title'"),
        ("value: 1", "value: 0", "1..255"),
        ("classes:", "clases:", "did you mean 'classes'"),
    ],
)
def test_a_mistake_in_a_rule_is_named_with_the_nearest_right_word(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    with pytest.raises(MedsegError) as caught:
        rules_of(tmp_path, ONE_VESSEL.replace(old, new, 1))
    assert words in str(caught.value)
    assert "rules.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_rules_list_the_shipped_ones() -> None:
    with pytest.raises(MedsegError, match=r"naming rules must be one of .*tof_mra.* got tof_mrb"):
        load_rules("tof_mrb")


LIVER = """
classes:
  - {name: liver, value: 2, several: true, conditions: {mean_salience: {min: 0.5}}}
  - {name: mass, value: 3, inside: liver}
  - {name: sector tissue, value: 1, background: true}
"""


def test_background_takes_the_rest_and_what_lies_inside_has_no_cluster(tmp_path: Path) -> None:
    cards = [card(0), card(1, salience=0.9), card(2, voxels=0), card(3, salience=0.6)]
    naming = name_clusters(cards, rules_of(tmp_path, LIVER))
    assert naming.class_of_cluster == {1: 2, 3: 2, 0: 1}
    assert [entry.background for entry in naming.classes] == [False, False, True]
    assert "mass has no cluster: it is found inside liver" in naming.reasons
    assert "cluster 0 is sector tissue: no other class has it" in naming.reasons


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{name: liver, value: 2}", "must have one of conditions, background or inside, got none"),
        ("{name: liver, value: 2, inside: kidney}", "must be another class there, got 'kidney'"),
        ("{name: liver, value: 2, background: true, inside: liver}", "got background and inside"),
        ("{name: liver, value: 2, background: 3}", "background of rule 1 .* must be true or false, got 3"),
    ],
)
def test_a_rule_says_in_one_way_what_its_class_is(tmp_path: Path, rule: str, words: str) -> None:
    with pytest.raises(MedsegError, match=words):
        rules_of(tmp_path, f"classes: [{rule}]")


def test_one_verdict_a_cluster_says_its_name_how_sure_and_why(tmp_path: Path) -> None:
    text = ONE_VESSEL.replace("prefer: mean_salience", "several: true")
    cards = [card(0, salience=0.6), card(1, salience=0.33), card(2, salience=0.24), card(3, salience=0.9, share=0.51)]
    found = verdicts([*cards, card(4, voxels=0)], rules_of(tmp_path, text))
    assert [verdict.cluster for verdict in found] == [0, 1, 2, 3, 4]
    assert [verdict.name for verdict in found] == ["vessel", "vessel", None, None, None]
    # .6 is twice the bound .3 (.5 of the larger); its share .2 is .6 below the bound .5, which is farther.
    # .24 is a fifth below .3; .51 is above .5 by .01, a fiftieth of it.
    expected = [0.5, 0.03 / 0.33, 0.2, 0.01 / 0.51, 1.0]
    assert [verdict.sure for verdict in found] == pytest.approx(expected)
    assert found[0].reason.startswith("cluster 0 is vessel: median salience 0.6 (at least 0.3)")
    assert found[2].reason == "cluster 2 has no name: nearest is vessel, but median salience 0.24 is below 0.3"
    assert found[4].reason == "cluster 4 has no name: no sampled voxel is in it"


def test_a_rule_for_one_that_two_fit_closely_says_so(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, ONE_VESSEL)
    cards = [card(0, salience=0.76), card(1, salience=0.8), card(2, salience=0.5), card(3)]
    reason = name_clusters(cards, rules).reasons[0]
    assert "highest mean salience (0.8), but cluster 0 (0.76) fits nearly as well: look at both" in reason
    found = verdicts(cards, rules)
    assert [verdict.name for verdict in found] == [None, "vessel", None, None]
    assert found[1].sure == pytest.approx(0.05) and found[1].reason == reason
    assert found[0].sure == pytest.approx(0.05)
    assert "it fits vessel, but cluster 1 has the higher mean salience (0.8, here 0.76)" in found[0].reason
    apart = name_clusters([card(0, salience=0.5), card(1, salience=0.8)], rules).reasons[0]
    assert "look at both" not in apart


def test_what_an_earlier_rule_nearly_took_is_not_sure(tmp_path: Path) -> None:
    text = """
classes:
  - {name: vessel, value: 1, several: true, conditions: {median_salience: {min: 0.3}}}
  - {name: bright, value: 2, several: true, conditions: {mean_brightness: {min: 1.0}}}
  - {name: rest, value: 3, background: true}
"""
    cards = [card(0, salience=0.285, brightness=4.0), card(1, brightness=0.5), card(2, salience=0.9)]
    found = verdicts(cards, rules_of(tmp_path, text))
    assert [verdict.name for verdict in found] == ["bright", "rest", "vessel"]
    assert [verdict.sure for verdict in found] == pytest.approx([0.05, 0.5, 2 / 3])
    assert found[1].reason == "cluster 1 is rest: no other class has it"


def test_verdicts_and_names_are_the_same_for_any_cards(tmp_path: Path) -> None:
    rules = (*rules_of(tmp_path, ONE_VESSEL), *load_rules("liver_ultrasound_six")[2:])
    random = np.random.default_rng(0)
    for _ in range(50):
        cards = [
            ClusterCard(n, 10, dict.fromkeys(FACTS, 0.5) | {fact: float(random.uniform(0, 1)) for fact in FACTS})
            for n in range(6)
        ]
        named = {k: entry.name for entry in name_clusters(cards, rules).classes for k in entry.clusters}
        found = verdicts(cards, rules)
        assert {verdict.cluster: verdict.name for verdict in found if verdict.name} == named
        assert all(0 <= verdict.sure <= 1 for verdict in found)
