"""This file tests the gate: what it keeps, that its recall is that of left-out patches, and where it lets one look."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from medseg.errors import MedsegError
from medseg.fewshot import gate as gates
from medseg.fewshot.gate import SIDE, Gate, labelled_patches, open_voxels, train_gate


def patches(count: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise in which every other patch holds a spot, in ten slices."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 2, 8, 8)).astype(np.float32)
    holds = np.arange(count) % 2 == 0
    features[holds, 1, 3, 3] += apart
    return features, holds, np.arange(count) // 20


def test_spots_are_found_and_other_patches_skipped() -> None:
    gate = train_gate(*patches(200, 12))
    features, holds, _ = patches(200, 12, seed=1)
    assert np.array_equal(gate.keeps(features), holds)
    assert (gate.recall, gate.skipped, gate.patches) == (1, 1, 200)


@pytest.mark.parametrize("recall", [0.9, 0.98])
def test_the_threshold_keeps_the_wanted_share_of_left_out_patches(recall: float) -> None:
    gate = train_gate(*patches(400, 2), recall=recall)
    assert recall <= gate.recall < recall + 0.02
    features, holds, _ = patches(4000, 2, seed=1)
    kept = gate.keeps(features)
    assert kept[holds].mean() == pytest.approx(recall, abs=0.04)
    assert kept[holds].mean() > kept[~holds].mean()
    assert (~kept[~holds]).mean() == pytest.approx(gate.skipped, abs=0.06)


def test_a_gate_that_learnt_nothing_skips_next_to_nothing() -> None:
    gate = train_gate(*patches(400, 0))
    assert gate.skipped < 0.1


def test_patches_of_a_group_are_left_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = gates._fit
    monkeypatch.setattr(gates, "_fit", lambda pooled, holds: (seen.append(len(holds)), fit(pooled, holds))[1])
    features, holds, _ = patches(60, 5)
    train_gate(features, holds, np.arange(60) // 20)
    assert seen == [40, 40, 40, 60]


def test_patches_of_one_kind_or_one_group_teach_no_gate() -> None:
    features, holds, groups = patches(40, 5)
    for kind in (np.zeros_like(holds), np.ones_like(holds)):
        with pytest.raises(MedsegError, match="gate must learn from patches with and without a vessel") as error:
            train_gate(features, kind, groups)
        assert "\n" not in str(error.value)
    with pytest.raises(MedsegError, match="got 20 and 20 in 1; label more slices"):
        train_gate(features, holds, np.zeros(40, dtype=np.int64))


def test_the_weights_are_where_the_penalised_loss_is_flat() -> None:
    features, holds, _ = patches(60, 1)
    holds[:25] = False  # fewer of one kind, which count as much
    pooled = gates._pooled(features)
    mean, sd, weight = gates._fit(pooled, holds)
    inputs = np.column_stack([(pooled - mean) / sd, np.ones(60)])
    share = np.where(holds, 30 / holds.sum(), 30 / (~holds).sum())

    def loss(weight: np.ndarray) -> float:
        return float(
            -(share * np.log(expit(np.where(holds, 1, -1) * (inputs @ weight)))).sum() + (weight[:-1] ** 2).sum() / 2
        )

    assert check_grad(loss, lambda _: np.zeros(5), weight) < 1e-2
    assert gates._pooled(features)[0] == pytest.approx([*features[0].mean((1, 2)), *features[0].max((1, 2))], rel=1e-5)


def test_a_gate_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert Gate.load(tmp_path) is None
    gate = train_gate(*patches(200, 2))
    gate.save(tmp_path)
    assert Gate.load(tmp_path) == gate
    (tmp_path / "gate.json").write_text('{"mean": []}')
    with pytest.raises(MedsegError, match=r"gate\.json must be a JSON object with"):
        Gate.load(tmp_path)


def test_a_patch_is_known_to_be_empty_only_where_all_of_it_is() -> None:
    labels = np.full((2 * SIDE, SIDE, 3), -1, np.int8)
    labels[:SIDE, :, 0], labels[:, :, 1], labels[SIDE + 1, 0, 2] = 0, 0, 1
    image = np.arange(labels.size, dtype=np.float32).reshape(1, *labels.shape)
    features, holds, numbers = labelled_patches(image, labels, np.ones(labels.shape, bool))
    # Rows 0, 8 and 16 of each slice.
    assert numbers.tolist() == [0, 1, 1, 1, 2, 2]
    assert holds.tolist() == [False, False, False, False, True, True]
    assert np.array_equal(features[0, 0], image[0, :SIDE, :, 0])


def test_outside_the_region_nothing_needs_to_be_known() -> None:
    labels = np.full((SIDE, SIDE, 1), -1, np.int8)
    labels[:4] = 0
    region = labels == 0
    _, holds, _ = labelled_patches(np.zeros((2, *labels.shape), np.float32), labels, region)
    assert holds.tolist() == [False]


def test_labels_that_fill_no_patch_give_none() -> None:
    labels = np.full((SIDE, SIDE, 1), -1, np.int8)
    labels[3, 4, 0] = 0
    features, holds, numbers = labelled_patches(np.zeros((2, *labels.shape), np.float32), labels, labels == labels)
    assert features.shape == (0, 2, SIDE, SIDE) and len(holds) == len(numbers) == 0


def test_open_voxels_are_those_of_kept_patches_by_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 50, 37, 4)).astype(np.float32)
    region = rng.random((50, 37, 4)) > 0.2
    region[..., 3] = False
    gate = Gate((0.0, 0.0), (1.0, 1.0), (0.0, 1.0, 0.0), 3.0, 1.0, 0.0, 1)  # where the brightest is above 3
    expected = np.zeros(region.shape, bool)
    for i in (0, 8, 16, 24, 32, 34):
        for j in (0, 8, 16, 21):
            for k in range(4):
                if region[i : i + 16, j : j + 16, k].any() and image[0, i : i + 16, j : j + 16, k].max() >= 3:
                    expected[i : i + 16, j : j + 16, k] = True
    found = open_voxels(gate, image, region)
    assert np.array_equal(found, expected & region)
    assert 0 < found.sum() < region.sum()
    assert not open_voxels(gate, image, np.zeros_like(region)).any()
