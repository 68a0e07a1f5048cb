"""Schemes of known data sets: numbers by hand, from what the data sets publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.scans.readers import read_labels
from medseg.scans.shipped_schemes import load_scheme, scheme_names, shipped_scheme, stored_as_values


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_has_classes_of_its_own_value_name_and_colour(name: str) -> None:
    scheme = shipped_scheme(name)
    values, names, colours = zip(*scheme.classes, strict=True)
    assert list(values) == list(range(1, len(values) + 1))
    assert len(set(names)) == len(set(colours)) == len(values)
    meant = {*(scheme.values or {}).values(), *(scheme.colours or {}).values()}
    assert set(values) <= meant <= {-1, 0, *values}


def test_cocostuff_has_all_182_ids_in_27_supercategories() -> None:
    scheme = shipped_scheme("cocostuff27")
    assert scheme.values is not None
    assert sorted(scheme.values) == [*range(182), 255]
    assert scheme.values[255] == -1
    names = {value: name for value, name, _ in scheme.classes}
    # Line number in the published labels.txt, less one; 11, 25 and 90 are things that COCO took out.
    fine = {0: "person", 8: "vehicle", 11: "outdoor", 25: "accessory", 70: "furniture", 90: "indoor", 91: "textile"}
    fine |= {100: "floor", 119: "water", 129: "furniture stuff", 160: "furniture stuff", 162: "plant", 181: "solid"}
    assert {stored: names[scheme.values[stored]] for stored in fine} == fine
    things = [stored for stored in range(182) if scheme.values[stored] <= 12]
    assert things == list(range(91))


def test_parts_of_cocostuff_leave_the_rest_unlabelled() -> None:
    whole, stuff, three = (shipped_scheme(f"cocostuff{n}") for n in (27, 15, 3))
    assert whole.values and stuff.values and three.values
    assert all(stuff.values[n] == max(whole.values[n] - 12, -1) or whole.values[n] <= 12 for n in range(182))
    assert {stuff.values[n] for n in range(91)} == {-1}
    assert [name for _, name, _ in three.classes] == ["sky", "plant", "ground"]
    assert [three.values[n] for n in (156, 123, 148, 0, 255)] == [1, 2, 3, -1, -1]


def test_cityscapes_has_27_classes_from_id_7_on() -> None:
    scheme = shipped_scheme("cityscapes")
    assert scheme.values == {**dict.fromkeys([*range(7), 255], -1), **{stored: stored - 6 for stored in range(7, 34)}}


def test_three_classes_of_potsdam_are_pairs_of_its_six(tmp_path: Path) -> None:
    six, three = shipped_scheme("potsdam6"), shipped_scheme("potsdam3")
    assert six.values and three.values and six.colours and three.colours
    assert [three.values[n] for n in range(6)] == [1, 2, 3, 3, 1, 2]
    by_id = {value: three.values[stored] for stored, value in six.values.items()}
    assert three.colours == {colour: by_id[value] for colour, value in six.colours.items()}
    Image.fromarray(np.array([[[255, 255, 0], [0, 255, 0]]], np.uint8)).save(tmp_path / "l.png")
    assert read_labels(tmp_path / "l.png", three).flatten().tolist() == [1, 3]
    assert read_labels(tmp_path / "l.png", six).flatten().tolist() == [5, 4]


def test_colours_of_suim_are_its_codes() -> None:
    colours = shipped_scheme("suim").colours
    assert colours == {(r, g, b): (4 * r + 2 * g + b) // 255 for r in (0, 255) for g in (0, 255) for b in (0, 255)}


def test_stored_class_values_have_zero_for_unlabelled() -> None:
    assert stored_as_values(shipped_scheme("cocostuff3")).values == {0: -1, 1: 1, 2: 2, 3: 3}


def test_unknown_scheme_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match=r"must be one of cityscapes, .* or a classes.yaml, got cocostuff28"):
        load_scheme("cocostuff28")
    (tmp_path / "classes.yaml").write_text('classes: [{value: 2, name: a, colour: "#010203"}]', encoding="utf-8")
    assert load_scheme(tmp_path / "classes.yaml").classes == ((2, "a", "#010203"),)
