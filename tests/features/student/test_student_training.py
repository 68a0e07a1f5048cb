from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from features.student.vessels.fakes import (
    fake_student,
    fake_volume,
    one_process,
    small_settings,
    train_in_processes,
    tube,
)
from lightning_fabric import Fabric

from medseg.errors import MedsegError
from medseg.features.student import training
from medseg.features.student.course import Batch
from medseg.features.student.training import require_shares, train_student
from medseg.features.student.vessels import course, rounds
from medseg.features.student.vessels.course import VesselCourse, VesselSettings
from medseg.features.student.vessels.student import VesselStudent
from medseg.features.student.vessels.volumes import StudentVolume
from medseg.features.student.vessels.windows import draw_windows
from medseg.files import hash_file
from medseg.records import save_checkpoint

SHAPE = (24, 26, 22)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> list[StudentVolume]:
    folder = tmp_path_factory.mktemp("store")
    return [fake_volume(folder / str(seed), unknown=seed == 1, seed=seed) for seed in range(2)]


def run(
    folder: Path,
    volumes: list[StudentVolume],
    settings: VesselSettings | None = None,
    start: VesselStudent | None = None,
    **more: Any,
) -> VesselStudent:
    learnt = VesselCourse(volumes, settings or small_settings(), start=start)
    return train_student(learnt, run_dir=folder, fabric=one_process(), **({"seed": 3} | more))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of everything that must not depend on interruptions."""
    kept = [*sorted(folder.glob("round_*/*")), *sorted(folder.glob("student.*")), folder / "metrics.csv"]
    return {str(path.relative_to(folder)): hash_file(path) for path in kept}


class Stop(Exception):
    """Stands for a kill."""


def test_it_learns_a_bright_tube(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    settings = small_settings(rounds=1, steps=100, batch=4, painted=0.0, learning_rate=6e-3, widths=(8, 16, 16))
    student = run(tmp_path, volumes, settings)
    reference = tube(SHAPE)
    found = student.maps(volumes[0].sample())["student_probability"][0].numpy() > 0.5
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.95
    totals = [float(row["loss/total"]) for row in rows(tmp_path)]
    assert np.mean(totals[-5:]) < 0.7 * np.mean(totals[:5])
    assert float(rows(tmp_path)[-1]["dice/known"]) > 0.8


def test_a_run_leaves_a_student_for_every_round(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    student = run(tmp_path, volumes)
    first, last, final = (VesselStudent.load(tmp_path / name) for name in ("round_1", "round_2", "."))
    assert student.fingerprint == last.fingerprint == final.fingerprint != first.fingerprint
    assert final.card["volumes"] == 2
    assert final.card["settings"]["steps"] == 4
    assert not (tmp_path / "labels").exists()
    assert list((tmp_path / "tensorboard").iterdir())
    table = rows(tmp_path)
    assert [int(row["step"]) for row in table] == list(range(8))
    assert [int(row["round"]) for row in table] == [1] * 4 + [2] * 4
    rates = [float(row["learning_rate"]) for row in table]
    assert rates[0] == pytest.approx(3e-3)
    assert rates[4] == pytest.approx(1.5e-3)
    assert rates[2] == pytest.approx(1.5e-3)  # half a cosine down


def test_standardised_features_have_mean_0_and_sd_1_at_the_points(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    student = run(tmp_path, volumes, small_settings(rounds=1))
    values = []
    for volume in volumes:
        maps = student.maps(volume.sample())["student_features"].float().flatten(1)
        values.append((maps[:, torch.from_numpy(volume.points)].T - student.mean) / student.std)
    found = torch.cat(values)
    alive = student.std != 1
    assert alive.any()
    torch.testing.assert_close(found.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.std(0)[alive], torch.ones(int(alive.sum())), atol=1e-3, rtol=0)


@pytest.mark.parametrize("windows", [1, 3, 4, 6, 7])
def test_a_killed_training_goes_on_bit_by_bit(
    tmp_path: Path, volumes: list[StudentVolume], windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(checkpoint_every=3)
    run(tmp_path / "whole", volumes, settings)
    calls: list[int] = []

    def stops(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) > windows:
            raise Stop
        return draw_windows(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(course, "draw_windows", stops)
        with pytest.raises(Stop):
            run(tmp_path / "cut", volumes, settings)
    run(tmp_path / "cut", volumes, settings)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("name", ["settle", "relabel"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_kill_between_rounds_leaves_nothing_half_done(
    tmp_path: Path, volumes: list[StudentVolume], name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", volumes)
    plain = getattr(rounds, name)

    def stops(*args: Any) -> Any:
        if place == "after":
            plain(*args)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(rounds, name, stops)
        with pytest.raises(Stop):
            run(tmp_path / "cut", volumes)
    assert not (tmp_path / "cut" / "round_1").exists()
    run(tmp_path / "cut", volumes)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_finished_run_is_taken_as_it_is_and_more_rounds_go_on(
    tmp_path: Path, volumes: list[StudentVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "three", volumes, small_settings(rounds=3))
    done = run(tmp_path / "two", volumes)
    drawn: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(course, "draw_windows", lambda *args, **more: drawn.append(args))
        assert run(tmp_path / "two", volumes).fingerprint == done.fingerprint
    assert not drawn
    run(tmp_path / "two", volumes, small_settings(rounds=3))
    three, two = hashes(tmp_path / "three"), hashes(tmp_path / "two")
    assert two.pop("round_2/student.json") == three.pop("round_2/student.json")
    assert two == three


def test_settled_labels_teach_the_second_round(
    tmp_path: Path, volumes: list[StudentVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counts(given: list[StudentVolume], *args: Any, **more: Any) -> Any:
        seen.append(int((given[1].labels == 2).sum()))
        return draw_windows(given, *args, **more)

    monkeypatch.setattr(course, "draw_windows", counts)
    # a student that is sure about everything: no vessels
    monkeypatch.setattr(rounds, "settle", lambda labels, probability, region: np.where(labels == 2, 0, labels))
    run(tmp_path, volumes)
    assert seen[0] > 0
    assert seen[4:] == [0] * 4
    assert (volumes[1].labels == 2).any()  # the store itself stays


def test_exact_labels_are_never_settled(
    tmp_path: Path, volumes: list[StudentVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = []
    monkeypatch.setattr(rounds, "settle", lambda labels, *_: settled.append(labels) or labels)
    run(tmp_path / "exact", volumes[:1])
    assert settled == []
    run(tmp_path / "open", volumes[1:])
    assert settled  # what the teacher left open is settled, so that the line above can fail


def test_a_trained_start_is_used_and_takes_the_later_rate(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    start = fake_student()
    student = run(tmp_path, volumes, small_settings(rounds=1, steps=1, later_learning_rate=1e-9, ema=0.0), start=start)
    for name, value in student.net.named_parameters():
        torch.testing.assert_close(value, dict(start.net.named_parameters())[name], atol=1e-6, rtol=0)
    assert float(rows(tmp_path)[0]["learning_rate"]) == pytest.approx(1e-9)
    with pytest.raises(MedsegError, match=r"student\.widths must be those"):
        run(tmp_path / "other", volumes, small_settings(widths=(2, 4)), start=start)


def test_what_changes_a_step_refuses_the_checkpoint(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    run(tmp_path, volumes)
    for settings, more in (
        (small_settings(painted=0.1), {}),
        (small_settings(), {"seed": 4}),
        (small_settings(), {"identity": "other"}),
        (small_settings(), {"start": fake_student()}),
    ):
        with pytest.raises(MedsegError, match="same settings, seed"):
            run(tmp_path, volumes, settings, **more)
    with pytest.raises(MedsegError, match="same settings, seed"):
        run(tmp_path, volumes[:1])
    run(tmp_path, volumes, small_settings(log_every=5, checkpoint_every=9))


def test_rounds_of_a_run_whose_checkpoint_was_removed_are_made_anew(
    tmp_path: Path, volumes: list[StudentVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", volumes, seed=2)
    run(tmp_path / "again", volumes, seed=1)
    (tmp_path / "again" / "checkpoints" / "last.pt").unlink()

    def stops(path: Path, state: dict[str, Any]) -> None:
        save_checkpoint(path, state)
        if state["step"] == 8:  # the last round is trained, but its student not yet written
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", stops)
        with pytest.raises(Stop):
            run(tmp_path / "again", volumes, seed=2)
    run(tmp_path / "again", volumes, seed=2)
    assert hashes(tmp_path / "again") == hashes(tmp_path / "whole")


def test_a_window_that_does_not_fit_the_levels_is_refused() -> None:
    with pytest.raises(MedsegError, match=r"must be a multiple of 4.*choose 28"):
        replace(VesselSettings(), window=30)


def test_no_scan_and_an_odd_batch_are_refused(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    with pytest.raises(MedsegError, match="must have a scan"):
        run(tmp_path, [])
    with pytest.raises(MedsegError, match=r"student\.batch must be a multiple of the 2"):
        require_shares(3, 2)


def test_volumes_smaller_than_the_window_train(tmp_path: Path) -> None:
    volume = fake_volume(tmp_path / "a", (5, 20, 7))
    run(tmp_path / "run", [volume])
    values = [float(value) for row in rows(tmp_path / "run") for value in row.values()]
    assert np.isfinite(values).all()


def test_weights_of_step_0_leave_the_random_state_alone(tmp_path: Path, volumes: list[StudentVolume]) -> None:
    state = torch.get_rng_state()
    run(tmp_path, volumes, small_settings(rounds=1, steps=1))
    assert torch.equal(state, torch.get_rng_state())


def test_the_picture_shows_image_labels_and_answer(volumes: list[StudentVolume]) -> None:
    learnt = VesselCourse(volumes, small_settings(centred=1.0, painted=0.0))
    batch = learnt.draw([(0, item) for item in range(6)])
    assert isinstance(batch, Batch)
    picture = learnt.picture(batch, torch.full((6, 16, 16, 16), 0.25))
    assert picture.shape == (3, 4 * 16, 3 * 16)
    assert 0 <= picture.min() <= picture.max() <= 1
    assert (picture[:, :, 32:] == 0.25).all()
    assert picture[0, :16, 16:32].any()


def test_two_processes_train_and_agree_with_each_other(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        fake_volume(tmp_path / "store" / name, unknown=name != "a", seed=seed)
    launcher = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    launcher.launch(train_in_processes, tmp_path / "store", tmp_path / "run")
    assert [int(row["step"]) for row in rows(tmp_path / "run")] == list(range(4))
    first, final = VesselStudent.load(tmp_path / "run" / "round_1"), VesselStudent.load(tmp_path / "run")
    assert first.fingerprint != final.fingerprint
    assert (final.std > 0).all()
    assert json.loads((tmp_path / "run" / "student.json").read_text())["card"]["settings"]["rounds"] == 2
