"""The teacher's labels are right where they are sure, and doubtful where the rule is."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg.features.teachers.vessels import NO, UNKNOWN, YES, settle, teach
from medseg.phantoms.vessels import make_vessel_phantom
from medseg.prepare.vesselness import flux_maps, tissue_median

SPACING = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module", params=[{}, {"noise_sd": 0.2, "contrast": 2.0}], ids=["usual", "noisy"])
def taught(request):
    """Labels, truth and region of two phantoms; in the noisy one the scale of q lies at its noise floor."""
    phantom = make_vessel_phantom(seed=3, shape=(80, 80, 64), spacing=(0.5, 0.5, 0.6), **request.param)
    region = phantom.brain_mask > 0
    image = phantom.image.astype(np.float32)
    image /= tissue_median(image, region)
    maps = flux_maps(image, region, (0.5, 0.5, 0.6))
    assert maps.alarm is None
    labels = teach(image, region, maps.salience, maps.tubularity, (0.5, 0.5, 0.6), alarm=None)
    return labels, phantom.label > 0, region


def test_hardly_any_vessel_is_no_and_hardly_any_background_is_yes(taught):
    labels, vessel, region = taught
    assert (labels[vessel & region] == NO).mean() < 0.06
    assert (labels[vessel & region] == YES).mean() > 0.2
    assert vessel[labels == YES].mean() > 0.98
    assert (labels[~vessel & region] == NO).mean() > 0.95


def test_outside_the_region_nothing_is_known(taught):
    labels, _, region = taught
    assert not region.all() and np.all(labels[~region] == UNKNOWN)


def test_a_volume_with_an_alarm_is_an_example_of_no_vessels():
    region = np.zeros((8, 8, 8), bool)
    region[2:6] = True
    image = np.full(region.shape, 5, np.float32)
    labels = teach(image, region, image, image, SPACING, alarm="no vessels found")
    assert labels.dtype == np.uint8
    assert np.all(labels[region] == NO) and np.all(labels[~region] == UNKNOWN)


def _sheet_beside_tube() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, salience and tubularity of a tube along k at i = 10 and a sheet at i = 30, both salient."""
    image = np.ones((40, 24, 24), np.float32)
    image[9:12, 11:14] = 3
    image[29:31] = 3
    image = gaussian_filter(image, 0.5)
    salience = np.where(image > 1.5, np.float32(0.5), np.float32(0.02))
    tubularity = np.full(image.shape, 0.1, np.float32)
    tubularity[:20] = 0.5
    return image, salience, tubularity


def test_a_rejected_sheet_is_a_negative_and_a_rather_tubular_one_is_unknown():
    image, salience, tubularity = _sheet_beside_tube()
    region = np.ones(image.shape, bool)
    labels = teach(image, region, salience, tubularity, SPACING, alarm=None)
    assert labels[10, 12, 12] == YES and np.all(labels[28:32] == NO)
    tubularity[20:] = 0.27  # below the .29 of the core, above the .25 of doubt
    labels = teach(image, region, salience, tubularity, SPACING, alarm=None)
    assert labels[10, 12, 12] == YES and np.all(labels[29:31] == UNKNOWN)


def test_a_strong_speck_is_unknown_with_its_neighbours():
    image, salience, tubularity = _sheet_beside_tube()
    salience[29:31] = 0.02
    salience[30, 12, 12:15] = 0.8
    labels = teach(image, np.ones(image.shape, bool), salience, tubularity, SPACING, alarm=None)
    assert np.all(labels[29:32, 11:14, 11:16] == UNKNOWN) and (labels[25:] == UNKNOWN).sum() == 3 * 3 * 5


def test_a_faint_tube_is_unknown_and_a_fainter_one_is_no():
    image, salience, tubularity = _sheet_beside_tube()
    tubularity[:] = 0.5
    for q, label in ((0.25, UNKNOWN), (0.2, NO)):
        salience[29:31] = q
        salience[28], salience[31] = 0.02, 0.02
        labels = teach(image, np.ones(image.shape, bool), salience, tubularity, SPACING, alarm=None)
        assert np.all(labels[29:31] == label)


def test_what_the_student_is_sure_of_becomes_known_where_it_hangs_on_a_vessel():
    labels = np.array([YES, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, NO, UNKNOWN], np.uint8).reshape(8, 1, 1)
    probability = np.array([0, 0.95, 0.91, 0.5, 0.95, 0.04, 0.99, 0.01], np.float32).reshape(8, 1, 1)
    region = np.ones(labels.shape, bool)
    region[7] = False
    settled = settle(labels, probability, region)
    assert settled.ravel().tolist() == [YES, YES, YES, UNKNOWN, UNKNOWN, NO, NO, UNKNOWN]
    assert labels.ravel().tolist()[1] == UNKNOWN, "the labels given must not change"


def test_a_chain_over_corners_hangs_on_a_vessel_and_one_through_a_negative_does_not():
    labels = np.full((3, 3, 3), UNKNOWN, np.uint8)
    labels[0, 0, 0] = YES
    probability = np.full(labels.shape, 0.5, np.float32)
    probability[1, 1, 1] = probability[2, 2, 2] = 0.95
    region = np.ones(labels.shape, bool)
    assert settle(labels, probability, region)[2, 2, 2] == YES
    labels[1, 1, 1] = NO
    settled = settle(labels, probability, region)
    assert settled[2, 2, 2] == UNKNOWN and settled[1, 1, 1] == NO
