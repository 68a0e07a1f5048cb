"""This file tests that pictures are prepared as they look, at the size asked for, and that predictions find back."""

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from skimage.transform import resize as skimage_resize

from medseg.errors import MedsegError
from medseg.prepare import steps
from medseg.prepare.chain import invert, prepare_case
from medseg.prepare.picture import LONGEST_SIDE, picture_transforms
from medseg.scans.cases import Case

SIZES = [(33, 17, 1), (17, 33, 3), (1500, 40, 1), (480, 640, 3)]


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    """Red, green and blue that change slowly, and differently in each frame."""
    i, j, k = (axis / max(length, 2) for axis, length in zip(np.indices(shape), shape, strict=True))
    red, green = 0.5 + 0.4 * np.sin(3 * i + k) * np.cos(2 * j), 0.2 + 0.6 * j
    return np.stack([red, green, 0.9 - 0.5 * i * j]).astype(np.float32)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """Give arrays to the chain as if they had been read from pictures."""

    def prepare(values: np.ndarray, **options) -> dict:
        picture = MetaTensor(torch.from_numpy(values), affine=torch.eye(4, dtype=torch.float64))
        monkeypatch.setattr(steps, "read_image", lambda path, frame: picture)
        return prepare_case(Case("a", Path("a.png"), "a"), picture_transforms(**{"resize": None, **options}))

    return prepare


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("resize", [None, 64])
def test_a_prepared_picture_inverts_to_its_own_size_and_values(read, shape, resize) -> None:
    values = smooth(shape)
    sample = read(values, resize=resize)
    if resize is not None:
        assert min(sample["image"].shape[1:3]) == resize
        assert sample["image"].shape[3] == shape[2]
    back = invert(sample["image"][:1], sample, nearest=False)
    assert back.shape == (1, *shape)
    np.testing.assert_allclose(back[0], values[0], atol=0.02)


@pytest.mark.parametrize("shape", SIZES)
def test_labels_invert_by_the_nearest_pixel(read, shape) -> None:
    sample = read(smooth(shape), resize=64)
    height, width, frames = sample["image"].shape[1:]
    rows = torch.arange(height) >= height / 2
    labels = (1 + rows.to(torch.uint8))[:, None, None].expand(height, width, frames)
    labels = labels + 2 * torch.arange(frames, dtype=torch.uint8)  # no frame may borrow from another
    back = invert(labels[None].contiguous(), sample, nearest=True)
    assert back.dtype == np.uint8
    wanted = (1 + (np.arange(shape[0]) + 0.5 >= shape[0] / 2))[:, None, None] + 2 * np.arange(frames)
    middle = shape[0] // 2
    away = np.r_[: middle - 1, middle + 2 : shape[0]]
    np.testing.assert_array_equal(back[0][away], np.broadcast_to(wanted, shape)[away])


def test_a_cached_sample_inverts_too(read) -> None:
    sample = pickle.loads(pickle.dumps(read(smooth((50, 31, 1)), resize=40)))
    assert sample["image"].shape == (3, 65, 40, 1)
    assert invert(sample["region"], sample, nearest=True).all()


def test_resizing_agrees_with_scikit_image(read) -> None:
    values = np.random.default_rng(0).random((3, 90, 150, 1)).astype(np.float32)
    values = np.stack([values, values[::-1]], axis=-1)[..., 0, :]
    sample = read(values, resize=36)
    wanted = skimage_resize(values, (3, 36, 60, 2), order=1, mode="edge", anti_aliasing=False)
    inner = (slice(None), slice(3, -3), slice(3, -3))
    assert np.abs(sample["image"].numpy() - wanted)[inner].max() > 0.1  # a fine pattern, so that smoothing tells
    wanted = skimage_resize(values, (3, 36, 60, 2), order=1, mode="reflect", anti_aliasing=True)
    np.testing.assert_allclose(sample["image"].numpy()[inner], wanted[inner], atol=1e-4)


def test_a_sample_says_what_it_is(read) -> None:
    sample = read(smooth((40, 30, 2)), clear_view=["haze", "contrast"])
    assert sample["facts"] == {
        "modality": "picture",
        "display": "rgb",
        "notes": [],
        "clear_view": ["haze", "contrast"],
        "region_source": "whole picture",
    }
    assert {sample[key].dtype for key in ("image", "salience")} == {torch.float32}
    assert sample["region"].dtype == torch.uint8
    assert {tuple(sample[key].shape) for key in ("region", "salience")} == {(1, 40, 30, 2)}
    assert set(sample) == {"image", "region", "salience", "case_id", "patient", "facts"}


def test_grey_becomes_three_equal_colours_and_the_clear_view_keeps_them_so(read) -> None:
    for clear_view in ([], ["contrast"]):
        image = read(smooth((40, 30, 1))[:1], clear_view=clear_view)["image"]
        assert image.shape == (3, 40, 30, 1)
        assert (image == image[:1]).all()


def test_the_clear_view_works_frame_by_frame(read) -> None:
    values = smooth((40, 30, 3))
    together = read(values, clear_view=["colour_cast"])["image"]
    alone = read(values[..., 1:2], clear_view=["colour_cast"])["image"]
    assert not np.array_equal(together[..., 0], together[..., 1])
    np.testing.assert_array_equal(together[..., 1:2], alone)


def test_salience_is_high_at_edges_and_zero_in_even_surfaces(read) -> None:
    values = np.full((1, 100, 120, 1), 0.2, np.float32)
    values[:, :, 60:] = 0.8
    salience = read(values)["salience"][0, ..., 0]
    assert salience[:, 59:61].min() == pytest.approx(1, abs=0.01)
    assert salience[:, :50].max() == 0
    assert salience[:, 70:].max() == 0


def test_salience_of_an_even_picture_is_zero(read) -> None:
    assert read(np.full((1, 20, 20, 1), 0.5, np.float32))["salience"].max() == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (1, 40, 2)])
def test_tiny_pictures_are_prepared_and_inverted(read, shape) -> None:
    sample = read(smooth(shape), resize=32, clear_view=["colour_cast", "haze", "contrast"])
    assert min(sample["image"].shape[1:3]) == 32
    assert invert(sample["region"], sample, nearest=True).shape == (1, *shape)


def test_a_strip_does_not_grow_without_bound(read) -> None:
    sample = read(smooth((1, 4000, 1)), resize=320)
    assert sample["image"].shape[1:3] == (3, 320 * LONGEST_SIDE)
    assert invert(sample["region"], sample, nearest=True).shape == (1, 1, 4000, 1)


def test_a_scan_is_a_stack_of_slices_with_one_window(tmp_path) -> None:
    stored = np.random.default_rng(0).normal(300, 50, (30, 20, 6)).astype(np.float32)
    stored[..., 3:] += 400
    nib.save(nib.Nifti1Image(stored, np.diag([-0.5, -0.7, 2, 1])), tmp_path / "a.nii.gz")
    sample = prepare_case(Case("a", tmp_path / "a.nii.gz", "a"), picture_transforms(resize=40))
    assert sample["image"].shape == (3, 60, 40, 6)
    low, high = np.percentile(stored, (0.5, 99.5))
    assert sample["facts"]["display_window"] == pytest.approx([low, high])
    turned = (np.clip((stored[::-1, ::-1] - low) / (high - low), 0, 1)).mean((0, 1))
    np.testing.assert_allclose(sample["image"][0].mean((0, 1)).numpy(), turned, atol=0.01)
    assert turned[4] - turned[1] > 0.3
    back = invert(sample["image"][:1], sample, nearest=False)[0]
    shown = np.clip((stored - low) / (high - low), 0, 1)
    assert back.shape == stored.shape
    assert np.corrcoef(back.ravel(), shown.ravel())[0, 1] > 0.97  # not turned round


def test_a_picture_file_is_read_and_its_mask_is_its_region(tmp_path) -> None:
    pixels = (smooth((48, 64, 1))[..., 0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 1
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    case = Case("a", tmp_path / "a.png", "a", mask=tmp_path / "a_mask.png")
    sample = prepare_case(case, picture_transforms(resize=24))
    assert sample["image"].shape == (3, 24, 32, 1)
    assert sample["facts"]["region_source"] == "given"
    np.testing.assert_array_equal(sample["region"][0, :, :, 0].numpy(), np.arange(32)[None] < np.full((24, 1), 16))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(MedsegError, match=r"prepare.resize must be null or at least 16 pixels, got 8"):
        picture_transforms(resize=8)
    with pytest.raises(MedsegError, match=r"prepare.clear_view must hold steps of .*, got fog"):
        picture_transforms(resize=None, clear_view=["fog"])
