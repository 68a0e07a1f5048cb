"""This file tests that `classes.yaml` comes back as it was written, ours or a person's."""

from pathlib import Path

import pytest
import yaml

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry, Code, Naming, read_classes, write_classes

VESSEL = ClassEntry(1, "vessel", "#e6194b", (3,), Code("SCT", "59820001", "Blood vessel"))
LINE = '{value: 1, name: vessel, colour: "#e6194b", clusters: [3]}'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_classes_come_back_as_they_were_written(tmp_path: Path) -> None:
    naming = Naming((VESSEL, ClassEntry(7, "weißes: Zeug", "#00ff00")), "rules", ("because",))
    write_classes(tmp_path / "classes.yaml", naming)
    read = read_classes(tmp_path / "classes.yaml")
    assert read.classes == naming.classes
    assert read.named_by == "rules"
    assert read.empty_classes == ("weißes: Zeug",)


def test_the_file_follows_the_schema(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.yaml", Naming((VESSEL,), "rules"))
    code = {"scheme": "SCT", "value": "59820001", "meaning": "Blood vessel"}
    assert yaml.safe_load((tmp_path / "classes.yaml").read_text(encoding="utf-8")) == {
        "classes": [{"value": 1, "name": "vessel", "colour": "#e6194b", "clusters": [3], "code": code}],
        "named_by": "rules",
    }


def test_what_remains_and_what_lies_inside_come_back_and_stand_in_the_file_where_they_are_so(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    classes = (
        ClassEntry(2, "liver", "#e69f00", (0,)),
        ClassEntry(3, "mass", "#d55e00", inside="liver"),
        ClassEntry(1, "sector tissue", "#56b4e9", background=True),
    )
    write_classes(path, Naming(classes, "rules"))
    read = read_classes(path)
    assert read.classes == classes
    assert read.empty_classes == ("sector tissue",)  # a mass needs no cluster
    liver, mass, tissue = yaml.safe_load(path.read_text(encoding="utf-8"))["classes"]
    assert not {"background", "inside"} & liver.keys()
    assert mass["inside"] == "liver" and "background" not in mass
    assert tissue["background"] is True and "inside" not in tissue


def test_no_class_at_all_can_be_written(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.yaml", Naming((), "hand"))
    assert read_classes(tmp_path / "classes.yaml").classes == ()


def test_a_hand_written_file_counts_as_hand_and_needs_no_colour(tmp_path: Path) -> None:
    naming = read_classes(written(tmp_path, "classes:\n  - {value: 2, name: vein, clusters: [0, 4]}\n"))
    assert naming.named_by == "hand"
    assert naming.class_of_cluster == {0: 2, 4: 2}
    assert naming.classes[0].colour.startswith("#")


def test_the_lookup_table_names_every_voxel_and_refuses_foreign_clusters() -> None:
    naming = Naming((VESSEL,), "rules")
    assert naming.values(5).tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(MedsegError, match=r"0\.\.2, got 3"):
        naming.values(3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"classes:\n  - {LINE.replace('colour', 'color')}\n", "got 'color'; did you mean 'colour'"),
        (f"classes:\n  - {LINE}\nnamed_bi: rules\n", "did you mean 'named_by'"),
        (f"classes:\n  - {LINE}\nnamed_by: rule\n", "did you mean 'rules'"),
        (f"classes:\n  - {LINE}\n  - {LINE}\n", "each value once, got 1 twice"),
        (f"classes:\n  - {LINE}\n  - {LINE.replace('1,', '2,', 1).replace('vessel', 'vein')}\n", "each cluster once"),
        (f"classes:\n  - {LINE.replace('[3]', '3')}\n", "list of whole numbers, got 3"),
        (f"classes:\n  - {LINE.replace('[3]', '[true]')}\n", "list of whole numbers"),
        (f"classes:\n  - {LINE.replace('1,', '256,', 1)}\n", "1..255, got 256"),
        (f"classes:\n  - {LINE.replace('#e6194b', 'red')}\n", "colour of class 1"),
        (f"classes:\n  - {LINE[:-1]}, background: 1}}\n", "background of class 1"),
        (f"classes:\n  - {LINE[:-1]}, inside: 2}}\n", "must be the name of a class, got 2"),
        ("classes:\n  - {value: 1, clusters: [3]}\n", "must have the key 'name'"),
        (f"classes: {LINE}\n", "must be a list"),
        ("[1, 2\n", "readable YAML"),
        ("", "mapping of keys, got None"),
        (
            f"classes:\n  - {LINE[:-1]}, code: {{scheme: SCT, value: 59820001, meaning: x}}}}\n",
            "put its value in quotes",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(MedsegError) as caught:
        read_classes(written(tmp_path, text))
    assert words in str(caught.value)
    assert "classes.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(MedsegError, match=r"nowhere\.yaml must be a readable YAML file"):
        read_classes(Path("nowhere.yaml"))


def test_yaml_never_builds_objects(tmp_path: Path) -> None:
    marker = tmp_path / "built"
    text = f"classes: !!python/object/apply:os.mkdir ['{marker.as_posix()}']\n"
    with pytest.raises(MedsegError):
        read_classes(written(tmp_path, text))
    assert not marker.exists()
