"""This file tests that rules name the right clusters, say why, and would rather name none than guess."""

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.naming.cards import ClusterCard
from medseg.naming.rulebook import load_rules, name_clusters

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
