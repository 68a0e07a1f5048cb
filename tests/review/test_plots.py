"""This file tests pictures: that left is right, sizes are in mm, and nothing at all can be drawn too."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from medseg.review.plots import (
    DemoRow,
    demo_picture,
    informative_slices,
    mip_picture,
    orient,
    overlay_picture,
    score_plot,
)
from medseg.scoring.tables import METRICS, ScoreRow

SPACING = (0.5, 0.5, 0.8)


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    i, j, _ = np.indices((32, 36, 20))
    mask = (i - 8) ** 2 + (j - 24) ** 2 < 9  # on the patient's left, in front
    image = (1 + 2 * mask + 0.1 * np.random.default_rng(0).random(mask.shape)).astype(np.float32)
    return image, mask


def red_share(picture: np.ndarray) -> np.ndarray:
    """Where a picture is red."""
    return (picture[..., 0] > 0.3) & (picture[..., 0] > 2 * picture[..., 1])


def test_a_plane_is_turned_to_radiological_convention() -> None:
    axial = np.zeros((3, 4))  # i to the right, j to the front
    axial[2, 3] = 1  # right, front
    assert orient(axial)[0, 0] == 1  # left in the picture, top
    assert orient(axial).shape == (4, 3)


def test_the_patients_left_front_is_drawn_at_the_right_top(scan: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    image, mask = scan
    mip_picture(image, mask, SPACING, tmp_path / "mip.png", "a title")
    picture = imread(tmp_path / "mip.png")
    rows, columns = np.nonzero(red_share(picture[: picture.shape[0] // 3]))
    middle_of_second_column = 0.75 * picture.shape[1]
    assert columns.min() > middle_of_second_column
    assert rows.mean() < picture.shape[0] / 6 + 40


def test_views_have_the_proportions_of_mm(tmp_path: Path) -> None:
    cube = np.ones((20, 20, 10), dtype=np.float32)
    cube[:5, :5, :4] = 0
    mip_picture(cube, None, (1.0, 1.0, 2.0), tmp_path / "cube.png")
    picture = imread(tmp_path / "cube.png")
    assert picture.shape[0] / picture.shape[1] == pytest.approx(3, rel=0.08)  # three squares below each other,
    assert (picture[..., 0] > 0.5).mean() > 0.85  # and filled


def test_the_picture_of_a_mask_differs_from_that_of_another(
    scan: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, mask = scan
    for name, drawn in (("one", mask), ("again", mask), ("mirrored", mask[::-1])):
        overlay_picture(image, drawn, SPACING, tmp_path / f"{name}.png")
    one, again, mirrored = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "again", "mirrored"))
    assert one == again != mirrored


def test_several_classes_have_several_colours(scan: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    image, mask = scan
    labels = mask.astype(np.uint8) + 2 * mask[::-1].astype(np.uint8)
    mip_picture(image, labels, SPACING, tmp_path / "labels.png", colours={1: "#ff0000", 2: "#0000ff"})
    picture = imread(tmp_path / "labels.png")
    assert red_share(picture).any()
    assert ((picture[..., 2] > 0.4) & (picture[..., 0] < 0.3)).any()


def test_the_nearer_class_hides_the_farther_one(tmp_path: Path) -> None:
    labels = np.zeros((16, 16, 16), dtype=np.uint8)
    labels[4:12, 4:12, 2:4], labels[4:12, 4:12, 12:14] = 1, 2  # seen from the feet, class 1 is in front
    mip_picture(
        labels.astype(np.float32), labels, (1.0, 1.0, 1.0), tmp_path / "x.png", colours={1: "#ff0000", 2: "#0000ff"}
    )
    axial = imread(tmp_path / "x.png")[: imread(tmp_path / "x.png").shape[0] // 3]
    assert red_share(axial).any()
    assert not (axial[..., 2] > 2 * axial[..., 0] + 0.1).any()


def test_a_region_hides_what_lies_outside_it(scan: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    image, mask = scan
    bright = image.copy()
    bright[:, :4] = 50
    for name, values in (("plain", image), ("bright", bright)):
        mip_picture(values, None, SPACING, tmp_path / f"{name}.png", region=np.indices(mask.shape)[1] >= 4)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "bright.png").read_bytes()


def test_informative_slices_are_the_fullest_of_three_equal_parts() -> None:
    mask = np.zeros((6, 6, 12), dtype=bool)
    for k, voxels in ((1, 4), (2, 6), (5, 10), (9, 3), (10, 7)):
        mask.reshape(36, 12)[:voxels, k] = True
    assert informative_slices(mask) == [2, 5, 10]
    assert informative_slices(np.zeros((4, 4, 30), dtype=bool)) == [5, 15, 25]
    assert informative_slices(np.zeros((4, 4, 1), dtype=bool)) == [0]


@pytest.mark.parametrize(
    ("shape", "full"), [((7, 9, 5), True), ((12, 10, 1), False), ((48, 5, 6), False), ((1, 8, 9), True)]
)
def test_odd_shapes_empty_and_full_masks_can_be_drawn(shape: tuple[int, int, int], full: bool, tmp_path: Path) -> None:
    image, mask = np.ones(shape, dtype=np.float32), np.full(shape, full)
    mip_picture(image, mask, SPACING, tmp_path / "mip.png", "title")
    overlay_picture(image, mask, SPACING, tmp_path / "overlay.png")
    for name in ("mip.png", "overlay.png"):
        assert min(imread(tmp_path / name).shape[:2]) > 30


def test_the_demo_picture_has_a_row_per_case_with_or_without_reference(
    scan: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, mask = scan
    with_reference = DemoRow("001", image, mask, SPACING, mask, scores={"dice": 1.0, "cldice": float("nan")})
    without = DemoRow("002", image, mask, SPACING)
    heights = []
    for count, rows in enumerate(([with_reference], [without, with_reference]), start=1):
        demo_picture(rows, tmp_path / f"{count}.png", "demo")
        heights.append(imread(tmp_path / f"{count}.png").shape[0])
    assert heights[1] > 1.7 * heights[0]


def test_the_score_plot_takes_undefined_scores(tmp_path: Path) -> None:
    rows = [
        ScoreRow(case, method, dict.fromkeys(METRICS, value), naming=naming)
        for case, value in (("a", 0.5), ("b", float("nan")))
        for method, naming in (("STEGO", "rules"), ("Otsu", "none"), ("matched", "oracle"))
    ]
    score_plot(rows, tmp_path / "scores.png", "title")
    assert (tmp_path / "scores.png").stat().st_size > 5000
