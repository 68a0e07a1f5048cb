"""Cases are ranked by what deserves a look first, with the reasons in words."""

import math

import numpy as np
import pytest

from medseg.review.evidence import measure
from medseg.review.queue import NO_DOUBT, Evidence, rank_cases, robust_z


def case(name: str, **numbers) -> Evidence:
    usual = {"voxels": 900, "amount": 10.0, "components": 3, "uncertainty": 0.13, "uncertain_share": 0.01}
    return Evidence(name, **(usual | {"border_share": 0.1, "contrast": 3.0} | numbers))


def order(cases) -> list[str]:
    return [ranked.case_id for ranked in rank_cases(cases)]


def test_a_folder_of_one_good_case_has_no_doubt_and_none_at_all_has_no_rank():
    (only,) = rank_cases([case("one")])
    assert (only.rank, only.reasons, only.weight) == (1, (NO_DOUBT,), 0)
    assert rank_cases([]) == []


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"voxels": 0, "amount": 0.0, "components": None}, "The mask is empty"),
        ({"alarms": ("no bright vessels were found",)}, "raised an alarm: no bright vessels were found."),
        ({"uncertainty": 0.4, "uncertain_share": 0.3}, "at 30% of it most of its votes spoke against the mask"),
        ({"dice": {"kmeans": 0.42, "flux": 0.9}}, "drew a different mask (overlap from 0 to 1, Dice: kmeans 0.42)"),
        ({"amount": 1.5}, "Much less is marked than in the other cases of this folder: 1.50 ml, usually 10.0 ml."),
        ({"amount": 90.0}, "Much more is marked"),
        ({"components": 60}, "unusually many separate pieces: 60 pieces, usually 3."),
        ({"border_share": 0.8}, "80% of the mask's surface lies along the border of the region"),
        ({"contrast": 0.1}, "hardly differs from its surroundings"),
    ],
)  # fmt: skip
def test_each_kind_of_doubt_comes_first_and_says_why(numbers, words):
    cases = [case(f"c{n}") for n in range(6)]
    first, *others = rank_cases([*cases, case("odd", **numbers)])
    assert (first.case_id, first.rank) == ("odd", 1)
    assert words in first.reasons[0]
    assert all(other.reasons == (NO_DOUBT,) for other in others)


def test_the_strongest_reason_stands_first_and_empty_masks_and_alarms_before_what_is_measured():
    doubtful = case("doubtful", uncertainty=0.3, border_share=0.9, contrast=0.05)
    (found,) = rank_cases([doubtful])
    assert [reason.split()[0] for reason in found.reasons] == ["The", "90%", "The"]
    assert "hardly differs" in found.reasons[0] and "unsure" in found.reasons[2]
    assert order([case("alarm", alarms=("x",)), case("empty", voxels=0), case("unsure", uncertainty=0.9)]) == [
        "empty",
        "alarm",
        "unsure",
    ]


def test_usual_numbers_are_no_reason():
    cases = [case(f"c{n}", amount=10 + n, components=3 + n % 2, dice={"kmeans": 0.71}) for n in range(8)]
    assert all(ranked.reasons == (NO_DOUBT,) for ranked in rank_cases(cases))


def test_what_says_nothing_is_no_reason():
    quiet = case("c", dice={"untrained": 0.1, "kmeans": math.nan}, uncertainty=None, border_share=None, contrast=None)
    assert rank_cases([quiet])[0].reasons == (NO_DOUBT,)
    # Three others are too few to call one odd; areas are not compared with volumes.
    assert rank_cases([case("odd", amount=90.0), *(case(f"c{n}") for n in range(3))])[0].reasons == (NO_DOUBT,)
    mixed = [case("odd", amount=9000.0, unit="pixels"), *(case(f"c{n}") for n in range(9))]
    assert all(ranked.reasons == (NO_DOUBT,) for ranked in rank_cases(mixed))


def test_the_order_of_the_input_changes_nothing_and_equal_cases_come_by_uncertainty_then_name():
    cases = [case("b"), case("a"), case("z", uncertainty=0.2), case("unsure", uncertainty=0.6)]
    assert order(cases) == order(cases[::-1]) == ["unsure", "z", "a", "b"]


def test_robust_z_by_hand():
    # median 2, distances 1 0 0 1 -> MAD .5, SD .7413
    assert robust_z(5.0, [1.0, 2.0, 2.0, 3.0]) == pytest.approx(3 / 0.7413)
    assert robust_z(5.0, [1.0, 2.0, 3.0]) is None


def cube() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[8:12, 8:12, 8:12] = 1
    return labels, np.where(labels > 0, 100.0, 0.0).astype(np.float32)


def test_evidence_of_a_cube_by_hand():
    labels, image = cube()
    uncertainty = np.zeros(labels.shape, np.float32)
    uncertainty[7, 8:12, 8:12] = 0.8  # one of the six faces around it
    other = np.zeros_like(labels)
    other[8:12, 8:12, 8:10] = 1  # half of it
    found = measure("c", labels, image, uncertainty=uncertainty, others={"half": other})
    assert (found.voxels, found.components) == (64, 1)
    along = 64 + 6 * 16
    assert found.uncertain_share == pytest.approx(16 / along)
    assert found.uncertainty == pytest.approx(0.8 * 16 / along)
    assert found.dice["half"] == pytest.approx(2 / 3)
    assert found.border_share is None
    assert found.contrast == math.inf
    flat = measure("c", labels, np.zeros_like(image), others={})
    assert flat.contrast == 0


def test_a_mask_at_the_border_of_its_region_or_of_the_volume_is_seen():
    labels, image = cube()
    region = np.zeros(labels.shape, bool)
    region[8:] = True
    cut = measure("c", labels, image, region=region, others={})
    assert cut.border_share == pytest.approx(16 / 56)  # one face of a surface of 4**3 - 2**3 voxels
    inside = measure("c", labels, image, region=np.ones_like(region), others={})
    assert inside.border_share == 0
    labels[:] = 0
    labels[:4, 8:12, 8:12] = 1
    assert measure("c", labels, image, region=np.ones_like(region), others={}).border_share == pytest.approx(16 / 56)


def test_frames_are_no_neighbours_and_tissue_around_an_organ_is_no_finding():
    labels, image = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.float32)
    labels[...] = 1
    labels[8:12, 8:12] = 2
    region = np.ones(labels.shape, bool)
    found = measure("c", labels, image, region=region, others={}, background=[1], by_frame=True)
    assert (found.voxels, found.border_share) == (48, 0)
    assert measure("c", labels, image, region=region, others={}, background=[1]).border_share > 0
    assert measure("c", labels, image, others={}, background=[1, 2]).voxels == 0
