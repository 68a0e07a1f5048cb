"""Every pixel of a picture gets its likeliest class, the background included."""

import numpy as np
import pytest

from medseg.config import load_config
from medseg.naming.rulebook import load_rules
from medseg.reconstruction.pictures import FINDERS, likeliest, picture_shares
from medseg.workflows.reconstruction import FOUND_BY


def test_the_likeliest_class_wins_and_the_rest_is_background():
    classes = np.zeros((2, 1, 4, 1), np.float32)
    classes[:, 0, :, 0] = [[0.5, 0.2, 0.3, 0.0], [0.2, 0.5, 0.3, 0.1]]
    labels = likeliest(picture_shares(classes, np.zeros((3, 1, 4, 1), np.float32), ()), (3, 7))
    assert labels[0, :, 0].tolist() == [3, 7, 0, 0]


def test_the_crf_gives_a_speck_to_the_colour_around_it():
    picture = np.zeros((3, 24, 24, 1), np.float32)
    picture[:, :, 12:] = 0.9
    classes = np.zeros((1, 24, 24, 1), np.float32)
    classes[0, :, 12:] = 0.9
    classes[0, 5, 5] = 0.6  # a speck in the dark half
    plain = likeliest(picture_shares(classes, picture, ()), (1,))
    smooth = likeliest(picture_shares(classes, picture, (("crf", {"iterations": 5.0}),)), (1,))
    assert plain[5, 5, 0] == 1
    assert smooth[5, 5, 0] == 0
    assert smooth[12, 18, 0] == 1


def test_borders_are_as_fine_as_the_grid_they_are_brought_to():
    classes = np.zeros((1, 1, 2, 1), np.float32)
    classes[0, 0, :, 0] = [0.1, 0.7]
    shares = picture_shares(classes, np.zeros((3, 1, 2, 1), np.float32), ())

    def finer(share):
        return np.interp(np.linspace(0, 1, 5), [0, 1], share[0, 0, :, 0])[None, None, :, None]

    assert likeliest(shares, (1,), finer)[0, :, 0].tolist() == [0, 0, 0, 1, 1]


@pytest.fixture
def finders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both finders replaced: a mass in the left column, a vessel in the upper row, of what is organ there."""
    asked: list[str] = []

    def finds(name, where):
        def find(image, region, organ, *, share=0.5):
            asked.append(name)
            found = np.zeros(organ.shape)
            found[where] = 1
            return found * region * (organ > share)

        return find

    monkeypatch.setitem(FINDERS, "masses", finds("masses", np.s_[:, 0]))
    monkeypatch.setitem(FINDERS, "vessels", finds("vessels", np.s_[0]))
    return asked


def carved(steps, *, region=None, inside=None):
    """Labels of tissue, liver, mass and vessel (1 to 4) in 3 x 3 pixels, the last row of which is no liver."""
    classes = np.zeros((4, 3, 3, 1), np.float32)
    classes[1], classes[1, 2] = 0.8, 0.3
    classes[0] = 1 - classes[1]
    places = {"masses": (2, 1), "vessels": (3, 1)} if inside is None else inside
    image = np.full((1, 3, 3, 1), 0.5, np.float32)
    shares = picture_shares(classes, image, steps, region=region, inside=places)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)
    return likeliest(shares, (1, 2, 3, 4))[..., 0].tolist()


@pytest.mark.usefixtures("finders")
def test_what_lies_in_an_organ_is_carved_out_of_it_and_nothing_else():
    assert carved((("masses", {}),)) == [[3, 2, 2], [3, 2, 2], [1, 1, 1]]
    assert carved((("masses", {}), ("vessels", {}))) == [[3, 4, 4], [3, 2, 2], [1, 1, 1]]
    assert carved((("masses", {"share": 0.9}),)) == [[2, 2, 2], [2, 2, 2], [1, 1, 1]]


def test_nothing_is_carved_that_was_not_asked_for(finders):
    plain = [[2, 2, 2], [2, 2, 2], [1, 1, 1]]
    assert carved(()) == plain
    assert carved((("masses", {}),), inside={}) == plain
    assert finders == []


@pytest.mark.usefixtures("finders")
def test_finders_see_the_region():
    region = np.ones((1, 3, 3, 1), np.uint8)
    region[:, 0] = 0
    assert carved((("masses", {}),), region=region) == [[2, 2, 2], [3, 2, 2], [1, 1, 1]]


def test_every_class_inside_another_has_a_step_that_finds_it():
    inside = {rule.entry.name for rule in load_rules("liver_ultrasound") if rule.entry.inside}
    assert inside == set(FOUND_BY)
    assert set(FOUND_BY.values()) == set(FINDERS)
    load_config("liver_ultrasound", ["reconstruct.refine=[frames, masses, vessels]"])
