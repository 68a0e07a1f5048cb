from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from features.student.liver.liver_fakes import FakeTrunk, fake_case, frame, stored

from medseg.errors import MedsegError
from medseg.features.student.liver import frames as module
from medseg.features.student.liver.frames import StudentFrames, chosen_frames, open_frames, store_frames, store_lessons
from medseg.features.student.liver.looks import coordinates, look_at
from medseg.features.teachers.liver import Lesson

REGION = np.ones((160, 160), bool)


def test_a_look_holds_echoes_cues_and_maps_of_three_strides() -> None:
    look = look_at(frame(), REGION, FakeTrunk())
    assert [m.shape for m in look.maps] == [(5, 48, 48), (6, 24, 24), (7, 12, 12)]
    assert look.echoes.shape == (64, 64)
    assert look.echoes[25:35, 25:40].mean() > look.echoes[2:8].mean()  # liver is brighter than what lies above
    assert look.edges is not None
    assert look.edges.shape[1:] == (48, 48)
    assert look_at(frame(), REGION, None).edges is None


def test_echoes_do_not_depend_on_the_gain_of_the_machine() -> None:
    dim, bright = (look_at(frame() * gain, REGION, None).echoes for gain in (0.5, 0.9))
    np.testing.assert_allclose(dim, bright, atol=0.05)


def test_places_run_from_near_left_to_deep_right() -> None:
    depth, lateral = coordinates(4)
    np.testing.assert_allclose(depth[:, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(lateral[0], [-0.75, -0.25, 0.25, 0.75])


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    sample, trunk = fake_case(3, empty=(1,)), FakeTrunk()
    frames = store_frames(tmp_path, sample, trunk, key="k")
    assert (len(frames), frames.numbers, frames.channels) == (2, [0, 2], [5, 6, 7])
    look = look_at(sample["image"][0, ..., 2].numpy(), sample["region"][0, ..., 2].numpy() > 0, trunk)
    again = frames.look(1)
    np.testing.assert_allclose(again.echoes, look.echoes, atol=2e-3)
    for found, wanted in zip(again.cues, look.cues, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(again.maps, look.maps, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)
    assert frames.probability.shape == frames.certain.shape == (2, 48, 48)
    assert not frames.region(0)[-2:].any()
    assert frames.region(0)[:40].all()
    assert pickle.loads(pickle.dumps(frames)).case_id == "case0"


def test_of_a_long_cine_thirty_two_frames_are_kept_evenly() -> None:
    region = np.ones((2, 2, 100), bool)
    region[..., :10] = False
    numbers = chosen_frames(region)
    assert len(numbers) == 32
    assert (numbers[0], numbers[-1]) == (10, 99)
    assert set(np.diff(numbers)) <= {2, 3}
    assert list(chosen_frames(region[..., 8:13])) == [2, 3, 4]


def test_a_case_without_a_sector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="must show a sector"):
        store_frames(tmp_path, fake_case(1, empty=(0,)), None, key="k")


def test_a_whole_case_is_taken_from_the_store_and_another_key_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, None, cases=1)
    monkeypatch.setattr(module, "look_at", lambda *_: pytest.fail("must not look again"))
    assert len(stored(tmp_path, None, cases=1)) == 1
    assert open_frames(tmp_path / "0", "another") is None


@pytest.mark.parametrize("name", ["echoes", "cues", "maps_1", "probability", "certain"])
@pytest.mark.parametrize("damage", ["cut", "removed", "short"])
def test_a_damaged_case_is_stored_anew(tmp_path: Path, name: str, damage: str) -> None:
    (frames,) = stored(tmp_path, FakeTrunk(), cases=1)
    path = frames.folder / f"{name}.npy"
    whole = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-50])
    else:
        np.save(path, np.load(path)[:1])
    assert open_frames(frames.folder, frames.key) is None
    stored(tmp_path, FakeTrunk(), cases=1)
    assert path.read_bytes() == whole


def test_new_lessons_leave_the_old_ones_alone(tmp_path: Path) -> None:
    (frames,) = stored(tmp_path, None, cases=1)
    lesson = Lesson(np.full((48, 48), 0.25, np.float32), np.zeros((48, 48), bool), 1.0)
    store_lessons(tmp_path / "new", [lesson, lesson])
    again = StudentFrames(frames.folder, tmp_path / "new")
    assert (again.probability == 0.25).all()
    assert not again.certain.any()
    assert frames.probability.max() > 0.5
    with pytest.raises(MedsegError, match=r"probability\.npy must be a whole array"):
        _ = StudentFrames(frames.folder, tmp_path / "none").probability
