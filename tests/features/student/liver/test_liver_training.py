from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from features.student.liver.liver_fakes import (
    FakeTrunk,
    fake_case,
    inside,
    one_process,
    small_settings,
    stored,
    train_in_processes,
)
from lightning_fabric import Fabric

from medseg.errors import MedsegError
from medseg.features.backbones import VolumeBackbone
from medseg.features.student.liver import course as module
from medseg.features.student.liver.course import LiverCourse, LiverSettings
from medseg.features.student.liver.frames import StudentFrames, store_lessons
from medseg.features.student.liver.student import LiverStudent
from medseg.features.student.storage import format_of
from medseg.features.student.training import train_student
from medseg.features.teachers.liver import Lesson
from medseg.files import hash_file

WHOLE = (slice(None), slice(None), slice(None))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[StudentFrames]:
    return stored(tmp_path_factory.mktemp("store"), FakeTrunk())


@pytest.fixture(scope="module")
def plain_frames(tmp_path_factory: pytest.TempPathFactory) -> list[StudentFrames]:
    return stored(tmp_path_factory.mktemp("plain"), None)


def run(
    folder: Path, frames: list[StudentFrames], settings: LiverSettings | None = None, trunk: FakeTrunk | None = None
) -> LiverStudent:
    learnt = LiverCourse(frames, settings or small_settings(), trunk=trunk)
    return train_student(learnt, run_dir=folder, fabric=one_process(), seed=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, frames: list[StudentFrames]) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(folder, frames, trunk=FakeTrunk())
    return folder


def hashes(folder: Path) -> dict[str, str]:
    kept = [*sorted(folder.glob("round_*/*")), *sorted(folder.glob("student.*")), folder / "metrics.csv"]
    return {str(path.relative_to(folder)): hash_file(path) for path in kept}


class Stop(Exception):
    """Stands for a kill."""


def test_a_run_ends_with_the_product_and_keeps_its_cell_network(trained: Path) -> None:
    first, second, product, final = (
        LiverStudent.load(trained / name, FakeTrunk()) for name in ("round_1", "round_2", "round_3", ".")
    )
    assert final.fingerprint == product.fingerprint
    assert first.cells is not None and second.cells is not None and product.cells is not None
    assert first.echo is None and second.echo is None and product.echo is not None
    same, other = (torch.equal(product.cells.answer.weight, s.cells.answer.weight) for s in (second, first))
    assert same and not other
    assert (first.dim, product.dim) == (33, 49)
    with (trained / "metrics.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["round"]) for row in rows] == [1] * 3 + [2] * 3 + [3] * 4
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == rates[3] == rates[6] == pytest.approx(2e-3)
    assert final.card["cases"] == 2
    assert final.card["frames"] == 4
    assert not (trained / "labels").exists()
    assert format_of(trained) == "medseg-liver-student/1"


@pytest.mark.parametrize("draws", [3, 5, 8])
def test_a_killed_training_goes_on_bit_by_bit(
    tmp_path: Path, trained: Path, frames: list[StudentFrames], draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    plain = LiverCourse.draw

    def stops(self: LiverCourse, seeds: Any) -> Any:
        calls.append(1)
        if len(calls) > draws:
            raise Stop
        return plain(self, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(LiverCourse, "draw", stops)
        with pytest.raises(Stop):
            run(tmp_path, frames, trunk=FakeTrunk())
    run(tmp_path, frames, trunk=FakeTrunk())
    assert hashes(tmp_path) == hashes(trained)


@pytest.mark.parametrize("name", ["store_lessons", "final_answer"])
def test_a_kill_between_rounds_leaves_nothing_half_done(
    tmp_path: Path, trained: Path, frames: list[StudentFrames], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*args: Any, **more: Any) -> Any:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stops)
        with pytest.raises(Stop):
            run(tmp_path, frames, trunk=FakeTrunk())
    run(tmp_path, frames, trunk=FakeTrunk())
    assert hashes(tmp_path) == hashes(trained)


def test_without_a_trunk_all_rounds_are_of_the_echo_network(tmp_path: Path, plain_frames: list[StudentFrames]) -> None:
    student = run(tmp_path, plain_frames)
    assert student.cells is None
    assert student.dim == 17
    assert not (tmp_path / "round_3").exists()
    assert LiverStudent.load(tmp_path, None).fingerprint == student.fingerprint
    assert LiverStudent.load(tmp_path, FakeTrunk()).fingerprint == student.fingerprint  # it needs none


def test_it_learns_what_the_toys_show(tmp_path: Path, frames: list[StudentFrames]) -> None:
    settings = small_settings(rounds=1, steps=30, product_steps=1)
    run(tmp_path, frames, settings, FakeTrunk())
    student = LiverStudent.load(tmp_path / "round_1", FakeTrunk())
    sample = fake_case(1, seed=99)
    found = student.maps(sample)["student_probability"][0, ..., 0].numpy() > 0.5
    reference = inside(-0.1)
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.8
    assert 2 * (found & ~reference).sum() / (found.sum() + (~reference).sum()) < 0.4


def test_the_next_round_learns_what_the_last_one_answered(
    tmp_path: Path, frames: list[StudentFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = module.Lesson(np.full((48, 48), 0.75, np.float32), np.ones((48, 48), bool), 1.0)
    monkeypatch.setattr(module, "next_lesson", lambda *_: lesson)
    monkeypatch.setattr(module, "final_answer", lambda *_: np.full((48, 48), 0.25, np.float32))
    targets: list[float] = []
    plain = LiverCourse.draw

    def notes(self: LiverCourse, seeds: Any) -> Any:
        batch = plain(self, seeds)
        targets.append(float(batch.target[batch.weight == 1].median()))
        return batch

    monkeypatch.setattr(LiverCourse, "draw", notes)
    run(tmp_path, frames, trunk=FakeTrunk())
    assert targets[3:6] == [0.75] * 3
    assert targets[6:] == [0.25] * 4
    assert set(targets[:3]) & {0.25, 0.75} == set()


def test_frames_with_an_alarm_teach_nothing(tmp_path: Path, frames: list[StudentFrames]) -> None:
    alarmed = [StudentFrames(case.folder) for case in frames]
    alarmed[0].alarms = ["no liver there", None]
    alarmed[1].alarms = ["no liver there", "no liver there"]
    learnt = LiverCourse(alarmed, small_settings(), trunk=FakeTrunk())
    assert learnt.card(1)["frames"] == 1
    learnt.begin(1, 0, before=None, labels=None)
    assert len(learnt.draw([(0, n) for n in range(5)]).target) == 5
    alarmed[0].alarms = ["no liver there"] * 2
    with pytest.raises(MedsegError, match="must have a frame with a liver to learn from"):
        LiverCourse(alarmed, small_settings(), trunk=FakeTrunk())


@pytest.mark.parametrize(
    ("before", "after", "is_said"),
    [(0.40, 0.42, False), (0.40, 0.46, True), (0.40, 0.34, True), (0.58, 0.58, True), (0.54, 0.54, False)],
)
def test_a_liver_that_drifts_or_grows_too_large_is_said(
    before: float,
    after: float,
    is_said: bool,
    tmp_path: Path,
    plain_frames: list[StudentFrames],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lessons(share: float) -> list[Lesson]:
        liver = np.zeros((48, 48), np.float32)
        liver.flat[: round(share * liver.size)] = 1
        return [Lesson(liver, np.ones(liver.shape, bool), 1.0)] * 2

    for name, share in (("before", before), ("after", after)):
        for n in range(len(plain_frames)):
            store_lessons(tmp_path / name / str(n), lessons(share))
    learnt = LiverCourse(plain_frames, small_settings(), trunk=None)
    learnt.begin(2, 0, before=None, labels=tmp_path / "before")
    with caplog.at_level("INFO"):
        learnt._say_drift(2, tmp_path / "after", one_process())
    said = f"round 2: liver in {100 * after:.0f}% of the sector, {100 * before:.0f}% before"
    assert caplog.messages[0] == said
    assert (len(caplog.messages) == 2) == is_said
    assert not is_said or "look at some masks" in caplog.messages[1]


def test_what_changes_a_step_refuses_the_checkpoint(tmp_path: Path, plain_frames: list[StudentFrames]) -> None:
    settings = small_settings(rounds=1, steps=1)
    run(tmp_path, plain_frames, settings)
    for changed in (small_settings(rounds=2, steps=1), small_settings(rounds=1, steps=1, learning_rate=1.0)):
        with pytest.raises(MedsegError, match="same settings, seed"):
            run(tmp_path, plain_frames, changed)
    with pytest.raises(MedsegError, match="same settings, seed"):
        run(tmp_path, plain_frames[:1], settings)
    run(tmp_path, plain_frames, small_settings(rounds=1, steps=1, log_every=7))


def test_maps_cover_the_grid_frame_by_frame_and_are_zero_without_a_sector(trained: Path) -> None:
    student = LiverStudent.load(trained, FakeTrunk())
    assert isinstance(student, VolumeBackbone)
    sample = fake_case(3, seed=5, empty=(1,))
    found = student.maps(sample)
    features, probability = found["student_features"], found["student_probability"]
    assert features.shape == (48, 160, 160, 3) and features.dtype == torch.float16
    assert probability.shape == (1, 160, 160, 3)
    assert not features[..., 1].any() and not probability[..., 1].any()
    assert features[..., 2].any()
    assert not probability[:, -12:].any()  # outside the region
    assert 0 <= probability.min() < probability.max() <= 1
    alone = {**sample, "image": sample["image"][..., 2:], "region": sample["region"][..., 2:]}
    torch.testing.assert_close(student.maps(alone)["student_probability"][..., 0], probability[..., 2])


def test_features_are_standardised_over_the_training_frames(trained: Path) -> None:
    student = LiverStudent.load(trained, FakeTrunk())
    samples = [fake_case(2, seed=seed) for seed in (0, 10)]
    values = []
    for sample in samples:
        features = student.features_of_box(sample | student.maps(sample), WHOLE)
        assert (features[-1] == 48**0.5).all()
        values.append(features[:-1, sample["region"][0] > 0])
    found = torch.cat(values, dim=1)
    alive = student.std != 1
    assert alive.sum() > 24
    assert found[alive].mean(1).abs().max() < 0.15
    assert 0.7 < found[alive].std(1).median() < 1.1  # the sector grid is a little smoother than the cells
    with pytest.raises(ValueError, match="add the student's maps first"):
        student.features_of_box(samples[0], WHOLE)


def test_a_saved_student_is_read_back_as_it_was(tmp_path: Path, trained: Path) -> None:
    student = LiverStudent.load(trained, FakeTrunk())
    student.save(tmp_path, {"by": "hand"})
    again = LiverStudent.load(tmp_path, FakeTrunk())
    assert again.fingerprint == student.fingerprint
    assert again.card == {"by": "hand"}
    before, after = student.maps(fake_case()), again.maps(fake_case())
    assert before.pop("student_alarms") == after.pop("student_alarms")
    assert before.keys() == after.keys() == {"student_features", "student_probability"}
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("damage", ["no card", "format", "components", "widths", "no weights", "cut", "other", "nan"])
def test_a_damaged_student_is_refused_by_name(tmp_path: Path, trained: Path, damage: str) -> None:
    LiverStudent.load(trained, FakeTrunk()).save(tmp_path)
    card, weights = tmp_path / "student.json", tmp_path / "student.safetensors"
    content = json.loads(card.read_text())
    if damage == "no card":
        card.unlink()
    elif damage == "format":
        card.write_text(json.dumps(content | {"format": "medseg-student/1"}))
    elif damage == "components":
        card.write_text(json.dumps(content | {"components": 5}))
    elif damage == "widths":
        card.write_text(json.dumps(content | {"echo_widths": None}))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "other":
        weights.write_bytes((trained / "round_1" / "student.safetensors").read_bytes())
    else:
        broken = LiverStudent.load(trained, FakeTrunk())
        broken.std[0] = float("nan")
        LiverStudent(broken.basis, broken.cells, broken.echo, broken.mean, broken.std, trunk=broken.trunk).save(
            tmp_path
        )
    with pytest.raises(MedsegError, match=r"student\.(json|safetensors) must .*train the student anew"):
        LiverStudent.load(tmp_path, FakeTrunk())


def test_another_trunk_or_none_is_refused(trained: Path) -> None:
    with pytest.raises(MedsegError, match=r"must be loaded with the frozen network fake, got none"):
        LiverStudent.load(trained, None)
    with pytest.raises(MedsegError, match=r"must be loaded with the frozen network fake"):
        LiverStudent.load(trained, FakeTrunk(seed=1))


def test_the_picture_shows_input_lesson_and_answer(frames: list[StudentFrames]) -> None:
    learnt = LiverCourse(frames, small_settings(), trunk=FakeTrunk())
    learnt.begin(1, 0, before=None, labels=None)
    batch = learnt.draw([(0, n) for n in range(6)])
    picture = learnt.picture(batch, torch.full((6, 48, 48), 0.25))
    assert picture.shape == (3, 4 * 48, 3 * 48)
    assert (picture[:, :, 96:] == 0.25).all()
    assert 0 <= picture.min() <= picture.max() <= 1


def test_two_processes_train_and_agree_with_each_other(tmp_path: Path) -> None:
    stored(tmp_path / "store", FakeTrunk())
    launcher = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    launcher.launch(train_in_processes, tmp_path / "store", tmp_path / "run")
    final = LiverStudent.load(tmp_path / "run", FakeTrunk())
    assert (final.std > 0).all()
    assert (tmp_path / "run" / "round_2" / "student.json").is_file()
