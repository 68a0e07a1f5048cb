"""Liver phantoms: pictures, labels, marks and facts agree with each other, and seeds and settings do what they say."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.phantoms.liver import make_liver_phantom
from medseg.prepare.sector import Sector

SMALL = {"shape": (144, 192)}
GOOD = {"liver_grey": 0.35, "gain_db": (0.0,) * 5, "contact_db": (0.0,) * 5, "noise_db": -40.0}
"""A good machine in good hands."""


@pytest.fixture(scope="module")
def several():
    return [make_liver_phantom(seed=seed, **SMALL) for seed in range(8)]


def test_the_same_seed_gives_the_same_pixels_and_another_one_others():
    first, again, other = (make_liver_phantom(seed=seed, **SMALL) for seed in (5, 5, 6))
    for name in ("pictures", "labels", "vessels", "overlays"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert first.facts == again.facts
    assert not np.array_equal(first.labels, other.labels)


def test_labels_are_zero_exactly_outside_the_sector_that_the_facts_state(several):
    for phantom in several:
        sector = Sector.from_dict(phantom.facts["sector"])
        inside = sector.mask(phantom.labels.shape[1:])
        # Single pixels on the border fall to either side by rounding.
        assert np.mean((phantom.labels[0] > 0) != inside) < 0.001
        assert 0.25 < inside.mean() < 0.95
        assert set(np.unique(phantom.labels)) <= {0, 1, 2, 3}


def test_the_picture_is_black_outside_the_sector_but_for_the_marks(several):
    for phantom in several:
        outside = (phantom.labels[0] == 0) & (phantom.overlays[0] == 0)
        assert phantom.pictures[0][outside].max() == 0
        assert phantom.pictures[0][phantom.labels[0] > 0].mean() > 5


def test_the_marks_are_every_pixel_that_they_changed():
    with_marks, without = (make_liver_phantom(seed=11, overlays=wanted, **SMALL) for wanted in (True, False))
    changed = (with_marks.pictures[0] != without.pictures[0]).any(axis=-1)
    marked = with_marks.overlays[0] > 0
    assert changed.any() and not (changed & ~marked).any()
    # A mark may have the colour of what lies below it, such as black in the grey bar.
    assert changed.sum() > 0.6 * marked.sum()
    assert not without.overlays.any() and without.facts["marks"] == []
    assert np.array_equal(with_marks.labels, without.labels)


def test_every_phantom_has_a_liver_of_a_usual_size_that_is_in_one_piece(several):
    shares = [(phantom.labels >= 2).sum() / (phantom.labels > 0).sum() for phantom in several]
    assert min(shares) > 0.08 and max(shares) < 0.75 and max(shares) - min(shares) > 0.1
    for phantom in several:
        pieces, count = ndimage.label(phantom.labels[0] >= 2)
        # A rib's shadow may cut it in two.
        assert np.sort(np.bincount(pieces.ravel())[1:])[-2:].sum() > 0.95 * (pieces > 0).sum(), count


def test_vessels_lie_in_the_liver_and_are_dark():
    phantom = make_liver_phantom(seed=3, probe="curved", mass="none", overlays=False, shape=(288, 384), **GOOD)
    vessels, liver = phantom.vessels[0] > 0, phantom.labels[0] == 2
    assert vessels.sum() > 100 and not (vessels & ~liver).any()
    inner = ndimage.binary_erosion(vessels)
    grey = phantom.pictures[0].mean(axis=-1)
    assert grey[inner].mean() < 0.6 * np.median(grey[liver & ~vessels])


@pytest.mark.parametrize(("kind", "sign"), [("dark", -1), ("bright", 1), ("cyst", -1)])
def test_a_mass_is_as_bright_as_its_kind_says(kind, sign):
    phantom = make_liver_phantom(seed=2, probe="curved", mass=kind, overlays=False, **SMALL, **GOOD)
    mass, liver = phantom.labels[0] == 3, phantom.labels[0] == 2
    assert mass.sum() > 40
    ring = ndimage.binary_dilation(mass, iterations=6) & liver & (phantom.vessels[0] == 0)
    grey = phantom.pictures[0].mean(axis=-1)
    assert sign * (grey[ndimage.binary_erosion(mass)].mean() - grey[ring].mean()) > 8
    assert not (make_liver_phantom(seed=2, probe="curved", mass="none", **SMALL).labels == 3).any()


@pytest.mark.parametrize("scene", ["thyroid", "muscle", "water"])
def test_a_phantom_without_a_liver_has_neither_liver_nor_mass(scene):
    phantom = make_liver_phantom(seed=4, scene=scene, **SMALL)
    assert set(np.unique(phantom.labels)) == {0, 1} and not phantom.vessels.any()
    assert phantom.facts["scene"] == scene and phantom.pictures.max() > 60


def test_what_lies_deep_in_shadow_is_no_liver():
    lit = make_liver_phantom(seed=2, probe="curved", mass="none", **SMALL, **GOOD)
    dark = make_liver_phantom(
        seed=2, probe="curved", mass="none", **SMALL, **GOOD | {"contact_db": (60.0, 60, 0, 0, 0)}
    )
    lost = (lit.labels[0] == 2) & (dark.labels[0] == 1)
    assert lost.sum() > 200 and not ((dark.labels[0] == 2) & (lit.labels[0] != 2)).any()
    assert np.argwhere(lost)[:, 1].mean() < np.argwhere(dark.labels[0] == 2)[:, 1].mean()
    assert dark.pictures[0][lost].mean() < 0.4 * lit.pictures[0][lost].mean()


def test_in_a_cine_liver_and_speckle_slide_together_and_come_back():
    cine = make_liver_phantom(seed=2, probe="curved", frames=8, overlays=False, shape=(288, 384), **GOOD, looks=1)
    centres = np.array([ndimage.center_of_mass(label >= 2)[1] for label in cine.labels])
    assert len(cine.labels) == 8 and np.argmax(centres) in (1, 2, 3) and np.argmin(centres) in (5, 6, 7)
    assert abs(centres[4] - centres[0]) < 0.2 * np.ptp(centres)
    # Speckle half a breath later is at home again; a quarter later it is elsewhere.
    inner = ndimage.binary_erosion((cine.labels >= 2).all(axis=0), iterations=8)
    grey = cine.pictures.mean(axis=-1)
    sharp = grey - np.stack([ndimage.gaussian_filter(frame, 6) for frame in grey])
    alike = [np.corrcoef(sharp[0][inner], sharp[n][inner])[0, 1] for n in (4, 2)]
    assert alike[0] > 0.7 and alike[1] < 0.4


def test_planes_of_a_sweep_change_little_by_little():
    sweep = make_liver_phantom(seed=2, probe="curved", frames=9, sweep_mm=3.0, **SMALL)
    middle = sweep.labels[4] >= 2
    overlap = [((plane >= 2) & middle).sum() / ((plane >= 2) | middle).sum() for plane in sweep.labels]
    assert overlap[4] == 1 and overlap[3] > overlap[0] and overlap[5] > overlap[8] and min(overlap) < 0.97


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe": "round"},
        {"size": "huge"},
        {"scene": "head"},
        {"mass": "grey"},
        {"shape": (40, 300)},
        {"frames": 0},
        {"sweep_mm": 0.0},
    ],
)
def test_impossible_wishes_are_refused_in_one_line(wrong):
    # Names go past the type checker, as a user's do.
    make = getattr(make_liver_phantom, "__wrapped__", make_liver_phantom)
    with pytest.raises(MedsegError, match="must") as caught:
        make(seed=0, **wrong)
    assert "\n" not in str(caught.value)
