"""This file tests the pictures of correspondences from files to files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.errors import MedsegError
from medseg.features.correspondence import correspondence, enlarged
from medseg.scans.folders import find_cases
from medseg.workflows.correspondence import Viewer, plot_correspondence

BANK = {"config": "pictures_bank", "overrides": ["prepare.resize=64", "run.device=cpu"]}


def scene(seed: int, *, red_left: bool = True) -> np.ndarray:
    """Half red and half blue, with noise."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((64, 96, 3))
    picture[:, :48], picture[:, 48:] = ((200, 40, 40), (40, 40, 200)) if red_left else ((40, 40, 200), (200, 40, 40))
    return np.uint8(np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, red_left in enumerate((True, False, True)):
        Image.fromarray(scene(number, red_left=red_left)).save(folder / f"scene {number}.png")
    return folder


def panels(path: Path, count: int) -> list[np.ndarray]:
    """The panels of a sheet of one row, without their captions."""
    sheet = np.asarray(Image.open(path)).astype(int)[24:-6]
    return np.array_split(sheet, count, axis=1)


def test_a_point_lights_up_what_is_like_it_in_every_picture(photos: Path, tmp_path: Path) -> None:
    pictures = [photos / "scene 0.png", photos / "scene 1.png"]
    answer = plot_correspondence(pictures, tmp_path, points=[(0.5, 0.2)], **BANK)
    assert answer["failed"] == {}
    assert answer["written"] == [str(tmp_path / "scene 0_correspondence.png")]
    _, same, other = panels(tmp_path / "scene 0_correspondence.png", 3)
    red = [np.split(panel[..., 0] - panel[..., 2], [panel.shape[1] // 2], axis=1) for panel in (same, other)]
    assert red[0][0].mean() > 60 > 20 > red[0][1].mean()
    assert red[1][1].mean() > 60 > 20 > red[1][0].mean()  # mirrored there


def test_each_picture_of_a_folder_is_compared_with_the_one_most_like_it(photos: Path, tmp_path: Path) -> None:
    answer = plot_correspondence(photos, tmp_path, movie="gif", frames=3, **BANK)
    assert {Path(path).name for path in answer["written"]} == {
        f"scene {number}_correspondence.{kind}" for number in range(3) for kind in ("png", "gif")
    }
    with Image.open(tmp_path / "scene 0_correspondence.gif") as movie:
        assert movie.n_frames == 3


def test_a_picture_alone_is_compared_with_itself(photos: Path, tmp_path: Path) -> None:
    answer = plot_correspondence(photos / "scene 0.png", tmp_path, **BANK)
    assert len(answer["written"]) == 1


def test_a_broken_picture_is_named_and_the_others_go_on(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "whole.png").write_bytes((photos / "scene 0.png").read_bytes())
    (folder / "broken.png").write_bytes((photos / "scene 0.png").read_bytes()[:500])
    answer = plot_correspondence(folder, tmp_path / "out", **BANK)
    assert set(answer["failed"]) == {"broken"}
    assert [Path(path).name for path in answer["written"]] == ["whole_correspondence.png"]


@pytest.mark.parametrize("point", [(1.2, 0.5), (0.5, -0.1)])
def test_a_point_beside_the_picture_is_an_error(photos: Path, tmp_path: Path, point: tuple[float, float]) -> None:
    with pytest.raises(MedsegError, match="--points"):
        plot_correspondence(photos, tmp_path, points=[point], **BANK)


def test_more_resolution_gives_a_finer_map(photos: Path) -> None:
    (case,) = find_cases(photos / "scene 0.png").cases
    sizes = []
    for resolution in (None, 128):
        viewer = Viewer("pictures_bank", None, BANK["overrides"], resolution)
        sizes.append(tuple(viewer.view(case, viewer.sample(case), 0).features.shape[1:]))
    assert sizes == [(16, 24), (32, 48)]


def test_slices_of_a_volume_and_their_maps_are_turned_alike(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(20, 2, (48, 64, 3)).astype(np.float32)
    volume[28:44, 40:60] += 100  # at the patient's right (RAS: i to the right), in front
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    (case,) = find_cases(tmp_path / "scan.nii.gz").cases
    viewer = Viewer("pictures_bank", None, ["prepare.resize=null", "run.device=cpu"], None)
    view = viewer.view(case, viewer.sample(case), 1)
    assert view.shown.shape == (64, 48, 3)
    bright = view.shown[..., 0] > 0.6
    rows, columns = np.nonzero(bright)
    point = (rows.mean() / 63, columns.mean() / 47)
    maps = view.maps["feature"]
    heat = enlarged(correspondence(maps, point, maps), (64, 48)).numpy()
    assert rows.mean() < 32 and columns.mean() < 24  # radiological: right is left, front is up
    assert (heat[~bright] > heat[bright].mean() - 0.1).mean() < 0.15  # next to nothing else is like it
