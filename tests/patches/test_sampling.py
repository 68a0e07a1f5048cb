"""Which patches are picked for training."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.patches.sampling import SCHEMES, farthest_points, kmeans_strata, pick, sample_locations
from medseg.patches.slicing import PatchGeometry, cut

SHAPE = (40, 36, 20)
GEOMETRY = PatchGeometry("axial", 8)


@pytest.fixture
def scan():
    """A region that is a box, with one vessel along k in it and one salient voxel outside."""
    rng = np.random.default_rng(0)
    region = np.zeros(SHAPE, bool)
    region[4:36, 4:32, 2:18] = True
    salience = rng.random(SHAPE).astype(np.float32) * 0.15
    salience[20:22, 10:12] = 0.9
    salience[0, 0] = 5
    image = rng.normal(1, 0.1, SHAPE).astype(np.float32)
    return region, salience, image


def draw(scan, **changes):
    settings = {"per_case": 60, "salient_fraction": 0.5, "scheme": "all", "scheme_fraction": 1.0, "empty": "keep"}
    settings |= {"seed": 0} | changes
    region, salience, image = scan
    geometry = settings.pop("geometry", GEOMETRY)
    return sample_locations(SHAPE, geometry, region, salience, image=image, **settings)


def is_empty(scan, location, geometry=GEOMETRY):
    region, salience, _ = scan
    return not (cut(salience[None], location, geometry) * cut(region[None], location, geometry) > 0.2).any()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_windows_lie_in_the_volume_touch_the_region_and_are_there_once(scan, plane):
    geometry = PatchGeometry(plane, 8)
    locations = draw(scan, geometry=geometry)
    assert len(locations) == 60
    assert len(np.unique(locations, axis=0)) == 60
    assert locations.tolist() == sorted(locations.tolist())
    assert all(cut(scan[0][None], location, geometry).any() for location in locations)
    assert (locations >= 0).all()
    slices, height, width = {"axial": (20, 40, 36), "coronal": (36, 40, 20), "sagittal": (40, 36, 20)}[plane]
    assert (locations.max(axis=0) <= (slices - 1, height - 8, width - 8)).all()


def test_the_salient_share_is_centred_on_salient_voxels_of_the_region(scan):
    def centres(share):
        locations = draw(scan, per_case=40, salient_fraction=share)
        rows, columns = locations[:, 1] + 4, locations[:, 2] + 4
        return ((rows >= 20) & (rows < 22) & (columns >= 10) & (columns < 12)).sum()

    assert centres(1.0) == 40
    assert 20 <= centres(0.5) < 26
    assert centres(0.0) < 6


def test_salient_voxels_are_drawn_in_proportion_to_clipped_salience():
    shape = (400, 8, 1)
    salience = np.zeros(shape, np.float32)
    salience[:200, 4, 0], salience[200:, 4, 0] = 0.25, 40.0
    drawn = sample_locations(
        shape, PatchGeometry("axial", 1), None, salience, per_case=60, salient_fraction=1.0, seed=3
    )
    strong = (drawn[:, 1] >= 200).mean()
    assert 0.7 < strong < 0.9  # 1 / (1 + .25), without replacement


def test_without_anything_salient_all_windows_are_uniform_in_the_region(scan):
    region, _, image = scan
    locations = draw((region, np.zeros(SHAPE, np.float32), image))
    assert len(locations) == 60
    assert len(draw((region, None, image))) == 60


@pytest.mark.parametrize(("empty", "least", "most"), [("drop", 0, 0), (0.1, 6, 6), ("keep", 7, 60)])
def test_empty_patches_are_dropped_kept_or_limited_to_a_share(scan, empty, least, most):
    locations = draw(scan, empty=empty)
    assert len(locations) == 60
    assert least <= sum(is_empty(scan, location) for location in locations) <= most


def test_drop_without_anything_salient_and_an_empty_region_give_no_patches(scan):
    region, salience, image = scan
    assert draw((region, salience * 0, image), empty="drop").shape == (0, 3)
    assert draw((region & False, salience, image), scheme="CFX").shape == (0, 3)


def test_a_volume_with_fewer_windows_gives_what_it_has():
    locations = sample_locations((3, 3, 4), GEOMETRY, None, None, per_case=50, salient_fraction=0.5, seed=0)
    assert locations.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]


def test_five_are_the_corners_and_the_centre_of_every_slice():
    locations = sample_locations(
        (20, 31, 2), PatchGeometry("axial", 8), None, None, per_case=99, salient_fraction=0, scheme="five", seed=0
    )
    corners = [(0, 0), (0, 23), (6, 11), (12, 0), (12, 23)]
    assert locations.tolist() == [[k, row, column] for k in range(2) for row, column in corners]
    some = sample_locations(
        (20, 31, 9), PatchGeometry("axial", 8), None, None, per_case=7, salient_fraction=0, scheme="five", seed=0
    )
    assert len(some) == 7
    small = sample_locations(
        (8, 8, 1), PatchGeometry("axial", 8), None, None, per_case=7, salient_fraction=0, scheme="five", seed=0
    )
    assert small.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "five"])
def test_a_scheme_keeps_its_share_and_the_same_seed_gives_the_same_patches(scan, scheme):
    fraction = 1.0 if scheme == "all" else 0.25
    pool = {tuple(location) for location in draw(scan).tolist()}
    picked = draw(scan, scheme=scheme, scheme_fraction=fraction)
    assert len(picked) == round(60 * fraction)
    assert {tuple(location) for location in picked.tolist()} <= pool
    assert np.array_equal(picked, draw(scan, scheme=scheme, scheme_fraction=fraction))


def test_another_scheme_fraction_or_seed_gives_other_patches(scan):
    draws = [draw(scan, scheme=scheme, scheme_fraction=0.25) for scheme in SCHEMES if scheme != "all"]
    draws += [draw(scan, scheme="R", scheme_fraction=0.5), draw(scan, scheme="R", scheme_fraction=0.25, seed=1)]
    draws += [draw(scan), draw(scan, seed=1)]
    assert len({picked.tobytes() for picked in draws}) == len(draws)


def test_farthest_points_spread_as_the_slow_rule_says():
    points = np.random.default_rng(1).random((50, 3))
    picked = farthest_points(points, 12, np.random.default_rng(2)).tolist()
    for count in range(1, 12):
        gaps = [min(np.sum((point - points[one]) ** 2) for one in picked[:count]) for point in points]
        assert picked[count] == int(np.argmax(gaps))
    assert sorted(farthest_points(np.zeros((4, 2)), 4, np.random.default_rng(0))) == [0, 1, 2, 3]


def test_strata_are_the_groups_that_are_there():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    truth = np.repeat([0, 1, 2], 30)
    strata = kmeans_strata(centres[truth] + rng.normal(0, 0.5, (90, 2)), 3, rng)
    assert len(set(zip(truth, strata, strict=True))) == 3
    assert len(kmeans_strata(np.zeros((2, 2)), 8, rng)) == 2


def test_strata_are_picked_from_in_proportion_to_their_size():
    latent = np.repeat(np.arange(8.0)[:, None] * 100, [40, 20, 20, 20, 20, 20, 10, 10], axis=0)
    locations = np.random.default_rng(0).integers(0, 99, (160, 3))
    for scheme in ("C", "CF", "CFX"):
        picked = pick(scheme, locations, latent, 16, np.random.default_rng(1))
        assert len(set(picked.tolist())) == 16
        assert np.unique(latent[picked], return_counts=True)[1].tolist() == [4, 2, 2, 2, 2, 2, 1, 1]
        rounded = pick(scheme, locations, latent, 9, np.random.default_rng(1))
        assert np.unique(latent[rounded], return_counts=True)[1].tolist() == [2, 1, 1, 1, 1, 1, 1, 1]


def test_positions_spread_in_the_plane_and_latents_in_the_latent():
    locations = np.array([[0, 0, 0], [200, 0, 1], [0, 0, 50], [1, 0, 99]])
    latent = np.array([[0.0], [9.0], [0.1], [0.2]])
    for seed in range(8):
        positions = pick("CFW", locations, latent, 3, np.random.default_rng(seed)).tolist()
        assert not {0, 1} <= set(positions)
        assert 1 in pick("CFWX", locations, latent, 2, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scheme": "SOTA"}, "patches.scheme must be one of all, R, C, CF, CFW, CFX, CFWX, five, got 'SOTA'"),
        ({"scheme": "R", "scheme_fraction": 5}, r"patches.scheme_fraction must be in \(0, 1\], got 5"),
        ({"scheme": "R", "scheme_fraction": 0}, "patches.scheme_fraction must be in"),
        ({"scheme": "all", "scheme_fraction": 0.5}, "patches.scheme_fraction must be 1 with patches.scheme all"),
        ({"per_case": 0}, "patches.per_case must be at least 1"),
        ({"salient_fraction": 1.5}, "patches.salient_fraction"),
        ({"empty": "throw"}, "patches.empty must be drop, keep or a share"),
        ({"empty": 1.5}, "patches.empty must be drop, keep or a share"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(scan, wrong, words):
    with pytest.raises(MedsegError, match=words):
        draw(scan, **wrong)
