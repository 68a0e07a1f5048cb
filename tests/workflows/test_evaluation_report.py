"""This file tests scores of an evaluation on tables made by hand: names for clusters, rows, files, words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.config import load_config
from medseg.files import write_json
from medseg.naming.cards import ClusterCard
from medseg.naming.classes import ClassEntry, Naming, write_classes
from medseg.naming.effort import Effort, write_effort
from medseg.naming.matching import EXTRA
from medseg.scans.cases import Case
from medseg.scans.picture_masks import write_index_png
from medseg.scans.schemes import LabelScheme
from medseg.workflows import evaluation_naming
from medseg.workflows.evaluation_naming import PictureTables, label_classes, name_methods, patient_tables
from medseg.workflows.evaluation_report import Evaluated, Exhibit, write_report
from medseg.workflows.method_names import probe_naming

SCHEME = LabelScheme("test", ((1, "sky", "#3080e0"), (2, "sea", "#106060"), (3, "ship", "#c02020")))
FACTS = {"seen_in_training": 1}


def picture(n: int, table: list[list[int]], patient: str | None = None) -> PictureTables:
    # the linear probe tells values 0, 1 and 2 apart, and is always right
    linear = np.diag(np.sum(table, axis=0))[: len(table[0])]
    return PictureTables(f"p{n}", patient or f"p{n}", {"stego": np.array(table), "linear": linear})


# columns: background (never), sky, sea; cluster 0 is sky, 1 sea, 2 some of both
PICTURES = [picture(n, [[0, 8 - n, 1], [0, 1, 6], [0, 1, 2]]) for n in range(4)]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    cards = [vars(ClusterCard(n, 1, {"share": 0.3, "cases": 1.0})) for n in range(3)]
    table = [[0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 1, 0]]
    classes = [{"value": value, "name": name, "colour": colour} for value, name, colour in SCHEME.classes]
    write_json(tmp_path / "stego" / "cards.json", {"cards": cards, "label_table": table, "classes": classes})
    write_classes(tmp_path / "linear" / "classes.yaml", probe_naming(3, ()))
    return {"stego": tmp_path / "stego", "linear": tmp_path / "linear"}


def config(*overrides: str):
    return load_config("pictures_bank", list(overrides))


def test_background_is_a_class_only_where_labels_hold_it() -> None:
    assert label_classes(PICTURES, SCHEME).values == (1, 2, 3)
    with_background = [*PICTURES, picture(9, [[3, 1], [0, 0], [0, 0]])]
    assert label_classes(with_background, None).values == (0, 1, 2)
    assert label_classes(with_background, None).names == {0: "background", 1: "class 1", 2: "class 2"}


def test_ignored_classes_are_no_columns() -> None:
    ignoring = LabelScheme("test", SCHEME.classes, ignored=frozenset({3}))
    assert label_classes(PICTURES, ignoring).values == (1, 2)


def test_pictures_of_a_patient_are_added() -> None:
    pictures = [picture(0, [[0, 1], [0, 2], [0, 3]], "b"), picture(1, [[0, 1, 5], [0, 0, 0], [0, 0, 0]], "a")]
    pictures.append(picture(2, [[0, 10], [0, 20], [0, 30]], "b"))
    tables = patient_tables(pictures, "stego", label_classes(pictures, None))
    assert tables.tolist() == [[[1, 5], [0, 0], [0, 0]], [[11, 0], [22, 0], [33, 0]]]


def test_every_naming_gives_each_cluster_its_column(folders: dict[str, Path]) -> None:
    methods, absent = name_methods(PICTURES, label_classes(PICTURES, SCHEME), folders, config(), True)
    found = {(method.name, method.naming): method.columns.tolist() for method in methods}
    assert found[("stego", "training_labels")] == [0, 1, 1]  # the last by majority
    assert sorted(found[("stego", "oracle")]) == [0, 1, 2]  # one to one, though no pixel is a ship
    assert found[("linear", "training_labels")] == [EXTRA, 0, 1]
    assert found[(evaluation_naming.MOST_FREQUENT, "oracle")] == [1]
    assert absent == [("stego", "label-free")]


def test_rows_by_training_labels_know_how_many_cases_were_labelled(folders: dict[str, Path]) -> None:
    content = json.loads((folders["stego"] / "cards.json").read_text())
    write_json(folders["stego"] / "cards.json", content | {"labelled_cases": 7})
    write_effort(folders["linear"], Effort({"cases": 9}))
    methods, _ = name_methods(PICTURES, label_classes(PICTURES, SCHEME), folders, config(), True)
    assert {(method.name, method.naming): dict(method.effort.counts) for method in methods} == {
        ("stego", "training_labels"): {"cases": 7},
        ("stego", "oracle"): {},
        ("linear", "training_labels"): {"cases": 9},
        (evaluation_naming.MOST_FREQUENT, "oracle"): {},
    }


def test_a_method_with_classes_of_its_own_is_scored_by_their_names(folders: dict[str, Path], tmp_path: Path) -> None:
    clicked = Naming((ClassEntry(1, "sea", "#106060", (0,)), ClassEntry(2, "sky", "#3080e0", (1, 2))), "clicks")
    write_classes(tmp_path / "clicks" / "classes.yaml", clicked)
    write_effort(tmp_path / "clicks", Effort({"clicks": 4}, 0.5))
    tables = [PictureTables(p.case_id, p.patient, {"clicks": p.tables["stego"]}) for p in PICTURES]
    classes = label_classes(tables, SCHEME)
    (found, _), _ = name_methods(tables, classes, {"clicks": tmp_path / "clicks"}, config(), True)
    assert (found.naming, found.effort) == ("clicks", Effort({"clicks": 4}, 0.5))
    assert found.columns.tolist() == [1, 0, 0]


def test_rules_count_only_where_the_labels_have_their_class(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = label_classes(PICTURES, SCHEME)

    def namings(named: str, has_names: bool) -> dict[str, list[int]]:
        def by_rules(folder: Path, naming: object, *, clusters: int) -> Naming:
            return Naming((ClassEntry(1, named, "#ff0000", (2,)),), "rules")

        monkeypatch.setattr(evaluation_naming, "name_method", by_rules)
        given = config("naming.source=rules", "naming.rules=tof_mra")
        return {m.naming: m.columns.tolist() for m in name_methods(PICTURES, classes, folders, given, has_names)[0]}

    assert namings("Sea", True)["rules"] == [EXTRA, EXTRA, 1]
    assert "rules" not in namings("vessel", True)
    assert namings("vessel", False)["rules"] == [EXTRA, EXTRA, 0]


def test_without_training_labels_that_row_is_missing(folders: dict[str, Path]) -> None:
    content = json.loads((folders["stego"] / "cards.json").read_text())
    write_json(folders["stego"] / "cards.json", {"cards": content["cards"]})
    _, absent = name_methods(PICTURES, label_classes(PICTURES, SCHEME), folders, config(), True)
    assert absent == [("stego", "label-free"), ("stego", "training_labels")]


def test_the_report_writes_scores_by_hand_and_all_files(folders: dict[str, Path], tmp_path: Path) -> None:
    out, size = tmp_path / "out", (6, 8)
    clusters = np.indices(size)[1] // 3
    shown = Exhibit("p0", np.full((*size, 3), 99, np.uint8), np.where(clusters == 2, -1, clusters + 1), {
        "stego": clusters, "linear": clusters,
    })  # fmt: skip
    source = tmp_path / "p0.png"
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(source)
    for name in ("stego", "linear"):
        write_index_png(out / "export" / "clusters" / f"p0_{name}.png", clusters.astype(np.uint8), {})
    found = Evaluated(
        PICTURES[:1], [shown], folders, config(), SCHEME, {"p0": Case("p0", source, "p0")}, out / "export"
    )
    answer = write_report(found, out, facts=FACTS, dark=True)
    row = next(row for row in answer["rows"] if (row["method"], row["naming"]) == ("stego", "training_labels"))
    assert row["accuracy"] == pytest.approx(16 / 19)
    assert row["mean_iou"] == pytest.approx((8 / 11 + 8 / 11) / 2)  # nobody said ship, and there is none
    assert answer["published"]["final/linear/Accuracy"] == 100
    with (out / "evaluation.csv").open() as stream:
        assert {line["class"] for line in csv.DictReader(stream)} == {"all", "sky", "sea", "ship"}
    for name in ("stego_oracle", "stego_training_labels", "linear_training_labels", "most_frequent_class_oracle"):
        assert (out / "confusion" / f"{name}.png").is_file()
    assert (out / "panels" / "p0.png").is_file()
    exported = np.asarray(Image.open(out / "export" / "p0_stego.png"))
    assert np.array_equal(exported, np.array([1, 2, 2])[clusters])
    text = "\n".join(answer["lines"])
    assert "1 pictures of 1 patients, 1 of them seen in training" in text
    assert "label-free" in text and "oracle †" in text and "effort" in text
    assert "no test can be significant" in text


def test_several_patients_have_intervals(folders: dict[str, Path], tmp_path: Path) -> None:
    found = Evaluated(PICTURES, [], folders, config(), SCHEME, {}, None)
    write_report(found, tmp_path / "out", facts=FACTS, dark=False)
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    low, high = content["rows"][0]["intervals"]["accuracy"]
    assert low < content["rows"][0]["accuracy"] < high
    assert content["patients"] == 4
    (test,) = content["tests"]["training_labels"]
    assert (test["first"], test["second"], test["pairs"]) == ("stego", "linear", 4)
