"""This file tests how clusters are matched to labels: the golden table, extra clusters, training labels."""

from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.naming.classes import ClassEntry
from medseg.naming.matching import (
    EXTRA,
    accuracy,
    class_iou,
    confusion,
    count_table,
    hungarian,
    match_by_purity,
    match_clusterings,
    match_table,
    match_to_labels,
    mean_iou,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "metrics.npz")
GOLDEN_CASES = sorted({key.split("/")[0] for key in GOLDEN} - {"extra2_BUG"})
VESSEL = ClassEntry(value=1, name="vessel", colour="#e6194b")
VEIN = ClassEntry(value=5, name="vein", colour="#4363d8")


def golden_table(case: str, clusters: int, classes: int) -> np.ndarray:
    return sum(
        count_table(found, true, clusters=clusters, classes=classes)
        for found, true in zip(GOLDEN[f"{case}/in_preds"], GOLDEN[f"{case}/in_labels"], strict=True)
    )


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_table_assignment_and_scores_equal_the_golden_ones(case: str) -> None:
    classes = int(GOLDEN[f"{case}/in_n_classes"])
    table = golden_table(case, classes, classes)
    assert np.array_equal(table, GOLDEN[f"{case}/out_stats_cluster_by_class"])
    class_of_cluster = hungarian(table)
    assert np.array_equal(class_of_cluster, GOLDEN[f"{case}/out_class_of_cluster"])
    counts = confusion(table, class_of_cluster)
    assert np.array_equal(counts[:classes], GOLDEN[f"{case}/out_confusion_matched"])
    assert not counts[classes].any()
    assert class_iou(counts) == pytest.approx(GOLDEN[f"{case}/out_iou_per_class_nan_if_undefined"], nan_ok=True)
    assert 100 * mean_iou(counts) == pytest.approx(float(GOLDEN[f"{case}/out_mIoU_percent"]), rel=1e-5)
    assert 100 * accuracy(counts) == pytest.approx(float(GOLDEN[f"{case}/out_accuracy_percent"]), rel=1e-5)
    mapped = class_of_cluster[GOLDEN[f"{case}/in_preds"][0]]
    assert np.array_equal(mapped, GOLDEN[f"{case}/out_mapped_preds0"])


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_scores_without_matching_equal_the_golden_ones(case: str) -> None:
    classes = int(GOLDEN[f"{case}/in_n_classes"])
    counts = confusion(golden_table(case, classes, classes), np.arange(classes))
    assert 100 * mean_iou(counts) == pytest.approx(float(GOLDEN[f"{case}/out_identity_mIoU_percent"]), rel=1e-5)
    assert 100 * accuracy(counts) == pytest.approx(float(GOLDEN[f"{case}/out_identity_accuracy_percent"]), rel=1e-5)


def test_voxels_of_extra_clusters_are_counted_and_count_as_errors() -> None:
    found, true = GOLDEN["extra2_BUG/in_preds"], GOLDEN["extra2_BUG/in_labels"]
    table = count_table(found, true, clusters=5, classes=3)
    assert np.array_equal(table, GOLDEN["extra2_BUG/fixed_stats"])
    assert not np.array_equal(table, GOLDEN["extra2_BUG/bug_stats"])
    class_of_cluster = hungarian(table)
    assert sorted(class_of_cluster) == [EXTRA, EXTRA, 0, 1, 2]
    counts = confusion(table, class_of_cluster)
    assert counts.sum() == table.sum() == true.size
    assert counts[3].sum() == table[class_of_cluster == EXTRA].sum() > 0
    hits = sum(table[cluster, column] for cluster, column in enumerate(class_of_cluster) if column != EXTRA)
    assert accuracy(counts) == pytest.approx(hits / true.size)


def test_the_assignment_is_the_best_of_all() -> None:
    table = np.random.default_rng(0).integers(0, 100, size=(4, 3))
    best = max(sum(table[order[column], column] for column in range(3)) for order in permutations(range(4), 3))
    class_of_cluster = hungarian(table)
    assert sum(table[cluster, column] for cluster, column in enumerate(class_of_cluster) if column != EXTRA) == best


def test_nothing_labelled_has_no_score() -> None:
    counts = confusion(np.zeros((2, 2), dtype=np.int64), np.arange(2))
    assert np.isnan(mean_iou(counts)) and np.isnan(accuracy(counts))


def test_a_cluster_out_of_range_is_refused() -> None:
    with pytest.raises(MedsegError, match=r"0\.\.2, got 1\.\.3"):
        count_table(np.array([1, 3]), np.array([0, 1]), clusters=3, classes=2)


def test_no_class_is_forced_upon_a_cluster_that_hardly_holds_it() -> None:
    # One to one, the second class would get cluster 0 for 6 of its voxels.
    naming = match_table(np.array([[900, 300, 6], [20, 800, 40], [5, 700, 30]]), [VESSEL, VEIN])
    assert naming.class_of_cluster == {1: VESSEL.value, 2: VESSEL.value}
    assert naming.empty_classes == ("vein",)


def test_where_nothing_is_background_every_cluster_has_the_class_it_holds_most_of() -> None:
    naming = match_table(np.array([[0, 9, 1], [0, 4, 3], [0, 1, 8], [0, 2, 3]]), [VESSEL, VEIN])
    assert naming.class_of_cluster == {0: VESSEL.value, 1: VESSEL.value, 2: VEIN.value, 3: VEIN.value}


def test_one_cluster_a_class_where_that_fits_best() -> None:
    # By the purest clusters alone, the second class would lose cluster 1 to the first, of which it holds a little more.
    table = np.array([[90, 0, 0], [0, 50, 45], [0, 60, 0]])
    naming = match_table(table, [VESSEL, VEIN])
    assert naming.class_of_cluster == {1: VEIN.value, 2: VESSEL.value}


def test_as_many_clusters_as_classes_have_one_each_where_they_are_pure() -> None:
    assignments = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    labels = np.array([5, 5, 0, 0, 0, 1, 1, 5])
    naming = match_to_labels(assignments, labels, [VESSEL, VEIN], clusters=3)
    assert naming.class_of_cluster == {0: 5, 2: 1}
    assert naming.named_by == "training_labels"
    assert len(naming.reasons) == 2


def test_labels_of_no_class_and_unlabelled_voxels_are_left_out() -> None:
    assignments = np.array([0, 0, 1, 1, 1, 1])
    labels = np.array([1, 1, 0, 3, -1, 300])
    naming = match_to_labels(assignments, labels, [VESSEL], clusters=2)
    assert naming.class_of_cluster == {0: 1}
    assert "2 of 2 labelled voxels" in naming.reasons[0]


def test_a_rare_class_survives_many_clusters() -> None:
    # Cluster 1 is mostly background, yet a majority vote would lose most of the vessel.
    table = np.array([[900, 0], [40, 30], [2, 10], [500, 1]])
    naming = match_table(table, [VESSEL], named_by="oracle")
    assert naming.class_of_cluster == {1: 1, 2: 1}
    assert naming.named_by == "oracle"


def test_the_chosen_clusters_have_the_highest_dice_of_all_choices() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        table = rng.integers(0, 60, size=(6, 2)) * np.array([3, 1])
        chosen = tuple(np.flatnonzero(match_by_purity(table) == 1).tolist())

        def dice(clusters: tuple[int, ...], table: np.ndarray = table) -> float:
            rows = table[list(clusters)]
            return 2 * rows[:, 1].sum() / (rows.sum() + table[:, 1].sum())

        choices = [choice for size in range(1, 7) for choice in combinations(range(6), size)]
        assert dice(chosen) == pytest.approx(max(map(dice, choices)))


def test_a_class_without_labels_stays_empty_and_says_so() -> None:
    naming = match_table(np.array([[9, 1, 0], [1, 9, 0], [5, 0, 0], [5, 0, 0]]), [VESSEL, VEIN])
    assert naming.empty_classes == ("vein",)
    assert "it has no labelled voxel" in naming.reasons[1]


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(MedsegError, match="2 columns, got 3"):
        match_table(np.zeros((3, 3), dtype=np.int64), [VESSEL])


def test_clusterings_are_matched_so_that_the_most_points_agree() -> None:
    for seed in range(20):
        table = np.random.default_rng(seed).integers(0, 50, (4, 4))
        found = match_clusterings(table)
        best = max(permutations(range(4)), key=lambda rows: sum(table[row, n] for n, row in enumerate(rows)))
        assert sorted(found) == [0, 1, 2, 3]
        assert table[found, range(4)].sum() == table[list(best), range(4)].sum()


def test_a_cluster_that_is_left_over_goes_where_most_of_it_is() -> None:
    table = np.array([[50, 0, 0, 20], [0, 40, 0, 3]])
    assert match_clusterings(table).tolist() == [0, 1, 0, 0]  # the third holds no common point
    assert match_clusterings(table.T).tolist() == [0, 1]  # two of the four are nobody's
