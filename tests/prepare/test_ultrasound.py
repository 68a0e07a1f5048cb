"""This file tests that frames, cines and volumes are prepared on their sectors' grid and that predictions find back."""

import copy
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from prepare.fans import FAN, SHAPE, overlap, painted

from medseg.errors import MedsegError
from medseg.prepare.chain import invert, prepare_case
from medseg.prepare.frames import one_frame
from medseg.prepare.liver_cues import liver_by_cues
from medseg.prepare.overlays import cleaned_frame
from medseg.prepare.sector import Sector, find_sector, to_sector
from medseg.prepare.ultrasound import (
    LiverSalience,
    frame_region,
    prepare_frame,
    ultrasound_transforms,
    upright_slices,
)
from medseg.scans.cases import Case


def _picture(path: Path, values: np.ndarray) -> Case:
    Image.fromarray((values * 255).round().astype(np.uint8)).save(path)
    return Case("a", path, "p")


def _cine(path: Path, frames: list[np.ndarray]) -> Case:
    first, *others = [Image.fromarray((frame * 255).round().astype(np.uint8)) for frame in frames]
    first.save(path, save_all=True, append_images=others)
    return Case("a", path, "p")


def _sector(record) -> Sector:
    assert record is not None
    return Sector.from_dict(record)


def test_a_picture_is_prepared_on_its_sector(tmp_path: Path) -> None:
    sample = prepare_case(_picture(tmp_path / "a.png", painted()), ultrasound_transforms())
    image, facts = sample["image"], sample["facts"]
    assert image.shape == sample["region"].shape == sample["salience"].shape == (1, 160, 160, 1)
    assert image.dtype == sample["salience"].dtype == torch.float32
    assert sample["region"].dtype == torch.uint8
    sector = _sector(facts["sectors"][0])
    assert overlap(sector, FAN) > 0.95
    plain = to_sector(painted()[None], sector)[0]
    np.testing.assert_allclose(
        image[0, :, :, 0].numpy()[sample["region"][0, :, :, 0].numpy() > 0].mean(), plain.mean(), rtol=0.05
    )
    assert facts["modality"] == "liver_ultrasound" and facts["display"] == "rgb" and facts["region_source"] == "sector"
    assert 0 <= facts["overlay_share"] < 0.01 and facts["notes"] == []
    assert "tubularity" not in sample and "case" not in sample


def test_predictions_come_back_also_from_copies(tmp_path: Path) -> None:
    sample = prepare_case(_picture(tmp_path / "a.png", painted()), ultrasound_transforms())
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = np.hypot(rows - 130, columns - 150) < 45
    labels = to_sector(disc[None].astype(np.float32), _sector(sample["facts"]["sectors"][0]), nearest=True)
    predicted = 3 * torch.from_numpy(labels[..., None]).to(torch.uint8)
    for kept in (sample, copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        back = invert(predicted, kept, nearest=True)
        assert back.shape == (1, *SHAPE, 1) and back.dtype == np.uint8
        assert set(np.unique(back)) == {0, 3}
        found = back[0, ..., 0] > 0
        assert 2 * (found & disc).sum() / (found.sum() + disc.sum()) > 0.97
    shares = invert(torch.full((2, 160, 160, 1), 0.5), sample, nearest=False)
    assert shares.shape == (2, *SHAPE, 1)
    assert set(np.unique(shares)) == {0.0, 0.5}


def test_a_cine_has_one_sector_and_its_empty_frames_none(tmp_path: Path) -> None:
    frames = [painted(seed=n) for n in range(3)]
    _, u = FAN.coordinates(SHAPE)
    frames[0][u < -0.4] = 0  # shadows at either side, in different frames
    frames[2][u > 0.4] = 0
    frames.insert(1, np.zeros(SHAPE, np.float32))
    frames.append(np.full(SHAPE, 0.6, np.float32))
    sample = prepare_case(_cine(tmp_path / "a.tif", frames[:4]), ultrasound_transforms())
    sectors = sample["facts"]["sectors"]
    assert sectors[1] is None and sectors[0] == sectors[2] == sectors[3]
    assert overlap(_sector(sectors[0]), FAN) > 0.93
    region = sample["region"][0].sum((0, 1))
    assert region[1] == 0 and region[0] == region[2] > 0.9 * 160 * 160
    assert "1 of 4 frames" in sample["facts"]["notes"][0]
    values = torch.rand(1, 160, 160, 4)
    whole = invert(values, sample, nearest=False)
    assert (whole[..., 1] == 0).all()
    for n in range(4):
        np.testing.assert_array_equal(
            invert(values[..., n : n + 1], one_frame(sample, n), nearest=False)[..., 0], whole[..., n]
        )


@pytest.mark.parametrize("masked", [True, False])
def test_slices_that_see_parts_of_one_fan_share_its_sector(masked: bool, tmp_path: Path) -> None:
    v, _ = FAN.coordinates(SHAPE)
    seen = [FAN.mask(SHAPE) & part for part in (v > 0.6, v > 0.3, v > 0, v < 0.5)]
    slices = [np.where(part, painted(seed=n), 0) for n, part in enumerate(seen)]
    affine = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for name, values in (("a", np.stack(slices, -1) * 200), ("a_mask", np.stack(seen, -1))):
        nib.save(nib.Nifti1Image(values.astype(np.uint8), affine), tmp_path / f"{name}.nii.gz")
    case = Case("a", tmp_path / "a.nii.gz", "p", mask=tmp_path / "a_mask.nii.gz" if masked else None)
    sample = prepare_case(case, ultrasound_transforms())
    sectors = sample["facts"]["sectors"]
    assert sectors == [sectors[0]] * 4
    assert overlap(_sector(sectors[0]), FAN) > 0.93
    region = sample["region"][0].numpy()
    assert region.mean((0, 1)) == pytest.approx([0.4, 0.7, 1, 0.5], abs=0.1)
    assert not region[:60, 70:90, 0].any() and not region[100:, :, 3].any()


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PLS", "SAR"])
def test_slices_that_were_turned_have_their_own_sectors_whatever_their_orientation(tmp_path: Path, axes: str) -> None:
    leaning = [Sector(-60.0, 160.0, 90.0, 280.0, -0.5 + 0.1 * n, 0.5 + 0.1 * n) for n in range(4)]
    slices = [painted(sector, seed=n) for n, sector in enumerate(leaning)] + [np.zeros(SHAPE, np.float32)]
    masks = [sector.mask(SHAPE) for sector in leaning] + [np.zeros(SHAPE, bool)]
    # Rows run from front to back, columns from right to left.
    affine = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for name, values in (("a", np.stack(slices, -1) * 200), ("a_mask", np.stack(masks, -1))):
        upright = nib.Nifti1Image(values.astype(np.uint8), affine)
        stored = nib.orientations.io_orientation(affine)
        turn = nib.orientations.ornt_transform(stored, nib.orientations.axcodes2ornt(axes))
        nib.save(upright.as_reoriented(turn), tmp_path / f"{name}.nii.gz")
    case = Case("a", tmp_path / "a.nii.gz", "p", mask=tmp_path / "a_mask.nii.gz")
    sample = prepare_case(case, ultrasound_transforms())
    sectors = sample["facts"]["sectors"]
    assert len(sectors) == 5 and sectors[4] is None
    for sector, true in zip(sectors, leaning, strict=False):
        assert overlap(_sector(sector), true) > 0.95
    back = invert(sample["region"], sample, nearest=True)[0] > 0
    given = np.asanyarray(nib.load(tmp_path / "a_mask.nii.gz").dataobj) > 0
    assert back.shape == given.shape
    assert 2 * (back & given).sum() / (back.sum() + given.sum()) > 0.97


def test_what_shows_no_sector_is_refused_in_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = np.concatenate([np.full((*SHAPE, 1), 0.1), rng.random((*SHAPE, 1)) / 4 + 0.6, np.ones((*SHAPE, 1))], -1)
    for name, values, words in (
        ("black", np.zeros(SHAPE), "an all black picture"),
        ("sea", colours, "a colour photograph"),
        ("noise", rng.random(SHAPE), "no fan or rectangle of tissue on black"),
    ):
        case = _picture(tmp_path / f"{name}.png", values)
        with pytest.raises(MedsegError, match=rf"{name}\.png must show the sector .* got {words}; "):
            prepare_case(case, ultrasound_transforms())


def test_a_cut_fan_is_said_and_its_region_ends_at_the_border(tmp_path: Path) -> None:
    sample = prepare_case(_picture(tmp_path / "a.png", painted()[:, 110:]), ultrasound_transforms())
    assert "cut by the picture's border" in sample["facts"]["notes"][0]
    region = sample["region"][0, :, :, 0].numpy()
    assert 0.5 < region.mean() < 0.92
    assert (sample["image"][0, :, :, 0].numpy()[region == 0] == 0).all()
    assert (sample["salience"][0, :, :, 0].numpy()[region == 0] == -1).all()


def test_a_cleaned_frame_shows_no_names_and_keeps_the_tissue() -> None:
    picture = np.repeat(painted()[..., None], 3, -1)
    picture[5:12, 5:60:3] = 0.9
    cleaned = cleaned_frame(picture, FAN)
    inside = FAN.mask(SHAPE)
    assert cleaned.shape == picture.shape and cleaned.dtype == picture.dtype
    assert (cleaned[~inside] == 0).all()
    assert (cleaned[inside] == picture[inside]).mean() > 0.99
    assert cleaned_frame(painted(), FAN).shape == SHAPE
    assert not cleaned_frame(picture, None).any()


def test_speckle_and_gain_are_evened_where_asked_for() -> None:
    v, _ = FAN.coordinates(SHAPE)
    picture = painted() * np.exp(-0.5 * v)
    plain, smooth, even = (
        prepare_frame(picture, FAN, fill=False, despeckle=despeckle, even_gain=even_gain)
        for despeckle, even_gain in ((False, False), (True, False), (False, True))
    )
    middle = np.s_[40:120, 40:120]
    assert np.diff(smooth[middle]).std() < 0.5 * np.diff(plain[middle]).std()
    assert smooth[middle].mean() == pytest.approx(plain[middle].mean(), rel=0.03)
    assert plain[20:50].mean() > 1.15 * plain[110:140].mean()
    assert even[20:50].mean() == pytest.approx(even[110:140].mean(), rel=0.06)


def test_overlays_are_filled_in_unless_they_are_wanted(tmp_path: Path) -> None:
    picture = painted()
    picture[120, 150:163] = picture[114:127, 156] = 1
    case = _picture(tmp_path / "a.png", picture)
    with_marks, without = (prepare_case(case, ultrasound_transforms(fill=fill)) for fill in (False, True))
    assert with_marks["image"].max() > 0.85 > without["image"].max()
    assert without["facts"]["overlay_share"] > 0 == with_marks["facts"]["overlay_share"]


def test_the_region_is_the_picture_and_the_mask() -> None:
    assert frame_region(SHAPE, FAN).all()
    assert not frame_region(SHAPE, None).any()
    left = np.zeros(SHAPE, bool)
    left[:, :160] = True
    np.testing.assert_array_equal(frame_region(SHAPE, FAN, left)[80], np.arange(160) < 80)
    assert find_sector(painted()) is not None


def test_salience_is_the_rules_probability_inside_and_minus_one_outside(tmp_path: Path) -> None:
    case = _cine(tmp_path / "a.tif", [painted(), np.zeros(SHAPE, np.float32), painted(seed=1)])
    sample = prepare_case(case, ultrasound_transforms())
    image, region, salience = (np.asarray(sample[name][0]) for name in ("image", "region", "salience"))
    assert (salience[region == 0] == -1).all()
    assert (salience[..., 1] == -1).all()
    for k in (0, 2):
        expected = liver_by_cues(image[..., k], region[..., k] > 0)
        np.testing.assert_array_equal(salience[..., k][region[..., k] > 0], expected[region[..., k] > 0])
    assert salience[80, 60, 0] > 0.8 > 0.2 > salience[4, 80, 0] >= 0
    nowhere = {"image": sample["image"], "region": MetaTensor(torch.zeros_like(sample["region"].as_tensor()))}
    assert (LiverSalience()(nowhere)["salience"].numpy() == -1).all()


@pytest.mark.parametrize("axes", ["PLS", "RAS", "LPS", "SAR", "ILA"])
def test_upright_slices_have_the_front_above_and_the_right_at_the_left(axes: str) -> None:
    shape = (4, 5, 6)  # of the scan as it lies in RAS
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float32)
    ras = nib.Nifti1Image(np.moveaxis(places, 0, -1), np.eye(4))
    to = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(axes))
    turned = ras.as_reoriented(to)
    scan = MetaTensor(
        torch.from_numpy(np.moveaxis(np.asarray(turned.dataobj), -1, 0).copy()), affine=torch.from_numpy(turned.affine)
    )
    x, y, z = upright_slices(scan).numpy()
    assert x.shape == (5, 4, 6)
    assert y[:, 0, 0].tolist() == [4, 3, 2, 1, 0]  # rows: from the front to the back
    assert x[0, :, 0].tolist() == [3, 2, 1, 0]  # columns: from the patient's right to the left
    assert z[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
