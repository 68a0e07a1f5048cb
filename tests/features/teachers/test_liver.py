"""The liver's teacher finds a painted liver, says what it is certain of, and tells frames that show none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medseg.features.teachers.liver import (
    CELLS,
    HAND_SET,
    Cues,
    Lesson,
    cue_logit,
    final_answer,
    frame_cues,
    leaning,
    likeness,
    log_intensity,
    network_view,
    next_lesson,
    prior_logit,
    standard_edges,
    teach_frame,
    teach_from_cues,
    walk,
    why_no_liver,
)

EVERYWHERE = np.ones((160, 160), bool)
ALL_CELLS = np.ones((CELLS, CELLS), bool)
V, U = np.meshgrid((np.arange(160) + 0.5) / 160, 2 * (np.arange(160) + 0.5) / 160 - 1, indexing="ij")
BOTTOM = 0.66 - 0.2 * U
"""Depth of the painted liver's lower border: deeper at the left."""
LIVER = (V > 0.15) & (V < BOTTOM) & (U < 0.85)


def _paint(seed: int = 0, gain: float = 1.0) -> np.ndarray:
    """A bright wall, a liver of even speckle, the bright line below it, and dim tissue behind."""
    grey = np.where(LIVER, 0.3, 0.12)
    grey[V < 0.12] = 0.6
    grey[np.abs(V - BOTTOM) < 0.03] = 0.9
    grey[(U > 0.85) & (V > 0.12)] = 0
    speckle = gaussian_filter(np.random.default_rng(seed).standard_normal(grey.shape), 1.0) * 3
    return np.clip(gain * grey * np.exp(0.25 * speckle), 0, 1).astype(np.float32)


def _on_cells(mask: np.ndarray) -> np.ndarray:
    return mask[1::3, 1::3][:CELLS, :CELLS] if mask.shape == (144, 144) else mask[_MIDDLE][:, _MIDDLE]


_MIDDLE = ((np.arange(CELLS) + 0.5) / CELLS * 160).astype(int)
TRUTH = _on_cells(LIVER)


def _edges(seed: int = 0) -> np.ndarray:
    """What a network might say: three tissues in noisy channels."""
    tissues = np.stack([TRUTH, _on_cells(V < 0.12), _on_cells(V > BOTTOM + 0.03)]).astype(float)
    smooth = gaussian_filter(tissues, (0, 1, 1))
    return standard_edges(smooth + 0.05 * np.random.default_rng(seed).standard_normal(smooth.shape))


def _dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * (one & two).sum() / (one.sum() + two.sum())


def _cues(**changed: np.ndarray) -> Cues:
    """Cues of a frame where nothing is seen."""
    none = np.full((CELLS, CELLS), -5, np.float32)
    nothing = Cues(none, none, 0 * none, 0 * none, np.ones((CELLS, CELLS), bool))
    return nothing._replace(**changed)


@pytest.fixture(scope="module")
def painted() -> tuple[np.ndarray, Cues, np.ndarray]:
    image = _paint()
    return image, frame_cues(image, EVERYWHERE), _edges()


def test_a_painted_liver_is_found_best_with_edges_and_better_than_by_the_prior_alone(painted):
    image, _, edges = painted
    prior = _dice(prior_logit() > 0, TRUTH)
    without = _dice(teach_frame(image, EVERYWHERE, None).probability > 0.5, TRUTH)
    with_edges = _dice(teach_frame(image, EVERYWHERE, edges).probability > 0.5, TRUTH)
    with_context = _dice(teach_frame(image, EVERYWHERE, edges, edges).probability > 0.5, TRUTH)
    assert prior < without < with_edges
    assert with_edges > 0.93 and with_context > 0.93


def test_certain_cells_are_mostly_right_and_lie_away_from_the_border(painted):
    image, _, edges = painted
    lesson = teach_frame(image, EVERYWHERE, edges)
    right = (lesson.probability > 0.5) == TRUTH
    assert lesson.probability.dtype == np.float32 and lesson.certain.dtype == bool
    assert 0.5 < lesson.certain.mean() < 1
    assert right[lesson.certain].mean() > 0.97 > right[~lesson.certain].mean()
    assert np.all(np.abs(lesson.probability - 0.5)[lesson.certain] > 0.15)
    assert 0.85 < lesson.agreement < 1


def test_settings_that_are_one_and_the_same_agree(painted):
    _, cues, _ = painted
    one = next_lesson(np.where(TRUTH, 1.0, 0.0), _cues(), None)
    assert one.agreement == 1 and one.certain.all()
    spread = [teach_from_cues(cues, None, None, replace(HAND_SET, offset_spread=s)) for s in (0.0, 2.0)]
    assert spread[0].agreement > spread[1].agreement and spread[0].certain.sum() > spread[1].certain.sum()


def test_gain_changes_nothing_that_is_seen():
    dim, bright = (frame_cues(_paint(gain=gain), EVERYWHERE) for gain in (0.5, 0.8))
    np.testing.assert_allclose(dim.behind, bright.behind, atol=0.35)
    assert np.median(np.abs(dim.grey - bright.grey)) < 0.02


def test_cues_lie_where_they_should(painted):
    _, cues, _ = painted
    behind, wall = cues.behind > 0.5, cues.wall > 0.4  # half of what was painted; speckle stays below
    below, wall_above = _on_cells((V > BOTTOM + 0.05) & (U < 0.7)), _on_cells((V < 0.1) & (U < 0.7))
    assert behind[below].mean() > 0.95 and not behind[TRUTH & _on_cells(V < BOTTOM - 0.1)].any()
    assert wall[wall_above].mean() > 0.95 and not wall[_on_cells((V > 0.2) & (V < 0.3))].any()
    assert (
        np.all(cues.flat[_on_cells((U > 0.93) & (V > 0.2))] > 0.9) and cues.flat[TRUTH & _on_cells(U < 0.6)].max() < 0.1
    )
    assert np.all(cues.behind[: int(0.3 * CELLS) - 1] == -5) and np.all(cues.wall[int(0.3 * CELLS) + 2 :] == -5)


@pytest.mark.parametrize("edges", [None, standard_edges(np.random.default_rng(0).random((3, 24, 24)))])
def test_a_black_frame_raises_an_alarm(edges):
    lesson = teach_frame(np.zeros((160, 160), np.float32), EVERYWHERE, edges)
    assert (lesson.probability > 0.5).mean() < 0.25 and why_no_liver(lesson, ALL_CELLS) is not None


def test_outside_the_picture_there_is_no_liver(painted):
    image, _, edges = painted
    region = U > -0.5
    for lesson in (teach_frame(image, region, edges, edges), teach_frame(image, region, None)):
        assert np.all(lesson.probability[~_on_cells(region)] == 0) and (lesson.probability > 0.5).any()
    nowhere = teach_frame(image, np.zeros_like(region), edges, edges)
    assert np.all(nowhere.probability == 0) and nowhere.agreement == 0


def test_cues_only_speak_against_liver_and_by_the_stated_weights():
    assert np.all(cue_logit(_cues()) == 0)
    ones = np.ones((CELLS, CELLS), np.float32)
    np.testing.assert_allclose(cue_logit(_cues(behind=ones)), -2.5 * 0.85, rtol=1e-6)
    np.testing.assert_allclose(cue_logit(_cues(wall=ones)), -2.5 * 0.95, rtol=1e-6)
    np.testing.assert_allclose(cue_logit(_cues(flat=ones)), -3)


def test_the_prior_is_deeper_at_the_left():
    inside = prior_logit() > 0
    assert 0.35 < inside.mean() < 0.6
    depth = [np.flatnonzero(inside[:, column]).max() for column in (CELLS // 5, CELLS // 2, 4 * CELLS // 5)]
    assert depth[0] >= depth[1] > depth[2]
    assert not inside[:3].any() and not inside[-3:].any()


def test_log_intensity_and_view_by_hand():
    image = np.full((160, 160), 0.4)
    image[:, 80:] = 0.0
    image[0, 0] = 0.8
    values = log_intensity(image, EVERYWHERE)
    np.testing.assert_allclose(values[5, [5, 100]], [np.log(1.05), np.log(0.05)])
    np.testing.assert_allclose(log_intensity(image, U < -0.9), values)
    view = network_view(image)
    assert view.dtype == np.float32 and view[0, 0] == 1 and view[5, 5] == 1 and view[5, 100] == 0
    image[:, :2] = 0.8
    np.testing.assert_allclose(network_view(image)[5, 5], 0.5)
    np.testing.assert_allclose(network_view(image, U > -0.95)[5, 5], 1)
    assert np.all(network_view(np.zeros((160, 160))) == 0)


def test_edges_are_standardised_and_interpolated_as_torch_does():
    maps = np.random.default_rng(0).normal(3, 2, (4, 24, 24)).astype(np.float32)
    standard = (maps - maps.mean((1, 2), keepdims=True)) / maps.std((1, 2), keepdims=True)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(standard)[None], (CELLS, CELLS), mode="bilinear")[0]
    found = standard_edges(maps)
    assert found.shape == (4, CELLS, CELLS) and found.dtype == np.float32
    np.testing.assert_allclose(found * 1.05, wanted.numpy(), atol=0.02)
    assert np.all(standard_edges(np.ones((3, 12, 12))) == 0)


def test_likeness_favours_what_looks_like_the_answer():
    context = np.zeros((2, CELLS, CELLS))
    context[0, :, :24], context[1, :, 24:] = 1, 1
    answer = np.full((CELLS, CELLS), 0.2)
    answer[10:20, 5:15] = 0.9
    mixed, none = likeness(context, np.stack([answer, 0 * answer]), np.ones((CELLS, CELLS), bool))
    # The rest is 1052 cells at the left and 1152 at the right, so its mean feature has these two cosines.
    left, right = (count / np.hypot(1052, 1152) for count in (1052, 1152))
    np.testing.assert_allclose(mixed[:, :24], 1 - left, atol=1e-5)
    np.testing.assert_allclose(mixed[:, 24:], -right, atol=1e-5)
    assert np.all(none == 0)


def test_the_context_adds_what_resembles_the_first_answer():
    alike = np.zeros((CELLS, CELLS), bool)
    alike[8:30, 4:44] = True
    alike[30:42, 4:20] = True  # below the prior
    context = standard_edges(np.stack([alike, ~alike]).astype(float))
    even = np.random.default_rng(0).standard_normal((3, CELLS, CELLS))
    without, with_context = (teach_from_cues(_cues(), even, seen).probability > 0.5 for seen in (None, context))
    assert _dice(with_context, alike) > _dice(without, alike) + 0.03


def test_later_lessons_lie_between_student_and_cues(painted):
    _, cues, edges = painted
    student = np.where(_on_cells(V < 0.9) & _on_cells(V > 0.15), 0.7, 0.1)
    lesson = next_lesson(student, cues, edges)
    behind = _on_cells(V > BOTTOM + 0.08) & (student > 0.5)
    inside = TRUTH & _on_cells(V < BOTTOM - 0.1) & _on_cells(U < 0.6)
    assert lesson.probability[behind].mean() < 0.55 < 0.65 < lesson.probability[inside].mean()
    assert lesson.certain[inside].mean() > 0.9 and not lesson.certain[behind].any()
    unhelped = next_lesson(student, _cues(), None)
    np.testing.assert_allclose(unhelped.probability[TRUTH], (0.7 + 1 / (1 + (3 / 7) ** 0.7)) / 2, rtol=1e-5)


def test_where_settings_disagree_nothing_is_certain_however_clear_their_mean():
    lesson = next_lesson(np.ones((CELLS, CELLS)), _cues(behind=np.full((CELLS, CELLS), 3.15, np.float32)), None)
    # The cues take 7.5 from the student's 6.9 logits: one says .40, the other 1.
    np.testing.assert_allclose(lesson.probability, 0.7, atol=0.01)
    assert not lesson.certain.any()


def test_the_last_walker_takes_specks_away_and_without_edges_nothing_changes(painted):
    _, cues, edges = painted
    student = np.where(TRUTH, 0.9, 0.1)
    student[20, 10], student[40, 30] = 0.1, 0.9
    answer = final_answer(student, cues, edges) > 0.5
    assert answer[20, 10] and not answer[40, 30] and _dice(answer, TRUTH) > 0.95
    np.testing.assert_array_equal(final_answer(student, cues, None), student)
    alone = walk(student, cues, None, gamma=0.03, beta=1.0, intensity_share=1.0)
    assert alone[20, 10] > 0.5 and _dice(alone > 0.5, TRUTH) > 0.9


def test_a_frame_and_its_mirror_lean_to_opposite_sides(painted):
    _, cues, edges = painted
    mirrored = Cues(*(np.ascontiguousarray(values[:, ::-1]) for values in cues))
    usual = leaning(cues, edges)
    assert usual > 0.02 and leaning(cues, None) > 0
    assert leaning(mirrored, edges[..., ::-1]) == pytest.approx(-usual, abs=1e-6)


def _lesson(area: float = 0.45, certain: float = 0.7, agreement: float = 0.95) -> Lesson:
    order = np.linspace(0, 1, CELLS * CELLS).reshape(CELLS, CELLS)
    return Lesson(np.where(order < area, 0.9, 0.1).astype(np.float32), order < certain, agreement)


@pytest.mark.parametrize(
    ("lesson", "words"),
    [
        (_lesson(area=0.18), "hardly anything looks like liver"),
        (_lesson(area=0.68), "nearly everything looks like liver"),
        (_lesson(agreement=0.8), "disagree"),
        (_lesson(certain=0.4), "certain about little"),
    ],
)
def test_alarms_name_what_is_wrong(lesson, words):
    assert words in str(why_no_liver(lesson, ALL_CELLS))


def test_a_frame_that_sees_a_part_of_the_sector_is_judged_by_that_part():
    half = np.indices((CELLS, CELLS))[1] < CELLS // 2
    lesson = Lesson(np.where(half & (np.indices(half.shape)[0] < 18), 0.9, 0.1).astype(np.float32), half, 0.95)
    assert (lesson.probability > 0.5).mean() < 0.2
    assert why_no_liver(lesson, half) is None
    assert "hardly anything" in str(why_no_liver(lesson, ALL_CELLS))
    assert "nothing is seen" in str(why_no_liver(lesson, ~ALL_CELLS))


def test_an_ordinary_frame_raises_no_alarm_and_features_of_place_alone_do(painted):
    _, cues, edges = painted
    ordinary = teach_from_cues(cues, edges, edges)
    assert why_no_liver(ordinary, ALL_CELLS) is None and why_no_liver(_lesson(), ALL_CELLS) is None
    liver = ordinary.probability > 0.5
    for cosine, told in ((0.1, True), (0.25, False)):  # of liver and rest, whose contrast is 2 (1 - cosine)
        half = np.arccos(cosine) / 2
        apart = np.stack([np.full(liver.shape, np.cos(half)), np.where(liver, 1, -1) * np.sin(half)])
        assert ("noise" in str(why_no_liver(ordinary, ALL_CELLS, apart))) == told
    assert why_no_liver(ordinary, ALL_CELLS, np.random.default_rng(0).standard_normal((20, CELLS, CELLS))) is None
