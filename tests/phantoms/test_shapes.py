"""Shapes of simulated bodies: signed distances by hand."""

import numpy as np
import pytest

from medseg.phantoms.shapes import FAR, Both, Ellipsoid, Liver, Points, Slab, Tubes


def _points(*positions: tuple[float, float, float]) -> Points:
    x, y, z = np.array(positions, np.float32).T
    return Points(x, y, z, z)


def test_a_round_ellipsoid_is_a_ball():
    ball = Ellipsoid((1, 2, 3), (5, 5, 5))
    assert ball(_points((1, 2, 3.5), (6, 2, 3), (1, 2, 10), (90, 2, 3))) == pytest.approx([-4.5, 0, 2, FAR], abs=0.01)


def test_an_ellipsoid_turns_from_x_towards_z():
    flat = Ellipsoid((0, 0, 0), (10, 2, 5), angle=np.pi / 2)
    inside = flat(_points((0, 0, 9), (9, 0, 0))) < 0
    assert inside.tolist() == [True, False]


def test_a_tube_narrows_from_end_to_end():
    tube = Tubes((((0, 0, 0), (10, 0, 0), 3.0, 1.0),))
    found = tube(_points((0, 0, 3), (10, 0, 3), (5, 0, 0), (5, 2, 0), (50, 0, 0)))
    assert found == pytest.approx([0, 2, -2, 0, FAR], abs=1e-5)


def test_a_slab_lies_between_its_depths():
    assert Slab(2, 6)(_points((0, 0, 1), (0, 0, 4), (0, 0, 7))) == pytest.approx([1, -2, 1])


def test_both_needs_both_up_to_the_margin():
    one, other = Slab(0, 10), Ellipsoid((0, 0, 0), (5, 5, 5))
    points = _points((0, 0, 2), (0, 0, 6), (0, 0, -2))
    assert (Both(one, other)(points) < 0).tolist() == [True, False, False]
    assert (Both(one, other, margin=2.0)(points) < 0).tolist() == [True, True, False]


def test_the_liver_is_bounded_by_wall_dome_and_visceral_surface():
    liver = Liver(20, (0, 0, 40, 80), (60, 20), 0.0, 0.0, (0.0, 0.0), 0.0)
    inside = liver(_points((0, 0, 60), (0, 0, 10), (0, 0, 130), (70, 0, 60), (50, 0, 60))) < 0
    assert inside.tolist() == [True, False, False, False, True]
